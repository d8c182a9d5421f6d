/* Saving. All ranks walk the same files, and each writes its own parts of them (chunks.h). A rank
 * that cannot write goes on with the others to the end of the file, where all agree to stop. */
#include "checkpoint/checkpoint.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/meter.h"
#include "base/path.h"
#include "base/work.h"
#include "checkpoint/checkpoint_dir.h"
#include "checkpoint/checkpoint_save.h"
#include "checkpoint/checkpoint_state.h"
#include "checkpoint/chunks.h"
#include "checkpoint/manifest.h"
#include "checkpoint/one_folder.h"
#include "checkpoint/safetensors.h"
#include "data/tokenizer_files.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* One tensor of a part: a field of a row, under the name it has in the file. */
struct entry {
    char name[TRI_NAME_MAX + 2];
    const struct tri_param *param;
    enum tri_field field;
};

struct save {
    const struct tri_params *params;
    struct tri_group *world;
    bool root;
    char temporary[TRI_CHECKPOINT_PATH];
    int64_t part_bytes;
    struct tri_chunks *chunks;
    struct tri_checkpoint_manifest manifest; /* the same on all ranks */
    char (*names)[64];                       /* of the manifest's files */
};

static int64_t elements(const struct tri_param *param)
{
    return param->shape[0] * param->shape[1];
}

/* Moments there are of what is trained. */
static int tensors_of(const struct tri_param *param, enum tri_manifest_part part)
{
    return part == TRI_MANIFEST_MODEL ? 1 : param->trained ? 2 : 0;
}

/* The rows [first, end) of the part that begins at first: at least one, then while they fit. */
static int part_end(const struct save *s, int first, enum tri_manifest_part part)
{
    int64_t bytes = 0;
    int p = first, rows = 0;
    while (p < s->params->count) {
        int tensors = tensors_of(&s->params->param[p], part);
        bytes += elements(&s->params->param[p]) * tensors * (int64_t)sizeof(float);
        if (tensors > 0 && rows > 0 && (bytes > s->part_bytes || rows == TRI_SAFETENSORS_MOST)) {
            break;
        }
        rows += tensors > 0;
        p++;
    }
    return p;
}

static int by_name(const void *a, const void *b)
{
    const struct entry *x = a, *y = b;
    return strcmp(x->name, y->name);
}

/* The tensors of a part in the order of the file, which is that of their names: all are f32. */
static int list_entries(const struct save *s, enum tri_manifest_part part, int first, int end,
                        struct entry *entries)
{
    int count = 0;
    for (int p = first; p < end; p++) {
        const struct tri_param *param = &s->params->param[p];
        if (part == TRI_MANIFEST_MODEL) {
            struct entry *e = &entries[count++];
            *e = (struct entry){.param = param, .field = TRI_FIELD_WEIGHT};
            (void)snprintf(e->name, sizeof(e->name), "%s", param->name);
            continue;
        }
        for (int moment = 0; moment < tensors_of(param, part); moment++) {
            struct entry *e = &entries[count++];
            *e = (struct entry){.param = param, .field = moment ? TRI_FIELD_V : TRI_FIELD_M};
            (void)snprintf(e->name, sizeof(e->name), "%c.%s", moment ? 'v' : 'm', param->name);
        }
    }
    qsort(entries, (size_t)count, sizeof(*entries), by_name);
    return count;
}

/* The file of these entries: its header, and where each tensor lies. */
static char *lay_out(int count, const struct entry *entries, struct tri_chunk_entry *places,
                     struct tri_chunk_file *file)
{
    struct tri_safetensors_spec *specs =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)count * sizeof(*specs));
    for (int i = 0; i < count; i++) {
        const struct tri_param *param = entries[i].param;
        specs[i] = (struct tri_safetensors_spec){.name = entries[i].name,
                                                 .dtype = TRI_ST_F32,
                                                 .dims = param->dims,
                                                 .shape = {param->shape[0], param->shape[1]}};
    }
    size_t bytes;
    char *header = tri_safetensors_make_header(count, specs, &bytes);
    tri_free(specs);
    *file = (struct tri_chunk_file){bytes, bytes, header, count, places};
    for (int i = 0; i < count; i++) {
        places[i] = (struct tri_chunk_entry){entries[i].param, entries[i].field, file->bytes};
        file->bytes += (uint64_t)elements(entries[i].param) * sizeof(float);
    }
    return header;
}

/* What this rank writes of a file. */
struct writing {
    const char *path;
    struct tri_part_file *out; /* made when it has something to write */
    enum tri_status status;
    struct tri_error *error;
};

