/* The head of a GGUF file, version 3: keys, then what each tensor is, then zeros up to where the
 * tensors begin. Numbers are little-endian, texts UTF-8 with their length before them. Internal to
 * checkpoint/. */
#ifndef TRIDENT_CHECKPOINT_GGUF_HEADER_H
#define TRIDENT_CHECKPOINT_GGUF_HEADER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TRI_GGUF_ALIGNMENT = 32 };

/* Of a key's value, or of the elements of its list. */
enum tri_gguf_type {
    TRI_GGUF_U32 = 4,
    TRI_GGUF_I32 = 5,
    TRI_GGUF_F32 = 6,
    TRI_GGUF_BOOL = 7,
    TRI_GGUF_TEXT = 8,
    TRI_GGUF_LIST = 9
};

/* How the numbers of a tensor are written. */
enum tri_ggml_type { TRI_GGML_F32 = 0, TRI_GGML_F16 = 1, TRI_GGML_Q8_0 = 8, TRI_GGML_BF16 = 30 };

struct tri_gguf_header {
    unsigned char *data; /* owned */
    size_t bytes, room;
    uint64_t tensors, keys;
};

void tri_gguf_header_init(struct tri_gguf_header *header);
void tri_gguf_header_fini(struct tri_gguf_header *header);
/* Keys, before all tensors. */
void tri_gguf_put_u32(struct tri_gguf_header *header, const char *key, uint32_t value);
void tri_gguf_put_f32(struct tri_gguf_header *header, const char *key, float value);
void tri_gguf_put_bool(struct tri_gguf_header *header, const char *key, bool value);
void tri_gguf_put_text(struct tri_gguf_header *header, const char *key, const char *value);
/* A list of `count` elements, which follow: texts by _add_text, numbers as they lie in memory. */
void tri_gguf_put_list(struct tri_gguf_header *header, const char *key, enum tri_gguf_type type,
                       uint64_t count);
void tri_gguf_add_text(struct tri_gguf_header *header, const char *text, size_t bytes);
void tri_gguf_add_bytes(struct tri_gguf_header *header, const void *data, size_t bytes);
/* shape[dims] from the outermost dimension to the one whose elements lie side by side, which the
 * file has the other way round; offset: of its data behind the head, a multiple of the
 * alignment. */
void tri_gguf_put_tensor(struct tri_gguf_header *header, const char *name, int dims,
                         const int64_t *shape, enum tri_ggml_type type, uint64_t offset);
/* What is behind this is data. */
void tri_gguf_header_end(struct tri_gguf_header *header);

/* The next multiple of the alignment. */
static inline uint64_t tri_gguf_align(uint64_t bytes)
{
    return (bytes + TRI_GGUF_ALIGNMENT - 1) / TRI_GGUF_ALIGNMENT * TRI_GGUF_ALIGNMENT;
}

#endif
