#include "moe/shared_expert.h"

#include "model/gradient.h"
#include "model/stream.h"

#include <math.h>

enum { LOOP_PIECE = 1024 };

struct tri_shared_expert {
    const struct tri_context *context;
    struct tri_network network;
    struct tri_linear gate; /* [1, hidden] f32; of no rows where there is no gate */
};

struct tri_shared_expert *tri_shared_expert_create(const struct tri_context *context, int64_t layer)
{
    if (!context->config->moe.shared_intermediate_size) {
        return NULL;
    }
    struct tri_shared_expert *shared = tri_alloc(TRI_MEMORY_OTHER, sizeof(*shared));
    shared->context = context;
    shared->network = tri_network_get(context, TRI_PLACE_SHARED, layer, -1);
    const struct tri_span gate =
        tri_span_find(context->params, TRI_ROLE_SHARED_GATE, TRI_PLACE_DENSE, layer, -1);
    shared->gate = tri_linear_get(context->params, gate, 1, context->config->model.hidden_size);
    return shared;
}

void tri_shared_expert_destroy(struct tri_shared_expert *shared)
{
    tri_free(shared);
}

/* x as f32: itself, or a copy in the arena. */
static const float *as_f32(const struct tri_frame *frame, const void *x, int64_t n)
{
    const struct tri_context *context = frame->context;
    if (context->dt == TRI_F32) {
        return x;
    }
    float *copy = tri_frame_take_f32(frame, n);
    context->kernels->cast(
        context->kernels,
        &(struct tri_cast_args){.src = x, .from = context->dt, .dst = copy, .to = TRI_F32, .n = n});
    return copy;
}

static void open_wide(void *state, int64_t begin, int64_t end)
{
    float *opening = state;
    for (int64_t i = begin; i < end; i++) {
        opening[i] = 1.0F;
    }
}

static void take_sigmoids(void *state, int64_t begin, int64_t end)
{
    float *opening = state;
    for (int64_t i = begin; i < end; i++) {
        opening[i] = (float)(1.0 / (1.0 + exp(-(double)opening[i])));
    }
}

static void open_gate(const struct tri_shared_expert *shared, const struct tri_frame *frame,
                      struct tri_shared_kept *kept, const void *x, int64_t n)
{
    const struct tri_context *context = shared->context;
    int64_t hidden = context->config->model.hidden_size;
    struct tri_loop_args loop = {
        .n = n, .piece = LOOP_PIECE, .run = open_wide, .state = kept->opening};
    if (!shared->gate.rows.row) {
        context->kernels->loop(context->kernels, &loop);
        return;
    }
    size_t mark = tri_arena_mark(frame->arena);
    const struct tri_linear gate = tri_linear_open(context->params, &shared->gate, TRI_USE_FORWARD);
    tri_linear_forward(&gate, context->kernels, n, as_f32(frame, x, n * hidden), NULL,
                       kept->opening, TRI_F32);
    tri_linear_close(context->params, &gate);
    loop.run = take_sigmoids;
    context->kernels->loop(context->kernels, &loop);
    tri_arena_rewind(frame->arena, mark);
}

/* kept->out; only the gate's backward reads it. */
static void make_output(const struct tri_shared_expert *shared, const struct tri_frame *frame,
                        struct tri_shared_kept *kept)
{
    const struct tri_pass *pass = &frame->part;
    const struct tri_context *context = shared->context;
    int64_t hidden = context->config->model.hidden_size;
    int64_t offsets[2] = {0, tri_pass_tokens(pass)};
    int64_t own[2] = {0, tri_stream_count(frame)};
    bool whole = tri_sum_is_whole(context);
    bool filled = false;
    /* Without a gate no backward reads it, so no recompute asks for it. */
    kept->out = shared->gate.rows.row ? tri_keep_result(frame, tri_stream_group(context),
                                                        own[1] * hidden, context->dt, &filled)
                                      : tri_frame_take(frame, own[1] * hidden);
    if (filled) {
        return;
    }
    size_t mark = tri_arena_mark(frame->arena);
    void *partial = tri_stream_partial(frame, kept->out, context->sum_dt);
    tri_networks_output(frame, &shared->network, 1, offsets, NULL, &kept->saved, partial, whole);
    if (!whole) {
        tri_stream_sum(frame, (struct tri_where){pass->phase, TRI_KIND_SHARED_EXPERT}, partial,
                       context->sum_dt, kept->out);
        tri_networks_add_down_bias(context, &shared->network, 1, own, kept->out);
    }
    tri_arena_rewind(frame->arena, mark);
}

