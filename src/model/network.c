#include "model/network.h"

#include "model/gradient.h"
#include "model/partial.h"
#include "model/stream.h"

static enum tri_activation activation_of(const struct tri_config *config)
{
    switch (config->model.mlp) {
    case TRI_MLP_SWIGLU:
        return TRI_ACTIVATION_SWIGLU;
    case TRI_MLP_GELU:
        return TRI_ACTIVATION_GELU_TANH;
    case TRI_MLP_GELU_ERF:
        break;
    }
    return TRI_ACTIVATION_GELU_ERF;
}

/* Rows of W_in: 2 * inner when gated. */
static int64_t rows_in(const struct tri_config *config, int64_t inner)
{
    return config->model.mlp == TRI_MLP_SWIGLU ? 2 * inner : inner;
}

struct tri_network tri_network_get(const struct tri_context *context, enum tri_place place,
                                   int64_t layer, int64_t expert)
{
    static const enum tri_role gates[] = {TRI_ROLE_GATE, TRI_ROLE_GATE_BIAS};
    const struct tri_params *params = context->params;
    const struct tri_param *up = tri_params_find(params, TRI_ROLE_UP, place, layer, expert);
    TRI_REQUIRE(up && up->held);
    bool of_expert = place == TRI_PLACE_EXPERT;
    bool whole =
        of_expert && context->config->parallel.expert_tensor < tri_mesh_grid(context->mesh);
    struct tri_virtual shards = of_expert ? context->expert_shards : context->shards;
    struct tri_network network = {
        .inner = tri_range_size(up->opened[0]),
        .hidden = of_expert ? context->config->model.hidden_size : tri_stream_hidden(context),
        .crossed = !of_expert && tri_stream_is_crossed(context),
        .kind = place == TRI_PLACE_SHARED ? TRI_KIND_SHARED_EXPERT : TRI_KIND_MLP,
        .gradient_dtype = params->buffer[up->buffer].gradient_dtype,
        .shards = whole ? (struct tri_virtual){shards.total, 0, shards.total} : shards,
        .inner_extent = up->shape[0],
    };
    bool gated = context->config->model.mlp == TRI_MLP_SWIGLU;
    network.low[TRI_NETWORK_IN] =
        tri_low_rank_get(params, network.shards, gated ? TRI_ROLE_GATE_A : TRI_ROLE_UP_A,
                         gated ? 2 : 1, place, layer, expert);
    network.low[TRI_NETWORK_DOWN] =
        tri_low_rank_get(params, network.shards, TRI_ROLE_DOWN_A, 1, place, layer, expert);
    for (int i = 0; i < 2; i++) {
        /* Gate and up are read as one matrix. */
        const struct tri_param *gate = tri_params_find(params, gates[i], place, layer, expert);
        network.part[i ? TRI_NETWORK_IN_BIAS : TRI_NETWORK_IN] =
            gate ? tri_span_make(params, gate, 2)
                 : tri_span_find(params, gates[i] + 1, place, layer, expert);
        network.part[i ? TRI_NETWORK_DOWN_BIAS : TRI_NETWORK_DOWN] =
            tri_span_find(params, gates[i] + 2, place, layer, expert);
    }
    return network;
}

/* Element `at` of an array of the activation dtype. */
static void *at(const struct tri_context *context, const void *base, int64_t element)
{
    return (char *)(uintptr_t)base + (size_t)element * tri_dtype_size(context->dt);
}

static struct tri_matmul *take_products(const struct tri_frame *frame, int64_t count)
{
    return tri_arena_alloc(frame->arena, (size_t)count * sizeof(struct tri_matmul));
}

/* Networks, each with its rows of a tensor. */
struct batch {
    const struct tri_frame *frame;
    const struct tri_network *networks;
    int64_t count;
    const int64_t *offsets;
    const struct batch *group; /* all of them, where these are some; or NULL */
};

static struct batch group_of(const struct tri_frame *frame, const struct tri_network_group *group)
{
    return group ? (struct batch){frame, group->networks, group->count, group->offsets, NULL}
                 : (struct batch){0};
}

static int64_t rows_of(const struct batch *b, int64_t i)
{
    return b->offsets[i + 1] - b->offsets[i];
}

/* Networks without rows are left alone, but for what all ranks of depth open together. */
static bool is_opened(const struct batch *b, enum tri_network_part part, int64_t i)
{
    return rows_of(b, i) > 0 || tri_span_is_parted(b->networks[i].part[part]);
}

