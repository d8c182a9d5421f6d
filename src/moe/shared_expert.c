#include "moe/shared_expert.h"

#include "model/gradient.h"
#include "model/stream.h"

#include <math.h>

struct tri_shared_expert {
    const struct tri_context *context;
    struct tri_network network;
    struct tri_linear gate; /* [1, hidden] f32; without a weight where there is no gate */
    /* kept for the backward */
    struct tri_network_saved saved;
    const void *x;  /* [stream tokens, hidden], borrowed */
    void *out;      /* [stream tokens, hidden] the expert's output, before the gate */
    float *opening; /* [stream tokens] sigmoid of the gate; 1 without one */
};

struct tri_shared_expert *tri_shared_expert_create(const struct tri_context *context, int64_t layer)
{
    if (!context->config->moe.shared_intermediate_size) {
        return NULL;
    }
    struct tri_shared_expert *shared = tri_alloc(TRI_MEMORY_OTHER, sizeof(*shared));
    shared->context = context;
    shared->network = tri_network_get(context, TRI_PLACE_SHARED, layer, -1);
    const struct tri_param *gate =
        tri_params_find(context->params, TRI_ROLE_SHARED_GATE, TRI_PLACE_DENSE, layer, -1);
    if (gate) {
        shared->gate = tri_linear_get(context->params, gate, 1, gate->shape[1]);
    }
    return shared;
}

void tri_shared_expert_destroy(struct tri_shared_expert *shared)
{
    tri_free(shared);
}

/* x as f32: itself, or a copy in the arena. */
static const float *as_f32(const struct tri_context *context, const void *x, int64_t n)
{
    if (context->dt == TRI_F32) {
        return x;
    }
    float *copy = tri_context_take_f32(context, n);
    context->kernels->cast(x, context->dt, copy, TRI_F32, n);
    return copy;
}

static void open_gate(struct tri_shared_expert *shared, const void *x, int64_t n)
{
    const struct tri_context *context = shared->context;
    int64_t hidden = context->config->model.hidden_size;
    if (!shared->gate.weight) {
        for (int64_t i = 0; i < n; i++) {
            shared->opening[i] = 1.0F;
        }
        return;
    }
    size_t mark = tri_arena_mark(context->arena);
    tri_linear_forward(&shared->gate, context->kernels, n, as_f32(context, x, n * hidden), NULL,
                       shared->opening, TRI_F32);
    for (int64_t i = 0; i < n; i++) {
        shared->opening[i] = (float)(1.0 / (1.0 + exp(-(double)shared->opening[i])));
    }
    tri_arena_rewind(context->arena, mark);
}

/* shared->out; only the gate's backward reads it. */
static void make_output(struct tri_shared_expert *shared, const struct tri_pass *pass)
{
    const struct tri_context *context = shared->context;
    struct tri_group *tensor = context->mesh->tensor;
    int64_t hidden = context->config->model.hidden_size;
    int64_t offsets[2] = {0, tri_pass_tokens(pass)};
    int64_t own[2] = {0, tri_stream_count(context, pass)};
    bool whole = tri_sum_is_whole(context);
    bool filled = false;
    /* Without a gate no backward reads it, so no recompute asks for it. */
    shared->out = shared->gate.weight
                      ? tri_keep_result(context, tensor, own[1] * hidden, context->dt, &filled)
                      : tri_context_take(context, own[1] * hidden);
    if (filled) {
        return;
    }
    size_t mark = tri_arena_mark(context->arena);
    void *partial = tri_stream_partial(context, pass, shared->out, context->sum_dt);
    tri_networks_output(context, &shared->network, 1, offsets, &shared->saved, partial, whole);
    if (!whole) {
        tri_stream_sum(context, pass, (struct tri_where){pass->phase, TRI_KIND_SHARED_EXPERT},
                       partial, context->sum_dt, shared->out);
        tri_networks_add_down_bias(context, &shared->network, 1, own, shared->out);
    }
    tri_arena_rewind(context->arena, mark);
}

