/* Weights of a Hugging Face directory -> this rank's slices, in blocks of a few megabytes; a count
 * of the elements used of every tensor shows at the end that none was left out. */
#include "checkpoint/hf.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/meter.h"
#include "base/path.h"
#include "base/random.h"
#include "base/work.h"
#include "checkpoint/hf_alike.h"
#include "checkpoint/safetensors.h"
#include "config/text.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HEAD "lm_head.weight"

enum { PATH_BYTES = 2048, BLOCK = 1 << 20 };

struct loader {
    const char *dir;
    enum tri_hf_family family;
    struct tri_params *params;
    struct tri_safetensors_set *set;
    int64_t *used;    /* elements, of each tensor of the set */
    char passed[160]; /* the first tensor that is passed over */
    int64_t num_experts;
    bool upcycled;                    /* experts are copies of the folder's dense MLPs */
    const struct tri_hf_noise *noise; /* on those; or NULL */
    struct tri_part_file *in;         /* the file that was read last, or NULL */
    const char *in_path;
    void *raw, *values, *line; /* as a file has them; of a block; of a line of it */
    size_t raw_bytes, values_bytes, line_bytes;
    struct tri_hash *hash; /* of what is read for a row, where replicas read it too; or NULL */
    uint64_t *hashes;      /* of all rows */
};

/* What stands before the names of all but the head; files of a base model alone lack it. */
static const char *prefix_of(const struct loader *l)
{
    return l->family == TRI_HF_GPT2 ? "transformer." : "model.";
}

static int64_t find(const struct loader *l, const struct tri_hf_source *source)
{
    size_t prefix = strlen(prefix_of(l));
    int64_t at = tri_safetensors_set_find(l->set, source->name);
    if (at < 0 && strncmp(source->name, prefix_of(l), prefix) == 0) {
        at = tri_safetensors_set_find(l->set, source->name + prefix);
    }
    return at;
}

/* An embedding that is the head too: files may hold it under either name. */
static bool is_tied(const struct loader *l, const struct tri_param *param)
{
    return param->role == TRI_ROLE_EMBEDDING &&
           !tri_params_find(l->params, TRI_ROLE_HEAD, TRI_PLACE_DENSE, -1, -1);
}

/* The row of which the folder has a tensor: of an expert that becomes one, the dense MLP's. */
static struct tri_param in_folder(const struct loader *l, const struct tri_param *param)
{
    struct tri_param row = *param;
    if (l->upcycled && row.place == TRI_PLACE_EXPERT) {
        row.place = TRI_PLACE_DENSE;
        row.expert = -1;
    }
    return row;
}

/* The tensor of a row, under each of its spellings; its index in the set, or an error naming the
 * first. */
static enum tri_status locate(const struct loader *l, const struct tri_param *param,
                              struct tri_hf_source *source, int64_t *at, struct tri_error *error)
{
    if (!tri_hf_source_get(l->family, param, l->num_experts, TRI_HF_PER_EXPERT, source)) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: %s has no tensor for %s", l->dir,
                        tri_hf_family_name(l->family), param->name);
    }
    *at = find(l, source);
    if (*at < 0) {
        struct tri_hf_source fused;
        if (tri_hf_source_get(l->family, param, l->num_experts, TRI_HF_FUSED, &fused) &&
            (*at = find(l, &fused)) >= 0) {
            *source = fused;
        }
    }
    if (*at < 0 && is_tied(l, param)) {
        *at = tri_safetensors_set_find(l->set, HEAD);
    }
    if (*at < 0) {
        return tri_fail(error, TRI_BAD_INPUT, "%s (%s): tensor %s (%s) is missing", l->dir,
                        tri_hf_family_name(l->family), source->name, param->name);
    }
    return tri_safetensor_expect_shape(l->set->tensor[*at], source->dims, source->shape, error);
}

static bool is_real(const struct tri_safetensor *tensor)
{
    return tensor->dtype == TRI_ST_F32 || tensor->dtype == TRI_ST_BF16 ||
           tensor->dtype == TRI_ST_F16 || tensor->dtype == TRI_ST_F64;
}