/* Opens a part of each network that has rows; NULL of the others. */
static void open_weights(const struct batch *b, enum tri_network_part part, enum tri_use use,
                         const void **weights)
{
    for (int64_t i = 0; i < b->count; i++) {
        weights[i] = is_opened(b, part, i) ? tri_weights_open(b->frame->context->params,
                                                              b->networks[i].part[part], use)
                                           : NULL;
    }
}

static void close_weights(const struct batch *b, enum tri_network_part part,
                          const void *const *weights)
{
    for (int64_t i = 0; i < b->count; i++) {
        if (is_opened(b, part, i)) {
            tri_weights_close(b->frame->context->params, b->networks[i].part[part], weights[i]);
        }
    }
}

/* Whether a part of a network has a gradient in this call. */
static bool has_gradient(const struct batch *b, enum tri_network_part part, int64_t i)
{
    return is_opened(b, part, i) && tri_span_is_trained(b->networks[i].part[part]);
}

/* Says of each product what its group is. gradients: of those that are trained. */
static void tell_group(const struct batch *b, enum tri_network_part part, bool gradients,
                       struct tri_matmul *products, int64_t count)
{
    const struct batch *group = b->group;
    int64_t networks = 0;
    int64_t rows = 0;
    for (int64_t i = 0; group && i < group->count; i++) {
        if (gradients ? has_gradient(group, part, i) : rows_of(group, i) > 0) {
            networks++;
            rows += rows_of(group, i);
        }
    }
    for (int64_t i = 0; i < count; i++) {
        struct tri_matmul *p = &products[i];
        p->group = networks;
        p->group_work = (double)rows * (double)p->n * (double)(gradients ? p->m : p->k);
    }
}

static void run_products(const struct batch *b, const struct tri_matmul *products, int64_t count)
{
    tri_mesh_progress(b->frame->context->mesh);
    if (count > 0) {
        const struct tri_kernels *kernels = b->frame->context->kernels;
        kernels->matmul_grouped(kernels, products, count);
    }
}

/* y[rows, n] = x[rows, k] w^T (or x w when !transposed), one product a network with rows. */
static void rows_product(const struct batch *b, int64_t n, int64_t k, const void *x,
                         const void *const *weights, const void *const *biases, bool transposed,
                         void *y)
{
    const struct tri_context *context = b->frame->context;
    struct tri_matmul *products = take_products(b->frame, b->count);
    int64_t used = 0;
    for (int64_t i = 0; i < b->count; i++) {
        if (rows_of(b, i) == 0) {
            continue;
        }
        products[used++] = (struct tri_matmul){
            .m = rows_of(b, i),
            .n = n,
            .k = k,
            .a = at(context, x, b->offsets[i] * k),
            .b = weights[i],
            .c = at(context, y, b->offsets[i] * n),
            .lda = k,
            .ldb = transposed ? k : n,
            .ldc = n,
            .ab_dtype = context->dt,
            .c_dtype = context->dt,
            .b_transposed = transposed,
            .bias = biases ? biases[i] : NULL,
        };
    }
    tell_group(b, TRI_NETWORK_IN, false, products, used);
    run_products(b, products, used);
}

/* dw[m, n] (+)= dy[rows, m]^T x[rows, n], one product a network with rows whose part is trained;
 * gradients: room for one address each. */
static void weight_gradients(const struct batch *b, enum tri_network_part part,
                             const struct tri_cuts *cuts, int64_t m, int64_t n, const void *dy,
                             const void *x, void **gradients)
{
    const struct tri_context *context = b->frame->context;
    struct tri_matmul *products = take_products(b->frame, b->count);
    int64_t used = 0;
    for (int64_t i = 0; i < b->count; i++) {
        bool first;
        if (!has_gradient(b, part, i)) {
            continue;
        }
        gradients[i] = tri_gradients_open(context->params, b->networks[i].part[part], &first);
        products[used++] = (struct tri_matmul){
            .m = m,
            .n = n,
            .k = rows_of(b, i),
            .a = at(context, dy, b->offsets[i] * m),
            .b = at(context, x, b->offsets[i] * n),
            .c = gradients[i],
            .lda = m,
            .ldb = n,
            .ldc = n,
            .ab_dtype = context->dt,
            .c_dtype = b->networks[i].gradient_dtype,
            .a_transposed = true,
            .accumulate = !first,
            .fixed = &context->params->fixed,
            .cuts = cuts[i].cut,
            .parts = cuts[i].parts,
        };
    }
    tell_group(b, part, true, products, used);
    run_products(b, products, used);
    for (int64_t i = 0; i < b->count; i++) {
        if (has_gradient(b, part, i)) {
            tri_gradients_close(context->params, b->networks[i].part[part], gradients[i]);
        }
    }
}

