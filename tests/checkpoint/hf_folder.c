#include "checkpoint/hf_folder.h"

#include "checkpoint/fixture.h"
#include "checkpoint/hf.h"

#include "base/file.h"
#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

char hf_dir[256];
struct tri_mesh *hf_mesh;

const char *hf_golden(const char *family)
{
    static char path[256];
    (void)snprintf(path, sizeof(path), TESTDATA_DIR "/golden/%s", family);
    return path;
}

void hf_put(const char *name, const void *data, size_t bytes)
{
    char path[512];
    struct tri_error error;
    (void)snprintf(path, sizeof(path), "%s/%s", hf_dir, name);
    assert_int_equal(tri_file_save(path, data, bytes, &error), TRI_OK);
}

struct tri_params *hf_params_of(const char *from)
{
    struct tri_config config;
    struct tri_error error;
    if (tri_hf_load_config(from, &config, NULL, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    struct tri_params *params = tri_params_create(&config, hf_mesh);
    tri_params_allocate(params, false);
    return params;
}

struct tri_params *hf_import(const char *from)
{
    struct tri_params *params = hf_params_of(from);
    struct tri_error error;
    if (tri_hf_load_weights(from, params, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return params;
}

struct hf_item *hf_add(struct hf_items *items, const char *name, enum tri_safetensors_dtype dtype,
                       int dims, const int64_t *shape, size_t bytes)
{
    struct hf_item *item = &items->item[items->count++];
    assert_true(items->count <= 512);
    (void)snprintf(item->name, sizeof(item->name), "%s", name);
    item->spec = (struct tri_safetensors_spec){.dtype = dtype, .dims = dims};
    memcpy(item->spec.shape, shape, (size_t)dims * sizeof(*shape));
    item->bytes = bytes;
    item->data = tri_alloc(TRI_MEMORY_OTHER, bytes);
    return item;
}

struct hf_items *hf_items_of(const char *family)
{
    struct tri_safetensors *file;
    struct tri_error error;
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/model.safetensors", hf_golden(family));
    assert_int_equal(tri_safetensors_open(path, &file, &error), TRI_OK);
    struct hf_items *items = tri_alloc(TRI_MEMORY_OTHER, sizeof(*items));
    for (int64_t i = 0; i < file->count; i++) {
        const struct tri_safetensor *t = &file->tensor[i];
        memcpy(hf_add(items, t->name, t->dtype, t->dims, t->shape, t->bytes)->data, t->data,
               t->bytes);
    }
    tri_safetensors_close(file);
    return items;
}

struct hf_item *hf_item(struct hf_items *items, const char *name)
{
    for (int i = 0; i < items->count; i++) {
        if (strcmp(items->item[i].name, name) == 0) {
            return &items->item[i];
        }
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

void hf_drop(struct hf_items *items, const char *name)
{
    struct hf_item *item = hf_item(items, name);
    tri_free(item->data);
    *item = items->item[--items->count];
}

void hf_write(struct hf_items *items, const char *name, int first, int end)
{
    struct tri_safetensors_spec specs[512];
    struct tri_safetensors_writer *writer;
    struct tri_error error;
    char path[512];
    for (int i = first; i < end; i++) {
        specs[i - first] = items->item[i].spec;
        specs[i - first].name = items->item[i].name;
    }
    (void)snprintf(path, sizeof(path), "%s/%s", hf_dir, name);
    assert_int_equal(tri_safetensors_writer_create(path, end - first, specs, &writer, &error),
                     TRI_OK);
    for (int i = 0; i < end - first; i++) {
        const struct hf_item *item = hf_item(items, specs[i].name);
        assert_int_equal(tri_safetensors_writer_write(writer, item->data, item->bytes, &error),
                         TRI_OK);
    }
    assert_int_equal(tri_safetensors_writer_close(&writer, &error), TRI_OK);
}

void hf_free(struct hf_items *items)
{
    for (int i = 0; i < items->count; i++) {
        tri_free(items->item[i].data);
    }
    tri_free(items);
}

void hf_copy_config(const char *family)
{
    char path[512];
    struct tri_mapping text;
    struct tri_error error;
    (void)snprintf(path, sizeof(path), "%s/config.json", hf_golden(family));
    assert_int_equal(tri_file_map(path, &text, &error), TRI_OK);
    hf_put("config.json", text.data, text.size);
    tri_file_unmap(&text);
}

/* The folder's model must be that of the family's golden files. */
void hf_expect_same(const char *family)
{
    struct tri_params *expected = hf_import(hf_golden(family)), *found = hf_import(hf_dir);
    fixture_expect_equal(expected, found, false);
    tri_params_destroy(expected);
    tri_params_destroy(found);
}

void hf_refuse(const char *words)
{
    struct tri_params *params = hf_params_of(hf_dir);
    struct tri_error error = {0};
    assert_int_equal(tri_hf_load_weights(hf_dir, params, &error), TRI_BAD_INPUT);
    if (!strstr(error.message, words)) {
        fail_msg("'%s' lacks '%s'", error.message, words);
    }
    tri_params_destroy(params);
}

void hf_begin(const char *name)
{
    hf_mesh = tri_mesh_create_serial();
    fixture_dir(name, hf_dir);
}

void hf_end(void)
{
    tri_mesh_destroy(hf_mesh);
    fixture_remove(hf_dir);
}