void tri_shared_expert_forward(struct tri_shared_expert *shared, const struct tri_pass *pass,
                               const void *x, void *y)
{
    const struct tri_context *context = shared->context;
    int64_t n = tri_stream_count(context, pass);
    int64_t offsets[2] = {0, tri_pass_tokens(pass)};
    shared->x = x;
    x = tri_stream_whole(context, pass, (struct tri_where){pass->phase, TRI_KIND_SHARED_EXPERT}, x);
    tri_networks_forward(context, &shared->network, 1, offsets, x, &shared->saved);
    if (y || shared->gate.weight) {
        make_output(shared, pass);
    }
    shared->opening = tri_context_take_f32(context, n);
    open_gate(shared, shared->x, n);
    if (y) {
        context->kernels->scale_rows_add(shared->out, shared->opening, y, y, n,
                                         context->config->model.hidden_size, context->dt);
    }
}

/* Through opening = sigmoid(x . gate): slope[t] = dL/d(x . gate); d_gate += slope^T x; dx += slope
 * gate. */
static void gate_backward(struct tri_shared_expert *shared, const struct tri_pass *pass,
                          const void *dy, void *dx)
{
    const struct tri_context *context = shared->context;
    int64_t hidden = context->config->model.hidden_size;
    struct tri_range stream = tri_stream_tokens(context, pass);
    int64_t n = tri_range_size(stream);
    float *slope = tri_context_take_f32(context, n);
    context->kernels->row_dots(dy, shared->out, slope, n, hidden, context->dt);
    for (int64_t i = 0; i < n; i++) {
        slope[i] *= shared->opening[i] * (1.0F - shared->opening[i]);
    }
    tri_linear_weight_gradient(&shared->gate, context->kernels, n, slope,
                               as_f32(context, shared->x, n * hidden), true,
                               tri_cuts_by_tokens(context, pass, stream));
    const void *gate = shared->gate.weight;
    if (context->dt != TRI_F32) {
        void *narrow = tri_context_take(context, hidden);
        context->kernels->cast(gate, TRI_F32, narrow, context->dt, hidden);
        gate = narrow;
    }
    /* Each row of dx takes slope[t] times the one row `gate`. */
    int32_t *same = tri_arena_alloc(context->arena, (size_t)n * sizeof(*same));
    tri_context_zero(context, same, (size_t)n * sizeof(*same));
    context->kernels->combine_rows(gate, same, slope, dx, dx, n, 1, hidden, context->dt);
}

void tri_shared_expert_backward(struct tri_shared_expert *shared, const struct tri_pass *pass,
                                const void *dy, void *dx)
{
    const struct tri_context *context = shared->context;
    const struct tri_where where = {TRI_PHASE_BACKWARD, TRI_KIND_SHARED_EXPERT};
    int64_t n = tri_stream_count(context, pass);
    int64_t hidden = context->config->model.hidden_size;
    int64_t offsets[2] = {0, tri_pass_tokens(pass)};
    size_t mark = tri_arena_mark(context->arena);
    void *d_out = tri_context_take(context, n * hidden);
    void *d_in = tri_context_take(context, n * hidden);
    tri_context_zero(context, d_out, (size_t)(n * hidden) * tri_dtype_size(context->dt));
    context->kernels->scale_rows_add(dy, shared->opening, d_out, d_out, n, hidden, context->dt);
    const void *d_whole = tri_stream_whole_gradient(context, pass, where, d_out);
    void *partial = tri_stream_partial(context, pass, d_in, context->sum_dt);
    const struct tri_cuts cuts = tri_cuts_by_rows(context, pass);
    tri_networks_backward(context, &shared->network, 1, offsets, &cuts, &shared->saved, d_whole,
                          partial);
    tri_stream_sum(context, pass, where, partial, context->sum_dt, d_in);
    context->kernels->add(dx, d_in, dx, n * hidden, context->dt);
    if (shared->gate.weight) {
        gate_backward(shared, pass, dy, dx);
    }
    tri_arena_rewind(context->arena, mark);
}
