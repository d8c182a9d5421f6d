#include "checkpoint/gguf_header.h"

#include "base/memory.h"
#include "base/status.h"

#include <string.h>

enum {
    COUNTS_AT = 8, /* behind the four letters and the version */
    FIRST_ROOM = 4096
};

static const uint32_t version = 3;

void tri_gguf_add_bytes(struct tri_gguf_header *header, const void *data, size_t bytes)
{
    size_t need = header->bytes + bytes;
    if (need > header->room) {
        header->room = need + need / 2;
        header->data = tri_resize(header->data, header->room);
    }
    memcpy(header->data + header->bytes, data, bytes);
    header->bytes = need;
}

void tri_gguf_header_init(struct tri_gguf_header *header)
{
    static const unsigned char counts[16] = {0};
    *header = (struct tri_gguf_header){.data = tri_alloc(TRI_MEMORY_OTHER, FIRST_ROOM),
                                       .room = FIRST_ROOM};
    tri_gguf_add_bytes(header, "GGUF", 4);
    tri_gguf_add_bytes(header, &version, sizeof(version));
    tri_gguf_add_bytes(header, counts, sizeof(counts));
}

void tri_gguf_header_fini(struct tri_gguf_header *header)
{
    tri_free(header->data);
    *header = (struct tri_gguf_header){0};
}

void tri_gguf_add_text(struct tri_gguf_header *header, const char *text, size_t bytes)
{
    uint64_t length = bytes;
    tri_gguf_add_bytes(header, &length, sizeof(length));
    tri_gguf_add_bytes(header, text, bytes);
}

static void put_key(struct tri_gguf_header *header, const char *key, enum tri_gguf_type type)
{
    uint32_t number = type;
    TRI_REQUIRE(header->tensors == 0);
    header->keys++;
    tri_gguf_add_text(header, key, strlen(key));
    tri_gguf_add_bytes(header, &number, sizeof(number));
}

void tri_gguf_put_u32(struct tri_gguf_header *header, const char *key, uint32_t value)
{
    put_key(header, key, TRI_GGUF_U32);
    tri_gguf_add_bytes(header, &value, sizeof(value));
}

void tri_gguf_put_f32(struct tri_gguf_header *header, const char *key, float value)
{
    put_key(header, key, TRI_GGUF_F32);
    tri_gguf_add_bytes(header, &value, sizeof(value));
}

void tri_gguf_put_bool(struct tri_gguf_header *header, const char *key, bool value)
{
    unsigned char byte = value;
    put_key(header, key, TRI_GGUF_BOOL);
    tri_gguf_add_bytes(header, &byte, sizeof(byte));
}

void tri_gguf_put_text(struct tri_gguf_header *header, const char *key, const char *value)
{
    put_key(header, key, TRI_GGUF_TEXT);
    tri_gguf_add_text(header, value, strlen(value));
}

void tri_gguf_put_list(struct tri_gguf_header *header, const char *key, enum tri_gguf_type type,
                       uint64_t count)
{
    uint32_t number = type;
    put_key(header, key, TRI_GGUF_LIST);
    tri_gguf_add_bytes(header, &number, sizeof(number));
    tri_gguf_add_bytes(header, &count, sizeof(count));
}

void tri_gguf_put_tensor(struct tri_gguf_header *header, const char *name, int dims,
                         const int64_t *shape, enum tri_ggml_type type, uint64_t offset)
{
    uint32_t dimensions = (uint32_t)dims, number = type;
    TRI_REQUIRE(offset % TRI_GGUF_ALIGNMENT == 0);
    header->tensors++;
    tri_gguf_add_text(header, name, strlen(name));
    tri_gguf_add_bytes(header, &dimensions, sizeof(dimensions));
    for (int i = dims - 1; i >= 0; i--) {
        uint64_t size = (uint64_t)shape[i];
        tri_gguf_add_bytes(header, &size, sizeof(size));
    }
    tri_gguf_add_bytes(header, &number, sizeof(number));
    tri_gguf_add_bytes(header, &offset, sizeof(offset));
}

void tri_gguf_header_end(struct tri_gguf_header *header)
{
    static const unsigned char zeros[TRI_GGUF_ALIGNMENT] = {0};
    memcpy(header->data + COUNTS_AT, &header->tensors, sizeof(header->tensors));
    memcpy(header->data + COUNTS_AT + sizeof(header->tensors), &header->keys, sizeof(header->keys));
    tri_gguf_add_bytes(header, zeros, (size_t)(tri_gguf_align(header->bytes) - header->bytes));
}