static enum tri_status expect_real(const struct tri_safetensor *tensor, struct tri_error *error)
{
    return is_real(tensor)
               ? TRI_OK
               : tri_fail(error, TRI_BAD_INPUT,
                          "%s: tensor %s: dtype %s, expected F32, BF16, F16 or F64", tensor->path,
                          tensor->name, tri_safetensors_dtype_name(tensor->dtype));
}

static enum tri_status open_file(struct loader *l, const char *path, struct tri_error *error)
{
    if (l->in && strcmp(l->in_path, path) == 0) {
        return TRI_OK;
    }
    tri_part_file_destroy(l->in);
    l->in = NULL;
    TRI_TRY(tri_part_file_open(path, &l->in, error));
    l->in_path = path;
    return TRI_OK;
}

/* Elements [first, first + count) of a tensor. */
static enum tri_status read_elements(struct loader *l, const struct tri_safetensor *tensor,
                                     int64_t first, int64_t count, float *out,
                                     struct tri_error *error)
{
    size_t each = tensor->count > 0 ? tensor->bytes / (size_t)tensor->count : 0;
    size_t bytes = (size_t)count * each;
    TRI_TRY(open_file(l, tensor->path, error));
    tri_work_progress();
    uint64_t offset = tensor->offset + (uint64_t)first * each;
    bool plain = tensor->dtype == TRI_ST_F32;
    void *in = plain ? out : tri_grow(TRI_MEMORY_OTHER, &l->raw, &l->raw_bytes, bytes);
    TRI_TRY(tri_part_file_read(l->in, offset, in, bytes, error));
    if (l->hash) {
        tri_hash_update(l->hash, in, bytes);
    }
    struct tri_safetensor here = *tensor;
    here.data = in;
    here.count = count;
    return plain ? TRI_OK : tri_safetensor_read_f32(&here, 0, count, out, error);
}

/* Rows of a [columns, width] matrix held transposed: out[i][j] = in[j][first + i]. */
static enum tri_status read_transposed(struct loader *l, const struct tri_safetensor *tensor,
                                       const struct tri_hf_source *source, struct tri_range rows,
                                       int64_t columns, float *out, struct tri_error *error)
{
    int64_t n = tri_range_size(rows);
    float *in = tri_grow(TRI_MEMORY_OTHER, &l->line, &l->line_bytes, (size_t)n * sizeof(*in));
    for (int64_t j = 0; j < columns; j++) {
        int64_t at = j * source->shape[1] + source->first + rows.begin;
        TRI_TRY(read_elements(l, tensor, at, n, in, error));
        for (int64_t i = 0; i < n; i++) {
            out[i * columns + j] = in[i];
        }
    }
    return TRI_OK;
}

static enum tri_status read_rows(struct loader *l, const struct tri_safetensor *tensor,
                                 const struct tri_hf_source *source, struct tri_range rows,
                                 int64_t columns, float *out, struct tri_error *error)
{
    if (source->transposed) {
        return read_transposed(l, tensor, source, rows, columns, out, error);
    }
    int64_t at = (source->first + rows.begin) * columns;
    if (source->dims == 3) {
        at += source->index * source->shape[1] * source->shape[2];
    }
    return read_elements(l, tensor, at, tri_range_size(rows) * columns, out, error);
}

/* Makes copies of an expert different ones: the same on every layout. */
static void add_noise(struct loader *l, const struct tri_param *param, struct tri_range rows,
                      float *values)
{
    int64_t columns = param->shape[1], n = tri_range_size(rows) * columns;
    float *noise = tri_grow(TRI_MEMORY_OTHER, &l->line, &l->line_bytes, (size_t)n * sizeof(*noise));
    tri_random_normals(l->noise->seed, tri_random_stream(param->name),
                       (uint64_t)(rows.begin * columns), n, noise);
    for (int64_t i = 0; i < n; i++) {
        values[i] += (float)l->noise->deviation * noise[i];
    }
}