/* y [rows, out] sum_dt = x [rows, in] w^T (or x w) and more, where tensor cuts `in`, which is
 * `blocks` inner sizes. */
static void partial_product(const struct batch *b, int64_t out, int blocks, const void *x,
                            const void *const *weights, bool transposed,
                            struct tri_partial_more more, void *y)
{
    const struct tri_network *network = &b->networks[0];
    const struct tri_block inner = {network->inner_extent, 1};
    const struct tri_block block[2] = {inner, inner};
    const struct tri_partial_products products = {
        .count = b->count,
        .offsets = b->offsets,
        .out = out,
        .in = blocks * network->inner,
        .x = x,
        .dtype = b->frame->context->dt,
        .weights = weights,
        .transposed = transposed,
        .shards = network->shards,
        .block = block,
        .blocks = blocks,
        .more = more,
    };
    tri_partial_products(b->frame, &products, y);
}

/* The low-rank pairs of a part of all networks. */
static struct tri_low_batch low_of(const struct batch *b, enum tri_network_part part)
{
    struct tri_low_batch low = {
        .frame = b->frame,
        .count = b->count,
        .offsets = b->offsets,
        .low = &b->networks[0].low[part],
        .stride = sizeof(*b->networks),
    };
    if (b->group && low.low->parts > 0) {
        struct tri_low_batch *group = tri_arena_alloc(b->frame->arena, sizeof(*group));
        *group = low_of(b->group, part);
        low.group = group;
    }
    return low;
}

/* One matrix and bias of each network. */
struct matrices {
    const void **weights, **biases;
};

static struct matrices take_matrices(const struct batch *b)
{
    size_t n = (size_t)b->count;
    struct matrices m = {
        tri_arena_alloc(b->frame->arena, n * sizeof(*m.weights)),
        tri_arena_alloc(b->frame->arena, n * sizeof(*m.biases)),
    };
    return m;
}

/* pre [rows, in_rows] = x W_in^T and the bias. */
static void product_in(const struct batch *b, int64_t in_rows, const void *x, void *pre)
{
    const struct tri_context *context = b->frame->context;
    const struct tri_network *network = &b->networks[0];
    bool adds = !network->crossed || context->mesh->coord[TRI_AXIS_CROSS] == 0;
    struct matrices in = take_matrices(b);
    open_weights(b, TRI_NETWORK_IN, TRI_USE_FORWARD, in.weights);
    open_weights(b, TRI_NETWORK_IN_BIAS, TRI_USE_FORWARD, in.biases);
    rows_product(b, in_rows, network->hidden, x, in.weights, adds ? in.biases : NULL, true, pre);
    close_weights(b, TRI_NETWORK_IN_BIAS, in.biases);
    close_weights(b, TRI_NETWORK_IN, in.weights);
    if (network->crossed) {
        tri_cross_sum(context, (struct tri_where){b->frame->part.phase, network->kind}, pre,
                      b->offsets[b->count] * in_rows, context->dt);
    }
}

void tri_networks_forward(const struct tri_frame *frame, const struct tri_network *networks,
                          int64_t count, const int64_t *offsets,
                          const struct tri_network_group *group, const void *x,
                          struct tri_network_saved *saved)
{
    const struct tri_context *context = frame->context;
    const struct batch all = group_of(frame, group);
    const struct batch b = {frame, networks, count, offsets, group ? &all : NULL};
    int64_t rows = offsets[count];
    int64_t inner = networks[0].inner;
    int64_t in_rows = rows_in(context->config, inner);
    saved->x = x;
    bool filled = false;
    saved->pre = networks->crossed
                     ? tri_keep_result(frame, tri_mesh_group(context->mesh, TRI_ON_CROSS),
                                       rows * in_rows, context->dt, &filled)
                     : tri_frame_take(frame, rows * in_rows);
    saved->act = tri_frame_take(frame, rows * inner);
    const struct tri_low_batch low_in = low_of(&b, TRI_NETWORK_IN);
    const struct tri_low_batch low_down = low_of(&b, TRI_NETWORK_DOWN);
    saved->low[TRI_NETWORK_IN] = tri_low_rank_down(&low_in, x);
    size_t mark = tri_arena_mark(frame->arena);
    if (!filled) {
        product_in(&b, in_rows, x, saved->pre);
    }
    tri_low_rank_up(&low_in, saved->low[TRI_NETWORK_IN], saved->pre);
    const struct tri_activation_args args = {
        .kind = activation_of(context->config),
        .in = saved->pre,
        .out = saved->act,
        .n = rows,
        .width = inner,
        .dt = context->dt,
    };
    context->kernels->activation_forward(context->kernels, &args);
    tri_arena_rewind(frame->arena, mark);
    saved->low[TRI_NETWORK_DOWN] = tri_low_rank_down(&low_down, saved->act);
}