static void write_bytes(void *data, uint64_t begin, void *bytes, size_t count)
{
    struct writing *w = data;
    if (w->status == TRI_OK && !w->out) {
        w->status = tri_part_file_create(w->path, &w->out, w->error);
    }
    if (w->status == TRI_OK) {
        w->status = tri_part_file_write(w->out, begin, bytes, count, w->error);
    }
}

/* Collective; the status is this rank's own. */
static enum tri_status write_file(const struct save *s, const char *name,
                                  const struct tri_chunk_file *file, uint64_t *tensors,
                                  struct tri_error *error)
{
    char path[TRI_CHECKPOINT_PATH + 64];
    struct writing w = {.path = path, .error = error};
    const struct tri_chunk_disk disk = {&w, write_bytes, NULL};
    tri_path_make(path, sizeof(path), "%s/%s", s->temporary, name);
    tri_chunks_move(s->chunks, file, &disk, tensors);
    if (w.status == TRI_OK && w.out) {
        return tri_part_file_close(&w.out, error);
    }
    tri_part_file_destroy(w.out);
    return w.status;
}

/* The hashes of the file and, where tensors are told apart, of each of its tensors: one rank has
 * each of these, and all get them. */
static void note_file(struct save *s, enum tri_manifest_part part, const char *name, uint64_t bytes,
                      int count, const struct entry *entries, uint64_t *tensors)
{
    const struct tri_where where = {TRI_PHASE_CHECKPOINT, TRI_KIND_META};
    uint64_t hash = tri_chunks_hash(s->chunks);
    s->manifest.file[s->manifest.files++] =
        (struct tri_manifest_file){.name = name, .part = part, .bytes = bytes, .hash = hash};
    if (!tensors) {
        return;
    }
    tri_all_reduce_sum(s->world, where, tensors, count, TRI_I64);
    for (int i = 0; i < count; i++) {
        const struct tri_param *param = entries[i].param;
        s->manifest.tensor[s->manifest.count++] =
            (struct tri_manifest_tensor){.name = param->name,
                                         .file = name,
                                         .dims = param->dims,
                                         .shape = {param->shape[0], param->shape[1]},
                                         .hash = tensors[i],
                                         .frozen = !param->trained};
    }
}

/* Collective; the status is agreed. */
static enum tri_status write_part(struct save *s, enum tri_manifest_part part, const char *name,
                                  int count, const struct entry *entries, struct tri_error *error)
{
    size_t n = (size_t)count;
    struct tri_chunk_file file;
    struct tri_chunk_entry *places = tri_alloc(TRI_MEMORY_OTHER, n * sizeof(*places));
    uint64_t *tensors =
        part == TRI_MANIFEST_MODEL ? tri_alloc(TRI_MEMORY_OTHER, n * sizeof(*tensors)) : NULL;
    char *header = lay_out(count, entries, places, &file);
    enum tri_status status = write_file(s, name, &file, tensors, error);
    note_file(s, part, name, file.bytes, count, entries, tensors);
    tri_free(header);
    tri_free(tensors);
    tri_free(places);
    return tri_comm_agree(s->world, status, error);
}

/* All files of one kind. Collective; the status is agreed. */
static enum tri_status write_parts(struct save *s, enum tri_manifest_part part, const char *stem,
                                   struct tri_error *error)
{
    int parts = 0, most = 0;
    for (int first = 0, end; first < s->params->count; first = end) {
        end = part_end(s, first, part);
        most = end - first > most ? end - first : most;
        parts++;
    }
    struct entry *entries = tri_alloc(TRI_MEMORY_OTHER, 2 * (size_t)most * sizeof(*entries));
    enum tri_status status = TRI_OK;
    for (int first = 0, end, i = 1; status == TRI_OK && first < s->params->count;
         first = end, i++) {
        end = part_end(s, first, part);
        char *name = s->names[s->manifest.files];
        (void)snprintf(name, sizeof(*s->names), "%s-%05d-of-%05d.safetensors", stem, i, parts);
        int count = list_entries(s, part, first, end, entries);
        status = write_part(s, part, name, count, entries, error);
    }
    tri_free(entries);
    return status;
}

/* ---- rank 0, before and after ---------------------------------------------------------------- */

static enum tri_status check_replaced(const char *path, struct tri_error *error)
{
    char manifest[TRI_CHECKPOINT_PATH];
    TRI_TRY(tri_path_format(manifest, sizeof(manifest), error, "%s/manifest.json", path));
    if (tri_file_exists(path) && !tri_file_exists(manifest)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: is there already and is no checkpoint: not replaced", path);
    }
    return TRI_OK;
}

enum tri_status tri_checkpoint_check_target(const char *path, struct tri_error *error)
{
    if (tri_file_exists(path)) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: is there already: not replaced", path);
    }
    return tri_file_check_target(path, error);
}