/* This rank's rows of a tensor, as many at once as a block holds. */
static enum tri_status load_row(struct loader *l, const struct tri_safetensor *tensor,
                                const struct tri_hf_source *source, const struct tri_param *param,
                                struct tri_error *error)
{
    int64_t columns = param->shape[1];
    int64_t step = columns < BLOCK ? BLOCK / columns : 1;
    struct tri_range local = param->local[0];
    bool noisy = l->noise && l->noise->deviation > 0 && l->upcycled &&
                 param->place == TRI_PLACE_EXPERT && param->dims == 2;
    TRI_TRY(expect_real(tensor, error));
    for (int64_t row = local.begin; row < local.end; row += step) {
        struct tri_range rows = {row, row + step < local.end ? row + step : local.end};
        size_t bytes = (size_t)(tri_range_size(rows) * columns) * sizeof(float);
        float *values = tri_grow(TRI_MEMORY_OTHER, &l->values, &l->values_bytes, bytes);
        TRI_TRY(read_rows(l, tensor, source, rows, columns, values, error));
        TRI_TRY(
            tri_safetensor_expect_finite(tensor, values, tri_range_size(rows) * columns, error));
        if (noisy) {
            add_noise(l, param, rows, values);
        }
        tri_param_scatter_rows(l->params, param, TRI_FIELD_WEIGHT, rows, values);
    }
    return TRI_OK;
}

static enum tri_status load_hashed(struct loader *l, int p, const struct tri_safetensor *tensor,
                                   const struct tri_hf_source *source, struct tri_error *error)
{
    if (l->hash) {
        tri_hash_reset(l->hash);
    }
    TRI_TRY(load_row(l, tensor, source, &l->params->param[p], error));
    if (l->hash) {
        l->hashes[p] = tri_hash_get(l->hash);
    }
    return TRI_OK;
}

static enum tri_status find_and_load(struct loader *l, int p, struct tri_error *error)
{
    const struct tri_param *param = &l->params->param[p];
    const struct tri_param row = in_folder(l, param);
    struct tri_hf_source source;
    int64_t at = -1;
    if (tri_role_is_low(param->role) || (l->upcycled && param->role == TRI_ROLE_ROUTER)) {
        return TRI_OK; /* the folder has none: it stays as it was drawn */
    }
    TRI_TRY(locate(l, &row, &source, &at, error));
    if (row.place == param->place || param->expert == 0) {
        l->used[at] += param->shape[0] * param->shape[1];
    }
    return param->held ? load_hashed(l, p, l->set->tensor[at], &source, error) : TRI_OK;
}

static enum tri_status load_rows(struct loader *l, struct tri_error *error)
{
    struct tri_params *params = l->params;
    enum tri_status status = TRI_OK;
    tri_params_settle(params);
    tri_meter_begin(TRI_METER_TENSORS, params->count, "reading %s", l->dir);
    for (int p = 0; p < params->count && status == TRI_OK; p++) {
        status = find_and_load(l, p, error);
        tri_meter_add(TRI_METER_TENSORS, 1);
    }
    tri_meter_end();
    return status;
}

/* ---- what no row needs ----------------------------------------------------------------------- */

/* Tables that some versions save among the weights; the model computes them. */
static bool is_buffer(const struct loader *l, const char *name)
{
    if (l->family == TRI_HF_GPT2) {
        return tri_text_ends_with(name, ".attn.bias") ||
               tri_text_ends_with(name, ".attn.masked_bias");
    }
    return strstr(name, "rotary_emb.") || tri_text_ends_with(name, ".position_ids");
}

/* Whether two tensors hold the same values, in whichever types. */
static enum tri_status compare(struct loader *l, const struct tri_safetensor *a,
                               const struct tri_safetensor *b, bool *equal, struct tri_error *error)
{
    *equal = a->count == b->count && is_real(a) && is_real(b);
    size_t bytes = (size_t)BLOCK * sizeof(float);
    float *x = tri_grow(TRI_MEMORY_OTHER, &l->values, &l->values_bytes, bytes);
    float *y = tri_grow(TRI_MEMORY_OTHER, &l->line, &l->line_bytes, bytes);
    for (int64_t at = 0; *equal && at < a->count; at += BLOCK) {
        int64_t n = at + BLOCK < a->count ? BLOCK : a->count - at;
        TRI_TRY(read_elements(l, a, at, n, x, error));
        TRI_TRY(read_elements(l, b, at, n, y, error));
        *equal = memcmp(x, y, (size_t)n * sizeof(*x)) == 0;
    }
    return TRI_OK;
}

