#include "checkpoint/safetensors.h"

#include "base/memory.h"
#include "base/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The limit of the format's reference reader. */
enum { HEADER_MAX = 100000000 };

static const struct {
    const char *name;
    int bits;
} dtypes[TRI_ST_DTYPE_COUNT] = {
    [TRI_ST_BOOL] = {"BOOL", 8},       [TRI_ST_U8] = {"U8", 8},
    [TRI_ST_I8] = {"I8", 8},           [TRI_ST_I16] = {"I16", 16},
    [TRI_ST_U16] = {"U16", 16},        [TRI_ST_F16] = {"F16", 16},
    [TRI_ST_BF16] = {"BF16", 16},      [TRI_ST_I32] = {"I32", 32},
    [TRI_ST_U32] = {"U32", 32},        [TRI_ST_F32] = {"F32", 32},
    [TRI_ST_F64] = {"F64", 64},        [TRI_ST_I64] = {"I64", 64},
    [TRI_ST_U64] = {"U64", 64},        [TRI_ST_C64] = {"C64", 64},
    [TRI_ST_F8_E4M3] = {"F8_E4M3", 8}, [TRI_ST_F8_E5M2] = {"F8_E5M2", 8},
    [TRI_ST_F8_E8M0] = {"F8_E8M0", 8}, [TRI_ST_F6_E2M3] = {"F6_E2M3", 6},
    [TRI_ST_F6_E3M2] = {"F6_E3M2", 6}, [TRI_ST_F4] = {"F4", 4},
};

const char *tri_safetensors_dtype_name(enum tri_safetensors_dtype dtype)
{
    return dtypes[dtype].name;
}

int tri_safetensors_dtype_bits(enum tri_safetensors_dtype dtype)
{
    return dtypes[dtype].bits;
}

static const char *shape_text(int dims, const int64_t *shape, char *text, size_t bytes)
{
    size_t used = 0;
    (void)snprintf(text, bytes, "[");
    for (int i = 0; i < dims; i++) {
        used = strlen(text);
        (void)snprintf(text + used, bytes - used, "%s%" PRId64, i ? ", " : "", shape[i]);
    }
    used = strlen(text);
    (void)snprintf(text + used, bytes - used, "]");
    return text;
}

enum tri_status tri_safetensor_expect_finite(const struct tri_safetensor *tensor,
                                             const float *values, int64_t count,
                                             struct tri_error *error)
{
    const uint32_t exponent = UINT32_C(0x7f800000);
    uint32_t bad = 0;
    for (int64_t i = 0; i < count; i++) {
        uint32_t bits;
        memcpy(&bits, &values[i], sizeof(bits));
        bad |= (bits & exponent) == exponent;
    }
    return bad == 0 ? TRI_OK
                    : tri_fail(error, TRI_BAD_INPUT,
                               "%s: tensor %s holds values that are not finite, expected weights "
                               "that are",
                               tensor->path, tensor->name);
}

enum tri_status tri_safetensor_expect_shape(const struct tri_safetensor *tensor, int dims,
                                            const int64_t *shape, struct tri_error *error)
{
    if (tensor->dims == dims && memcmp(tensor->shape, shape, (size_t)dims * sizeof(*shape)) == 0) {
        return TRI_OK;
    }
    char found[160], expected[160];
    return tri_fail(error, TRI_BAD_INPUT, "%s: tensor %s: shape %s, expected %s", tensor->path,
                    tensor->name, shape_text(tensor->dims, tensor->shape, found, sizeof(found)),
                    shape_text(dims, shape, expected, sizeof(expected)));
}

/* ---- the header ------------------------------------------------------------------------------ */

static enum tri_status bad_tensor(struct tri_error *error, const char *path, const char *name,
                                  const char *what)
{
    return tri_fail(error, TRI_BAD_INPUT, "%s: tensor %s: %s", path, name, what);
}

static enum tri_status parse_dtype(struct tri_safetensor *t, const json_t *entry,
                                   struct tri_error *error)
{
    const char *text = json_string_value(json_object_get(entry, "dtype"));
    if (!text) {
        return bad_tensor(error, t->path, t->name, "dtype is missing or no string");
    }
    for (int i = 0; i < TRI_ST_DTYPE_COUNT; i++) {
        if (strcmp(text, dtypes[i].name) == 0) {
            t->dtype = (enum tri_safetensors_dtype)i;
            return TRI_OK;
        }
    }
    return tri_fail(error, TRI_BAD_INPUT, "%s: tensor %s: unknown dtype '%s'", t->path, t->name,
                    text);
}

