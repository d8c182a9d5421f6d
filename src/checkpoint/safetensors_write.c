#include "checkpoint/safetensors.h"

#include "base/memory.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct tri_safetensors_writer {
    struct tri_writer *out;
    char *path;
    int64_t count, next; /* tensors declared, and written */
    struct spec_bytes {
        const char *name;
        size_t bytes;
    } * expected;
};

/* The order of the format's reference writer. Widest type first keeps every tensor aligned to its
 * element without a hole. */
static int by_width_then_name(const void *a, const void *b)
{
    const struct tri_safetensors_spec *x = a, *y = b;
    int bits_x = tri_safetensors_dtype_bits(x->dtype),
        bits_y = tri_safetensors_dtype_bits(y->dtype);
    return bits_x != bits_y ? bits_y - bits_x : strcmp(x->name, y->name);
}

static size_t spec_bytes(const struct tri_safetensors_spec *spec)
{
    int64_t count = 1;
    for (int i = 0; i < spec->dims; i++) {
        count *= spec->shape[i];
    }
    return (size_t)count * (size_t)tri_safetensors_dtype_bits(spec->dtype) / 8;
}

static json_t *header_entry(const struct tri_safetensors_spec *spec, size_t begin, size_t end)
{
    json_t *shape = json_array();
    for (int i = 0; i < spec->dims; i++) {
        (void)json_array_append_new(shape, json_integer(spec->shape[i]));
    }
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", tri_safetensors_dtype_name(spec->dtype),
                     "shape", shape, "data_offsets", (json_int_t)begin, (json_int_t)end);
}

char *tri_safetensors_make_header(int64_t count, struct tri_safetensors_spec *specs, size_t *bytes)
{
    if (count > 0) {
        qsort(specs, (size_t)count, sizeof(*specs), by_width_then_name);
    }
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "pt");
    size_t at = 0;
    for (int64_t i = 0; i < count; i++) {
        size_t end = at + spec_bytes(&specs[i]);
        json_t *entry = header_entry(&specs[i], at, end);
        TRI_REQUIRE(entry && json_object_set_new(header, specs[i].name, entry) == 0);
        at = end;
    }
    TRI_REQUIRE(json_object_size(header) == (size_t)count + 1); /* no name twice */
    char *json = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    TRI_REQUIRE(json);
    size_t length = strlen(json), padded = (length + 7) / 8 * 8;
    char *text = tri_alloc(TRI_MEMORY_OTHER, 8 + padded);
    uint64_t prefix = padded;
    memcpy(text, &prefix, 8);
    memcpy(text + 8, json, length);
    memset(text + 8 + length, ' ', padded - length);
    free(json);
    *bytes = 8 + padded;
    return text;
}

enum tri_status tri_safetensors_writer_create(const char *path, int64_t count,
                                              struct tri_safetensors_spec *specs,
                                              struct tri_safetensors_writer **writer,
                                              struct tri_error *error)
{
    size_t bytes;
    *writer = NULL;
    char *header = tri_safetensors_make_header(count, specs, &bytes);
    struct tri_safetensors_writer *w = tri_alloc(TRI_MEMORY_OTHER, sizeof(*w));
    w->path = tri_strdup(path);
    w->count = count;
    w->expected = tri_alloc(TRI_MEMORY_OTHER, (size_t)count * sizeof(*w->expected));
    for (int64_t i = 0; i < count; i++) {
        w->expected[i] = (struct spec_bytes){specs[i].name, spec_bytes(&specs[i])};
    }
    enum tri_status status = tri_writer_create(path, &w->out, error);
    if (status == TRI_OK) {
        status = tri_writer_write(w->out, header, bytes, error);
    }
    tri_free(header);
    if (status != TRI_OK) {
        tri_safetensors_writer_destroy(w);
        return status;
    }
    *writer = w;
    return TRI_OK;
}

enum tri_status tri_safetensors_writer_write(struct tri_safetensors_writer *writer,
                                             const void *data, size_t bytes,
                                             struct tri_error *error)
{
    TRI_REQUIRE(writer->next < writer->count && writer->expected[writer->next].bytes == bytes);
    writer->next++;
    return tri_writer_write(writer->out, data, bytes, error);
}

enum tri_status tri_safetensors_writer_close(struct tri_safetensors_writer **writer,
                                             struct tri_error *error)
{
    struct tri_safetensors_writer *w = *writer;
    *writer = NULL;
    TRI_REQUIRE(w->next == w->count);
    enum tri_status status = tri_writer_close(&w->out, error);
    tri_safetensors_writer_destroy(w);
    return status;
}

void tri_safetensors_writer_destroy(struct tri_safetensors_writer *writer)
{
    if (!writer) {
        return;
    }
    tri_writer_destroy(writer->out);
    tri_free(writer->expected);
    tri_free(writer->path);
    tri_free(writer);
}
