#include "data/tokenizer_files.h"

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/path.h"
#include "data/chat_folder.h"

#include <string.h>
#include <sys/stat.h>

#define FOLDER "tokenizer"

enum { FILE_MOST = 256 << 20 };

const char *const tri_tokenizer_files[TRI_TOKENIZER_FILES] = {
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "generation_config.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
};

static char *join(const char *folder, const char *name)
{
    size_t room = strlen(folder) + strlen(name) + 2;
    char *path = tri_alloc(TRI_MEMORY_OTHER, room);
    tri_path_make(path, room, "%s/%s", folder, name);
    return path;
}

static bool has_tokenizer(const char *folder)
{
    char *path = join(folder, tri_tokenizer_files[0]);
    bool found = tri_file_exists(path) && !tri_file_is_dir(path);
    tri_free(path);
    return found;
}

bool tri_tokenizer_files_find(const char *given, char *folder, size_t bytes)
{
    char *inner = join(given, FOLDER);
    const char *found = has_tokenizer(given) ? given : has_tokenizer(inner) ? inner : NULL;
    bool fits = found && strlen(found) < bytes;
    if (fits) {
        tri_path_make(folder, bytes, "%s", found);
    }
    tri_free(inner);
    return fits;
}

static enum tri_status copy_file(const char *from, const char *to, struct tri_error *error)
{
    struct tri_mapping file;
    TRI_TRY(tri_file_read(from, FILE_MOST, &file, error));
    enum tri_status status = tri_file_save(to, file.data, file.size, error);
    tri_file_unmap(&file);
    return status;
}

enum tri_status tri_tokenizer_files_add(const char *from, const char *to, struct tri_error *error)
{
    enum tri_status status = TRI_OK;
    if (!tri_file_is_dir(from)) {
        char *target = join(to, tri_tokenizer_files[0]);
        status = copy_file(from, target, error);
        tri_free(target);
        return status;
    }
    for (int i = 0; i < TRI_TOKENIZER_FILES && status == TRI_OK; i++) {
        char *source = join(from, tri_tokenizer_files[i]);
        char *target = join(to, tri_tokenizer_files[i]);
        if (tri_file_exists(source)) {
            status = copy_file(source, target, error);
        }
        tri_free(source);
        tri_free(target);
    }
    return status;
}

static enum tri_status compare(const char *left, const char *right, bool *same,
                               struct tri_error *error)
{
    struct tri_mapping a;
    struct tri_mapping b;
    TRI_TRY(tri_file_read(left, FILE_MOST, &a, error));
    enum tri_status status = tri_file_read(right, FILE_MOST, &b, error);
    if (status == TRI_OK) {
        *same = a.size == b.size && memcmp(a.data, b.data, a.size) == 0;
        tri_file_unmap(&b);
    }
    tri_file_unmap(&a);
    return status;
}

enum tri_status tri_tokenizer_files_compare(const char *left, const char *right, bool *same,
                                            struct tri_error *error)
{
    char *a = join(left, tri_tokenizer_files[0]);
    char *b = join(right, tri_tokenizer_files[0]);
    enum tri_status status = compare(a, b, same, error);
    tri_free(a);
    tri_free(b);
    return status;
}

/* ---- a folder of copies ---------------------------------------------------------------------- */

/* In a folder that was made here, and may be removed. */
static const char MARK[] = "copied_by_trident.txt";

static enum tri_status mark(const char *folder, struct tri_error *error)
{
    static const char text[] = "Trident has put these files here, and replaces them.\n";
    char *path = join(folder, MARK);
    enum tri_status status = tri_file_save(path, text, sizeof(text) - 1, error);
    tri_free(path);
    return status;
}

static bool is_marked(const char *folder)
{
    char *path = join(folder, MARK);
    bool found = tri_file_exists(path);
    tri_free(path);
    return found;
}