/* What lies where a run's checkpoint belongs and is none (its manifest is gone) makes room. */
static enum tri_status put_aside(const char *path, struct tri_error *error)
{
    char manifest[TRI_CHECKPOINT_PATH], aside[TRI_CHECKPOINT_PATH];
    tri_path_make(manifest, sizeof(manifest), "%s/manifest.json", path);
    tri_path_make(aside, sizeof(aside), "%s.damaged", path);
    if (!tri_file_exists(path) || tri_file_exists(manifest) || tri_file_exists(aside)) {
        return TRI_OK;
    }
    tri_log_warn("%s: no whole checkpoint; it is now %s", path, aside);
    return tri_file_rename(path, aside, error);
}

static enum tri_status begin(const struct save *s, const char *path, struct tri_error *error)
{
    TRI_TRY(tri_checkpoint_recover(path, error));
    TRI_TRY(check_replaced(path, error));
    return tri_file_make_dirs(s->temporary, error);
}

/* temporary -> path. Where path is taken it steps aside first and returns if that fails. */
static enum tri_status put_in_place(const struct save *s, const char *path, struct tri_error *error)
{
    char old[TRI_CHECKPOINT_PATH];
    tri_path_make(old, sizeof(old), "%s.old" TRI_TEMPORARY, path);
    bool replaces = tri_file_exists(path);
    if (replaces) {
        TRI_TRY(tri_file_rename(path, old, error));
    }
    enum tri_status status = tri_file_rename(s->temporary, path, error);
    if (status != TRI_OK) {
        struct tri_error second;
        if (replaces && tri_file_rename(old, path, &second) != TRI_OK) {
            tri_log_warn("%s", second.message);
        }
        return status;
    }
    TRI_TRY(tri_file_sync_parent(path, error));
    return tri_file_remove_tree(old, error);
}

static enum tri_status check_sizes(const struct save *s, struct tri_error *error)
{
    for (int i = 0; i < s->manifest.files; i++) {
        const struct tri_manifest_file *expected = &s->manifest.file[i];
        char path[TRI_CHECKPOINT_PATH + 64];
        tri_path_make(path, sizeof(path), "%s/%s", s->temporary, expected->name);
        TRI_TRY(tri_part_file_expect_size(path, expected->bytes, error));
    }
    return TRI_OK;
}

static enum tri_status add_tokenizer(struct save *s, const char *folder, struct tri_error *error)
{
    if (!folder) {
        return TRI_OK;
    }
    TRI_TRY(tri_tokenizer_files_add(folder, s->temporary, error));
    for (int i = 0; i < TRI_TOKENIZER_FILES; i++) {
        char path[TRI_CHECKPOINT_PATH + 64];
        struct tri_mapping data;
        tri_path_make(path, sizeof(path), "%s/%s", s->temporary, tri_tokenizer_files[i]);
        if (!tri_file_exists(path)) {
            continue;
        }
        TRI_TRY(tri_file_map(path, &data, error));
        s->manifest.file[s->manifest.files++] =
            (struct tri_manifest_file){.name = tri_tokenizer_files[i],
                                       .part = TRI_MANIFEST_TOKENIZER,
                                       .bytes = data.size,
                                       .hash = tri_work_hash(data.data, data.size)};
        tri_file_unmap(&data);
    }
    return TRI_OK;
}

static enum tri_status finish(struct save *s, const char *path,
                              const struct tri_checkpoint_state *state, struct tri_error *error)
{
    TRI_TRY(check_sizes(s, error));
    struct tri_manifest_file *file = &s->manifest.file[s->manifest.files++];
    *file = (struct tri_manifest_file){.name = "state.json", .part = TRI_MANIFEST_STATE};
    TRI_TRY(tri_checkpoint_state_save(s->temporary, state, &file->bytes, &file->hash, error));
    TRI_TRY(add_tokenizer(s, state->tokenizer, error));
    TRI_TRY(tri_manifest_save(s->temporary, &s->manifest, error));
    TRI_TRY(tri_file_sync_dir(s->temporary, error));
    return put_in_place(s, path, error);
}

static void allocate(struct save *s, int64_t chunk_bytes)
{
    size_t rows = (size_t)s->params->count;
    s->chunks = tri_chunks_create(s->params, NULL, chunk_bytes);
    /* A part holds one row at least, so there are at most two parts a row, and the state. */
    s->manifest.file = tri_alloc(TRI_MEMORY_OTHER,
                                 (2 * rows + 1 + TRI_TOKENIZER_FILES) * sizeof(*s->manifest.file));
    s->manifest.tensor = tri_alloc(TRI_MEMORY_OTHER, rows * sizeof(*s->manifest.tensor));
    s->names = tri_alloc(TRI_MEMORY_OTHER, (2 * rows + 1) * sizeof(*s->names));
}

