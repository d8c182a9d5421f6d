/* Weights, gradients and optimizer state are read from memory in a step, not from a cache: second
 * operands change place from call to call. */
#include "train/calibrate_cases.h"

enum { PRODUCTS_MOST = 8 };

/* Bytes that were not used lately. */
static void *fresh(struct tri_case *c, int64_t bytes)
{
    size_t rounded = ((size_t)bytes + 63) / 64 * 64;
    TRI_REQUIRE(rounded <= c->pool_bytes);
    if (c->at + rounded > c->pool_bytes) {
        c->at = 0;
    }
    c->at += rounded;
    return c->pool + c->at - rounded;
}

/* ---- calls ----------------------------------------------------------------------------------- */

static void run_product(struct tri_case *c)
{
    const struct tri_case_shape *s = &c->shape;
    int64_t width = (int64_t)tri_dtype_size(c->dtype);
    struct tri_matmul products[PRODUCTS_MOST];
    for (int64_t i = 0; i < s->count; i++) {
        struct tri_matmul p = {.ab_dtype = c->dtype, .c_dtype = c->dtype};
        if (c->task == TRI_TASK_PRODUCT_WEIGHT) {
            p.m = s->n, p.n = s->k, p.k = s->m;
            p.lda = p.m, p.ldb = p.ldc = p.n;
            p.a_transposed = p.accumulate = true;
            p.c_dtype = TRI_F32;
            p.a = c->left + i * s->m * s->n * width;
            p.b = c->right + i * s->m * s->k * width;
            p.c = fresh(c, p.m * p.n * (int64_t)sizeof(float));
        } else {
            bool forward = c->task == TRI_TASK_PRODUCT_FORWARD;
            p.m = s->m, p.n = forward ? s->n : s->k, p.k = forward ? s->k : s->n;
            p.lda = p.k, p.ldb = forward ? p.k : p.n, p.ldc = p.n;
            p.b_transposed = forward;
            p.a = c->left + i * p.m * p.k * width;
            p.c = c->right + i * p.m * p.n * width;
            p.b = fresh(c, p.n * p.k * width);
        }
        products[i] = p;
    }
    c->kernels->matmul_grouped(c->kernels, products, s->count);
}

static void run_attention(struct tri_case *c, bool backward)
{
    enum { DIM = 64 };
    const struct tri_case_shape *s = &c->shape;
    int64_t ld = s->k * DIM;
    size_t bytes = (size_t)(s->m * s->n * ld) * tri_dtype_size(c->dtype);
    char *at[8];
    for (int i = 0; i < 8; i++) {
        at[i] = c->left + (size_t)i * bytes;
    }
    TRI_REQUIRE(8 * bytes <= TRI_CASE_AREA);
    const struct tri_attention args = {
        .batch = s->m,
        .q_len = s->n,
        .k_len = s->n,
        .heads = s->k,
        .kv_heads = s->k,
        .dim = DIM,
        .group = 1,
        .scale = 0.125,
        .dt = c->dtype,
        .q = at[0],
        .k = at[1],
        .v = at[2],
        .out = at[3],
        .dout = at[4],
        .dq = at[5],
        .dk = at[6],
        .dv = at[7],
        .lse = c->right,
        .ld_q = ld,
        .ld_k = ld,
        .ld_v = ld,
        .ld_out = ld,
        .ld_dout = ld,
        .ld_dq = ld,
        .ld_dk = ld,
        .ld_dv = ld,
    };
    if (backward) {
        c->kernels->attention_backward(c->kernels, &args);
    } else {
        c->kernels->attention_forward(c->kernels, &args);
    }
}

static void run_norm(struct tri_case *c, bool backward)
{
    const struct tri_case_shape *s = &c->shape;
    size_t bytes = (size_t)(s->m * s->n) * tri_dtype_size(c->dtype);
    const struct tri_norm_args args = {
        .rms = true,
        .n = s->m,
        .width = s->n,
        .dt = c->dtype,
        .x = c->left,
        .weight = c->right + TRI_CASE_AREA / 2,
        .stats = c->right + TRI_CASE_AREA / 4,
        .add = c->left + bytes,
        .epsilon = 1e-5,
        .sum = c->left + 2 * bytes,
        .y = c->right,
        .dy = c->left + bytes,
        .dx = c->left + 2 * bytes,
        .dweight = c->right + TRI_CASE_AREA / 2 + TRI_CASE_AREA / 4,
    };
    if (backward) {
        c->kernels->norm_backward(c->kernels, &args);
    } else {
        c->kernels->norm_forward(c->kernels, &args);
    }
}

static void run_activation(struct tri_case *c, bool backward)
{
    const struct tri_case_shape *s = &c->shape;
    bool gated = c->task == TRI_TASK_GATED;
    size_t bytes = (size_t)(s->m * s->n) * tri_dtype_size(c->dtype);
    const struct tri_activation_args args = {
        .kind = gated ? TRI_ACTIVATION_SWIGLU : TRI_ACTIVATION_GELU_TANH,
        .n = s->m,
        .width = s->n,
        .dt = c->dtype,
        .in = c->left,
        .dout = c->left + 2 * bytes,
        .out = c->right,
        .din = c->right,
    };
    if (backward) {
        c->kernels->activation_backward(c->kernels, &args);
    } else {
        c->kernels->activation_forward(c->kernels, &args);
    }
}

