#include "model/network.h"

#include "model/gradient.h"
#include "model/partial.h"

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
    const struct tri_params *params = context->params;
    const struct tri_param *up = tri_params_find(params, TRI_ROLE_UP, place, layer, expert);
    const struct tri_param *gate = tri_params_find(params, TRI_ROLE_GATE, place, layer, expert);
    const struct tri_param *down = tri_params_find(params, TRI_ROLE_DOWN, place, layer, expert);
    const struct tri_param *up_bias =
        tri_params_find(params, TRI_ROLE_UP_BIAS, place, layer, expert);
    const struct tri_param *gate_bias =
        tri_params_find(params, TRI_ROLE_GATE_BIAS, place, layer, expert);
    const struct tri_param *down_bias =
        tri_params_find(params, TRI_ROLE_DOWN_BIAS, place, layer, expert);
    const struct tri_param *in = gate ? gate : up;
    const struct tri_param *in_bias = gate_bias ? gate_bias : up_bias;
    TRI_REQUIRE(up && down && up->held);
    /* Gate and up are read as one matrix: the table keeps them together. */
    TRI_REQUIRE(!gate || gate->offset + gate->count == up->offset);
    bool whole = place == TRI_PLACE_EXPERT &&
                 context->config->parallel.expert_tensor < context->mesh->size[TRI_AXIS_TENSOR];
    int total = context->shards.total;
    struct tri_network network = {
        .inner = tri_range_size(up->local[0]),
        .in = tri_param_weights(params, in),
        .down = tri_param_weights(params, down),
        .d_in = tri_param_gradients(params, in),
        .d_down = tri_param_gradients(params, down),
        .gradient_dtype = params->buffer[up->buffer].gradient_dtype,
        .shards = whole ? (struct tri_virtual){total, 0, total} : context->shards,
        .inner_extent = up->shape[0],
    };
    if (up_bias) {
        network.in_bias = tri_param_weights(params, in_bias);
        network.down_bias = tri_param_weights(params, down_bias);
        network.d_in_bias = tri_param_gradients(params, in_bias);
        network.d_down_bias = tri_param_gradients(params, down_bias);
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

/* y[rows, n] = x[rows, k] w^T (or x w when !transposed), one product a network. */
static void rows_product(const struct tri_frame *frame, int64_t count, const int64_t *offsets,
                         int64_t n, int64_t k, const void *x, const void *const *weights,
                         const float *const *biases, bool transposed, void *y)
{
    const struct tri_context *context = frame->context;
    struct tri_matmul *products = take_products(frame, count);
    for (int64_t i = 0; i < count; i++) {
        products[i] = (struct tri_matmul){
            .m = offsets[i + 1] - offsets[i],
            .n = n,
            .k = k,
            .a = at(context, x, offsets[i] * k),
            .b = weights[i],
            .c = at(context, y, offsets[i] * n),
            .lda = k,
            .ldb = transposed ? k : n,
            .ldc = n,
            .ab_dtype = context->dt,
            .c_dtype = context->dt,
            .b_transposed = transposed,
            .bias = biases ? biases[i] : NULL,
        };
    }
    tri_mesh_progress(context->mesh);
    context->kernels->matmul_grouped(context->kernels, products, count);
}

/* dw[m, n] (+)= dy[rows, m]^T x[rows, n], one product a network. */
static void weight_gradients(const struct tri_frame *frame, int64_t count, const int64_t *offsets,
                             const struct tri_cuts *cuts, int64_t m, int64_t n, const void *dy,
                             const void *x, void *const *gradients, enum tri_dtype dtype)
{
    const struct tri_context *context = frame->context;
    struct tri_matmul *products = take_products(frame, count);
    for (int64_t i = 0; i < count; i++) {
        products[i] = (struct tri_matmul){
            .m = m,
            .n = n,
            .k = offsets[i + 1] - offsets[i],
            .a = at(context, dy, offsets[i] * m),
            .b = at(context, x, offsets[i] * n),
            .c = gradients[i],
            .lda = m,
            .ldb = n,
            .ldc = n,
            .ab_dtype = context->dt,
            .c_dtype = dtype,
            .a_transposed = true,
            .accumulate = !context->params->fresh,
            .fixed = &context->params->fixed,
            .cuts = cuts[i].cut,
            .parts = cuts[i].parts,
        };
    }
    tri_mesh_progress(context->mesh);
    context->kernels->matmul_grouped(context->kernels, products, count);
}

/* y [rows, out] sum_dt = x [rows, in] w^T (or x w), where tensor cuts `in`, which is `blocks` inner
 * sizes. */
static void partial_product(const struct tri_frame *frame, const struct tri_network *networks,
                            int64_t count, const int64_t *offsets, int64_t out, int blocks,
                            const void *x, const void *const *weights, bool transposed, void *y)
{
    const struct tri_context *context = frame->context;
    const struct tri_block inner = {networks[0].inner_extent, 1};
    const struct tri_block block[2] = {inner, inner};
    const struct tri_partial_products products = {
        .count = count,
        .offsets = offsets,
        .out = out,
        .in = blocks * networks[0].inner,
        .x = x,
        .dtype = context->dt,
        .weights = weights,
        .transposed = transposed,
        .shards = networks[0].shards,
        .block = block,
        .blocks = blocks,
    };
    tri_partial_products(frame, &products, y);
}

/* One matrix and bias of each network. */
struct matrices {
    const void **weights;
    const float **biases;
};

static struct matrices take_matrices(const struct tri_frame *frame, int64_t count)
{
    size_t n = (size_t)count;
    struct matrices m = {
        tri_arena_alloc(frame->arena, n * sizeof(*m.weights)),
        tri_arena_alloc(frame->arena, n * sizeof(*m.biases)),
    };
    return m;
}

void tri_networks_forward(const struct tri_frame *frame, const struct tri_network *networks,
                          int64_t count, const int64_t *offsets, const void *x,
                          struct tri_network_saved *saved)
{
    const struct tri_context *context = frame->context;
    int64_t rows = offsets[count];
    int64_t inner = networks[0].inner;
    int64_t in_rows = rows_in(context->config, inner);
    saved->x = x;
    saved->pre = tri_frame_take(frame, rows * in_rows);
    saved->act = tri_frame_take(frame, rows * inner);
    size_t mark = tri_arena_mark(frame->arena);
    struct matrices in = take_matrices(frame, count);
    for (int64_t i = 0; i < count; i++) {
        in.weights[i] = networks[i].in;
        in.biases[i] = networks[i].in_bias;
    }
    rows_product(frame, count, offsets, in_rows, context->config->model.hidden_size, x, in.weights,
                 in.biases, true, saved->pre);
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
}

void tri_networks_output(const struct tri_frame *frame, const struct tri_network *networks,
                         int64_t count, const int64_t *offsets,
                         const struct tri_network_saved *saved, void *y, bool with_down_bias)
{
    const struct tri_context *context = frame->context;
    size_t mark = tri_arena_mark(frame->arena);
    struct matrices down = take_matrices(frame, count);
    for (int64_t i = 0; i < count; i++) {
        down.weights[i] = networks[i].down;
        down.biases[i] = networks[i].down_bias;
    }
    int64_t hidden = context->config->model.hidden_size;
    if (context->reproducible) {
        partial_product(frame, networks, count, offsets, hidden, 1, saved->act, down.weights, true,
                        y);
    } else {
        rows_product(frame, count, offsets, hidden, networks[0].inner, saved->act, down.weights,
                     with_down_bias ? down.biases : NULL, true, y);
    }
    tri_arena_rewind(frame->arena, mark);
}

void tri_networks_add_down_bias(const struct tri_context *context,
                                const struct tri_network *networks, int64_t count,
                                const int64_t *offsets, void *y)
{
    int64_t hidden = context->config->model.hidden_size;
    for (int64_t i = 0; i < count && networks[0].down_bias; i++) {
        const struct tri_bias_args args = {
            .y = at(context, y, offsets[i] * hidden),
            .bias = networks[i].down_bias,
            .n = offsets[i + 1] - offsets[i],
            .width = hidden,
            .dt = context->dt,
        };
        context->kernels->add_bias(context->kernels, &args);
    }
}

/* Column sums of dy, one a network. */
static void bias_gradients(const struct tri_frame *frame, int64_t count, const int64_t *offsets,
                           const struct tri_cuts *cuts, int64_t width, const void *dy,
                           void *const *gradients)
{
    const struct tri_context *context = frame->context;
    for (int64_t i = 0; i < count; i++) {
        tri_gradient_bias(frame, cuts[i], at(context, dy, offsets[i] * width), width, gradients[i],
                          offsets[i + 1] - offsets[i], width);
    }
}

void tri_networks_backward(const struct tri_frame *frame, const struct tri_network *networks,
                           int64_t count, const int64_t *offsets, const struct tri_cuts *cuts,
                           const struct tri_network_saved *saved, const void *dy, void *dx)
{
    const struct tri_context *context = frame->context;
    int64_t rows = offsets[count];
    int64_t hidden = context->config->model.hidden_size;
    int64_t inner = networks[0].inner;
    int64_t in_rows = rows_in(context->config, inner);
    size_t mark = tri_arena_mark(frame->arena);
    void *d_act = tri_frame_take(frame, rows * inner);
    void *d_pre = tri_frame_take(frame, rows * in_rows);
    const void **weights = tri_arena_alloc(frame->arena, (size_t)count * sizeof(*weights));
    enum tri_dtype dtype = networks[0].gradient_dtype;
    void **gradients = tri_arena_alloc(frame->arena, (size_t)count * sizeof(*gradients));
    for (int64_t i = 0; i < count; i++) {
        weights[i] = networks[i].down;
        gradients[i] = networks[i].d_down;
    }
    rows_product(frame, count, offsets, inner, hidden, dy, weights, NULL, false, d_act);
    weight_gradients(frame, count, offsets, cuts, hidden, inner, dy, saved->act, gradients, dtype);
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
    for (int64_t i = 0; i < count; i++) {
        weights[i] = networks[i].in;
        gradients[i] = networks[i].d_in;
    }
    if (context->reproducible) {
        partial_product(frame, networks, count, offsets, hidden, (int)rows_in(context->config, 1),
                        d_pre, weights, false, dx);
    } else {
        rows_product(frame, count, offsets, hidden, in_rows, d_pre, weights, NULL, false, dx);
    }
    weight_gradients(frame, count, offsets, cuts, in_rows, hidden, d_pre, saved->x, gradients,
                     dtype);
    if (networks[0].in_bias) {
        for (int64_t i = 0; i < count; i++) {
            gradients[i] = networks[i].d_in_bias;
        }
        bias_gradients(frame, count, offsets, cuts, in_rows, d_pre, gradients);
        for (int64_t i = 0; i < count; i++) {
            gradients[i] = networks[i].d_down_bias;
        }
        bias_gradients(frame, count, offsets, cuts, hidden, dy, gradients);
    }
    tri_arena_rewind(frame->arena, mark);
}
