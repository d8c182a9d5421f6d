#include "data/shard_split.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/path.h"
#include "data/shard_writer.h"
#include "data/shards.h"

#include <stdio.h>
#include <string.h>

static const char *const STEMS[] = {"train", "valid"};
/* Tokens last. */
static const char *const ENDINGS[] = {".mask", ".docs", ".bin"};
enum { NUM_ENDINGS = 3, BIN = 2 };

static char *join(const char *folder, const char *name)
{
    size_t room = strlen(folder) + strlen(name) + 2;
    char *path = tri_alloc(TRI_MEMORY_OTHER, room);
    tri_path_make(path, room, "%s/%s", folder, name);
    return path;
}

static char *shard_path(const char *folder, const char *stem, int64_t index, const char *ending)
{
    char name[64];
    tri_shard_name(stem, index, ending, name, sizeof(name));
    return join(folder, name);
}

/* From one folder and stem to another; a file that is not there need not be. */
static enum tri_status move_shard(const char *from_folder, const char *from_stem,
                                  const char *to_folder, const char *to_stem, int64_t index,
                                  struct tri_error *error)
{
    enum tri_status status = TRI_OK;
    for (int i = 0; i < NUM_ENDINGS && status == TRI_OK; i++) {
        char *from = shard_path(from_folder, from_stem, index, ENDINGS[i]);
        char *to = shard_path(to_folder, to_stem, index, ENDINGS[i]);
        if (i == BIN || tri_file_exists(from)) {
            status = tri_file_rename(from, to, error);
        }
        tri_free(from);
        tri_free(to);
    }
    return status;
}

/* ---- documents ------------------------------------------------------------------------------- */

/* The places in a .docs that is mapped. */
static int64_t num_places(const struct tri_mapping *docs)
{
    return docs->data ? (int64_t)(docs->size - TRI_SIDECAR_HEADER_BYTES) / 8 : 0;
}

static int64_t place_at(const struct tri_mapping *docs, int64_t index)
{
    uint64_t place;
    memcpy(&place, docs->data + TRI_SIDECAR_HEADER_BYTES + 8 * index, sizeof(place));
    return (int64_t)place;
}

enum tri_status tri_shard_find_border(const struct tri_shard_set *set, int64_t place,
                                      int64_t *border, struct tri_error *error)
{
    *border = 0;
    for (int64_t i = 0; i < set->train_files; i++) {
        struct tri_mapping docs;
        char *path = shard_path(set->folder, STEMS[0], i, ".docs");
        enum tri_status status = tri_file_map(path, &docs, error);
        tri_free(path);
        TRI_TRY(status);
        for (int64_t j = 0; j < num_places(&docs); j++) {
            int64_t begin = i * set->per_shard + place_at(&docs, j);
            int64_t far = begin > place ? begin - place : place - begin;
            int64_t best = *border > place ? *border - place : place - *border;
            if (begin > 0 && (*border == 0 || far < best)) {
                *border = begin;
            }
        }
        tri_file_unmap(&docs);
    }
    return TRI_OK;
}

/* ---- the split ------------------------------------------------------------------------------- */

enum { CHUNK = 16384 };

/* Tokens on their way from shards to two writers. */
struct copy {
    struct tri_shard_writer *writers[2];
    int width;
    int64_t left; /* for the first writer */
    int side;
    int32_t tokens[CHUNK];
    unsigned char counts[CHUNK];
};

struct shard_files {
    struct tri_mapping tokens, mask, docs; /* data NULL: there is none */
};

static enum tri_status map_shard(const char *folder, const char *stem, int64_t index,
                                 struct shard_files *files, struct tri_error *error)
{
    struct tri_mapping *const maps[] = {&files->mask, &files->docs, &files->tokens};
    enum tri_status status = TRI_OK;
    for (int i = 0; i < NUM_ENDINGS; i++) {
        *maps[i] = (struct tri_mapping){0};
        char *path = shard_path(folder, stem, index, ENDINGS[i]);
        if (status == TRI_OK && (i == BIN || tri_file_exists(path))) {
            status = tri_file_map(path, maps[i], error);
        }
        tri_free(path);
    }
    return status;
}

static void unmap_shard(struct shard_files *files)
{
    tri_file_unmap(&files->tokens);
    tri_file_unmap(&files->mask);
    tri_file_unmap(&files->docs);
}

static void load(struct copy *copy, const struct shard_files *files, int64_t at, int64_t count)
{
    const unsigned char *data = files->tokens.data + TRI_SHARD_HEADER_BYTES + at * copy->width;
    for (int64_t i = 0; i < count; i++) {
        if (copy->width == 2) {
            uint16_t token;
            memcpy(&token, data + 2 * i, sizeof(token));
            copy->tokens[i] = token;
        } else {
            memcpy(&copy->tokens[i], data + 4 * i, sizeof(copy->tokens[i]));
        }
        const unsigned char *mask = files->mask.data;
        int64_t bit = at + i;
        copy->counts[i] = !mask || (mask[TRI_SIDECAR_HEADER_BYTES + bit / 8] >> (bit % 8) & 1) != 0;
    }
}

