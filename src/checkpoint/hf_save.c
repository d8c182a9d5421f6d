/* The reverse of hf_weights.c: which tensors of the family go into which file. All ranks write the
 * files (hf_write.h), rank 0 what stands beside them. */
#include "checkpoint/hf_save.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/meter.h"
#include "base/path.h"
#include "checkpoint/hf_write.h"
#include "checkpoint/one_folder.h"

#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 2048 };

struct save {
    const struct tri_params *params;
    struct tri_group *world;
    bool root;
    char temporary[PATH_BYTES];
    enum tri_safetensors_dtype dtype;
    const struct tri_hf_origin *origin;
    double scale; /* of low-rank pairs */
    int count;
    struct tri_hf_row *row; /* by name of their tensor */
    int64_t shard_bytes, piece;
    int shards;
    json_t *weight_map;
};

static int by_name(const void *a, const void *b)
{
    const struct tri_hf_row *x = a, *y = b;
    int order = strcmp(x->source.name, y->source.name);
    return order ? order
                 : (x->source.first > y->source.first) - (x->source.first < y->source.first);
}

static int64_t bytes_of(const struct save *s, int row)
{
    return tri_hf_bytes(s->row[row].number, tri_hf_elements(&s->row[row].source));
}

static int tensor_end(const struct save *s, int first)
{
    return tri_hf_tensor_end(s->count, s->row, first);
}

static int shard_end(const struct save *s, int first)
{
    int64_t bytes = 0;
    int at = first;
    while (at < s->count && at - first < TRI_SAFETENSORS_MOST) {
        bytes += bytes_of(s, at);
        if (at > first && bytes > s->shard_bytes) {
            break;
        }
        at = tensor_end(s, at);
    }
    return at;
}

static bool find(enum tri_hf_family family, const struct tri_param *param, int64_t num_experts,
                 struct tri_hf_source *source)
{
    return tri_hf_source_get(family, param, num_experts, TRI_HF_PER_EXPERT, source);
}

static enum tri_status place_rows(struct save *s, enum tri_hf_family family,
                                  const struct tri_config *config, struct tri_error *error)
{
    TRI_TRY(tri_hf_place_rows(s->params, family, config->moe.num_experts, find, &s->row, &s->count,
                              error));
    qsort(s->row, (size_t)s->count, sizeof(*s->row), by_name);
    for (int i = 0; i < s->count; i++) {
        s->row[i].number = s->dtype == TRI_ST_F32    ? TRI_HF_F32
                           : s->dtype == TRI_ST_BF16 ? TRI_HF_BF16
                                                     : TRI_HF_F16;
    }
    return TRI_OK;
}

/* The header of a file with rows [first, end), which learn where in it their tensors begin. */
static char *make_header(const struct save *s, int first, int end, size_t *header_bytes,
                         uint64_t *bytes)
{
    struct tri_safetensors_spec *specs =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)(end - first) * sizeof(*specs));
    int64_t count = 0;
    for (int at = first; at < end; at = tensor_end(s, at)) {
        const struct tri_hf_source *source = &s->row[at].source;
        specs[count] = (struct tri_safetensors_spec){
            .name = source->name, .dtype = s->dtype, .dims = source->dims};
        memcpy(specs[count++].shape, source->shape, sizeof(source->shape));
    }
    char *header = tri_safetensors_make_header(count, specs, header_bytes);
    tri_free(specs);
    *bytes = *header_bytes;
    for (int at = first; at < end;) {
        int next = tensor_end(s, at);
        uint64_t begin = *bytes;
        *bytes += (uint64_t)bytes_of(s, at);
        for (; at < next; at++) {
            s->row[at].begin = begin;
        }
    }
    return header;
}

/* Rows [first, end) to one file. Collective; the status is agreed. */
static enum tri_status write_shard(const struct save *s, const char *name, int first, int end,
                                   struct tri_error *error)
{
    char path[PATH_BYTES + 64];
    tri_path_make(path, sizeof(path), "%s/%s", s->temporary, name);
    struct tri_hf_file file = {.path = path,
                               .rows = end - first,
                               .row = s->row + first,
                               .scale = s->scale,
                               .piece = s->piece};
    char *header = make_header(s, first, end, &file.header_bytes, &file.bytes);
    file.header = header;
    for (int at = first; at < end; at = tensor_end(s, at)) {
        (void)json_object_set_new(s->weight_map, s->row[at].source.name, json_string(name));
    }
    enum tri_status status = tri_hf_write(s->params, &file, error);
    tri_free(header);
    return status;
}

static enum tri_status write_index(const struct save *s, struct tri_error *error)
{
    int64_t total = 0;
    for (int at = 0; at < s->count; at = tensor_end(s, at)) {
        total += bytes_of(s, at);
    }
    json_t *root = json_pack("{s:{s:I}, s:O}", "metadata", "total_size", (json_int_t)total,
                             "weight_map", s->weight_map);
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    json_decref(root);
    TRI_REQUIRE(text);
    char path[PATH_BYTES + 64];
    tri_path_make(path, sizeof(path), "%s/model.safetensors.index.json", s->temporary);
    enum tri_status status = tri_file_save(path, text, strlen(text), error);
    free(text);
    return status;
}