static enum tri_status parse_shape(struct tri_safetensor *t, const json_t *entry,
                                   struct tri_error *error)
{
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape)) {
        return bad_tensor(error, t->path, t->name, "shape is missing or no array");
    }
    size_t dims = json_array_size(shape);
    if (dims > TRI_SAFETENSORS_DIMS) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: tensor %s: %zu dimensions, at most %d are read",
                        t->path, t->name, dims, TRI_SAFETENSORS_DIMS);
    }
    t->dims = (int)dims;
    t->count = 1;
    for (size_t i = 0; i < dims; i++) {
        const json_t *extent = json_array_get(shape, i);
        if (!json_is_integer(extent) || json_integer_value(extent) < 0) {
            return bad_tensor(error, t->path, t->name, "shape holds something else than a count");
        }
        t->shape[i] = json_integer_value(extent);
        /* 64 bits an element at most: the product of all and of the bits stays in range. */
        if (t->shape[i] > 0 && t->count > INT64_MAX / 64 / t->shape[i]) {
            return bad_tensor(error, t->path, t->name, "shape is too large for any file");
        }
        t->count *= t->shape[i];
    }
    return TRI_OK;
}

/* Fills offset and bytes; the data part begins at byte `first` of the file. */
static enum tri_status parse_offsets(struct tri_safetensor *t, const json_t *entry, uint64_t first,
                                     size_t buffer_bytes, struct tri_error *error)
{
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *begin = json_array_get(offsets, 0), *end = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(begin) || !json_is_integer(end)) {
        return bad_tensor(error, t->path, t->name, "data_offsets is missing or not two integers");
    }
    int64_t b = json_integer_value(begin), e = json_integer_value(end);
    if (b < 0 || e < b || (uint64_t)e > buffer_bytes) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: tensor %s: data_offsets [%" PRId64 ", %" PRId64
                        "] lie outside the %zu bytes of data: the file is truncated or damaged",
                        t->path, t->name, b, e, buffer_bytes);
    }
    int64_t bits = t->count * dtypes[t->dtype].bits;
    if (bits % 8 != 0 || e - b != bits / 8) {
        char shape[160];
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: tensor %s: %" PRId64 " bytes, but %s of shape %s takes %" PRId64
                        " bits",
                        t->path, t->name, e - b, dtypes[t->dtype].name,
                        shape_text(t->dims, t->shape, shape, sizeof(shape)), bits);
    }
    t->offset = first + (uint64_t)b;
    t->bytes = (size_t)(e - b);
    return TRI_OK;
}

static enum tri_status check_metadata(const char *path, json_t *metadata, struct tri_error *error)
{
    const char *key;
    json_t *value;
    if (!json_is_object(metadata)) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: __metadata__ is not an object", path);
    }
    json_object_foreach(metadata, key, value)
    {
        if (!json_is_string(value)) {
            return tri_fail(error, TRI_BAD_INPUT, "%s: __metadata__: '%s' is not a string", path,
                            key);
        }
    }
    return TRI_OK;
}

static int by_name(const void *a, const void *b)
{
    const struct tri_safetensor *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static int by_place(const void *a, const void *b)
{
    const struct tri_safetensor *x = a, *y = b;
    if (x->offset != y->offset) {
        return x->offset < y->offset ? -1 : 1;
    }
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes;
}

/* Sorted by place, the tensors must touch each other and fill the buffer. */
static enum tri_status check_cover(struct tri_safetensors *file, uint64_t first,
                                   size_t buffer_bytes, struct tri_error *error)
{
    if (file->count > 0) {
        qsort(file->tensor, (size_t)file->count, sizeof(*file->tensor), by_place);
    }
    size_t at = 0;
    for (int64_t i = 0; i < file->count; i++) {
        const struct tri_safetensor *t = &file->tensor[i];
        size_t begin = (size_t)(t->offset - first);
        if (begin != at) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: tensor %s: begins at byte %zu of the data, expected %zu (%s)",
                            file->path, t->name, begin, at, begin > at ? "a hole" : "an overlap");
        }
        at += t->bytes;
    }
    if (at != buffer_bytes) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: the tensors end at byte %zu of the data, but there are %zu bytes",
                        file->path, at, buffer_bytes);
    }
    return TRI_OK;
}

static enum tri_status parse_tensors(struct tri_safetensors *file, size_t header_bytes,
                                     struct tri_error *error)
{
    uint64_t first = 8 + header_bytes;
    size_t buffer_bytes = (size_t)(file->bytes - first);
    file->tensor =
        tri_alloc(TRI_MEMORY_OTHER, json_object_size(file->header) * sizeof(*file->tensor));
    const char *key;
    json_t *entry;
    json_object_foreach(file->header, key, entry)
    {
        if (strcmp(key, "__metadata__") == 0) {
            TRI_TRY(check_metadata(file->path, entry, error));
            continue;
        }
        struct tri_safetensor *t = &file->tensor[file->count++];
        t->name = key;
        t->path = file->path;
        if (!json_is_object(entry)) {
            return bad_tensor(error, file->path, key, "its entry is not an object");
        }
        TRI_TRY(parse_dtype(t, entry, error));
        TRI_TRY(parse_shape(t, entry, error));
        TRI_TRY(parse_offsets(t, entry, first, buffer_bytes, error));
    }
    return check_cover(file, first, buffer_bytes, error);
}

