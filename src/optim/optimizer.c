#include "optim/optim.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

/* Consecutive elements of a shard with the same decay: neighbouring rows of the table are merged. */
struct segment {
    int buffer;
    struct tri_range range; /* buffer elements */
    bool decay;
};

struct tri_optimizer {
    const struct tri_config *config;
    struct tri_params *params;
    const struct tri_kernels *kernels;
    struct segment *segments;
    int64_t count;
};

static void add_segment(struct tri_optimizer *optimizer, int index, struct tri_range range,
                        bool decay)
{
    if (tri_range_size(range) == 0) {
        return;
    }
    struct segment *last = optimizer->count ? &optimizer->segments[optimizer->count - 1] : NULL;
    if (last && last->buffer == index && last->decay == decay && last->range.end == range.begin) {
        last->range.end = range.end;
        return;
    }
    optimizer->segments[optimizer->count++] = (struct segment){index, range, decay};
}

static void allocate_states(struct tri_buffer *buffer)
{
    size_t bytes = (size_t)tri_range_size(buffer->shard) * sizeof(float);
    buffer->m = tri_alloc(TRI_MEMORY_OPTIMIZER, bytes);
    buffer->v = tri_alloc(TRI_MEMORY_OPTIMIZER, bytes);
    if (buffer->dtype == TRI_F32) {
        buffer->master = (float *)buffer->weights + buffer->shard.begin;
        return;
    }
    buffer->master = tri_alloc(TRI_MEMORY_OPTIMIZER, bytes);
    const uint16_t *weights = (const uint16_t *)buffer->weights + buffer->shard.begin;
    for (int64_t i = 0; i < tri_range_size(buffer->shard); i++) {
        buffer->master[i] = tri_bf16_to_f32(weights[i]);
    }
}

struct tri_optimizer *tri_optimizer_create(const struct tri_config *config,
                                           struct tri_params *params,
                                           const struct tri_kernels *kernels)
{
    struct tri_optimizer *optimizer = tri_alloc(TRI_MEMORY_OTHER, sizeof(*optimizer));
    optimizer->config = config;
    optimizer->params = params;
    optimizer->kernels = kernels;
    optimizer->segments =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)params->count * sizeof(*optimizer->segments));
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_buffer *buffer = &params->buffer[i];
        allocate_states(buffer);
        for (int p = 0; p < params->count; p++) {
            const struct tri_param *param = &params->param[p];
            if (param->buffer == i) {
                struct tri_range whole = {param->offset, param->offset + param->count};
                add_segment(optimizer, i, tri_range_intersect(whole, buffer->shard), param->decay);
            }
        }
    }
    return optimizer;
}

void tri_optimizer_destroy(struct tri_optimizer *optimizer)
{
    if (optimizer) {
        tri_free(optimizer->segments);
        tri_free(optimizer);
    }
}

static void step_segment(const struct tri_optimizer *optimizer, const struct segment *segment,
                         const struct tri_adamw *adamw)
{
    struct tri_buffer *buffer = &optimizer->params->buffer[segment->buffer];
    struct tri_adamw step = *adamw;
    int64_t in_shard = segment->range.begin - buffer->shard.begin;
    if (!segment->decay) {
        step.weight_decay = 0.0;
    }
    const void *gradients = (const char *)buffer->gradients +
                            (size_t)segment->range.begin * tri_dtype_size(buffer->gradient_dtype);
    /* f32 weights are their own masters. */
    void *weights =
        buffer->dtype == TRI_F32 ? NULL : (uint16_t *)buffer->weights + segment->range.begin;
    optimizer->kernels->adamw(&step, buffer->master + in_shard, buffer->m + in_shard,
                              buffer->v + in_shard, gradients, buffer->gradient_dtype, weights,
                              buffer->dtype, tri_range_size(segment->range));
}

void tri_optimizer_step(struct tri_optimizer *optimizer, int64_t update, double learning_rate,
                        double scale)
{
    const struct tri_config_train *train = &optimizer->config->train;
    struct tri_adamw adamw = {
        .learning_rate = learning_rate,
        .beta1 = train->betas[0],
        .beta2 = train->betas[1],
        .epsilon = train->epsilon,
        .weight_decay = train->weight_decay,
        .correction1 = 1.0 - pow(train->betas[0], (double)update),
        .correction2 = 1.0 - pow(train->betas[1], (double)update),
        .gradient_scale = scale,
    };
    for (int64_t i = 0; i < optimizer->count; i++) {
        step_segment(optimizer, &optimizer->segments[i], &adamw);
    }
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_buffer *buffer = &optimizer->params->buffer[i];
        tri_all_gather_v(buffer->group, (struct tri_where){TRI_PHASE_OPTIMIZER, TRI_KIND_WEIGHTS},
                         buffer->weights, buffer->shard_counts, buffer->dtype);
    }
}