static enum tri_status replace(const char *from, const char *folder, const char *temporary,
                               struct tri_error *error)
{
    TRI_TRY(tri_file_remove_tree(temporary, error));
    if (from) {
        TRI_TRY(tri_file_make_dirs(temporary, error));
        TRI_TRY(tri_tokenizer_files_add(from, temporary, error));
        TRI_TRY(mark(temporary, error));
        TRI_TRY(tri_file_sync_dir(temporary, error));
    }
    if (from || is_marked(folder)) {
        TRI_TRY(tri_file_remove_tree(folder, error));
    }
    return from ? tri_file_rename(temporary, folder, error) : TRI_OK;
}

static bool is_same(const char *a, const char *b)
{
    struct stat first;
    struct stat second;
    return stat(a, &first) == 0 && stat(b, &second) == 0 && first.st_dev == second.st_dev &&
           first.st_ino == second.st_ino;
}

static enum tri_status check(const char *from, const char *folder, struct tri_error *error)
{
    if (!tri_file_exists(folder) || is_marked(folder) || (from && is_same(from, folder)) ||
        (!from && !has_tokenizer(folder))) {
        return TRI_OK;
    }
    return tri_fail(error, TRI_BAD_INPUT,
                    "%s: has no %s, so it is somebody's own; expected another folder for what "
                    "would be written beside it",
                    folder, MARK);
}

enum tri_status tri_tokenizer_files_check(const char *from, const char *to, struct tri_error *error)
{
    char *folder = join(to, FOLDER);
    enum tri_status status = check(from, folder, error);
    tri_free(folder);
    return status;
}

enum tri_status tri_tokenizer_files_put(const char *from, const char *to, struct tri_error *error)
{
    char *folder = join(to, FOLDER);
    char *temporary = join(to, FOLDER TRI_TEMPORARY);
    enum tri_status status = check(from, folder, error);
    if (status == TRI_OK && !(from && is_same(from, folder))) {
        status = replace(from, folder, temporary, error);
    }
    tri_free(temporary);
    tri_free(folder);
    return status;
}

/* ---- stops ----------------------------------------------------------------------------------- */

static enum tri_status add_stop(const char *path, const json_t *id, int32_t *stop, int *count,
                                struct tri_error *error)
{
    json_int_t value = json_integer_value(id);
    if (!json_is_integer(id) || value < 0 || value > INT32_MAX || *count == TRI_STOPS) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: eos_token_id: expected a token's id, or a list of at most %d", path,
                        TRI_STOPS);
    }
    stop[(*count)++] = (int32_t)value;
    return TRI_OK;
}

static enum tri_status read_generation(const char *path, int32_t *stop, int *count,
                                       struct tri_error *error)
{
    json_t *root;
    TRI_TRY(tri_json_load(path, &root, error));
    const json_t *ids = json_object_get(root, "eos_token_id");
    enum tri_status status = TRI_OK;
    if (json_is_array(ids)) {
        for (size_t i = 0; i < json_array_size(ids) && status == TRI_OK; i++) {
            status = add_stop(path, json_array_get(ids, i), stop, count, error);
        }
    } else if (ids && !json_is_null(ids)) {
        status = add_stop(path, ids, stop, count, error);
    }
    json_decref(root);
    return status;
}

enum tri_status tri_tokenizer_read_stops(const char *folder, const struct tri_tokenizer *tokenizer,
                                         int32_t *stop, int *count, struct tri_error *error)
{
    struct tri_chat names;
    *count = 0;
    char *path = join(folder, "generation_config.json");
    enum tri_status status =
        tri_file_exists(path) ? read_generation(path, stop, count, error) : TRI_OK;
    tri_free(path);
    TRI_TRY(status);
    if (*count > 0) {
        return TRI_OK;
    }
    TRI_TRY(tri_chat_create("plain", &names, error));
    TRI_TRY(tri_chat_read_names(folder, &names, error));
    int32_t id = names.end[0] ? tri_tokenizer_find_special(tokenizer, names.end) : -1;
    if (id >= 0) {
        stop[(*count)++] = id;
    }
    return TRI_OK;
}
