/* Loading. Every rank checks all but the bytes of the tensors; then each reads its own parts of the
 * files, once, and gives the others what they hold of them (chunks.h). */
#include "checkpoint/checkpoint.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/meter.h"
#include "base/path.h"
#include "checkpoint/checkpoint_check.h"
#include "checkpoint/checkpoint_dir.h"
#include "checkpoint/checkpoint_load.h"
#include "checkpoint/chunks.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct load {
    const char *path;
    struct tri_params *params;
    struct tri_group *world;
    bool root;
    const struct tri_param **by_name; /* the table's rows, sorted */
    struct tri_chunks *chunks;
    struct tri_checkpoint_files files;
    bool tries_older; /* the caller, when there is damage: no need to look for a good one here */
    bool damaged;     /* bytes of tensors are, or cannot be read; the same on all ranks */
};

/* ---- files ----------------------------------------------------------------------------------- */

static int compare_rows(const void *a, const void *b)
{
    const struct tri_param *const *x = a, *const *y = b;
    return strcmp((*x)->name, (*y)->name);
}

static int find_row(const void *name, const void *row)
{
    const struct tri_param *const *param = row;
    return strcmp(name, (*param)->name);
}

static int by_place(const void *a, const void *b)
{
    const struct tri_chunk_entry *x = a, *y = b;
    return (x->begin > y->begin) - (x->begin < y->begin);
}

/* Where which tensor lies in a file whose tensors were checked to be those of the table. Our files
 * keep them aligned. */
static enum tri_status lay_out(const struct load *l, const struct tri_safetensors *header,
                               enum tri_manifest_part part, struct tri_chunk_entry *entries,
                               struct tri_error *error)
{
    for (int64_t i = 0; i < header->count; i++) {
        const struct tri_safetensor *t = &header->tensor[i];
        bool moment = part == TRI_MANIFEST_OPTIMIZER;
        const struct tri_param **row =
            bsearch(moment ? t->name + 2 : t->name, (const void *)l->by_name,
                    (size_t)l->params->count, sizeof(*l->by_name), find_row);
        TRI_REQUIRE(row);
        if (t->offset % sizeof(float) != 0) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: tensor %s: begins at byte %" PRIu64 ", no multiple of 4", t->path,
                            t->name, t->offset);
        }
        entries[i] = (struct tri_chunk_entry){*row,
                                              !moment             ? TRI_FIELD_WEIGHT
                                              : t->name[0] == 'm' ? TRI_FIELD_M
                                                                  : TRI_FIELD_V,
                                              t->offset};
    }
    qsort(entries, (size_t)header->count, sizeof(*entries), by_place);
    return TRI_OK;
}

/* What this rank reads of a file. */
struct reading {
    struct tri_part_file *in;
    enum tri_status status;
    struct tri_error *error;
};

static void read_bytes(void *data, uint64_t begin, void *bytes, size_t count)
{
    struct reading *r = data;
    if (r->status == TRI_OK) {
        r->status = tri_part_file_read(r->in, begin, bytes, count, r->error);
    }
}

static void expect_bytes(void *data, uint64_t begin, size_t count)
{
    const struct reading *r = data;
    if (r->status == TRI_OK) {
        tri_part_file_expect(r->in, begin, count);
    }
}

/* Collective; the status is this rank's own. */
static enum tri_status read_file(const struct load *l, const char *path,
                                 const struct tri_chunk_file *file, struct tri_error *error)
{
    struct reading r = {.error = error};
    const struct tri_chunk_disk disk = {&r, read_bytes, expect_bytes};
    r.status = tri_part_file_open(path, &r.in, error);
    tri_chunks_move(l->chunks, file, &disk, NULL);
    tri_part_file_destroy(r.in);
    return r.status;
}

/* Collective; the status is agreed. status: of the damage, the same on all ranks. */
static enum tri_status say_damaged(struct load *l, enum tri_status status, struct tri_error *error)
{
    l->damaged = true;
    if (l->root && !l->tries_older) {
        tri_checkpoint_advise(l->path, error);
    }
    return tri_comm_agree(l->world, status, error);
}

/* Collective; the status is agreed. */
static enum tri_status check_hash(struct load *l, const char *path,
                                  const struct tri_manifest_file *file, struct tri_error *error)
{
    uint64_t hash = tri_chunks_hash(l->chunks);
    if (hash == file->hash) {
        return TRI_OK;
    }
    enum tri_status status =
        l->root ? tri_manifest_name_damage(path, file, hash, l->files.manifest, error)
                : TRI_BAD_INPUT;
    return say_damaged(l, status, error);
}