static enum tri_status copy_shard(struct copy *copy, const struct shard_files *files,
                                  struct tri_error *error)
{
    int64_t total = (int64_t)(files->tokens.size - TRI_SHARD_HEADER_BYTES) / copy->width;
    int64_t places = num_places(&files->docs), next = 0;
    for (int64_t at = 0; at < total;) {
        if (copy->side == 0 && copy->left == 0) {
            copy->side = 1;
            tri_shard_writer_begin_document(copy->writers[1]);
        }
        if (next < places && place_at(&files->docs, next) == at) {
            tri_shard_writer_begin_document(copy->writers[copy->side]);
            next++;
        }
        int64_t end = next < places ? place_at(&files->docs, next) : total;
        int64_t count = end - at < CHUNK ? end - at : CHUNK;
        count = copy->side == 0 && copy->left < count ? copy->left : count;
        load(copy, files, at, count);
        TRI_TRY(tri_shard_writer_write(copy->writers[copy->side], copy->tokens, copy->counts, count,
                                       error));
        copy->left -= copy->side == 0 ? count : 0;
        at += count;
    }
    return TRI_OK;
}

/* From shard `first` on, which are called "rest" by now and go one by one. */
static enum tri_status copy_rest(const struct tri_shard_set *set, int64_t first, struct copy *copy,
                                 struct tri_error *error)
{
    for (int64_t i = first; i < set->train_files; i++) {
        struct shard_files files;
        enum tri_status status = map_shard(set->folder, "rest", i, &files, error);
        if (status == TRI_OK) {
            status = copy_shard(copy, &files, error);
        }
        unmap_shard(&files);
        for (int j = 0; j < NUM_ENDINGS && status == TRI_OK; j++) {
            char *path = shard_path(set->folder, "rest", i, ENDINGS[j]);
            status = tri_file_remove_tree(path, error);
            tri_free(path);
        }
        TRI_TRY(status);
    }
    TRI_TRY(tri_shard_writer_finish(copy->writers[0], error));
    return tri_shard_writer_finish(copy->writers[1], error);
}

enum tri_status tri_shard_split(struct tri_shard_set *set, int64_t first, struct tri_error *error)
{
    int64_t whole = first / set->per_shard;
    for (int64_t i = whole; i < set->train_files; i++) {
        TRI_TRY(move_shard(set->folder, STEMS[0], set->folder, "rest", i, error));
    }
    struct copy *copy = tri_alloc(TRI_MEMORY_OTHER, sizeof(*copy));
    copy->width = set->vocab_size <= UINT16_MAX + 1 ? 2 : 4;
    copy->left = first - whole * set->per_shard;
    for (int side = 0; side < 2; side++) {
        copy->writers[side] =
            tri_shard_writer_create(&(struct tri_shard_writer_args){.folder = set->folder,
                                                                    .stem = STEMS[side],
                                                                    .vocab_size = set->vocab_size,
                                                                    .per_shard = set->per_shard,
                                                                    .first = side == 0 ? whole : 0,
                                                                    .documents = set->documents});
    }
    enum tri_status status = copy_rest(set, whole, copy, error);
    set->train_files = whole + tri_shard_writer_files(copy->writers[0]);
    set->valid_files = tri_shard_writer_files(copy->writers[1]);
    tri_shard_writer_destroy(copy->writers[0]);
    tri_shard_writer_destroy(copy->writers[1]);
    tri_free(copy);
    return status;
}

/* ---- publishing ------------------------------------------------------------------------------ */

/* STEM_, six digits or more, and the ending; NULL: no shard's name. */
static const char *find_ending(const char *name)
{
    for (int side = 0; side < 2; side++) {
        size_t length = strlen(STEMS[side]);
        if (strncmp(name, STEMS[side], length) != 0 || name[length] != '_') {
            continue;
        }
        size_t digits = strspn(name + length + 1, "0123456789");
        return digits >= 6 ? name + length + 1 + digits : NULL;
    }
    return NULL;
}

struct removal {
    const char *folder;
    bool tokens; /* these, or what lies beside them */
    struct tri_error *error;
};

static enum tri_status remove_shard(const char *name, void *data)
{
    const struct removal *removal = data;
    const char *ending = find_ending(name);
    bool found = false;
    for (int i = 0; i < NUM_ENDINGS && ending; i++) {
        found = found || ((i == BIN) == removal->tokens && strcmp(ending, ENDINGS[i]) == 0);
    }
    if (!found) {
        return TRI_OK;
    }
    char *path = join(removal->folder, name);
    enum tri_status status = tri_file_remove_tree(path, removal->error);
    tri_free(path);
    return status;
}

/* One that stayed would pass for a part of the new set. */
static enum tri_status remove_old(const char *folder, struct tri_error *error)
{
    struct removal removal = {folder, true, error};
    enum tri_status status = tri_file_list(folder, remove_shard, &removal, error);
    if (status == TRI_OK) {
        removal.tokens = false;
        status = tri_file_list(folder, remove_shard, &removal, error);
    }
    if (status != TRI_OK && error) {
        error->status = TRI_FAILED; /* not the input's fault: the folder is ours by now */
    }
    return status == TRI_OK ? TRI_OK : TRI_FAILED;
}

enum tri_status tri_shard_publish(const struct tri_shard_set *set, const char *folder,
                                  struct tri_error *error)
{
    TRI_TRY(remove_old(folder, error));
    for (int side = 0; side < 2; side++) {
        int64_t files = side == 0 ? set->train_files : set->valid_files;
        for (int64_t i = 0; i < files; i++) {
            TRI_TRY(move_shard(set->folder, STEMS[side], folder, STEMS[side], i, error));
        }
    }
    return tri_file_sync_dir(folder, error);
}
