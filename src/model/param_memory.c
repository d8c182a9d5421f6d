/* Memory and initial values of the parameter table. */
#include "model/param.h"

#include "base/memory.h"
#include "base/random.h"

void tri_params_allocate(struct tri_params *params, bool gradients)
{
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_buffer *buffer = &params->buffer[i];
        size_t count = (size_t)buffer->count;
        buffer->weights = tri_alloc(TRI_MEMORY_WEIGHTS, count * tri_dtype_size(buffer->dtype));
        if (gradients) {
            buffer->gradients = tri_alloc(TRI_MEMORY_GRADIENTS, count * sizeof(float));
        }
    }
}

void tri_params_destroy(struct tri_params *params)
{
    if (!params) {
        return;
    }
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_buffer *buffer = &params->buffer[i];
        if (buffer->dtype != TRI_F32) {
            tri_free(buffer->master);
        }
        tri_free(buffer->m);
        tri_free(buffer->v);
        tri_free(buffer->weights);
        tri_free(buffer->gradients);
        tri_free(buffer->shard_counts);
    }
    tri_free(params->scratch);
    tri_free(params->first_of_layer);
    tri_free(params->param);
    tri_free(params);
}

void *tri_param_weights(const struct tri_params *params, const struct tri_param *param)
{
    const struct tri_buffer *buffer = &params->buffer[param->buffer];
    return (char *)buffer->weights + (size_t)param->offset * tri_dtype_size(buffer->dtype);
}

float *tri_param_gradients(const struct tri_params *params, const struct tri_param *param)
{
    float *gradients = params->buffer[param->buffer].gradients;
    return gradients ? gradients + param->offset : NULL;
}

/* The initial value of element (i, j) of the global tensor. */
static float initial(const struct tri_param *param, uint64_t seed, uint64_t stream, int64_t index)
{
    if (param->init == TRI_INIT_NORMAL) {
        return (float)(param->init_std * tri_random_normal(seed, stream, (uint64_t)index));
    }
    return param->init == TRI_INIT_ONE ? 1.0F : 0.0F;
}

void tri_params_init(struct tri_params *params, uint64_t seed)
{
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        struct tri_buffer *buffer = &params->buffer[param->buffer];
        uint64_t stream = tri_random_stream(param->name);
        int64_t columns = tri_range_size(param->local[1]);
        void *weights = tri_param_weights(params, param);
#pragma omp parallel for schedule(static) if (param->count > 4096)
        for (int64_t at = 0; at < param->count; at++) {
            int64_t i = param->local[0].begin + at / columns;
            int64_t j = param->local[1].begin + at % columns;
            float value = initial(param, seed, stream, i * param->shape[1] + j);
            /* The master keeps the unrounded value where this rank holds that part of it. */
            int64_t in_shard = param->offset + at - buffer->shard.begin;
            if (param->dtype == TRI_F32) {
                ((float *)weights)[at] = value;
            } else {
                ((uint16_t *)weights)[at] = tri_f32_to_bf16(value);
                if (buffer->master && in_shard >= 0 && in_shard < tri_range_size(buffer->shard)) {
                    buffer->master[in_shard] = value;
                }
            }
        }
    }
}