/* Collective; the status is agreed. */
static enum tri_status load_file(struct load *l, const struct tri_safetensors *header,
                                 const struct tri_manifest_file *file, struct tri_error *error)
{
    struct tri_chunk_entry *entries =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)header->count * sizeof(*entries));
    enum tri_status status = lay_out(l, header, file->part, entries, error);
    status = tri_comm_agree(l->world, status, error);
    if (status == TRI_OK) {
        uint64_t data = header->count > 0 ? entries[0].begin : header->bytes;
        struct tri_chunk_file chunks = {header->bytes, data, NULL, (int)header->count, entries};
        status = tri_comm_agree(l->world, read_file(l, header->path, &chunks, error), error);
        status = status == TRI_OK ? check_hash(l, header->path, file, error)
                                  : say_damaged(l, status, error);
    }
    tri_free(entries);
    return status;
}

static enum tri_status load_part(struct load *l, enum tri_manifest_part part,
                                 const struct tri_safetensors_set *set, struct tri_error *error)
{
    const struct tri_checkpoint_manifest *m = l->files.manifest;
    for (int i = 0, at = 0; i < m->files; i++) {
        if (m->file[i].part == part) {
            TRI_TRY(load_file(l, set->file[at++], &m->file[i], error));
        }
    }
    return TRI_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static enum tri_status open_files(struct load *l, bool with_optimizer, struct tri_error *error)
{
    enum tri_status status = tri_checkpoint_open(
        l->path, with_optimizer ? TRI_CHECKPOINT_HEADERS : TRI_CHECKPOINT_WEIGHTS, &l->files,
        error);
    if (status != TRI_OK && l->root) {
        tri_checkpoint_advise(l->path, error);
    }
    TRI_TRY(status);
    const struct tri_checkpoint_manifest *m = l->files.manifest;
    TRI_TRY(tri_checkpoint_check_table(l->path, &l->files, l->params, error));
    if (with_optimizer && !m->optimizer && m->step > 0) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: holds weights alone, no optimizer state to continue a run from",
                        l->path);
    }
    return TRI_OK;
}

/* A checkpoint without moments is one before the first step. What is there may be of another that
 * was refused on the way. */
static void clear_moments(struct tri_params *params)
{
    for (int b = 0; b < TRI_BUFFERS; b++) {
        const struct tri_buffer *buffer = &params->buffer[b];
        if (buffer->m) {
            memset(buffer->m, 0, (size_t)buffer->shard * sizeof(float));
            memset(buffer->v, 0, (size_t)buffer->shard * sizeof(float));
        }
    }
}

static enum tri_status load_parts(struct load *l, struct tri_error *error)
{
    const struct tri_checkpoint_manifest *m = l->files.manifest;
    int64_t bytes = 0;
    for (int i = 0; i < m->files; i++) {
        bool moments = l->files.moments && m->file[i].part == TRI_MANIFEST_OPTIMIZER;
        bytes += m->file[i].part == TRI_MANIFEST_MODEL || moments ? (int64_t)m->file[i].bytes : 0;
    }
    tri_meter_begin(TRI_METER_BYTES, bytes, "reading a checkpoint");
    enum tri_status status = load_part(l, TRI_MANIFEST_MODEL, l->files.weights, error);
    if (status == TRI_OK && l->files.moments) {
        status = load_part(l, TRI_MANIFEST_OPTIMIZER, l->files.moments, error);
    }
    tri_meter_end();
    return status;
}

static enum tri_status load(struct load *l, bool with_optimizer, struct tri_checkpoint_state *state,
                            struct tri_error *error)
{
    enum tri_status status = open_files(l, with_optimizer, error);
    if (status == TRI_OK && state) {
        status = tri_checkpoint_open_state(l->path, l->files.manifest, state, error);
    }
    TRI_TRY(tri_comm_agree(l->world, status, error));
    TRI_TRY(load_parts(l, error));
    if (with_optimizer && !l->files.moments) {
        clear_moments(l->params);
    }
    return TRI_OK;
}

static void sort_rows(struct load *l)
{
    size_t rows = (size_t)l->params->count;
    l->by_name = tri_alloc(TRI_MEMORY_OTHER, rows * sizeof(struct tri_param *));
    for (size_t p = 0; p < rows; p++) {
        l->by_name[p] = &l->params->param[p];
    }
    qsort((void *)l->by_name, rows, sizeof(*l->by_name), compare_rows);
}

