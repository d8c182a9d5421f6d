/* A small reader of GGUF files that knows nothing of how they are written. */
#ifndef TRIDENT_TESTS_CHECKPOINT_GGUF_FILE_H
#define TRIDENT_TESTS_CHECKPOINT_GGUF_FILE_H

#include "base/file.h"

#include <stdint.h>

enum { GGUF_KEYS = 64, GGUF_TENSORS = 256 };

struct gguf_text {
    const char *data; /* in the file */
    uint64_t bytes;
};

struct gguf_key {
    struct gguf_text name;
    uint32_t type, element; /* of a list's elements */
    uint64_t count;
    const unsigned char *value; /* a list's first element */
};

struct gguf_tensor {
    struct gguf_text name;
    uint32_t dims, type;
    uint64_t shape[4], elements; /* innermost first */
    const unsigned char *data;
};

struct gguf_file {
    struct tri_mapping mapping;
    int keys, tensors;
    struct gguf_key key[GGUF_KEYS];
    struct gguf_tensor tensor[GGUF_TENSORS];
};

/* Fails the test where anything is out of its place: every tensor begins where the one before ends,
 * on 32 bytes, and the file with the last. */
void gguf_open(const char *path, struct gguf_file *file);
void gguf_close(struct gguf_file *file);
/* NULL: it has none. */
const struct gguf_tensor *gguf_find_tensor(const struct gguf_file *file, const char *name);
const struct gguf_key *gguf_find_key(const struct gguf_file *file, const char *name);
uint32_t gguf_u32(const struct gguf_file *file, const char *name);
float gguf_f32(const struct gguf_file *file, const char *name);
struct gguf_text gguf_text(const struct gguf_file *file, const char *name);
/* Of a list of texts. */
struct gguf_text gguf_element(const struct gguf_key *key, uint64_t index);
void gguf_expect_text(struct gguf_text found, const char *expected);
/* Element `at` of a tensor as a float, and of Q8_0 its block's scale. */
float gguf_number(const struct gguf_tensor *tensor, uint64_t at, float *scale);

#endif
