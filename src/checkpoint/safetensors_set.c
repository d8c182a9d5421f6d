/* A model's weights spread over files, as Hugging Face directories and checkpoints keep them. */
#include "checkpoint/safetensors.h"

#include "base/memory.h"
#include "base/path.h"
#include "base/json.h"
#include "config/text.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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
                                               bool mapped, struct tri_safetensors_set **set,
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
            status = mapped ? tri_safetensors_open(path, &s->file[i], error)
                            : tri_safetensors_open_header(path, &s->file[i], error);
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

/* Whether a name leads to a file of the folder or of one below. */
static bool is_inside(const char *name)
{
    size_t length = strlen(name);
    bool climbs = strcmp(name, "..") == 0 || strncmp(name, "../", 3) == 0 || strstr(name, "/../") ||
                  (length > 2 && strcmp(name + length - 3, "/..") == 0);
    return length > 0 && name[0] != '/' && !climbs;
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
        if (!name || !is_inside(name)) {
            return tri_fail(error, TRI_BAD_INPUT, "%s: weight_map: %s: no file of this folder",
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
        status = tri_safetensors_set_open_files(dir, files, names, false, set, error);
    }
    tri_free((void *)names);
    json_decref(root);
    return status;
}

static bool is_file(const char *dir, const char *name)
{
    char path[PATH_BYTES];
    struct stat info;
    return tri_path_format(path, sizeof(path), NULL, "%s/%s", dir, name) == TRI_OK &&
           stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

/* In the order in which transformers looks. */
enum tri_status tri_safetensors_set_open(const char *dir, const char *name,
                                         struct tri_safetensors_set **set, struct tri_error *error)
{
    static const char *const usual[] = {"model.safetensors", "model.safetensors.index.json"};
    *set = NULL;
    for (size_t i = 0; !name && i < 2; i++) {
        name = is_file(dir, usual[i]) ? usual[i] : NULL;
    }
    if (!name) {
        bool pickled =
            is_file(dir, "pytorch_model.bin") || is_file(dir, "pytorch_model.bin.index.json");
        return tri_fail(
            error, TRI_BAD_INPUT,
            "%s: holds neither model.safetensors nor model.safetensors.index.json%s", dir,
            pickled ? "; pytorch_model.bin is not read: save it again with transformers" : "");
    }
    if (!is_inside(name)) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: '%s' is no file of this folder", dir, name);
    }
    if (tri_text_ends_with(name, ".json")) {
        char path[PATH_BYTES];
        TRI_TRY(tri_path_format(path, sizeof(path), error, "%s/%s", dir, name));
        return open_index(dir, path, set, error);
    }
    return tri_safetensors_set_open_files(dir, 1, &name, false, set, error);
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
