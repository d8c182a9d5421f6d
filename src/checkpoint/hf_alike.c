#include "checkpoint/hf_alike.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { SAMPLE = 4096, NAME = 400, LINE = 600 };

static const struct tri_where where = {TRI_PHASE_SETUP, TRI_KIND_META};

/* ---- what can be seen without reading it all ------------------------------------------------- */

static void hash_text(struct tri_hash *hash, const char *text)
{
    tri_hash_update(hash, text, strlen(text) + 1);
}

static uint64_t hash_header(struct tri_hash *hash, const struct tri_safetensors *file)
{
    tri_hash_reset(hash);
    for (int64_t i = 0; i < file->count; i++) {
        const struct tri_safetensor *t = &file->tensor[i];
        hash_text(hash, t->name);
        hash_text(hash, tri_safetensors_dtype_name(t->dtype));
        tri_hash_update(hash, t->shape, (size_t)t->dims * sizeof(*t->shape));
        tri_hash_update(hash, &t->offset, sizeof(t->offset));
    }
    return tri_hash_get(hash);
}

/* Training changes every tensor that it changes nearly everywhere. */
static enum tri_status hash_samples(struct tri_hash *hash, const struct tri_safetensors *file,
                                    uint64_t *value, struct tri_error *error)
{
    unsigned char bytes[SAMPLE];
    struct tri_part_file *in;
    enum tri_status status = TRI_OK;
    tri_hash_reset(hash);
    TRI_TRY(tri_part_file_open(file->path, &in, error));
    for (int64_t i = 0; i < file->count && status == TRI_OK; i++) {
        const struct tri_safetensor *t = &file->tensor[i];
        size_t n = t->bytes < SAMPLE ? t->bytes : SAMPLE;
        status = tri_part_file_read(in, t->offset + (t->bytes - n) / 2, bytes, n, error);
        tri_hash_update(hash, bytes, n);
    }
    tri_part_file_destroy(in);
    *value = tri_hash_get(hash);
    return status;
}

/* Two lines of a file: what its header says, what its samples are. */
static enum tri_status describe(const struct tri_safetensors *file, char lines[2][LINE],
                                struct tri_error *error)
{
    const char *slash = strrchr(file->path, '/'), *name = slash ? slash + 1 : file->path;
    uint64_t samples = 0;
    struct tri_hash *hash = tri_hash_create();
    (void)snprintf(lines[0], LINE,
                   "%.200s (%" PRIu64 " bytes, %" PRId64 " tensors, header %016" PRIx64 ")", name,
                   file->bytes, file->count, hash_header(hash, file));
    enum tri_status status = hash_samples(hash, file, &samples, error);
    (void)snprintf(lines[1], LINE, "%.200s with weights (sampled) of %016" PRIx64, name, samples);
    tri_hash_destroy(hash);
    return status;
}

/* The status is the same on all ranks. */
static enum tri_status compare_files(struct tri_group *world, const char *dir,
                                     const struct tri_safetensors_set *set, struct tri_error *error)
{
    size_t count = 2 * (size_t)set->files;
    char name[NAME];
    char(*lines)[LINE] = tri_alloc(TRI_MEMORY_OTHER, count * sizeof(*lines));
    struct tri_fact *facts = tri_alloc(TRI_MEMORY_OTHER, count * sizeof(*facts));
    enum tri_status status = TRI_OK;
    (void)snprintf(name, sizeof(name), "a file of '%.300s'", dir);
    for (size_t i = 0; i < count && status == TRI_OK; i += 2) {
        status = describe(set->file[i / 2], &lines[i], error);
        facts[i] = (struct tri_fact){name, lines[i]};
        facts[i + 1] = (struct tri_fact){name, lines[i + 1]};
    }
    status = tri_comm_agree(world, status, error);
    if (status == TRI_OK) {
        status = tri_comm_compare(world, (int)count, facts, error);
    }
    tri_free(facts);
    tri_free(lines);
    return status;
}

enum tri_status tri_hf_compare_sets(const struct tri_mesh *mesh, const char *dir,
                                    const struct tri_safetensors_set *set,
                                    const struct tri_error *why, struct tri_error *error)
{
    struct tri_group *world = tri_mesh_group(mesh, TRI_ON_ALL);
    if (tri_group_size(world) == 1) {
        return TRI_OK;
    }
    char name[NAME], line[LINE];
    (void)snprintf(name, sizeof(name), "the folder '%.300s'", dir);
    if (set) {
        (void)snprintf(line, sizeof(line), "one of %d file%s and %" PRId64 " tensors", set->files,
                       set->files == 1 ? "" : "s", set->count);
    } else {
        (void)snprintf(line, sizeof(line), "not readable (%.300s)", why->message);
    }
    const struct tri_fact fact = {name, line};
    TRI_TRY(tri_comm_compare(world, 1, &fact, error));
    return set ? compare_files(world, dir, set, error) : TRI_OK;
}

/* ---- what has been read ---------------------------------------------------------------------- */

/* Over the replicas of one buffer; the status is this rank's own. */
static enum tri_status compare_buffer(const struct tri_params *params, int buffer, const char *dir,
                                      const uint64_t *hashes, struct tri_error *error)
{
    struct tri_group *group = params->buffer[buffer].group;
    size_t count = (size_t)params->count + 1;
    uint64_t *first = tri_alloc(TRI_MEMORY_OTHER, count * sizeof(*first));
    uint64_t own = (uint64_t)params->mesh->rank;
    memcpy(first, hashes, (count - 1) * sizeof(*first));
    first[count - 1] = own;
    tri_broadcast(group, where, first, (int64_t)count, TRI_I64, 0);
    enum tri_status status = TRI_OK;
    for (int p = 0; p < params->count && status == TRI_OK; p++) {
        const struct tri_param *param = &params->param[p];
        if (param->held && param->buffer == buffer && hashes[p] != first[p]) {
            status =
                tri_fail(error, TRI_BAD_INPUT,
                         "parallel ranks differ: the weights of '%.300s' for %s have contents "
                         "%016" PRIx64 " on rank %" PRIu64 " and %016" PRIx64 " on rank %" PRIu64,
                         dir, param->name, first[p], first[count - 1], hashes[p], own);
        }
    }
    tri_free(first);
    return status;
}

enum tri_status tri_hf_compare_rows(const struct tri_params *params, const char *dir,
                                    const uint64_t *hashes, struct tri_error *error)
{
    enum tri_status status = TRI_OK;
    for (int b = 0; b < TRI_BUFFERS; b++) {
        const struct tri_buffer *buffer = &params->buffer[b];
        if (buffer->count > 0 && tri_group_size(buffer->group) > 1) {
            struct tri_error other;
            enum tri_status found = compare_buffer(params, b, dir, hashes, &other);
            if (status == TRI_OK && found != TRI_OK) {
                *error = other;
                status = found;
            }
        }
    }
    return tri_comm_agree(tri_mesh_group(params->mesh, TRI_ON_ALL), status, error);
}