void tri_networks_output(const struct tri_frame *frame, const struct tri_network *networks,
                         int64_t count, const int64_t *offsets,
                         const struct tri_network_group *group,
                         const struct tri_network_saved *saved, void *y, bool with_down_bias)
{
    const struct tri_context *context = frame->context;
    const struct batch all = group_of(frame, group);
    const struct batch b = {frame, networks, count, offsets, group ? &all : NULL};
    size_t mark = tri_arena_mark(frame->arena);
    struct matrices down = take_matrices(&b);
    int64_t hidden = networks[0].hidden;
    const struct tri_low_batch low = low_of(&b, TRI_NETWORK_DOWN);
    const struct tri_low_sum sum = {&low, saved->low[TRI_NETWORK_DOWN]};
    const struct tri_partial_more more = tri_low_rank_up_more(&sum);
    open_weights(&b, TRI_NETWORK_DOWN, TRI_USE_FORWARD, down.weights);
    if (context->reproducible) {
        partial_product(&b, hidden, 1, saved->act, down.weights, true, more, y);
    } else if (with_down_bias) {
        open_weights(&b, TRI_NETWORK_DOWN_BIAS, TRI_USE_FORWARD, down.biases);
        rows_product(&b, hidden, networks[0].inner, saved->act, down.weights, down.biases, true, y);
        close_weights(&b, TRI_NETWORK_DOWN_BIAS, down.biases);
    } else {
        rows_product(&b, hidden, networks[0].inner, saved->act, down.weights, NULL, true, y);
    }
    close_weights(&b, TRI_NETWORK_DOWN, down.weights);
    if (!context->reproducible) {
        tri_partial_add_more(more, 0, y);
    }
    tri_arena_rewind(frame->arena, mark);
}

void tri_networks_add_down_bias(const struct tri_context *context,
                                const struct tri_network *networks, int64_t count,
                                const int64_t *offsets, void *y)
{
    int64_t hidden = context->config->model.hidden_size;
    for (int64_t i = 0; i < count; i++) {
        const struct tri_span bias = networks[i].part[TRI_NETWORK_DOWN_BIAS];
        int64_t rows = offsets[i + 1] - offsets[i];
        if (bias.row && rows > 0) {
            const void *weights = tri_weights_open(context->params, bias, TRI_USE_FORWARD);
            const struct tri_bias_args args = {
                .y = at(context, y, offsets[i] * hidden),
                .bias = weights,
                .n = rows,
                .width = hidden,
                .dt = context->dt,
            };
            context->kernels->add_bias(context->kernels, &args);
            tri_weights_close(context->params, bias, weights);
        }
    }
}

/* Column sums of dy, one a network. */
static void bias_gradients(const struct batch *b, enum tri_network_part part,
                           const struct tri_cuts *cuts, int64_t width, const void *dy)
{
    const struct tri_context *context = b->frame->context;
    for (int64_t i = 0; i < b->count; i++) {
        const struct tri_span bias = b->networks[i].part[part];
        if (has_gradient(b, part, i)) {
            void *gradients = tri_gradients_open_sum(context->params, bias);
            tri_gradient_bias(b->frame, cuts[i], at(context, dy, b->offsets[i] * width), width,
                              gradients, rows_of(b, i), width);
            tri_gradients_close(context->params, bias, gradients);
        }
    }
}

/* A sum over tensor of dx, begun as soon as it is there. */
struct summing {
    struct tri_where where;
    struct tri_request *request;
};

