/* AdamW on this rank's shard, tile by tile (docs/numerics.md; the paper's tiled optimizer). The
 * runs of equal treatment that the shard consists of are walked as one sequence, whole blocks one
 * after the other; a tile is so many elements of it, wherever that cuts. Gradients that are not f32
 * are first widened into the tile's own memory: no f32 copy of them exists whole. AdamW treats each
 * element alone, so the cuts change no bit. */
#include "optim/optim.h"

#include "base/memory.h"

#include <math.h>

/* Consecutive elements of a piece with the same decay: neighbouring rows of the table are
 * merged. */
struct run {
    struct tri_buffer *buffer;
    const struct tri_segment *segment;
    struct tri_range range; /* buffer elements */
    bool decay;
};

struct tri_optimizer {
    const struct tri_config *config;
    struct tri_params *params;
    const struct tri_kernels *kernels;
    struct run *runs;
    int64_t count;
    int64_t tile; /* elements */
    float *widened;
};

/* The next element to be updated. */
struct cursor {
    int64_t run, at; /* at: elements of the run that are done */
};

/* ---- setup ----------------------------------------------------------------------------------- */

static void add_run(struct tri_optimizer *optimizer, struct run run)
{
    if (tri_range_size(run.range) == 0) {
        return;
    }
    struct run *next = &optimizer->runs[optimizer->count];
    if (optimizer->count > 0 && next[-1].segment == run.segment && next[-1].decay == run.decay &&
        next[-1].range.end == run.range.begin) {
        next[-1].range.end = run.range.end;
        return;
    }
    *next = run;
    optimizer->count++;
}

static void add_block(struct tri_optimizer *optimizer, int64_t block)
{
    struct tri_params *params = optimizer->params;
    struct tri_range rows = tri_params_rows(params, block);
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_buffer *buffer = &params->buffer[i];
        for (int64_t p = rows.begin; p < rows.end; p++) {
            const struct tri_param *param = &params->param[p];
            if (param->buffer == i && param->trained) {
                add_run(optimizer, (struct run){buffer, &buffer->segment[param->segment],
                                                tri_param_own(params, param), param->decay});
            }
        }
    }
}

static void allocate_states(struct tri_buffer *buffer, const struct tri_kernels *kernels)
{
    size_t bytes = (size_t)buffer->shard * sizeof(float);
    buffer->m = tri_alloc(TRI_MEMORY_OPTIMIZER, bytes);
    buffer->v = tri_alloc(TRI_MEMORY_OPTIMIZER, bytes);
    if (buffer->dtype == TRI_F32) {
        return;
    }
    buffer->master = tri_alloc(TRI_MEMORY_OPTIMIZER, bytes);
    for (int s = 0; s < buffer->segments; s++) {
        const struct tri_segment *segment = &buffer->segment[s];
        struct tri_range own = segment->own;
        const struct tri_cast_args args = {
            .src = tri_buffer_weights(buffer, own.begin),
            .from = buffer->dtype,
            .dst = buffer->master + tri_segment_place(segment, own.begin),
            .to = TRI_F32,
            .n = tri_range_size(own),
        };
        kernels->cast(kernels, &args);
    }
}

struct tri_optimizer *tri_optimizer_create(const struct tri_config *config,
                                           struct tri_params *params,
                                           const struct tri_kernels *kernels)
{
    struct tri_optimizer *optimizer = tri_alloc(TRI_MEMORY_OTHER, sizeof(*optimizer));
    int64_t tile = config->train.optimizer_tile;
    int64_t widened = 0;
    optimizer->config = config;
    optimizer->params = params;
    optimizer->kernels = kernels;
    optimizer->runs = tri_alloc(TRI_MEMORY_OTHER, (size_t)params->count * sizeof(*optimizer->runs));
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_buffer *buffer = &params->buffer[i];
        if (!buffer->trained) {
            continue;
        }
        allocate_states(buffer, kernels);
        widened += buffer->gradient_dtype != TRI_F32 ? buffer->shard : 0;
    }
    for (int64_t block = -1; block <= params->layers; block++) {
        add_block(optimizer, block);
    }
    optimizer->tile = tile > 0 ? tile : INT64_MAX;
    widened = widened < optimizer->tile ? widened : optimizer->tile;
    optimizer->widened = tri_alloc(TRI_MEMORY_TILES, (size_t)widened * sizeof(float));
    return optimizer;
}

void tri_optimizer_destroy(struct tri_optimizer *optimizer)
{
    if (optimizer) {
        tri_free(optimizer->widened);
        tri_free(optimizer->runs);
        tri_free(optimizer);
    }
}

/* ---- the step -------------------------------------------------------------------------------- */

/* The next elements that one call can treat, at most `most`; the cursor moves past them. */
static struct run take(const struct tri_optimizer *optimizer, struct cursor *cursor, int64_t most)
{
    struct run part = optimizer->runs[cursor->run];
    part.range.begin += cursor->at;
    if (tri_range_size(part.range) > most) {
        part.range.end = part.range.begin + most;
        cursor->at += most;
    } else {
        *cursor = (struct cursor){cursor->run + 1, 0};
    }
    return part;
}

