/* Kernels. What a call would be booked as in a plan is asked of the dry kernels: so what a rate is
 * fitted to is what it is multiplied with. */
#include "base/memory.h"
#include "moe/strategies.h"
#include "train/calibrate_cases.h"
#include "train/calibrate_internal.h"

#include <stdio.h>
#include <string.h>

/* Bytes of what changes place: more than the caches of today's servers. */
enum { POOL = 640 << 20, QUICK_POOL = 96 << 20, ROUTED = 64 };

static const struct tri_case_shape shapes[] = {
    {TRI_CASE_PRODUCT, 64, 512, 512, 1},
    {TRI_CASE_PRODUCT, 256, 512, 512, 1},
    {TRI_CASE_PRODUCT, 1024, 512, 512, 1},
    {TRI_CASE_PRODUCT, 1024, 2048, 512, 1},
    {TRI_CASE_PRODUCT, 1024, 512, 2048, 1},
    {TRI_CASE_PRODUCT, 2048, 1024, 1024, 1},
    {TRI_CASE_PRODUCT, 512, 4096, 1024, 1},
    {TRI_CASE_PRODUCT, 512, 8192, 512, 1},
    {TRI_CASE_PRODUCT, 2048, 256, 256, 1},
    {TRI_CASE_PRODUCT, 32, 1024, 512, 8},
    {TRI_CASE_PRODUCT, 128, 1024, 512, 8},
    {TRI_CASE_PRODUCT, 128, 512, 1024, 8},
    {TRI_CASE_PRODUCT, 256, 2048, 512, 4},
    {TRI_CASE_ATTENTION_FORWARD, 8, 128, 4, 1},
    {TRI_CASE_ATTENTION_FORWARD, 4, 256, 8, 1},
    {TRI_CASE_ATTENTION_FORWARD, 2, 512, 8, 1},
    {TRI_CASE_ATTENTION_FORWARD, 1, 1024, 8, 1},
    {TRI_CASE_ATTENTION_BACKWARD, 8, 128, 4, 1},
    {TRI_CASE_ATTENTION_BACKWARD, 4, 256, 8, 1},
    {TRI_CASE_ATTENTION_BACKWARD, 2, 512, 8, 1},
    {TRI_CASE_ATTENTION_BACKWARD, 1, 1024, 8, 1},
    {TRI_CASE_NORM_FORWARD, 256, 512, 1, 1},
    {TRI_CASE_NORM_FORWARD, 2048, 1024, 1, 1},
    {TRI_CASE_NORM_BACKWARD, 256, 512, 1, 1},
    {TRI_CASE_NORM_BACKWARD, 2048, 1024, 1, 1},
    {TRI_CASE_ROPE, 256, 64, 8, 1},
    {TRI_CASE_ROPE, 2048, 64, 8, 1},
    {TRI_CASE_ACTIVATION_FORWARD, 256, 512, 1, 1},
    {TRI_CASE_ACTIVATION_FORWARD, 2048, 1024, 1, 1},
    {TRI_CASE_ACTIVATION_BACKWARD, 256, 512, 1, 1},
    {TRI_CASE_ACTIVATION_BACKWARD, 2048, 1024, 1, 1},
    {TRI_CASE_EMBEDDING_FORWARD, 256, 512, 1, 1},
    {TRI_CASE_EMBEDDING_FORWARD, 2048, 512, 1, 1},
    {TRI_CASE_EMBEDDING_BACKWARD, 2048, 512, 1, 1},
    {TRI_CASE_LOSS, 512, 8192, 1, 1},
    {TRI_CASE_LOSS, 2048, 256, 1, 1},
    {TRI_CASE_GATHER, 512, 512, 1, 1},
    {TRI_CASE_GATHER, 4096, 512, 1, 1},
    {TRI_CASE_COMBINE, 512, 512, 2, 1},
    {TRI_CASE_COMBINE, 2048, 512, 2, 1},
    {TRI_CASE_COMBINE_BACKWARD, 2048, 512, 2, 1},
    {TRI_CASE_ADD, 256, 512, 1, 1},
    {TRI_CASE_ADD, 2048, 1024, 1, 1},
    {TRI_CASE_CAST, 256, 512, 1, 1},
    {TRI_CASE_CAST, 2048, 1024, 1, 1},
    {TRI_CASE_COPY, 64, 1024, 1, 1},
    {TRI_CASE_COPY, 2048, 1024, 1, 1},
    {TRI_CASE_ZERO, 2048, 1024, 1, 1},
    {TRI_CASE_SQUARES, 64, 1024, 1, 1},
    {TRI_CASE_SQUARES, 2048, 1024, 1, 1},
    {TRI_CASE_ADAMW, 64, 1024, 1, 1},
    {TRI_CASE_ADAMW, 1024, 1024, 1, 1},
    {TRI_CASE_LOOP, 256, 2, 1, 1},
    {TRI_CASE_LOOP, 16384, 2, 1, 1},
    {TRI_CASE_ROUTER, 256, 8, 2, 1},
    {TRI_CASE_ROUTER, 1024, 8, 2, 1},
    {TRI_CASE_ROUTER, 1024, ROUTED, 8, 1},
};
enum { SHAPES = sizeof(shapes) / sizeof(*shapes) };

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
                    struct tri_case *c, struct all_samples *samples)
{
    struct tri_kernel_note note = {0};
    const struct tri_kernel_listener listener = {book, ignore_head, &note};
    tri_kernels_listen(dry, &listener);
    c->kernels = dry;
    tri_case_run(c);
    tri_kernels_listen(dry, NULL);
    c->kernels = calibrator->kernels;
    struct tri_sample sample = {
        .seconds = tri_calibrate_time(calibrator, tri_case_run, c),
        .amount = {note.calls, note.flops, note.bytes},
    };
    int dtype = note.dtype == TRI_BF16 ? TRI_CLUSTER_BF16 : TRI_CLUSTER_F32;
    tri_samples_add(&samples->of[dtype][note.work], &sample);
}

