/* Kernels. What a call would be booked as in a plan is asked of the dry kernels: so what a rate is
 * fitted to is what it is multiplied with. Weights, gradients and optimizer state are read from
 * memory in a step, not from a cache: second operands change place from call to call. */
#include "base/memory.h"
#include "moe/router.h"
#include "moe/strategies.h"
#include "train/calibrate_internal.h"

#include <stdio.h>
#include <string.h>

enum {
    AREA = 32 << 20,  /* bytes of what stays in place: two such */
    POOL = 160 << 20, /* of what changes place */
    PRODUCTS_MOST = 8,
    ROUTED = 64 /* experts of the router */
};

enum kind {
    PRODUCT,
    ATTENTION_FORWARD,
    ATTENTION_BACKWARD,
    NORM_FORWARD,
    NORM_BACKWARD,
    ROPE,
    ACTIVATION_FORWARD,
    ACTIVATION_BACKWARD,
    EMBEDDING_FORWARD,
    EMBEDDING_BACKWARD,
    LOSS,
    GATHER,
    COMBINE,
    COMBINE_BACKWARD,
    ADD,
    CAST,
    COPY,
    ZERO,
    ADAMW,
    LOOP,
    ROUTER,
    KINDS
};

/* m, n, k: of a product tokens, outputs, inputs, and how many; of attention sequences, positions,
 * heads (of 64); else rows, their width, and choices. */
struct shape {
    enum kind kind;
    int64_t m, n, k, count;
};

static const struct shape shapes[] = {
    {PRODUCT, 64, 512, 512, 1},
    {PRODUCT, 256, 512, 512, 1},
    {PRODUCT, 1024, 512, 512, 1},
    {PRODUCT, 1024, 2048, 512, 1},
    {PRODUCT, 1024, 512, 2048, 1},
    {PRODUCT, 2048, 1024, 1024, 1},
    {PRODUCT, 512, 4096, 1024, 1},
    {PRODUCT, 512, 8192, 512, 1},
    {PRODUCT, 2048, 256, 256, 1},
    {PRODUCT, 32, 1024, 512, 8},
    {PRODUCT, 128, 1024, 512, 8},
    {PRODUCT, 128, 512, 1024, 8},
    {PRODUCT, 256, 2048, 512, 4},
    {ATTENTION_FORWARD, 8, 128, 4, 1},
    {ATTENTION_FORWARD, 4, 256, 8, 1},
    {ATTENTION_FORWARD, 2, 512, 8, 1},
    {ATTENTION_FORWARD, 1, 1024, 8, 1},
    {ATTENTION_BACKWARD, 8, 128, 4, 1},
    {ATTENTION_BACKWARD, 4, 256, 8, 1},
    {ATTENTION_BACKWARD, 2, 512, 8, 1},
    {ATTENTION_BACKWARD, 1, 1024, 8, 1},
    {NORM_FORWARD, 256, 512, 1, 1},
    {NORM_FORWARD, 2048, 1024, 1, 1},
    {NORM_BACKWARD, 256, 512, 1, 1},
    {NORM_BACKWARD, 2048, 1024, 1, 1},
    {ROPE, 256, 64, 8, 1},
    {ROPE, 2048, 64, 8, 1},
    {ACTIVATION_FORWARD, 256, 512, 1, 1},
    {ACTIVATION_FORWARD, 2048, 1024, 1, 1},
    {ACTIVATION_BACKWARD, 256, 512, 1, 1},
    {ACTIVATION_BACKWARD, 2048, 1024, 1, 1},
    {EMBEDDING_FORWARD, 2048, 512, 1, 1},
    {EMBEDDING_BACKWARD, 2048, 512, 1, 1},
    {LOSS, 512, 8192, 1, 1},
    {LOSS, 2048, 256, 1, 1},
    {GATHER, 512, 512, 1, 1},
    {GATHER, 4096, 512, 1, 1},
    {COMBINE, 512, 512, 2, 1},
    {COMBINE, 2048, 512, 2, 1},
    {COMBINE_BACKWARD, 2048, 512, 2, 1},
    {ADD, 256, 512, 1, 1},
    {ADD, 2048, 1024, 1, 1},
    {CAST, 256, 512, 1, 1},
    {CAST, 2048, 1024, 1, 1},
    {COPY, 64, 1024, 1, 1},
    {COPY, 2048, 1024, 1, 1},
    {ZERO, 2048, 1024, 1, 1},
    {ADAMW, 64, 1024, 1, 1},
    {ADAMW, 1024, 1024, 1, 1},
    {LOOP, 256, 2, 1, 1},
    {LOOP, 16384, 2, 1, 1},
    {ROUTER, 256, 8, 2, 1},
    {ROUTER, 1024, 8, 2, 1},
    {ROUTER, 1024, ROUTED, 8, 1},
};
enum { SHAPES = sizeof(shapes) / sizeof(*shapes) };