static enum tri_status write_shards(struct save *s, struct tri_error *error)
{
    for (int first = 0; first < s->count; first = shard_end(s, first)) {
        s->shards++;
    }
    int64_t bytes = 0;
    for (int at = 0; at < s->count; at = tensor_end(s, at)) {
        bytes += bytes_of(s, at);
    }
    enum tri_status status = TRI_OK;
    tri_meter_begin(TRI_METER_BYTES, bytes, "writing");
    for (int first = 0, end, i = 1; first < s->count && status == TRI_OK; first = end, i++) {
        char name[64] = "model.safetensors";
        end = shard_end(s, first);
        if (s->shards > 1) {
            (void)snprintf(name, sizeof(name), "model-%05d-of-%05d.safetensors", i, s->shards);
        }
        status = write_shard(s, name, first, end, error);
    }
    tri_meter_end();
    return status;
}

enum tri_status tri_hf_check_target(const char *dir, struct tri_error *error)
{
    if (tri_file_exists(dir)) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: is there already: not replaced", dir);
    }
    return tri_file_check_target(dir, error);
}

static enum tri_status begin(const struct save *s, const char *dir, struct tri_error *error)
{
    TRI_TRY(tri_hf_check_target(dir, error));
    TRI_TRY(tri_file_remove_tree(s->temporary, error));
    return tri_file_make_dirs(s->temporary, error);
}

static enum tri_status finish(const struct save *s, const char *dir,
                              const struct tri_config *config, enum tri_hf_family family,
                              struct tri_error *error)
{
    if (s->shards > 1) {
        TRI_TRY(write_index(s, error));
    }
    TRI_TRY(tri_hf_save_config(s->temporary, config, family, s->dtype, s->origin, error));
    if (s->origin) {
        TRI_TRY(tri_hf_copy_files(s->temporary, s->origin, error));
    }
    TRI_TRY(tri_file_sync_dir(s->temporary, error));
    TRI_TRY(tri_file_rename(s->temporary, dir, error));
    return tri_file_sync_parent(dir, error);
}

static enum tri_status save_all(struct save *s, const char *dir, const struct tri_config *config,
                                struct tri_error *error)
{
    enum tri_hf_family family = TRI_HF_LLAMA;
    TRI_TRY(tri_hf_family_of(config, &family, error));
    TRI_TRY(place_rows(s, family, config, error));
    s->weight_map = json_object();
    TRI_TRY(tri_comm_agree(s->world, s->root ? begin(s, dir, error) : TRI_OK, error));
    enum tri_status status = tri_one_folder_expect(s->world, s->temporary, error);
    if (status == TRI_OK) {
        status = write_shards(s, error);
    }
    if (status == TRI_OK) {
        status = tri_comm_agree(s->world, s->root ? finish(s, dir, config, family, error) : TRI_OK,
                                error);
    }
    struct tri_error second;
    if (status != TRI_OK && s->root && tri_file_remove_tree(s->temporary, &second) != TRI_OK) {
        tri_log_warn("%s", second.message);
    }
    return status;
}

enum tri_status tri_hf_save_shards(const char *dir, const struct tri_config *config,
                                   const struct tri_params *params,
                                   enum tri_safetensors_dtype dtype,
                                   const struct tri_hf_origin *origin, int64_t shard_bytes,
                                   int64_t piece, struct tri_error *error)
{
    const struct tri_config_lora *lora = &config->train.lora;
    struct save s = {.params = params,
                     .world = tri_mesh_group(params->mesh, TRI_ON_ALL),
                     .dtype = dtype,
                     .origin = origin,
                     .scale = lora->rank > 0 ? lora->alpha / (double)lora->rank : 0.0,
                     .shard_bytes = shard_bytes,
                     .piece = piece};
    TRI_REQUIRE(dtype == TRI_ST_F32 || dtype == TRI_ST_BF16 || dtype == TRI_ST_F16);
    s.root = tri_group_rank(s.world) == 0;
    enum tri_status status =
        tri_path_format(s.temporary, sizeof(s.temporary), error, "%s" TRI_TEMPORARY, dir);
    if (status == TRI_OK) {
        status = save_all(&s, dir, config, error);
    }
    json_decref(s.weight_map);
    tri_free(s.row);
    return status;
}

enum tri_status tri_hf_save(const char *dir, const struct tri_config *config,
                            const struct tri_params *params, enum tri_safetensors_dtype dtype,
                            const struct tri_hf_origin *origin, struct tri_error *error)
{
    return tri_hf_save_shards(dir, config, params, dtype, origin, (int64_t)5000000000, 0, error);
}