/* A head saved beside the embedding it is tied to must be that embedding: transformers would take
 * each as it is. */
static enum tri_status check_tied(struct loader *l, const struct tri_safetensor *head,
                                  struct tri_error *error)
{
    struct tri_hf_source source;
    const struct tri_param *embedding =
        tri_params_find(l->params, TRI_ROLE_EMBEDDING, TRI_PLACE_DENSE, -1, -1);
    int64_t at = -1;
    if (embedding &&
        tri_hf_source_get(l->family, embedding, l->num_experts, TRI_HF_PER_EXPERT, &source)) {
        at = find(l, &source);
    }
    bool equal = false;
    if (at >= 0) {
        TRI_TRY(compare(l, head, l->set->tensor[at], &equal, error));
    }
    return equal ? TRI_OK
                 : tri_fail(error, TRI_BAD_INPUT,
                            "%s: tensor %s differs from the embedding that config.json ties it to "
                            "(tie_word_embeddings: false would take both)",
                            head->path, head->name);
}

/* The number after "layers." or "h." where a name begins so (behind the prefix or without); -1. */
static int64_t layer_of(const struct loader *l, const char *name)
{
    const char *blocks = l->family == TRI_HF_GPT2 ? "h." : "layers.";
    size_t prefix = strlen(prefix_of(l));
    name += strncmp(name, prefix_of(l), prefix) == 0 ? prefix : 0;
    return strncmp(name, blocks, strlen(blocks)) == 0 ? strtoll(name + strlen(blocks), NULL, 10)
                                                      : -1;
}

/* The other spelling of a name with a prefix or without is there too: which one counts? */
static bool is_double(const struct loader *l, const char *name)
{
    char whole[512];
    return (size_t)snprintf(whole, sizeof(whole), "%s%s", prefix_of(l), name) < sizeof(whole) &&
           tri_safetensors_set_find(l->set, whole) >= 0;
}

/* A tensor that no row used. transformers passes over it; here that is good for what lies beside
 * the model, not for blocks, or a part of one, that config.json forgets. */
static enum tri_status check_unused(struct loader *l, const struct tri_safetensor *tensor,
                                    int64_t *passed, struct tri_error *error)
{
    if (is_buffer(l, tensor->name)) {
        return TRI_OK;
    }
    if (strcmp(tensor->name, HEAD) == 0) {
        return check_tied(l, tensor, error);
    }
    int64_t layer = layer_of(l, tensor->name);
    if (layer >= l->params->layers) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: tensor %s: found layer %" PRId64 ", expected none beyond the %" PRId64
                        " of config.json (num_hidden_layers, n_layer)",
                        tensor->path, tensor->name, layer, (int64_t)l->params->layers);
    }
    if (layer >= 0 || is_double(l, tensor->name)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: tensor %s: the model of config.json (%s) has no place for it",
                        tensor->path, tensor->name, tri_hf_family_name(l->family));
    }
    if (++*passed == 1) {
        (void)snprintf(l->passed, sizeof(l->passed), "%s", tensor->name);
    }
    return TRI_OK;
}

static enum tri_status check_use(struct loader *l, struct tri_error *error)
{
    int64_t passed = 0;
    for (int64_t i = 0; i < l->set->count; i++) {
        const struct tri_safetensor *tensor = l->set->tensor[i];
        if (l->used[i] == 0) {
            TRI_TRY(check_unused(l, tensor, &passed, error));
        } else if (l->used[i] != tensor->count) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: tensor %s: %" PRId64 " of its %" PRId64 " values were used",
                            tensor->path, tensor->name, l->used[i], tensor->count);
        }
    }
    if (passed > 0 && tri_group_rank(tri_mesh_group(l->params->mesh, TRI_ON_ALL)) == 0) {
        tri_log_warn("%s: tensors that the model of config.json has no place for are passed over: "
                     "%" PRId64 ", the first is %s",
                     l->dir, passed, l->passed);
    }
    return TRI_OK;
}

