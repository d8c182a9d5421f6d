/* The reverse of hf_weights.c: rows are gathered to rank 0, put together to the tensors of the
 * family and streamed. All ranks walk the rows in the order of the files, by tensor name. */
#include "checkpoint/hf_save.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"
#include "checkpoint/peft.h"
#include "checkpoint/safetensors.h"

#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 2048 };

/* A row and its place; rows of one tensor are neighbours in the sorted list. */
struct placed {
    struct tri_hf_source source;
    const struct tri_param *param;
};

struct save {
    const struct tri_params *params;
    const struct tri_config_lora *lora;
    struct tri_group *world;
    bool root;
    char temporary[PATH_BYTES];
    enum tri_safetensors_dtype dtype;
    const struct tri_hf_origin *origin;
    int count;
    struct placed *row;
    float *global, *whole; /* rank 0: a row, a tensor */
    int shards;
    json_t *weight_map;
};

static int by_name(const void *a, const void *b)
{
    const struct placed *x = a, *y = b;
    int order = strcmp(x->source.name, y->source.name);
    return order ? order
                 : (x->source.first > y->source.first) - (x->source.first < y->source.first);
}

static int64_t elements(const struct tri_hf_source *source)
{
    return source->shape[0] * (source->dims == 2 ? source->shape[1] : 1);
}

static int64_t bytes_of(const struct save *s, const struct tri_hf_source *source)
{
    return elements(source) * (tri_safetensors_dtype_bits(s->dtype) / 8);
}

/* The end of the rows that share the tensor of row first. */
static int tensor_end(const struct save *s, int first)
{
    int end = first + 1;
    while (end < s->count && strcmp(s->row[end].source.name, s->row[first].source.name) == 0) {
        end++;
    }
    return end;
}

static int shard_end(const struct save *s, int first, int64_t shard_bytes)
{
    int64_t bytes = 0;
    int at = first;
    while (at < s->count && at - first < TRI_SAFETENSORS_MOST) {
        bytes += bytes_of(s, &s->row[at].source);
        if (at > first && bytes > shard_bytes) {
            break;
        }
        at = tensor_end(s, at);
    }
    return at;
}

static enum tri_status place_rows(struct save *s, enum tri_hf_family family,
                                  const struct tri_config *config, struct tri_error *error)
{
    s->row = tri_alloc(TRI_MEMORY_OTHER, (size_t)s->params->count * sizeof(*s->row));
    for (int p = 0; p < s->params->count; p++) {
        if (tri_role_is_low(s->params->param[p].role)) {
            continue; /* merged into its weight */
        }
        struct placed *row = &s->row[s->count++];
        row->param = &s->params->param[p];
        if (!tri_hf_source_get(family, row->param, config->moe.num_experts, TRI_HF_PER_EXPERT,
                               &row->source)) {
            return tri_fail(error, TRI_BAD_INPUT, "%s has no tensor for %s",
                            tri_hf_family_name(family), row->param->name);
        }
    }
    qsort(s->row, (size_t)s->count, sizeof(*s->row), by_name);
    return TRI_OK;
}

/* Copies a gathered row to its place in the tensor. */
static void put_row(const struct placed *row, const float *values, float *whole)
{
    int64_t rows = row->param->shape[0], columns = row->param->shape[1];
    if (!row->source.transposed) {
        memcpy(whole + row->source.first * columns, values,
               (size_t)(rows * columns) * sizeof(float));
        return;
    }
    int64_t width = row->source.shape[1];
    for (int64_t j = 0; j < columns; j++) {
        for (int64_t i = 0; i < rows; i++) {
            whole[j * width + row->source.first + i] = values[i * columns + j];
        }
    }
}

/* whole as the bytes of the file; halves replace the f32 in place, front to back. */
static enum tri_status narrow(const struct save *s, const char *name, int64_t count,
                              struct tri_error *error)
{
    uint16_t *to = (uint16_t *)(void *)s->whole;
    for (int64_t i = 0; i < count && s->dtype != TRI_ST_F32; i++) {
        float value;
        memcpy(&value, &s->whole[i], sizeof(value));
        bool half = s->dtype == TRI_ST_F16;
        uint16_t bits = half ? tri_f32_to_f16(value) : tri_f32_to_bf16(value);
        if (half && isfinite(value) && (bits & 0x7fffU) == 0x7c00U) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "tensor %s: found %g, which no f16 holds: use --dtype bf16", name,
                            (double)value);
        }
        memcpy(&to[i], &bits, sizeof(bits));
    }
    return TRI_OK;
}