/* How long the header of a file is that begins with these 8 bytes, or with all there are. */
static enum tri_status header_length(const struct tri_safetensors *file, const unsigned char *start,
                                     uint64_t *header_bytes, struct tri_error *error)
{
    if (file->bytes < 8) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: %" PRIu64 " bytes are too few for a safetensors file", file->path,
                        file->bytes);
    }
    memcpy(header_bytes, start, 8);
    if (*header_bytes > HEADER_MAX) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: not a safetensors file: header of %" PRIu64
                        " bytes, at most %d allowed",
                        file->path, *header_bytes, HEADER_MAX);
    }
    if (*header_bytes > file->bytes - 8) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: truncated: header of %" PRIu64 " bytes, but only %" PRIu64 " follow",
                        file->path, *header_bytes, file->bytes - 8);
    }
    return TRI_OK;
}

static enum tri_status parse_header(struct tri_safetensors *file, const char *text,
                                    size_t header_bytes, struct tri_error *error)
{
    if (header_bytes < 2 || text[0] != '{') {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: not a safetensors file: the header begins without '{'", file->path);
    }
    const char *excess = tri_json_find_excess(text, header_bytes);
    if (excess) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: header: %s", file->path, excess);
    }
    json_error_t json_error;
    file->header = json_loadb(text, header_bytes, JSON_REJECT_DUPLICATES, &json_error);
    if (!file->header) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: header, byte %d: %s", file->path,
                        json_error.position, json_error.text);
    }
    TRI_TRY(parse_tensors(file, header_bytes, error));
    if (file->count > 0) {
        qsort(file->tensor, (size_t)file->count, sizeof(*file->tensor), by_name);
    }
    return TRI_OK;
}

static enum tri_status open_mapped(struct tri_safetensors *file, struct tri_error *error)
{
    uint64_t header_bytes = 0;
    TRI_TRY(tri_file_map(file->path, &file->mapping, error));
    file->bytes = file->mapping.size;
    TRI_TRY(header_length(file, file->mapping.data, &header_bytes, error));
    TRI_TRY(parse_header(file, (const char *)file->mapping.data + 8, (size_t)header_bytes, error));
    for (int64_t i = 0; i < file->count; i++) {
        file->tensor[i].data = file->mapping.data + file->tensor[i].offset;
    }
    return TRI_OK;
}

static enum tri_status read_header(struct tri_safetensors *file, struct tri_part_file *from,
                                   struct tri_error *error)
{
    unsigned char start[8] = {0};
    uint64_t header_bytes = 0;
    file->bytes = tri_part_file_size(from);
    TRI_TRY(tri_part_file_read(from, 0, start, file->bytes < 8 ? file->bytes : 8, error));
    TRI_TRY(header_length(file, start, &header_bytes, error));
    char *text = tri_alloc(TRI_MEMORY_OTHER, (size_t)header_bytes);
    enum tri_status status = tri_part_file_read(from, 8, text, (size_t)header_bytes, error);
    if (status == TRI_OK) {
        status = parse_header(file, text, (size_t)header_bytes, error);
    }
    tri_free(text);
    return status;
}

static enum tri_status open_header(struct tri_safetensors *file, struct tri_error *error)
{
    struct tri_part_file *from;
    TRI_TRY(tri_part_file_open(file->path, &from, error));
    enum tri_status status = read_header(file, from, error);
    tri_part_file_destroy(from);
    return status;
}

static enum tri_status
open_file(const char *path, enum tri_status (*read)(struct tri_safetensors *, struct tri_error *),
          struct tri_safetensors **file, struct tri_error *error)
{
    *file = NULL;
    struct tri_safetensors *f = tri_alloc(TRI_MEMORY_OTHER, sizeof(*f));
    f->path = tri_strdup(path);
    enum tri_status status = read(f, error);
    if (status != TRI_OK) {
        tri_safetensors_close(f);
        return status;
    }
    *file = f;
    return TRI_OK;
}

enum tri_status tri_safetensors_open(const char *path, struct tri_safetensors **file,
                                     struct tri_error *error)
{
    return open_file(path, open_mapped, file, error);
}

enum tri_status tri_safetensors_open_header(const char *path, struct tri_safetensors **file,
                                            struct tri_error *error)
{
    return open_file(path, open_header, file, error);
}

void tri_safetensors_close(struct tri_safetensors *file)
{
    if (!file) {
        return;
    }
    json_decref(file->header);
    tri_file_unmap(&file->mapping);
    tri_free(file->tensor);
    tri_free(file->path);
    tri_free(file);
}

const struct tri_safetensor *tri_safetensors_find(const struct tri_safetensors *file,
                                                  const char *name)
{
    struct tri_safetensor key = {.name = name};
    if (file->count == 0) {
        return NULL;
    }
    return bsearch(&key, file->tensor, (size_t)file->count, sizeof(*file->tensor), by_name);
}

const char *tri_safetensors_metadata(const struct tri_safetensors *file, const char *key)
{
    return json_string_value(json_object_get(json_object_get(file->header, "__metadata__"), key));
}