/* damaged: whether bytes of tensors are; NULL: the error names the last good checkpoint. */
static enum tri_status load_chunks(const char *path, struct tri_params *params,
                                   struct tri_checkpoint_state *state, bool with_optimizer,
                                   int64_t chunk_bytes, bool *damaged, struct tri_error *error)
{
    struct load l = {.path = path,
                     .params = params,
                     .world = tri_mesh_group(params->mesh, TRI_ON_ALL),
                     .tries_older = damaged != NULL};
    l.root = tri_group_rank(l.world) == 0;
    if (state) {
        *state = (struct tri_checkpoint_state){0};
    }
    sort_rows(&l);
    l.chunks = tri_chunks_create(params, params, chunk_bytes);
    enum tri_status status = load(&l, with_optimizer, state, error);
    tri_chunks_destroy(l.chunks);
    tri_free((void *)l.by_name);
    tri_checkpoint_close(&l.files);
    if (damaged) {
        *damaged = l.damaged;
    }
    if (status != TRI_OK && state) {
        tri_checkpoint_state_fini(state);
    }
    return status;
}

enum tri_status tri_checkpoint_load_parts(const char *path, struct tri_params *params,
                                          struct tri_checkpoint_state *state, bool with_optimizer,
                                          int64_t chunk_bytes, struct tri_error *error)
{
    return load_chunks(path, params, state, with_optimizer, chunk_bytes, NULL, error);
}

enum tri_status tri_checkpoint_load(const char *path, struct tri_params *params,
                                    struct tri_checkpoint_state *state, bool with_optimizer,
                                    struct tri_error *error)
{
    return tri_checkpoint_load_parts(path, params, state, with_optimizer, 0, error);
}

enum tri_status tri_checkpoint_load_choice(struct tri_checkpoint_choice *choice,
                                           struct tri_params *params,
                                           struct tri_checkpoint_state *state,
                                           struct tri_error *error)
{
    if (!choice->of_run) {
        return tri_checkpoint_load(choice->path, params, state, choice->moments, error);
    }
    bool damaged;
    enum tri_status status =
        load_chunks(choice->path, params, state, choice->moments, 0, &damaged, error);
    if (status != TRI_OK) {
        choice->again = tri_checkpoint_is_gone(choice, tri_mesh_group(params->mesh, TRI_ON_ALL));
    }
    if (damaged && !choice->again) {
        tri_checkpoint_refuse(choice, error);
    }
    return status;
}

/* ---- the state alone ------------------------------------------------------------------------- */

enum tri_status tri_checkpoint_read_state(const char *path, struct tri_checkpoint_state *state,
                                          struct tri_error *error)
{
    struct tri_checkpoint_manifest *m = NULL;
    *state = (struct tri_checkpoint_state){0};
    enum tri_status status = tri_manifest_load(path, &m, error);
    if (status == TRI_OK) {
        status = tri_manifest_verify_part(path, m, TRI_MANIFEST_STATE, error);
    }
    if (status == TRI_OK) {
        status = tri_checkpoint_open_state(path, m, state, error);
    }
    tri_manifest_destroy(m);
    if (status != TRI_OK) {
        tri_checkpoint_advise(path, error);
    }
    return status;
}

enum tri_status tri_checkpoint_config_of(const char *path, const struct tri_checkpoint_state *state,
                                         const struct tri_strategies *known,
                                         struct tri_config *config, struct tri_error *error)
{
    char source[TRI_CHECKPOINT_PATH];
    tri_path_make(source, sizeof(source), "%s/state.json", path);
    TRI_TRY(tri_config_parse(known, source, state->config, strlen(state->config), 0, NULL, config,
                             error));
    if (state->samples < 0) {
        tri_config_forget_followed(config);
    }
    return TRI_OK;
}

enum tri_status tri_checkpoint_read_config(const char *path, const struct tri_strategies *known,
                                           struct tri_config *config, struct tri_error *error)
{
    struct tri_checkpoint_state state;
    enum tri_status status = tri_checkpoint_read_state(path, &state, error);
    if (status == TRI_OK) {
        status = tri_checkpoint_config_of(path, &state, known, config, error);
    }
    tri_checkpoint_state_fini(&state);
    return status;
}