static enum tri_status open_shard(struct save *s, const char *name, int first, int end,
                                  struct tri_safetensors_writer **writer, struct tri_error *error)
{
    struct tri_safetensors_spec *specs =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)(end - first) * sizeof(*specs));
    int64_t count = 0;
    for (int at = first; at < end; at = tensor_end(s, at)) {
        const struct tri_hf_source *source = &s->row[at].source;
        specs[count] = (struct tri_safetensors_spec){
            .name = source->name, .dtype = s->dtype, .dims = source->dims};
        memcpy(specs[count++].shape, source->shape, sizeof(source->shape));
        (void)json_object_set_new(s->weight_map, source->name, json_string(name));
    }
    char path[PATH_BYTES + 64];
    tri_path_make(path, sizeof(path), "%s/%s", s->temporary, name);
    enum tri_status status = tri_safetensors_writer_create(path, count, specs, writer, error);
    tri_free(specs);
    return status;
}

/* Rows [first, end) to one file. Collective; the status is this rank's own. */
static enum tri_status write_shard(struct save *s, const char *name, int first, int end,
                                   struct tri_error *error)
{
    struct tri_safetensors_writer *writer = NULL;
    enum tri_status status = s->root ? open_shard(s, name, first, end, &writer, error) : TRI_OK;
    for (int at = first, next; at < end; at = next) {
        next = tensor_end(s, at);
        for (int i = at; i < next; i++) {
            tri_param_gather(s->params, s->row[i].param, TRI_FIELD_WEIGHT, s->global);
            tri_peft_merge(s->params, s->lora, s->row[i].param, s->global);
            if (s->root) {
                put_row(&s->row[i], s->global, s->whole);
            }
        }
        if (s->root && status == TRI_OK) {
            status = narrow(s, s->row[at].source.name, elements(&s->row[at].source), error);
        }
        if (s->root && status == TRI_OK) {
            status = tri_safetensors_writer_write(writer, s->whole,
                                                  (size_t)bytes_of(s, &s->row[at].source), error);
        }
    }
    if (!s->root) {
        return TRI_OK;
    }
    if (status != TRI_OK) {
        tri_safetensors_writer_destroy(writer);
        return status;
    }
    return tri_safetensors_writer_close(&writer, error);
}

static enum tri_status write_index(const struct save *s, struct tri_error *error)
{
    int64_t total = 0;
    for (int at = 0; at < s->count; at = tensor_end(s, at)) {
        total += bytes_of(s, &s->row[at].source);
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

static enum tri_status write_shards(struct save *s, int64_t shard_bytes, struct tri_error *error)
{
    for (int first = 0; first < s->count; first = shard_end(s, first, shard_bytes)) {
        s->shards++;
    }
    for (int first = 0, end, i = 1; first < s->count; first = end, i++) {
        char name[64] = "model.safetensors";
        end = shard_end(s, first, shard_bytes);
        if (s->shards > 1) {
            (void)snprintf(name, sizeof(name), "model-%05d-of-%05d.safetensors", i, s->shards);
        }
        TRI_TRY(tri_comm_agree(s->world, write_shard(s, name, first, end, error), error));
    }
    return TRI_OK;
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
                                int64_t shard_bytes, struct tri_error *error)
{
    enum tri_hf_family family = TRI_HF_LLAMA;
    TRI_TRY(tri_hf_family_of(config, &family, error));
    TRI_TRY(place_rows(s, family, config, error));
    int64_t both = tri_hf_buffer_bytes(family, s->params, config->moe.num_experts);
    size_t scratch = s->root ? (size_t)both / 2 : 0;
    s->global = tri_alloc(TRI_MEMORY_OTHER, scratch);
    s->whole = tri_alloc(TRI_MEMORY_OTHER, scratch);
    s->weight_map = json_object();
    TRI_TRY(tri_comm_agree(s->world, s->root ? begin(s, dir, error) : TRI_OK, error));
    enum tri_status status = write_shards(s, shard_bytes, error);
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
                                   struct tri_error *error)
{
    struct save s = {.params = params,
                     .lora = &config->train.lora,
                     .world = tri_mesh_group(params->mesh, TRI_ON_ALL),
                     .dtype = dtype,
                     .origin = origin};
    TRI_REQUIRE(dtype == TRI_ST_F32 || dtype == TRI_ST_BF16 || dtype == TRI_ST_F16);
    s.root = tri_group_rank(s.world) == 0;
    enum tri_status status =
        tri_path_format(s.temporary, sizeof(s.temporary), error, "%s" TRI_TEMPORARY, dir);
    if (status == TRI_OK) {
        status = save_all(&s, dir, config, shard_bytes, error);
    }
    json_decref(s.weight_map);
    tri_free(s.row);
    tri_free(s.global);
    tri_free(s.whole);
    return status;
}

enum tri_status tri_hf_save(const char *dir, const struct tri_config *config,
                            const struct tri_params *params, enum tri_safetensors_dtype dtype,
                            const struct tri_hf_origin *origin, struct tri_error *error)
{
    return tri_hf_save_shards(dir, config, params, dtype, origin, (int64_t)5000000000, error);
}