/* Of all tensors that are written. */
static int64_t tensor_bytes(const struct save *s, bool with_optimizer)
{
    int64_t count = 0;
    for (int p = 0; p < s->params->count; p++) {
        const struct tri_param *param = &s->params->param[p];
        int tensors = tensors_of(param, TRI_MANIFEST_MODEL) +
                      (with_optimizer ? tensors_of(param, TRI_MANIFEST_OPTIMIZER) : 0);
        count += tensors * elements(param);
    }
    return count * (int64_t)sizeof(float);
}

static enum tri_status write_all(struct save *s, const char *path,
                                 const struct tri_checkpoint_state *state, bool with_optimizer,
                                 struct tri_error *error)
{
    enum tri_status status = s->root ? begin(s, path, error) : TRI_OK;
    TRI_TRY(tri_comm_agree(s->world, status, error));
    TRI_TRY(tri_one_folder_expect(s->world, s->temporary, error));
    tri_meter_begin(TRI_METER_BYTES, tensor_bytes(s, with_optimizer), "writing a checkpoint");
    status = write_parts(s, TRI_MANIFEST_MODEL, "model", error);
    if (status == TRI_OK && with_optimizer) {
        status = write_parts(s, TRI_MANIFEST_OPTIMIZER, "optimizer", error);
    }
    tri_meter_end();
    TRI_TRY(status);
    status = s->root ? finish(s, path, state, error) : TRI_OK;
    return tri_comm_agree(s->world, status, error);
}

enum tri_status tri_checkpoint_write_parts(const char *path, const struct tri_params *params,
                                           const struct tri_checkpoint_state *state,
                                           bool with_optimizer, int64_t part_bytes,
                                           int64_t chunk_bytes, struct tri_error *error)
{
    struct save s = {.params = params,
                     .world = tri_mesh_group(params->mesh, TRI_ON_ALL),
                     .part_bytes = part_bytes};
    s.root = tri_group_rank(s.world) == 0;
    TRI_TRY(tri_path_format(s.temporary, sizeof(s.temporary), error, "%s" TRI_TEMPORARY, path));
    if (s.root) {
        s.manifest.step = state->step;
        s.manifest.optimizer = with_optimizer;
    }
    allocate(&s, chunk_bytes);
    enum tri_status status = write_all(&s, path, state, with_optimizer, error);
    if (status != TRI_OK && s.root) {
        struct tri_error second;
        if (tri_file_remove_tree(s.temporary, &second) != TRI_OK) {
            tri_log_warn("%s", second.message);
        }
    }
    tri_chunks_destroy(s.chunks);
    tri_free(s.manifest.file);
    tri_free(s.manifest.tensor);
    tri_free(s.names);
    return status;
}

enum tri_status tri_checkpoint_write(const char *path, const struct tri_params *params,
                                     const struct tri_checkpoint_state *state, bool with_optimizer,
                                     struct tri_error *error)
{
    enum { PART_GIB = 2 };
    return tri_checkpoint_write_parts(path, params, state, with_optimizer, (int64_t)PART_GIB << 30,
                                      0, error);
}

enum tri_status tri_checkpoint_save(const char *run_dir, const struct tri_params *params,
                                    const struct tri_checkpoint_state *state, int64_t keep_last,
                                    struct tri_error *error)
{
    struct tri_group *world = tri_mesh_group(params->mesh, TRI_ON_ALL);
    bool root = tri_group_rank(world) == 0;
    char dir[TRI_CHECKPOINT_PATH], path[TRI_CHECKPOINT_PATH + 32];
    int64_t step = root ? state->step : 0;
    tri_broadcast(world, (struct tri_where){TRI_PHASE_CHECKPOINT, TRI_KIND_META}, &step, 1, TRI_I64,
                  0);
    tri_path_make(dir, sizeof(dir), "%s/checkpoints", run_dir);
    tri_path_make(path, sizeof(path), "%s/step_%" PRId64, dir, step);
    enum tri_status status = root ? tri_checkpoint_clean(run_dir, error) : TRI_OK;
    if (root && status == TRI_OK) {
        status = put_aside(path, error);
    }
    TRI_TRY(tri_comm_agree(world, status, error));
    TRI_TRY(tri_checkpoint_write(path, params, state, true, error));
    if (root && keep_last > 0) {
        struct tri_error second;
        if (tri_checkpoint_prune(dir, state->step, keep_last - 1, &second) != TRI_OK) {
            tri_log_warn("%s", second.message);
        }
    }
    return TRI_OK;
}