static void run_embedding(struct tri_case *c, bool backward)
{
    const struct tri_case_shape *s = &c->shape;
    const struct tri_embedding_args args = {
        .tokens = c->index,
        .rows = s->m,
        .n = s->m,
        .width = s->n,
        .dt = c->dtype,
        .table = c->pool,
        .y = c->left,
        .dy = c->left,
        .dtable = c->pool,
        .table_dtype = TRI_F32,
    };
    if (backward) {
        c->kernels->embedding_backward(c->kernels, &args);
    } else {
        c->kernels->embedding_forward(c->kernels, &args);
    }
}

static void run_loss(struct tri_case *c)
{
    const struct tri_case_shape *s = &c->shape;
    float *rows = (float *)(void *)(c->right + TRI_CASE_AREA / 2);
    struct tri_cross_entropy_args args = {
        .logits = c->left,
        .ld = s->n,
        .cols = s->n,
        .n = s->m,
        .dt = TRI_F32,
        .targets = c->index,
        .maxima = rows,
        .sums = rows + s->m,
        .picked = rows + 2 * s->m,
        .scale = 1.0,
        .d = c->right,
        .ld_d = s->n,
    };
    c->kernels->cross_entropy_max(c->kernels, &args);
    c->kernels->cross_entropy_sum(c->kernels, &args);
    args.dt = c->dtype;
    c->kernels->cross_entropy_backward(c->kernels, &args);
}

static void run_rows(struct tri_case *c)
{
    const struct tri_case_shape *s = &c->shape;
    const struct tri_gather_args gather = {.src = c->left,
                                           .index = c->index,
                                           .dst = c->right,
                                           .n = s->m,
                                           .width = s->n,
                                           .dt = c->dtype};
    const struct tri_combine_args combine = {
        .rows = c->left,
        .index = c->index,
        .weight = c->pool,
        .n = s->m,
        .k = s->k,
        .width = s->n,
        .dt = c->dtype,
        .y = c->right,
        .dy = c->right,
        .drows = c->left,
        .dweight = c->pool + TRI_CASE_AREA,
    };
    if (s->kind == TRI_CASE_GATHER) {
        c->kernels->gather_rows(c->kernels, &gather);
    } else if (s->kind == TRI_CASE_COMBINE) {
        c->kernels->combine_rows(c->kernels, &combine);
    } else {
        c->kernels->combine_rows_backward(c->kernels, &combine);
    }
}

static void run_rope(struct tri_case *c)
{
    const struct tri_case_shape *s = &c->shape;
    const struct tri_rope_args args = {
        .x = {c->left, s->m, s->k, s->n, s->k * s->n, s->n},
        .table = c->pool,
        .positions = c->index,
        .dt = c->dtype,
    };
    c->kernels->rope(c->kernels, &args);
}

static void run_elements(struct tri_case *c)
{
    const struct tri_case_shape *s = &c->shape;
    int64_t n = s->m * s->n;
    size_t bytes = (size_t)n * sizeof(float);
    switch (s->kind) {
    case TRI_CASE_ADD:
        c->kernels->add(
            c->kernels,
            &(struct tri_add_args){
                .left = c->left, .right = c->left + bytes, .y = c->right, .n = n, .dt = c->dtype});
        break;
    case TRI_CASE_CAST:
        c->kernels->cast(
            c->kernels,
            &(struct tri_cast_args){
                .src = c->left, .from = TRI_F32, .dst = c->right, .to = TRI_BF16, .n = n});
        break;
    case TRI_CASE_COPY:
        c->kernels->copy(c->kernels,
                         &(struct tri_copy_args){.src = c->left, .dst = c->right, .bytes = bytes});
        break;
    default:
        c->kernels->zero(c->kernels,
                         &(struct tri_zero_args){.dst = fresh(c, (int64_t)bytes), .bytes = bytes});
    }
}

static void run_squares(struct tri_case *c)
{
    int64_t n = c->shape.m * c->shape.n;
    const struct tri_squares_args args = {
        .x = fresh(c, n * (int64_t)sizeof(float)), .n = n, .dt = TRI_F32};
    (void)c->kernels->sum_squares(c->kernels, &args);
}

static void run_adamw(struct tri_case *c)
{
    int64_t n = c->shape.m * c->shape.n;
    int64_t bytes = n * (int64_t)sizeof(float);
    float *state = fresh(c, 4 * bytes);
    const struct tri_adamw args = {
        .learning_rate = 1e-4,
        .beta1 = 0.9,
        .beta2 = 0.95,
        .epsilon = 1e-8,
        .correction1 = 1.0,
        .correction2 = 1.0,
        .gradient_scale = 1.0,
        .master = state,
        .m = state + n,
        .v = state + 2 * n,
        .gradient = state + 3 * n,
        .gradient_dtype = TRI_F32,
        .weights = fresh(c, bytes / 2),
        .weight_dtype = TRI_BF16,
        .n = n,
    };
    c->kernels->adamw(c->kernels, &args);
}