/* summing: NULL where dx is nobody's but the caller's. */
static void backward(const struct batch *batch, const struct tri_cuts *cuts,
                     const struct tri_network_saved *saved, const void *dy, void *dx,
                     struct summing *summing)
{
    const struct batch b = *batch;
    const struct tri_frame *frame = b.frame;
    const struct tri_network *networks = b.networks;
    const struct tri_context *context = frame->context;
    int64_t count = b.count;
    int64_t rows = b.offsets[count];
    int64_t hidden = networks[0].hidden;
    int64_t inner = networks[0].inner;
    int64_t in_rows = rows_in(context->config, inner);
    size_t mark = tri_arena_mark(frame->arena);
    void *d_act = tri_frame_take(frame, rows * inner);
    void *d_pre = tri_frame_take(frame, rows * in_rows);
    const void **weights = tri_arena_alloc(frame->arena, (size_t)count * sizeof(*weights));
    void **gradients = tri_arena_alloc(frame->arena, (size_t)count * sizeof(*gradients));
    open_weights(&b, TRI_NETWORK_DOWN, TRI_USE_BACKWARD, weights);
    rows_product(&b, inner, hidden, dy, weights, NULL, false, d_act);
    close_weights(&b, TRI_NETWORK_DOWN, weights);
    struct tri_request *crossing = NULL;
    if (networks->crossed) {
        crossing =
            tri_cross_sum_begin(context, (struct tri_where){TRI_PHASE_BACKWARD, networks->kind},
                                d_act, rows * inner, context->dt);
    }
    weight_gradients(&b, TRI_NETWORK_DOWN, cuts, hidden, inner, dy, saved->act, gradients);
    tri_request_end(crossing);
    const struct tri_low_batch low_in = low_of(&b, TRI_NETWORK_IN);
    const struct tri_low_batch low_down = low_of(&b, TRI_NETWORK_DOWN);
    tri_low_rank_input_gradient(
        &low_down,
        tri_low_rank_backward(&low_down, cuts, saved->act, saved->low[TRI_NETWORK_DOWN], dy),
        d_act);
    const struct tri_activation_args args = {
        .kind = activation_of(context->config),
        .in = saved->pre,
        .dout = d_act,
        .din = d_pre,
        .n = rows,
        .width = inner,
        .dt = context->dt,
    };
    context->kernels->activation_backward(context->kernels, &args);
    const struct tri_low_sum sum = {
        &low_in, tri_low_rank_backward(&low_in, cuts, saved->x, saved->low[TRI_NETWORK_IN], d_pre)};
    const struct tri_partial_more more = tri_low_rank_input_more(&sum);
    open_weights(&b, TRI_NETWORK_IN, TRI_USE_BACKWARD, weights);
    if (context->reproducible) {
        partial_product(&b, hidden, (int)rows_in(context->config, 1), d_pre, weights, false, more,
                        dx);
    } else {
        rows_product(&b, hidden, in_rows, d_pre, weights, NULL, false, dx);
        tri_partial_add_more(more, 0, dx);
    }
    close_weights(&b, TRI_NETWORK_IN, weights);
    if (summing) {
        summing->request = tri_stream_sum_begin(frame, summing->where, dx, context->sum_dt);
    }
    weight_gradients(&b, TRI_NETWORK_IN, cuts, in_rows, hidden, d_pre, saved->x, gradients);
    bias_gradients(&b, TRI_NETWORK_IN_BIAS, cuts, in_rows, d_pre);
    if (!networks[0].crossed) {
        bias_gradients(&b, TRI_NETWORK_DOWN_BIAS, cuts, hidden, dy);
    }
    tri_arena_rewind(frame->arena, mark);
}

void tri_networks_backward(const struct tri_frame *frame, const struct tri_network *networks,
                           int64_t count, const int64_t *offsets,
                           const struct tri_network_group *group, const struct tri_cuts *cuts,
                           const struct tri_network_saved *saved, const void *dy, void *dx)
{
    const struct batch all = group_of(frame, group);
    const struct batch b = {frame, networks, count, offsets, group ? &all : NULL};
    backward(&b, cuts, saved, dy, dx, NULL);
}

void tri_network_backward(const struct tri_frame *frame, const struct tri_network *network,
                          const struct tri_network_saved *saved, const void *dy, void *dx)
{
    const struct tri_context *context = frame->context;
    const int64_t own[2] = {0, tri_stream_count(frame)};
    const int64_t offsets[2] = {0, tri_pass_tokens(&frame->part)};
    const struct tri_cuts none = {NULL, 0};
    const struct batch of_stream = {frame, network, 1, own, NULL};
    const struct batch b = {frame, network, 1, offsets, NULL};
    struct summing summing = {{TRI_PHASE_BACKWARD, network->kind}, NULL};
    size_t mark = tri_arena_mark(frame->arena);
    if (network->crossed) { /* of whole rows */
        bias_gradients(&of_stream, TRI_NETWORK_DOWN_BIAS, &none, context->config->model.hidden_size,
                       dy);
    }
    dy = tri_stream_whole_gradient(frame, summing.where, dy);
    void *partial = tri_stream_partial(frame, dx, context->sum_dt);
    const struct tri_cuts cuts = tri_cuts_by_rows(frame, frame->part.rows, frame->part.seq);
    backward(&b, &cuts, saved, dy, partial, &summing);
    tri_stream_sum_end(frame, summing.where, summing.request, partial, context->sum_dt, dx);
    tri_arena_rewind(frame->arena, mark);
}