/* A router of so many experts for what c says. */
static void measure_router(const struct tri_calibrator *calibrator, struct tri_kernels *dry,
                           struct tri_case *c, struct all_samples *samples)
{
    struct tri_config *config = tri_alloc(TRI_MEMORY_OTHER, sizeof(*config));
    struct tri_mesh *mesh = tri_mesh_create_serial();
    struct tri_routes routes;
    struct tri_error error;
    tri_config_init(&tri_strategies, config);
    config->moe.num_experts = c->shape.n;
    config->moe.top_k = c->shape.k;
    config->moe.aux_window = TRI_WINDOW_SEQUENCE;
    config->train.micro_batch = 1;
    config->data.sequence_length = c->shape.m;
    TRI_REQUIRE(tri_config_finish(config, &error) == TRI_OK);
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
                          struct tri_case *c, struct all_samples *samples)
{
    static const enum tri_task products[] = {TRI_TASK_PRODUCT_FORWARD, TRI_TASK_PRODUCT_INPUT,
                                             TRI_TASK_PRODUCT_WEIGHT};
    static const enum tri_task activations[] = {TRI_TASK_GATED, TRI_TASK_GELU};
    enum tri_case_kind kind = c->shape.kind;
    bool activation = kind == TRI_CASE_ACTIVATION_FORWARD || kind == TRI_CASE_ACTIVATION_BACKWARD;
    int count = kind == TRI_CASE_PRODUCT ? 3 : activation ? 2 : 1;
    for (int i = 0; i < count; i++) {
        c->task = activation ? activations[i] : products[i];
        if (kind == TRI_CASE_ROUTER) {
            measure_router(calibrator, dry, c, samples);
        } else {
            measure(calibrator, dry, c, samples);
        }
    }
}

/* What is the same in either precision is measured once, as f32. */
static bool once(enum tri_case_kind kind)
{
    return kind == TRI_CASE_LOSS || kind == TRI_CASE_CAST || kind == TRI_CASE_COPY ||
           kind == TRI_CASE_ZERO || kind == TRI_CASE_ADAMW || kind == TRI_CASE_SQUARES ||
           kind == TRI_CASE_LOOP || kind == TRI_CASE_ROUTER;
}

static bool is_large(const struct tri_case_shape *s)
{
    enum { LARGE = 1 << 28 };
    return s->kind == TRI_CASE_PRODUCT && s->m * s->n * s->k * s->count > LARGE;
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
    size_t pool = calibrator->quick ? QUICK_POOL : POOL;
    char *block = tri_alloc(TRI_MEMORY_OTHER, (size_t)3 * TRI_CASE_AREA + pool);
    struct tri_case c = {
        .left = block,
        .right = block + TRI_CASE_AREA,
        .pool = block + (size_t)3 * TRI_CASE_AREA,
        .pool_bytes = pool,
        .index = (int32_t *)(void *)(block + (size_t)2 * TRI_CASE_AREA),
    };
    fill(block, (size_t)3 * TRI_CASE_AREA + pool);
    fill_index(c.index, TRI_CASE_AREA / (int64_t)sizeof(int32_t));
    for (size_t i = 0; i < SHAPES; i++) {
        c.shape = shapes[i];
        if (calibrator->quick && is_large(&c.shape)) {
            continue;
        }
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
