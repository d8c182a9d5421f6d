#include "checkpoint/gguf_file.h"

#include "tensor/dtype.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

/* Where reading is. */
struct cursor {
    const unsigned char *at, *end;
};

static const unsigned char *take(struct cursor *c, uint64_t bytes)
{
    const unsigned char *at = c->at;
    assert_true(bytes <= (uint64_t)(c->end - c->at));
    c->at += bytes;
    return at;
}

static uint32_t take_u32(struct cursor *c)
{
    uint32_t value;
    memcpy(&value, take(c, sizeof(value)), sizeof(value));
    return value;
}

static uint64_t take_u64(struct cursor *c)
{
    uint64_t value;
    memcpy(&value, take(c, sizeof(value)), sizeof(value));
    return value;
}

static struct gguf_text take_text(struct cursor *c)
{
    uint64_t bytes = take_u64(c);
    return (struct gguf_text){(const char *)take(c, bytes), bytes};
}

static void skip_value(struct cursor *c, uint32_t type)
{
    switch (type) {
    case 4:
    case 5:
    case 6:
        (void)take(c, 4);
        break;
    case 7:
        assert_true(*take(c, 1) <= 1);
        break;
    case 8:
        (void)take_text(c);
        break;
    default:
        fail_msg("type %u", type);
    }
}

static void read_key(struct cursor *c, struct gguf_key *key)
{
    key->name = take_text(c);
    key->type = key->element = take_u32(c);
    key->count = 1;
    if (key->type == 9) {
        key->element = take_u32(c);
        key->count = take_u64(c);
    }
    key->value = c->at;
    for (uint64_t i = 0; i < key->count; i++) {
        skip_value(c, key->element);
    }
}

static uint64_t bytes_of(const struct gguf_tensor *t)
{
    switch (t->type) {
    case 0:
        return 4 * t->elements;
    case 1:
    case 30:
        return 2 * t->elements;
    default:
        assert_int_equal(t->type, 8);
        assert_int_equal(t->shape[0] % 32, 0);
        return t->elements / 32 * 34;
    }
}

static void read_tensor(struct cursor *c, struct gguf_tensor *t, uint64_t *offset)
{
    t->name = take_text(c);
    t->dims = take_u32(c);
    assert_true(t->dims >= 1 && t->dims <= 4);
    t->elements = 1;
    for (uint32_t i = 0; i < t->dims; i++) {
        t->shape[i] = take_u64(c);
        t->elements *= t->shape[i];
    }
    t->type = take_u32(c);
    assert_int_equal(take_u64(c), *offset);
    *offset += (bytes_of(t) + 31) / 32 * 32;
}

void gguf_open(const char *path, struct gguf_file *file)
{
    struct tri_error error;
    uint64_t offset = 0, tensors, keys;
    if (tri_file_map(path, &file->mapping, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    const unsigned char *data = file->mapping.data;
    struct cursor c = {data, data + file->mapping.size};
    assert_memory_equal(take(&c, 4), "GGUF", 4);
    assert_int_equal(take_u32(&c), 3);
    tensors = take_u64(&c);
    keys = take_u64(&c);
    assert_true(tensors <= GGUF_TENSORS && keys <= GGUF_KEYS);
    file->tensors = (int)tensors;
    file->keys = (int)keys;
    for (int i = 0; i < file->keys; i++) {
        read_key(&c, &file->key[i]);
    }
    for (int i = 0; i < file->tensors; i++) {
        read_tensor(&c, &file->tensor[i], &offset);
    }
    uint64_t head = (uint64_t)(c.at - data);
    for (; head % 32 != 0; head++) {
        assert_int_equal(*take(&c, 1), 0);
    }
    assert_int_equal(file->mapping.size, head + offset);
    for (int i = 0; i < file->tensors; i++) {
        file->tensor[i].data = take(&c, (bytes_of(&file->tensor[i]) + 31) / 32 * 32);
    }
}

void gguf_close(struct gguf_file *file)
{
    tri_file_unmap(&file->mapping);
}

static bool is_text(struct gguf_text text, const char *other)
{
    return text.bytes == strlen(other) && memcmp(text.data, other, text.bytes) == 0;
}

const struct gguf_tensor *gguf_find_tensor(const struct gguf_file *file, const char *name)
{
    for (int i = 0; i < file->tensors; i++) {
        if (is_text(file->tensor[i].name, name)) {
            return &file->tensor[i];
        }
    }
    return NULL;
}

const struct gguf_key *gguf_find_key(const struct gguf_file *file, const char *name)
{
    for (int i = 0; i < file->keys; i++) {
        if (is_text(file->key[i].name, name)) {
            return &file->key[i];
        }
    }
    return NULL;
}

static const struct gguf_key *expect_key(const struct gguf_file *file, const char *name,
                                         uint32_t type)
{
    const struct gguf_key *key = gguf_find_key(file, name);
    if (!key || key->type != type) {
        fail_msg("%s: %s", name, key ? "another type" : "is not there");
    }
    return key;
}

uint32_t gguf_u32(const struct gguf_file *file, const char *name)
{
    uint32_t value;
    memcpy(&value, expect_key(file, name, 4)->value, sizeof(value));
    return value;
}

float gguf_f32(const struct gguf_file *file, const char *name)
{
    float value;
    memcpy(&value, expect_key(file, name, 6)->value, sizeof(value));
    return value;
}

static struct gguf_text text_at(const unsigned char *at)
{
    struct gguf_text text;
    memcpy(&text.bytes, at, sizeof(text.bytes));
    text.data = (const char *)at + sizeof(text.bytes);
    return text;
}

struct gguf_text gguf_text(const struct gguf_file *file, const char *name)
{
    return text_at(expect_key(file, name, 8)->value);
}

struct gguf_text gguf_element(const struct gguf_key *key, uint64_t index)
{
    const unsigned char *at = key->value;
    assert_true(key->element == 8 && index < key->count);
    for (; index > 0; index--) {
        at += sizeof(uint64_t) + text_at(at).bytes;
    }
    return text_at(at);
}

void gguf_expect_text(struct gguf_text found, const char *expected)
{
    if (!is_text(found, expected)) {
        fail_msg("found '%.*s', expected '%s'", (int)found.bytes, found.data, expected);
    }
}

static float half(const unsigned char *at)
{
    uint16_t bits;
    memcpy(&bits, at, sizeof(bits));
    int exponent = bits >> 10 & 31, fraction = bits & 1023;
    float size = exponent == 0 ? ldexpf((float)fraction, -24)
                               : ldexpf((float)(1024 + fraction), exponent - 25);
    return bits & 0x8000 ? -size : size;
}

float gguf_number(const struct gguf_tensor *tensor, uint64_t at, float *scale)
{
    float value;
    uint16_t bits;
    *scale = 0.0F;
    switch (tensor->type) {
    case 0:
        memcpy(&value, tensor->data + 4 * at, sizeof(value));
        return value;
    case 1:
        return half(tensor->data + 2 * at);
    case 30:
        memcpy(&bits, tensor->data + 2 * at, sizeof(bits));
        return tri_bf16_to_f32(bits);
    default: {
        const unsigned char *block = tensor->data + at / 32 * 34;
        int8_t step;
        *scale = half(block);
        memcpy(&step, block + 2 + at % 32, 1);
        return *scale * (float)step;
    }
    }
}