static int64_t count_experts(const struct tri_params *params)
{
    int64_t most = -1;
    for (int p = 0; p < params->count; p++) {
        most = params->param[p].expert > most ? params->param[p].expert : most;
    }
    return most + 1;
}

/* config.json may name the file of the weights. An adapter beside it would change them. */
static enum tri_status open_set(const char *dir, struct tri_safetensors_set **set,
                                struct tri_error *error)
{
    char path[PATH_BYTES];
    json_t *root;
    const char *name = NULL;
    TRI_TRY(tri_path_format(path, sizeof(path), error, "%s/adapter_config.json", dir));
    if (tri_file_exists(path)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: an adapter beside a model is not applied: keep it in a folder of its "
                        "own, as train.lora.adapter, or merge it",
                        path);
    }
    TRI_TRY(tri_path_format(path, sizeof(path), error, "%s/config.json", dir));
    TRI_TRY(tri_json_load(path, &root, error));
    enum tri_status status =
        tri_json_get_text(path, root, "transformers_weights", false, &name, error);
    if (status == TRI_OK) {
        status = tri_safetensors_set_open(dir, name, set, error);
    }
    json_decref(root);
    return status;
}

enum tri_status tri_hf_check_folder(const char *dir, struct tri_error *error)
{
    struct tri_safetensors_set *set = NULL;
    TRI_TRY(open_set(dir, &set, error));
    tri_safetensors_set_close(set);
    return TRI_OK;
}

/* The family is read again; the caller built params from the rest of the config. */
static enum tri_status open_folder(struct loader *l, struct tri_error *error)
{
    struct tri_config config;
    TRI_TRY(tri_hf_load_config(l->dir, &config, &l->family, error));
    l->upcycled = config.moe.num_experts == 0 && l->num_experts > 0;
    return open_set(l->dir, &l->set, error);
}

static enum tri_status load_local(struct loader *l, struct tri_error *error)
{
    l->used = tri_alloc(TRI_MEMORY_OTHER, (size_t)l->set->count * sizeof(*l->used));
    TRI_TRY(load_rows(l, error));
    return check_use(l, error);
}

/* Collective; the status is agreed. */
static enum tri_status load(struct loader *l, struct tri_error *error)
{
    struct tri_group *world = tri_mesh_group(l->params->mesh, TRI_ON_ALL);
    struct tri_error why;
    enum tri_status status = open_folder(l, &why);
    TRI_TRY(tri_hf_compare_sets(l->params->mesh, l->dir, l->set, &why, error));
    if (status != TRI_OK) { /* on all ranks */
        *error = why;
        return tri_comm_agree(world, status, error);
    }
    if (tri_group_size(world) > 1) {
        l->hash = tri_hash_create();
        l->hashes = tri_alloc(TRI_MEMORY_OTHER, (size_t)l->params->count * sizeof(*l->hashes));
    }
    TRI_TRY(tri_comm_agree(world, load_local(l, error), error));
    return l->hash ? tri_hf_compare_rows(l->params, l->dir, l->hashes, error) : TRI_OK;
}

enum tri_status tri_hf_load_upcycled(const char *dir, struct tri_params *params,
                                     const struct tri_hf_noise *noise, struct tri_error *error)
{
    struct loader l = {
        .dir = dir, .params = params, .num_experts = count_experts(params), .noise = noise};
    enum tri_status status = load(&l, error);
    tri_hash_destroy(l.hash);
    tri_free(l.hashes);
    tri_part_file_destroy(l.in);
    tri_free(l.raw);
    tri_free(l.values);
    tri_free(l.line);
    tri_free(l.used);
    tri_safetensors_set_close(l.set);
    return status;
}

enum tri_status tri_hf_load_weights(const char *dir, struct tri_params *params,
                                    struct tri_error *error)
{
    return tri_hf_load_upcycled(dir, params, NULL, error);
}
