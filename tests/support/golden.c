#include "support/golden.h"

#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct tri_safetensors *golden_open(const char *path)
{
    char full[1024];
    struct tri_safetensors *file = NULL;
    struct tri_error error;
    (void)snprintf(full, sizeof(full), "%s/golden/%s", TESTDATA_DIR, path);
    if (tri_safetensors_open(full, &file, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return file;
}

static const struct tri_safetensor *find(const struct tri_safetensors *file, const char *name,
                                         int64_t count)
{
    const struct tri_safetensor *tensor = tri_safetensors_find(file, name);
    if (!tensor) {
        fail_msg("%s: no tensor %s", file->path, name);
        abort(); /* not reached, but fail_msg does not say that it never returns */
    }
    if (count >= 0 && tensor->count != count) {
        fail_msg("%s: %s has %lld elements, not %lld", file->path, name, (long long)tensor->count,
                 (long long)count);
    }
    return tensor;
}

float *golden_read_f32(const struct tri_safetensors *file, const char *name, int64_t count)
{
    struct tri_error error;
    const struct tri_safetensor *tensor = find(file, name, count);
    float *values = tri_alloc(TRI_MEMORY_OTHER, (size_t)tensor->count * sizeof(*values));
    if (tri_safetensor_read_f32(tensor, 0, tensor->count, values, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return values;
}

int64_t *golden_read_i64(const struct tri_safetensors *file, const char *name, int64_t count)
{
    struct tri_error error;
    const struct tri_safetensor *tensor = find(file, name, count);
    int64_t *values = tri_alloc(TRI_MEMORY_OTHER, (size_t)tensor->count * sizeof(*values));
    if (tri_safetensor_read_i64(tensor, 0, tensor->count, values, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return values;
}

int64_t golden_extent(const struct tri_safetensors *file, const char *name, int dim)
{
    const struct tri_safetensor *tensor = find(file, name, -1);
    assert_in_range(dim, 0, tensor->dims - 1);
    return tensor->shape[dim];
}

double golden_number(const struct tri_safetensors *file, const char *key)
{
    const char *text = tri_safetensors_metadata(file, key);
    if (!text) {
        fail_msg("%s: no metadata %s", file->path, key);
        abort();
    }
    return strcmp(text, "True") == 0 ? 1 : strcmp(text, "False") == 0 ? 0 : strtod(text, NULL);
}