struct work_case {
    struct shape shape;
    enum tri_task work; /* of products and activations, which there are several of */
    enum tri_dtype dtype;
    const struct tri_kernels *kernels;
    char *left, *right, *pool; /* [AREA], [AREA], [POOL] */
    size_t at;                 /* in the pool */
    int32_t *index;            /* [AREA bytes] distinct, small, or tokens: see fill_index */
    struct tri_router *router;
    struct tri_routes *routes;
    /* what a plan books */
    struct tri_kernel_note note;
};

/* Bytes that were not used lately. */
static void *fresh(struct work_case *c, int64_t bytes)
{
    size_t rounded = ((size_t)bytes + 63) / 64 * 64;
    TRI_REQUIRE(rounded <= POOL);
    if (c->at + rounded > POOL) {
        c->at = 0;
    }
    c->at += rounded;
    return c->pool + c->at - rounded;
}

/* ---- calls ----------------------------------------------------------------------------------- */

static void run_product(struct work_case *c)
{
    const struct shape *s = &c->shape;
    int64_t width = (int64_t)tri_dtype_size(c->dtype);
    struct tri_matmul products[PRODUCTS_MOST];
    for (int64_t i = 0; i < s->count; i++) {
        struct tri_matmul p = {.ab_dtype = c->dtype, .c_dtype = c->dtype};
        if (c->work == TRI_TASK_PRODUCT_WEIGHT) {
            p.m = s->n, p.n = s->k, p.k = s->m;
            p.lda = p.m, p.ldb = p.ldc = p.n;
            p.a_transposed = p.accumulate = true;
            p.c_dtype = TRI_F32;
            p.a = c->left + i * s->m * s->n * width;
            p.b = c->right + i * s->m * s->k * width;
            p.c = fresh(c, p.m * p.n * (int64_t)sizeof(float));
        } else {
            bool forward = c->work == TRI_TASK_PRODUCT_FORWARD;
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

static void run_attention(struct work_case *c, bool backward)
{
    enum { DIM = 64 };
    const struct shape *s = &c->shape;
    int64_t ld = s->k * DIM;
    size_t bytes = (size_t)(s->m * s->n * ld) * tri_dtype_size(c->dtype);
    char *at[8];
    for (int i = 0; i < 8; i++) {
        at[i] = c->left + (size_t)i * bytes;
    }
    TRI_REQUIRE(8 * bytes <= AREA);
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

static void run_norm(struct work_case *c, bool backward)
{
    const struct shape *s = &c->shape;
    size_t bytes = (size_t)(s->m * s->n) * tri_dtype_size(c->dtype);
    const struct tri_norm_args args = {
        .rms = true,
        .n = s->m,
        .width = s->n,
        .dt = c->dtype,
        .x = c->left,
        .weight = c->right + AREA / 2,
        .stats = c->right + AREA / 4,
        .add = c->left + bytes,
        .epsilon = 1e-5,
        .sum = c->left + 2 * bytes,
        .y = c->right,
        .dy = c->left + bytes,
        .dx = c->left + 2 * bytes,
        .dweight = c->right + AREA / 2 + AREA / 4,
    };
    if (backward) {
        c->kernels->norm_backward(c->kernels, &args);
    } else {
        c->kernels->norm_forward(c->kernels, &args);
    }
}

static void run_activation(struct work_case *c, bool backward)
{
    const struct shape *s = &c->shape;
    bool gated = c->work == TRI_TASK_GATED;
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

static void run_embedding(struct work_case *c, bool backward)
{
    const struct shape *s = &c->shape;
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

static void run_loss(struct work_case *c)
{
    const struct shape *s = &c->shape;
    float *rows = (float *)(void *)(c->right + AREA / 2);
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

static void run_rows(struct work_case *c)
{
    const struct shape *s = &c->shape;
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
        .dweight = c->pool + AREA,
    };
    if (s->kind == GATHER) {
        c->kernels->gather_rows(c->kernels, &gather);
    } else if (s->kind == COMBINE) {
        c->kernels->combine_rows(c->kernels, &combine);
    } else {
        c->kernels->combine_rows_backward(c->kernels, &combine);
    }
}

static void run_rope(struct work_case *c)
{
    const struct shape *s = &c->shape;
    const struct tri_rope_args args = {
        .x = {c->left, s->m, s->k, s->n, s->k * s->n, s->n},
        .table = c->pool,
        .positions = c->index,
        .dt = c->dtype,
    };
    c->kernels->rope(c->kernels, &args);
}

static void run_elements(struct work_case *c)
{
    const struct shape *s = &c->shape;
    int64_t n = s->m * s->n;
    size_t bytes = (size_t)n * sizeof(float);
    switch (s->kind) {
    case ADD:
        c->kernels->add(
            c->kernels,
            &(struct tri_add_args){
                .left = c->left, .right = c->left + bytes, .y = c->right, .n = n, .dt = c->dtype});
        break;
    case CAST:
        c->kernels->cast(
            c->kernels,
            &(struct tri_cast_args){
                .src = c->left, .from = TRI_F32, .dst = c->right, .to = TRI_BF16, .n = n});
        break;
    case COPY:
        c->kernels->copy(c->kernels,
                         &(struct tri_copy_args){.src = c->left, .dst = c->right, .bytes = bytes});
        break;
    default:
        c->kernels->zero(c->kernels,
                         &(struct tri_zero_args){.dst = fresh(c, (int64_t)bytes), .bytes = bytes});
    }
}

static void run_adamw(struct work_case *c)
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
    const struct work_case *c = state;
    int32_t *out = (int32_t *)(void *)c->right;
    for (int64_t i = begin; i < end; i++) {
        out[c->index[i]] = (int32_t)i;
    }
}

static void run_loop(struct work_case *c)
{
    int64_t n = c->shape.m * c->shape.n;
    c->kernels->loop(c->kernels,
                     &(struct tri_loop_args){.n = n, .piece = n + 1, .run = scatter, .state = c});
}

/* Both ways, which a plan books one by one. */
static void run_router(struct work_case *c)
{
    const struct shape *s = &c->shape;
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
                        (const float *)(const void *)(c->left + AREA / 2),
                        (float *)(void *)c->right);
}

static void run(void *state)
{
    struct work_case *c = state;
    switch (c->shape.kind) {
    case PRODUCT:
        run_product(c);
        break;
    case ATTENTION_FORWARD:
    case ATTENTION_BACKWARD:
        run_attention(c, c->shape.kind == ATTENTION_BACKWARD);
        break;
    case NORM_FORWARD:
    case NORM_BACKWARD:
        run_norm(c, c->shape.kind == NORM_BACKWARD);
        break;
    case ROPE:
        run_rope(c);
        break;
    case ACTIVATION_FORWARD:
    case ACTIVATION_BACKWARD:
        run_activation(c, c->shape.kind == ACTIVATION_BACKWARD);
        break;
    case EMBEDDING_FORWARD:
    case EMBEDDING_BACKWARD:
        run_embedding(c, c->shape.kind == EMBEDDING_BACKWARD);
        break;
    case LOSS:
        run_loss(c);
        break;
    case GATHER:
    case COMBINE:
    case COMBINE_BACKWARD:
        run_rows(c);
        break;
    case ADD:
    case CAST:
    case COPY:
    case ZERO:
        run_elements(c);
        break;
    case ADAMW:
        run_adamw(c);
        break;
    case LOOP:
        run_loop(c);
        break;
    case ROUTER:
        run_router(c);
        break;
    case KINDS:
        break;
    }
}

/* ---- samples --------------------------------------------------------------------------------- */

struct all_samples {
    struct tri_samples of[TRI_CLUSTER_DTYPES][TRI_TASK_COUNT];
};

static void book(void *state, const struct tri_kernel_note *note)
{
    struct tri_kernel_note *sum = state;
    sum->work = note->work;
    sum->dtype = note->dtype;
    sum->calls += note->calls;
    sum->flops += note->flops;
    sum->bytes += note->bytes;
}

static void ignore_head(void *state, bool begins)
{
    (void)state;
    (void)begins;
}

static void measure(const struct tri_calibrator *calibrator, struct tri_kernels *dry,
                    struct work_case *c, struct all_samples *samples)
{
    struct tri_kernel_note note = {0};
    const struct tri_kernel_listener listener = {book, ignore_head, &note};
    tri_kernels_listen(dry, &listener);
    c->kernels = dry;
    run(c);
    tri_kernels_listen(dry, NULL);
    c->kernels = calibrator->kernels;
    struct tri_sample sample = {
        .seconds = tri_calibrate_time(calibrator, run, c),
        .amount = {note.calls, note.flops, note.bytes},
    };
    int dtype = note.dtype == TRI_BF16 ? TRI_CLUSTER_BF16 : TRI_CLUSTER_F32;
    tri_samples_add(&samples->of[dtype][note.work], &sample);
}

/* A router of so many experts for what c says. */
static void measure_router(const struct tri_calibrator *calibrator, struct tri_kernels *dry,
                           struct work_case *c, struct all_samples *samples)
{
    struct tri_config *config = tri_alloc(TRI_MEMORY_OTHER, sizeof(*config));
    struct tri_mesh *mesh = tri_mesh_create_serial();
    struct tri_routes routes;
    tri_config_init(&tri_strategies, config);
    config->moe.num_experts = c->shape.n;
    config->moe.top_k = c->shape.k;
    config->moe.aux_window = TRI_WINDOW_SEQUENCE;
    config->train.micro_batch = 1;
    config->data.sequence_length = c->shape.m;
    void *block = tri_alloc(TRI_MEMORY_OTHER, tri_routes_bytes(config, 1, c->shape.m));
    tri_routes_place(config, 1, c->shape.m, block, &routes);
    c->router = tri_router_create(config, mesh, calibrator->kernels->threads);
    c->routes = &routes;
    measure(calibrator, dry, c, samples);
    tri_router_destroy(c->router);
    tri_free(block);
    tri_mesh_destroy(mesh);
    tri_free(config);
}

static void measure_shape(const struct tri_calibrator *calibrator, struct tri_kernels *dry,
                          struct work_case *c, struct all_samples *samples)
{
    static const enum tri_task products[] = {TRI_TASK_PRODUCT_FORWARD, TRI_TASK_PRODUCT_INPUT,
                                             TRI_TASK_PRODUCT_WEIGHT};
    static const enum tri_task activations[] = {TRI_TASK_GATED, TRI_TASK_GELU};
    enum kind kind = c->shape.kind;
    bool activation = kind == ACTIVATION_FORWARD || kind == ACTIVATION_BACKWARD;
    int count = kind == PRODUCT ? 3 : activation ? 2 : 1;
    for (int i = 0; i < count; i++) {
        c->work = activation ? activations[i] : products[i];
        if (kind == ROUTER) {
            measure_router(calibrator, dry, c, samples);
        } else {
            measure(calibrator, dry, c, samples);
        }
    }
}

/* What is the same in either precision is measured once, as f32. */
static bool once(enum kind kind)
{
    return kind == LOSS || kind == CAST || kind == COPY || kind == ZERO || kind == ADAMW ||
           kind == LOOP || kind == ROUTER;
}

/* Scattered places, each once, below any power of two that n is. */
static void fill_index(int32_t *index, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t block = i / 512 * 512;
        index[i] = (int32_t)(block + (i * 37) % 512);
    }
}

/* Small numbers, in bf16 as in f32. */
static void fill(void *data, size_t bytes)
{
    uint16_t *at = data;
    for (size_t i = 0; i < bytes / sizeof(*at); i++) {
        at[i] = (uint16_t)(0x3c00U + (i * 2654435761U >> 7 & 0x7fU));
    }
}

static void fit(struct tri_calibrator *calibrator, struct all_samples *samples)
{
    static const char *const names[TRI_CLUSTER_DTYPES] = {"f32", "bf16"};
    struct tri_cluster *cluster = calibrator->cluster;
    for (int dtype = 0; dtype < TRI_CLUSTER_DTYPES; dtype++) {
        for (int work = 0; work < TRI_TASK_COUNT; work++) {
            struct tri_samples *s = &samples->of[dtype][work];
            char name[64];
            double costs[TRI_FIT_UNKNOWNS];
            if (s->count == 0) {
                cluster->rate[dtype][work] = cluster->rate[TRI_CLUSTER_F32][work];
                continue;
            }
            (void)snprintf(name, sizeof(name), "%s.%s", names[dtype],
                           tri_task_name((enum tri_task)work));
            tri_samples_fit(calibrator, name, s, costs);
            cluster->rate[dtype][work] =
                (struct tri_rate){costs[0], costs[1] > 0.0 ? 1.0 / costs[1] : 0.0,
                                  costs[2] > 0.0 ? 1.0 / costs[2] : 0.0};
        }
        cluster->has_kernels[dtype] = true;
    }
}

void tri_calibrate_kernels(struct tri_calibrator *calibrator)
{
    struct all_samples *samples = tri_alloc(TRI_MEMORY_OTHER, sizeof(*samples));
    struct tri_kernels *dry = tri_kernels_create(TRI_KERNELS_DRY, NULL, 1);
    char *block = tri_alloc(TRI_MEMORY_OTHER, (size_t)3 * AREA + POOL);
    struct work_case c = {
        .left = block,
        .right = block + AREA,
        .pool = block + (size_t)3 * AREA,
        .index = (int32_t *)(void *)(block + (size_t)2 * AREA),
    };
    fill(block, (size_t)3 * AREA + POOL);
    fill_index(c.index, AREA / (int64_t)sizeof(int32_t));
    for (size_t i = 0; i < SHAPES; i++) {
        c.shape = shapes[i];
        c.dtype = TRI_F32;
        measure_shape(calibrator, dry, &c, samples);
        c.dtype = TRI_BF16;
        if (!once(c.shape.kind)) {
            measure_shape(calibrator, dry, &c, samples);
        }
    }
    fit(calibrator, samples);
    tri_free(block);
    tri_kernels_destroy(dry);
    tri_free(samples);
}