void tri_shared_expert_forward(const struct tri_shared_expert *shared,
                               const struct tri_frame *frame, struct tri_shared_kept *kept,
                               const void *x, void *y)
{
    const struct tri_pass *pass = &frame->part;
    const struct tri_context *context = shared->context;
    int64_t n = tri_stream_count(frame);
    int64_t offsets[2] = {0, tri_pass_tokens(pass)};
    kept->x = x;
    x = tri_stream_whole(frame, (struct tri_where){pass->phase, TRI_KIND_SHARED_EXPERT}, x);
    tri_networks_forward(frame, &shared->network, 1, offsets, NULL, x, &kept->saved);
    if (y || shared->gate.rows.row) {
        make_output(shared, frame, kept);
    }
    kept->opening = tri_frame_take_f32(frame, n);
    open_gate(shared, frame, kept, kept->x, n);
    if (y) {
        const struct tri_scale_args args = {
            .x = kept->out,
            .gate = kept->opening,
            .add = y,
            .y = y,
            .n = n,
            .width = context->config->model.hidden_size,
            .dt = context->dt,
        };
        context->kernels->scale_rows_add(context->kernels, &args);
    }
}

struct slopes {
    float *slope;
    const float *opening;
};

static void slope_down(void *state, int64_t begin, int64_t end)
{
    const struct slopes *s = state;
    for (int64_t i = begin; i < end; i++) {
        s->slope[i] *= s->opening[i] * (1.0F - s->opening[i]);
    }
}

/* Through opening = sigmoid(x . gate): slope[t] = dL/d(x . gate); d_gate += slope^T x; dx += slope
 * gate. */
static void gate_backward(const struct tri_shared_expert *shared, const struct tri_frame *frame,
                          const struct tri_shared_kept *kept, const void *dy, void *dx)
{
    const struct tri_context *context = shared->context;
    int64_t hidden = context->config->model.hidden_size;
    struct tri_range stream = tri_stream_tokens(frame);
    int64_t n = tri_range_size(stream);
    float *slope = tri_frame_take_f32(frame, n);
    const struct tri_dots_args args = {
        .left = dy,
        .right = kept->out,
        .dots = slope,
        .n = n,
        .width = hidden,
        .dt = context->dt,
    };
    context->kernels->row_dots(context->kernels, &args);
    struct slopes slopes = {slope, kept->opening};
    context->kernels->loop(
        context->kernels,
        &(struct tri_loop_args){.n = n, .piece = LOOP_PIECE, .run = slope_down, .state = &slopes});
    const struct tri_linear open =
        tri_linear_open(context->params, &shared->gate, TRI_USE_BACKWARD);
    tri_linear_weight_gradient(&open, context->kernels, n, slope,
                               as_f32(frame, kept->x, n * hidden),
                               tri_cuts_by_tokens(frame, stream));
    const void *gate = open.weight;
    if (context->dt != TRI_F32) {
        void *narrow = tri_frame_take(frame, hidden);
        context->kernels->cast(
            context->kernels,
            &(struct tri_cast_args){
                .src = gate, .from = TRI_F32, .dst = narrow, .to = context->dt, .n = hidden});
        gate = narrow;
    }
    /* Each row of dx takes slope[t] times the one row `gate`. */
    int32_t *same = tri_arena_alloc(frame->arena, (size_t)n * sizeof(*same));
    tri_context_zero(context, same, (size_t)n * sizeof(*same));
    const struct tri_combine_args spread = {
        .rows = gate,
        .index = same,
        .weight = slope,
        .add = dx,
        .y = dx,
        .n = n,
        .k = 1,
        .width = hidden,
        .dt = context->dt,
    };
    context->kernels->combine_rows(context->kernels, &spread);
    tri_linear_close(context->params, &open);
}

void tri_shared_expert_backward(const struct tri_shared_expert *shared,
                                const struct tri_frame *frame, const struct tri_shared_kept *kept,
                                const void *dy, void *dx)
{
    const struct tri_context *context = shared->context;
    int64_t n = tri_stream_count(frame);
    int64_t hidden = context->config->model.hidden_size;
    size_t mark = tri_arena_mark(frame->arena);
    void *d_out = tri_frame_take(frame, n * hidden);
    void *d_in = tri_frame_take(frame, n * hidden);
    tri_context_zero(context, d_out, (size_t)(n * hidden) * tri_dtype_size(context->dt));
    const struct tri_scale_args args = {
        .x = dy,
        .gate = kept->opening,
        .add = d_out,
        .y = d_out,
        .n = n,
        .width = hidden,
        .dt = context->dt,
    };
    context->kernels->scale_rows_add(context->kernels, &args);
    tri_network_backward(frame, &shared->network, &kept->saved, d_out, d_in);
    context->kernels->add(
        context->kernels,
        &(struct tri_add_args){
            .left = dx, .right = d_in, .y = dx, .n = n * hidden, .dt = context->dt});
    if (shared->gate.rows.row) {
        gate_backward(shared, frame, kept, dy, dx);
    }
    tri_arena_rewind(frame->arena, mark);
}