/* As slots are dealt out to routes. */
static void scatter(void *state, int64_t begin, int64_t end)
{
    const struct tri_case *c = state;
    int32_t *out = (int32_t *)(void *)c->right;
    for (int64_t i = begin; i < end; i++) {
        out[c->index[i]] = (int32_t)i;
    }
}

static void run_loop(struct tri_case *c)
{
    int64_t n = c->shape.m * c->shape.n;
    c->kernels->loop(c->kernels,
                     &(struct tri_loop_args){.n = n, .piece = n + 1, .run = scatter, .state = c});
}

/* Both ways, which a plan books one by one. */
static void run_router(struct tri_case *c)
{
    const struct tri_case_shape *s = &c->shape;
    const struct tri_router_call call = {
        .logits = (const float *)(const void *)c->left,
        .rows = 1,
        .seq = s->m,
        .global_tokens = s->m,
        .training = true,
        .phase = TRI_PHASE_SETUP,
    };
    if (c->kernels->dry) {
        double bytes = 2.0 * (double)(s->m * s->n) * (double)sizeof(float);
        tri_kernels_tell(c->kernels, TRI_TASK_ROUTER, TRI_F32, bytes);
        tri_kernels_tell(c->kernels, TRI_TASK_ROUTER, TRI_F32, bytes);
        return;
    }
    tri_router_forward(c->router, &call, c->routes, NULL);
    tri_router_backward(c->router, &call, c->routes, NULL, (struct tri_range){0, s->m},
                        (const float *)(const void *)(c->left + TRI_CASE_AREA / 2),
                        (float *)(void *)c->right);
}

/* What a loop reads was written a while ago: by the forward, or by another layer. */
static bool reads_memory(enum tri_case_kind kind)
{
    switch (kind) {
    case TRI_CASE_NORM_FORWARD:
    case TRI_CASE_NORM_BACKWARD:
    case TRI_CASE_ACTIVATION_FORWARD:
    case TRI_CASE_ACTIVATION_BACKWARD:
    case TRI_CASE_GATHER:
    case TRI_CASE_COMBINE:
    case TRI_CASE_COMBINE_BACKWARD:
    case TRI_CASE_ADD:
    case TRI_CASE_CAST:
        return true;
    default:
        return false;
    }
}

static void run(struct tri_case *c);

void tri_case_run(void *state)
{
    enum { ARRAYS = 3 }; /* that a loop has at its left, at most */
    struct tri_case *c = state;
    const struct tri_case_shape *s = &c->shape;
    char *left = c->left;
    if (reads_memory(s->kind)) {
        c->left = fresh(c, ARRAYS * s->m * s->n * s->k * (int64_t)sizeof(float));
    }
    run(c);
    c->left = left;
}

static void run(struct tri_case *c)
{
    switch (c->shape.kind) {
    case TRI_CASE_PRODUCT:
        run_product(c);
        break;
    case TRI_CASE_ATTENTION_FORWARD:
    case TRI_CASE_ATTENTION_BACKWARD:
        run_attention(c, c->shape.kind == TRI_CASE_ATTENTION_BACKWARD);
        break;
    case TRI_CASE_NORM_FORWARD:
    case TRI_CASE_NORM_BACKWARD:
        run_norm(c, c->shape.kind == TRI_CASE_NORM_BACKWARD);
        break;
    case TRI_CASE_ROPE:
        run_rope(c);
        break;
    case TRI_CASE_ACTIVATION_FORWARD:
    case TRI_CASE_ACTIVATION_BACKWARD:
        run_activation(c, c->shape.kind == TRI_CASE_ACTIVATION_BACKWARD);
        break;
    case TRI_CASE_EMBEDDING_FORWARD:
    case TRI_CASE_EMBEDDING_BACKWARD:
        run_embedding(c, c->shape.kind == TRI_CASE_EMBEDDING_BACKWARD);
        break;
    case TRI_CASE_LOSS:
        run_loss(c);
        break;
    case TRI_CASE_GATHER:
    case TRI_CASE_COMBINE:
    case TRI_CASE_COMBINE_BACKWARD:
        run_rows(c);
        break;
    case TRI_CASE_ADD:
    case TRI_CASE_CAST:
    case TRI_CASE_COPY:
    case TRI_CASE_ZERO:
        run_elements(c);
        break;
    case TRI_CASE_SQUARES:
        run_squares(c);
        break;
    case TRI_CASE_ADAMW:
        run_adamw(c);
        break;
    case TRI_CASE_LOOP:
        run_loop(c);
        break;
    case TRI_CASE_ROUTER:
        run_router(c);
        break;
    }
}