static void widen_tile(const struct tri_optimizer *optimizer, struct cursor cursor)
{
    float *out = optimizer->widened;
    for (int64_t left = optimizer->tile; left > 0 && cursor.run < optimizer->count;) {
        struct run part = take(optimizer, &cursor, left);
        int64_t n = tri_range_size(part.range);
        enum tri_dtype dtype = part.buffer->gradient_dtype;
        const void *gradients = tri_buffer_gradients(part.buffer, part.range.begin);
        if (dtype == TRI_I64) {
            optimizer->kernels->fixed_get(
                optimizer->kernels,
                &(struct tri_fixed_get_args){.sums = gradients, .y = out, .n = n});
        } else if (dtype != TRI_F32) {
            optimizer->kernels->cast(
                optimizer->kernels,
                &(struct tri_cast_args){
                    .src = gradients, .from = dtype, .dst = out, .to = TRI_F32, .n = n});
        }
        out += dtype != TRI_F32 ? n : 0;
        left -= n;
    }
}

static void update(const struct tri_optimizer *optimizer, const struct run *part,
                   const float *gradients, const struct tri_adamw *adamw)
{
    const struct tri_buffer *buffer = part->buffer;
    int64_t place = tri_segment_place(part->segment, part->range.begin);
    void *weights = tri_buffer_weights(buffer, part->range.begin);
    bool own_master = buffer->dtype == TRI_F32;
    struct tri_adamw step = *adamw;
    if (!part->decay) {
        step.weight_decay = 0.0;
    }
    step.n = tri_range_size(part->range);
    step.master = own_master ? weights : buffer->master + place;
    step.m = buffer->m + place;
    step.v = buffer->v + place;
    step.gradient = gradients;
    step.gradient_dtype = TRI_F32;
    step.weights = own_master ? NULL : weights;
    step.weight_dtype = buffer->dtype;
    optimizer->kernels->adamw(optimizer->kernels, &step);
}

/* Updates one tile; returns where the next begins. */
static struct cursor step_tile(const struct tri_optimizer *optimizer, struct cursor cursor,
                               const struct tri_adamw *adamw)
{
    const float *widened = optimizer->widened;
    widen_tile(optimizer, cursor);
    for (int64_t left = optimizer->tile; left > 0 && cursor.run < optimizer->count;) {
        struct run part = take(optimizer, &cursor, left);
        int64_t n = tri_range_size(part.range);
        const float *gradients = tri_buffer_gradients(part.buffer, part.range.begin);
        if (part.buffer->gradient_dtype != TRI_F32) {
            gradients = widened;
            widened += n;
        }
        update(optimizer, &part, gradients, adamw);
        left -= n;
    }
    return cursor;
}

/* What is on its way is refreshed where its gathering ends. */
static void gather_block(const struct tri_optimizer *optimizer, int64_t block)
{
    const struct tri_where where = {TRI_PHASE_OPTIMIZER, TRI_KIND_WEIGHTS};
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_buffer *buffer = &optimizer->params->buffer[i];
        struct tri_segment *segment = tri_buffer_segment(buffer, block);
        if (!segment || !buffer->trained) {
            continue;
        }
        void *weights = tri_buffer_weights(buffer, segment->whole.begin);
        if (optimizer->config->comm_overlap) {
            segment->gathering = tri_all_gather_v_begin(buffer->group, where, weights,
                                                        segment->counts, buffer->dtype);
        } else {
            tri_all_gather_v(buffer->group, where, weights, segment->counts, buffer->dtype);
        }
        if (!segment->gathering) {
            tri_params_refresh(optimizer->params, block, i);
        }
    }
}

/* Whether this rank has updated all that it owns of a block. */
static bool is_done(const struct tri_optimizer *optimizer, struct cursor cursor, int64_t block)
{
    return cursor.run == optimizer->count || optimizer->runs[cursor.run].segment->block > block;
}

void tri_optimizer_step(struct tri_optimizer *optimizer, int64_t update, double learning_rate,
                        double scale)
{
    const struct tri_config_train *train = &optimizer->config->train;
    const struct tri_adamw adamw = {
        .learning_rate = learning_rate,
        .beta1 = train->betas[0],
        .beta2 = train->betas[1],
        .epsilon = train->epsilon,
        .weight_decay = train->weight_decay,
        .correction1 = 1.0 - pow(train->betas[0], (double)update),
        .correction2 = 1.0 - pow(train->betas[1], (double)update),
        .gradient_scale = scale,
    };
    struct cursor cursor = {0, 0};
    int64_t block = -1;
    TRI_REQUIRE(optimizer->params->open == 0);
    tri_params_settle(optimizer->params);
    while (block <= optimizer->params->layers) {
        cursor = step_tile(optimizer, cursor, &adamw);
        while (block <= optimizer->params->layers && is_done(optimizer, cursor, block)) {
            gather_block(optimizer, block++);
        }
    }
}
