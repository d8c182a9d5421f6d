#include "data/tokenizer_files.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"
#include "data/chat_folder.h"

#include <stdlib.h>
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

static void discard(const char *folder)
{
    struct tri_error error;
    if (tri_file_remove_tree(folder, &error) != TRI_OK) {
        tri_log_warn("%s", error.message);
    }
}

static enum tri_status fill(const char *from, const char *temporary, struct tri_error *error)
{
    TRI_TRY(tri_file_make_dirs(temporary, error));
    TRI_TRY(tri_tokenizer_files_add(from, temporary, error));
    return mark(temporary, error);
}

enum tri_status tri_tokenizer_swap_prepare(struct tri_tokenizer_swap *swap, const char *from,
                                           const char *to, struct tri_error *error)
{
    *swap = (struct tri_tokenizer_swap){.folder = join(to, FOLDER),
                                        .fresh = join(to, FOLDER TRI_TEMPORARY),
                                        .aside = join(to, FOLDER ".old" TRI_TEMPORARY)};
    TRI_TRY(check(from, swap->folder, error));
    TRI_TRY(tri_file_remove_tree(swap->fresh, error));
    /* One that is somebody's own and is used where it lies stays. */
    swap->stays = tri_file_exists(swap->folder) && !is_marked(swap->folder);
    if (!from || swap->stays) {
        return TRI_OK;
    }
    enum tri_status status = fill(from, swap->fresh, error);
    swap->filled = status == TRI_OK;
    if (!swap->filled) {
        discard(swap->fresh);
    }
    return status;
}

enum tri_status tri_tokenizer_swap_begin(struct tri_tokenizer_swap *swap, struct tri_error *error)
{
    if (swap->filled) {
        TRI_TRY(tri_file_sync_dir(swap->fresh, error));
    }
    if (swap->stays || !tri_file_exists(swap->folder)) {
        return TRI_OK;
    }
    TRI_TRY(tri_file_remove_tree(swap->aside, error));
    TRI_TRY(tri_file_rename(swap->folder, swap->aside, error));
    swap->moved = true;
    return TRI_OK;
}

void tri_tokenizer_swap_undo(struct tri_tokenizer_swap *swap)
{
    struct tri_error error;
    if (swap->moved && tri_file_rename(swap->aside, swap->folder, &error) != TRI_OK) {
        tri_log_warn("%s", error.message);
    }
    if (swap->filled) {
        discard(swap->fresh);
    }
    swap->moved = swap->filled = false;
}

enum tri_status tri_tokenizer_swap_end(struct tri_tokenizer_swap *swap, struct tri_error *error)
{
    if (swap->filled) {
        TRI_TRY(tri_file_rename(swap->fresh, swap->folder, error));
    }
    if (!swap->stays) {
        discard(swap->aside);
    }
    return TRI_OK;
}

void tri_tokenizer_swap_fini(struct tri_tokenizer_swap *swap)
{
    tri_free(swap->folder);
    tri_free(swap->fresh);
    tri_free(swap->aside);
}

enum tri_status tri_tokenizer_files_put(const char *from, const char *to, struct tri_error *error)
{
    struct tri_tokenizer_swap swap;
    enum tri_status status = tri_tokenizer_swap_prepare(&swap, from, to, error);
    if (status == TRI_OK) {
        status = tri_tokenizer_swap_begin(&swap, error);
        if (status == TRI_OK) {
            status = tri_tokenizer_swap_end(&swap, error);
        }
        if (status != TRI_OK) {
            tri_tokenizer_swap_undo(&swap);
        }
    }
    tri_tokenizer_swap_fini(&swap);
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

static enum tri_status save_json(const char *path, const json_t *root, struct tri_error *error)
{
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(16));
    TRI_REQUIRE(text);
    enum tri_status status = tri_file_save(path, text, strlen(text), error);
    free(text);
    return status;
}

static enum tri_status save_stops(const char *path, const int32_t *stop, int count,
                                  struct tri_error *error)
{
    json_t *root = NULL;
    if (tri_file_exists(path)) {
        TRI_TRY(tri_json_load(path, &root, error));
    }
    root = root ? root : json_object();
    json_t *ids = json_array();
    for (int i = 0; i < count; i++) {
        (void)json_array_append_new(ids, json_integer(stop[i]));
    }
    TRI_REQUIRE(json_object_set_new(root, "eos_token_id", ids) == 0);
    enum tri_status status = save_json(path, root, error);
    json_decref(root);
    return status;
}

static bool is_stop(const int32_t *stop, int count, int32_t token)
{
    bool found = false;
    for (int i = 0; i < count; i++) {
        found = found || stop[i] == token;
    }
    return found;
}

enum tri_status tri_tokenizer_add_stop(const char *folder, const struct tri_tokenizer *tokenizer,
                                       int32_t end, int32_t token, struct tri_error *error)
{
    int32_t stop[TRI_STOPS + 1];
    int count;
    TRI_TRY(tri_tokenizer_read_stops(folder, tokenizer, stop, &count, error));
    if (is_stop(stop, count, token)) {
        return TRI_OK;
    }
    if (count == 0 && end >= 0 && end != token) {
        stop[count++] = end;
    }
    if (count == TRI_STOPS) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s/generation_config.json: eos_token_id: a list of %d, expected fewer, "
                        "for the template's own end",
                        folder, TRI_STOPS);
    }
    stop[count++] = token;
    char *path = join(folder, "generation_config.json");
    enum tri_status status = save_stops(path, stop, count, error);
    tri_free(path);
    return status;
}
