/* Weights of a Hugging Face directory -> this rank's slices. Each row of the table is built
 * whole in a scratch (or read in place, where the file holds it as Trident does) and scattered;
 * a count of the elements used of every tensor shows at the end that none was left out. */
#include "checkpoint/hf.h"

#include "base/memory.h"
#include "checkpoint/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct loader {
    const char *dir;
    enum tri_hf_family family;
    struct tri_params *params;
    struct tri_safetensors_set *set;
    int64_t *used; /* elements, of each tensor of the set */
    bool bare;     /* GPT-2 files of old: no "transformer." before the names */
    int64_t num_experts;
    void *scratch;
    size_t scratch_bytes;
};

static int64_t find(const struct loader *l, const struct tri_hf_source *source)
{
    static const char prefix[] = "transformer.";
    bool skip = l->bare && strncmp(source->name, prefix, strlen(prefix)) == 0;
    return tri_safetensors_set_find(l->set, source->name + (skip ? strlen(prefix) : 0));
}

/* The tensor of a row, under either spelling; its index in the set, or an error naming the
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
    if (*at < 0) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: tensor %s (%s) is missing", l->dir, source->name,
                        param->name);
    }
    return tri_safetensor_expect_shape(l->set->tensor[*at], source->dims, source->shape, error);
}

static float *scratch(struct loader *l, int64_t elements)
{
    return tri_grow(TRI_MEMORY_OTHER, &l->scratch, &l->scratch_bytes,
                    (size_t)elements * sizeof(float));
}

/* Rows [first, first + rows) of a [columns, width] matrix held transposed: out[i][j] =
 * in[j][first + i]. */
static enum tri_status read_transposed(struct loader *l, const struct tri_safetensor *tensor,
                                       const struct tri_hf_source *source,
                                       const struct tri_param *param, const float **values,
                                       struct tri_error *error)
{
    enum { BLOCK = 32 }; /* both sides of a block stay in the first-level cache */
    int64_t rows = param->shape[0], columns = param->shape[1], width = source->shape[1];
    float *out = scratch(l, tensor->count + rows * columns);
    float *in = out + rows * columns;
    TRI_TRY(tri_safetensor_read_f32(tensor, 0, tensor->count, in, error));
    for (int64_t jb = 0; jb < columns; jb += BLOCK) {
        int64_t je = jb + BLOCK < columns ? jb + BLOCK : columns;
        for (int64_t i = 0; i < rows; i++) {
            for (int64_t j = jb; j < je; j++) {
                out[i * columns + j] = in[j * width + source->first + i];
            }
        }
    }
    *values = out;
    return TRI_OK;
}

static enum tri_status read_row(struct loader *l, const struct tri_safetensor *tensor,
                                const struct tri_hf_source *source, const struct tri_param *param,
                                const float **values, struct tri_error *error)
{
    if (tensor->dtype != TRI_ST_F32 && tensor->dtype != TRI_ST_BF16 &&
        tensor->dtype != TRI_ST_F16) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: tensor %s: dtype %s, expected F32, BF16 or F16",
                        tensor->path, tensor->name, tri_safetensors_dtype_name(tensor->dtype));
    }
    if (source->transposed) {
        return read_transposed(l, tensor, source, param, values, error);
    }
    int64_t count = param->shape[0] * param->shape[1];
    int64_t at = source->first * param->shape[1];
    if (source->dims == 3) {
        at += source->index * source->shape[1] * source->shape[2];
    }
    const unsigned char *place = tensor->data + (size_t)at * sizeof(float);
    if (tensor->dtype == TRI_ST_F32 && (uintptr_t)place % _Alignof(float) == 0) {
        *values = (const float *)(const void *)place;
        return TRI_OK;
    }
    float *out = scratch(l, count);
    *values = out;
    return tri_safetensor_read_f32(tensor, at, count, out, error);
}

static enum tri_status load_rows(struct loader *l, struct tri_error *error)
{
    struct tri_params *params = l->params;
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        struct tri_hf_source source;
        int64_t at = -1;
        TRI_TRY(locate(l, param, &source, &at, error));
        l->used[at] += param->shape[0] * param->shape[1];
        if (!param->held) {
            continue;
        }
        const float *values = NULL;
        TRI_TRY(read_row(l, l->set->tensor[at], &source, param, &values, error));
        tri_param_scatter(params, param, TRI_FIELD_WEIGHT, values);
    }
    return TRI_OK;
}

/* ---- what no row needs ----------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* Tables that some versions save among the weights; the model computes them. */
static bool is_buffer(const struct loader *l, const char *name)
{
    if (l->family == TRI_HF_GPT2) {
        return ends_with(name, ".attn.bias") || ends_with(name, ".attn.masked_bias");
    }
    return ends_with(name, ".rotary_emb.inv_freq");
}

/* A head saved beside the embedding it is tied to must be that embedding. */
static bool is_tied_copy(const struct loader *l, const struct tri_safetensor *tensor)
{
    struct tri_hf_source source;
    const struct tri_param *embedding =
        tri_params_find(l->params, TRI_ROLE_EMBEDDING, TRI_PLACE_DENSE, -1, -1);
    if (strcmp(tensor->name, "lm_head.weight") != 0 || !embedding ||
        !tri_hf_source_get(l->family, embedding, l->num_experts, TRI_HF_PER_EXPERT, &source)) {
        return false;
    }
    int64_t at = find(l, &source);
    const struct tri_safetensor *other = at < 0 ? NULL : l->set->tensor[at];
    return other && other->bytes == tensor->bytes && other->dtype == tensor->dtype &&
           memcmp(other->data, tensor->data, tensor->bytes) == 0;
}

static enum tri_status check_use(const struct loader *l, struct tri_error *error)
{
    for (int64_t i = 0; i < l->set->count; i++) {
        const struct tri_safetensor *tensor = l->set->tensor[i];
        if (l->used[i] == tensor->count || is_buffer(l, tensor->name) || is_tied_copy(l, tensor)) {
            continue;
        }
        if (l->used[i] == 0) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: tensor %s: the model of config.json has no place for it",
                            tensor->path, tensor->name);
        }
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: tensor %s: %" PRId64 " of its %" PRId64 " values were used",
                        tensor->path, tensor->name, l->used[i], tensor->count);
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

static enum tri_status load_local(const char *dir, struct tri_params *params,
                                  struct tri_error *error)
{
    struct tri_config config; /* read again for its family; the caller built params from it */
    struct loader l = {.dir = dir, .params = params, .num_experts = count_experts(params)};
    TRI_TRY(tri_hf_load_config(dir, &config, &l.family, error));
    TRI_TRY(tri_safetensors_set_open(dir, &l.set, error));
    l.bare = tri_safetensors_set_find(l.set, "wte.weight") >= 0;
    l.used = tri_alloc(TRI_MEMORY_OTHER, (size_t)l.set->count * sizeof(*l.used));
    enum tri_status status = load_rows(&l, error);
    if (status == TRI_OK) {
        status = check_use(&l, error);
    }
    tri_free(l.scratch);
    tri_free(l.used);
    tri_safetensors_set_close(l.set);
    return status;
}

enum tri_status tri_hf_load_weights(const char *dir, struct tri_params *params,
                                    struct tri_error *error)
{
    return tri_comm_agree(params->mesh->world, load_local(dir, params, error), error);
}
