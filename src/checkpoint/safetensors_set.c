/* A model's weights spread over files, as Hugging Face directories and checkpoints keep them. */
#include "checkpoint/safetensors.h"

#include "base/memory.h"
#include "base/path.h"
#include "checkpoint/json.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 2048 };

static int by_name(const void *a, const void *b)
{
    const struct tri_safetensor *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

/* Fills set->tensor from the open files. */
static enum tri_status merge(struct tri_safetensors_set *set, struct tri_error *error)
{
    int64_t count = 0;
    for (int f = 0; f < set->files; f++) {
        count += set->file[f]->count;
    }
    set->tensor = tri_alloc(TRI_MEMORY_OTHER, (size_t)count * sizeof(*set->tensor));
    for (int f = 0; f < set->files; f++) {
        for (int64_t i = 0; i < set->file[f]->count; i++) {
            set->tensor[set->count++] = &set->file[f]->tensor[i];
        }
    }
    if (count > 0) {
        qsort((void *)set->tensor, (size_t)count, sizeof(*set->tensor), by_name);
    }
    for (int64_t i = 1; i < count; i++) {
        if (strcmp(set->tensor[i - 1]->name, set->tensor[i]->name) == 0) {
            return tri_fail(error, TRI_BAD_INPUT, "%s: tensor %s: is also in %s",
                            set->tensor[i]->path, set->tensor[i]->name, set->tensor[i - 1]->path);
        }
    }
    return TRI_OK;
}

enum tri_status tri_safetensors_set_open_files(const char *dir, int files, const char *const *names,
                                               struct tri_safetensors_set **set,
                                               struct tri_error *error)
{
    *set = NULL;
    struct tri_safetensors_set *s = tri_alloc(TRI_MEMORY_OTHER, sizeof(*s));
    s->file = tri_alloc(TRI_MEMORY_OTHER, (size_t)files * sizeof(struct tri_safetensors *));
    enum tri_status status = TRI_OK;
    for (int i = 0; status == TRI_OK && i < files; i++) {
        char path[PATH_BYTES];
        status = tri_path_format(path, sizeof(path), error, "%s/%s", dir, names[i]);
        if (status == TRI_OK) {
            status = tri_safetensors_open(path, &s->file[i], error);
        }
        s->files += status == TRI_OK;
    }
    if (status == TRI_OK) {
        status = merge(s, error);
    }
    if (status != TRI_OK) {
        tri_safetensors_set_close(s);
        return status;
    }
    *set = s;
    return TRI_OK;
}

/* ---- the index ------------------------------------------------------------------------------- */

static int by_text(const void *a, const void *b)
{
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

/* The distinct file names of weight_map, sorted; names has room for all of its entries. */
static enum tri_status index_files(const char *path, json_t *map, const char **names, int *files,
                                   struct tri_error *error)
{
    size_t count = 0;
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value)
    {
        const char *name = json_string_value(value);
        if (!name || strchr(name, '/') || name[0] == '\0') {
            return tri_fail(error, TRI_BAD_INPUT, "%s: weight_map: %s: no file name of this folder",
                            path, key);
        }
        names[count++] = name;
    }
    if (count > 0) {
        qsort((void *)names, count, sizeof(*names), by_text);
    }
    *files = 0;
    for (size_t i = 0; i < count; i++) {
        if (i == 0 || strcmp(names[i], names[i - 1]) != 0) {
            names[(*files)++] = names[i];
        }
    }
    return TRI_OK;
}

/* Index and files must tell of the same tensors in the same places. */
static enum tri_status check_index(const char *path, json_t *map,
                                   const struct tri_safetensors_set *set, struct tri_error *error)
{
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value)
    {
        int64_t at = tri_safetensors_set_find(set, key);
        const char *slash = at < 0 ? NULL : strrchr(set->tensor[at]->path, '/');
        if (!slash || strcmp(slash + 1, json_string_value(value)) != 0) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: tensor %s: not in %s, where weight_map puts it", path, key,
                            json_string_value(value));
        }
    }
    for (int64_t i = 0; i < set->count; i++) {
        if (!json_object_get(map, set->tensor[i]->name)) {
            return tri_fail(error, TRI_BAD_INPUT, "%s: tensor %s: not in weight_map of %s",
                            set->tensor[i]->path, set->tensor[i]->name, path);
        }
    }
    return TRI_OK;
}

static enum tri_status open_index(const char *dir, const char *path,
                                  struct tri_safetensors_set **set, struct tri_error *error)
{
    json_t *root;
    TRI_TRY(tri_json_load(path, &root, error));
    json_t *map = json_object_get(root, "weight_map");
    if (!json_is_object(map)) {
        json_decref(root);
        return tri_fail(error, TRI_BAD_INPUT, "%s: weight_map is missing", path);
    }
    const char **names = tri_alloc(TRI_MEMORY_OTHER, json_object_size(map) * sizeof(*names));
    int files = 0;
    enum tri_status status = index_files(path, map, names, &files, error);
    if (status == TRI_OK) {
        status = tri_safetensors_set_open_files(dir, files, names, set, error);
    }
    if (status == TRI_OK) {
        status = check_index(path, map, *set, error);
        if (status != TRI_OK) {
            tri_safetensors_set_close(*set);
            *set = NULL;
        }
    }
    tri_free((void *)names);
    json_decref(root);
    return status;
}

enum tri_status tri_safetensors_set_open(const char *dir, struct tri_safetensors_set **set,
                                         struct tri_error *error)
{
    *set = NULL;
    char path[PATH_BYTES];
    tri_path_make(path, sizeof(path), "%s/model.safetensors.index.json", dir);
    if (tri_file_exists(path)) {
        return open_index(dir, path, set, error);
    }
    tri_path_make(path, sizeof(path), "%s/model.safetensors", dir);
    if (!tri_file_exists(path)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: holds neither model.safetensors nor model.safetensors.index.json",
                        dir);
    }
    static const char *const single[] = {"model.safetensors"};
    return tri_safetensors_set_open_files(dir, 1, single, set, error);
}

void tri_safetensors_set_close(struct tri_safetensors_set *set)
{
    if (!set) {
        return;
    }
    for (int i = 0; i < set->files; i++) {
        tri_safetensors_close(set->file[i]);
    }
    tri_free((void *)set->file);
    tri_free((void *)set->tensor);
    tri_free(set);
}

int64_t tri_safetensors_set_find(const struct tri_safetensors_set *set, const char *name)
{
    struct tri_safetensor key = {.name = name};
    const struct tri_safetensor *wanted = &key;
    if (set->count == 0) {
        return -1;
    }
    const struct tri_safetensor **at = bsearch((const void *)&wanted, (const void *)set->tensor,
                                               (size_t)set->count, sizeof(*set->tensor), by_name);
    return at ? at - set->tensor : -1;
}
