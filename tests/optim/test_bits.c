/* What must change no bit: the size of the optimizer's tiles (one element, sizes that cut tensors
 * and pieces anywhere, more than there is, none), and whether reductions and gatherings run beside
 * other work. Two steps from given rows; then weights, masters and moments of every rank are
 * compared. And what a tile costs: 4 min(tile, shard) bytes where gradients are bf16, the whole
 * shard without tiles. */
#include "support/small.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

enum { STEPS = 2 };

/* A clip that is always met, so that the scale is no power of 2. */
#define CLIPPED "train.clip=0.013 train.weight_decay=0.3 "

static int64_t tiles_now(void)
{
    return tri_memory_get().current[TRI_MEMORY_TILES];
}

/* The tile's bytes by the formula, from what this rank owns of the table's rows. */
static int64_t expected_bytes(const struct tri_config *config, const struct tri_params *params)
{
    int64_t shard = 0;
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        if (param->dtype == TRI_BF16 && config->train.gradient_dtype == TRI_PRECISION_BF16) {
            shard += tri_range_size(tri_param_own(params, param));
        }
    }
    int64_t tile = config->train.optimizer_tile;
    return 4 * (tile > 0 && tile < shard ? tile : shard);
}

static struct tri_engine *trained(enum small_style style, const char *base, const char *words,
                                  struct small_layout layout, const struct tri_mesh *mesh,
                                  struct tri_config *config)
{
    char all[256];
    (void)snprintf(all, sizeof(all), "%s %s", base, words);
    small_config(style, all, config);
    small_config_lay_out(config, layout);
    int64_t before = tiles_now();
    struct tri_engine *engine = tri_engine_create(config, mesh, small_kernels(config), true);
    struct tri_rows_source source = small_source(config);
    for (int64_t step = 0; step < STEPS; step++) {
        struct tri_step_report report = small_gradients(engine, &source, step, NULL);
        CHECK(tri_clip_factor(report.grad_norm, config->train.clip) < 1.0);
        tri_engine_update(engine, step + 1, 1e-2, &report);
    }
    tri_params_settle(engine->params);
    int64_t bytes = tiles_now() - before;
    if (bytes != expected_bytes(config, engine->params) ||
        tri_memory_get().peak[TRI_MEMORY_TILES] < bytes) {
        tri_panic(TRI_FAILED, "%s, %s: tiles of %lld bytes, not %lld", all,
                  small_layout_text(layout), (long long)bytes,
                  (long long)expected_bytes(config, engine->params));
    }
    return engine;
}

static bool same_bits(const struct tri_buffer *x, const struct tri_buffer *y)
{
    size_t bytes = (size_t)x->shard * sizeof(float);
    size_t weights = (size_t)x->count * tri_dtype_size(x->dtype);
    if (!x->trained) {
        return x->count == 0 && y->count == 0; /* nothing is frozen here */
    }
    return memcmp(x->weights, y->weights, weights) == 0 && memcmp(x->m, y->m, bytes) == 0 &&
           memcmp(x->v, y->v, bytes) == 0 &&
           (!x->master || memcmp(x->master, y->master, bytes) == 0);
}

/* Each of the variants against the first. */
static void compare(enum small_style style, const char *base, const char *const *variants,
                    int count, struct small_layout layout)
{
    struct tri_config config[2];
    small_config(style, base, &config[0]);
    small_config_lay_out(&config[0], layout);
    struct tri_mesh *mesh = small_mesh(&config[0]);
    struct tri_engine *first = trained(style, base, variants[0], layout, mesh, &config[0]);
    for (int v = 1; v < count; v++) {
        struct tri_engine *other = trained(style, base, variants[v], layout, mesh, &config[1]);
        for (int i = 0; i < TRI_BUFFERS; i++) {
            if (!same_bits(&first->params->buffer[i], &other->params->buffer[i])) {
                tri_panic(TRI_FAILED, "%s on %s: buffer %d has other bits with %s", base,
                          small_layout_text(layout), i, variants[v]);
            }
        }
        tri_engine_destroy(other);
    }
    tri_engine_destroy(first);
    tri_mesh_destroy(mesh);
}

static const char *const tiles[] = {
    "train.optimizer_tile=none",      "train.optimizer_tile=1",    "train.optimizer_tile=3",
    "train.optimizer_tile=1000",      "train.optimizer_tile=8191", "",
    "train.optimizer_tile=100000000",
};
static const char *const overlaps[] = {
    "comm.overlap=false",
    "comm.overlap=true",
    "comm.overlap=true train.optimizer_tile=500",
};
enum {
    TILES = sizeof(tiles) / sizeof(*tiles),
    OVERLAPS = sizeof(overlaps) / sizeof(*overlaps),
};

/* Where weights are gathered ahead and their gradients scattered beside what follows. */
static void on_grids(void)
{
    static const char *const words[] = {
        CLIPPED "precision=bf16 train.recompute=full train.global_batch=9 train.micro_batch=2",
        CLIPPED "precision=bf16 train.gradient_dtype=bf16 moe.every=2 model.bias=all",
        CLIPPED "precision=f32 moe.every=2 model.num_kv_heads=8 train.global_batch=3",
    };
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_grids(job_size(), 8, layouts);
    for (int i = 0; i < count; i++) {
        compare(SMALL_GPT, words[i % 3], overlaps, OVERLAPS, layouts[i]);
        compare(SMALL_LLAMA, words[(i + 1) % 3], overlaps, OVERLAPS, layouts[i]);
    }
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    static const char *const precisions[] = {
        CLIPPED "precision=f32",
        CLIPPED "precision=bf16 model.num_kv_heads=1",
        CLIPPED "precision=bf16 train.gradient_dtype=bf16 model.num_kv_heads=1",
    };
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    for (int i = 0; i < count; i++) {
        for (int p = 0; p < 3; p++) {
            compare(SMALL_GPT, precisions[p], tiles, TILES, layouts[i]);
            compare(SMALL_LLAMA, precisions[p], overlaps, OVERLAPS, layouts[i]);
        }
    }
    on_grids();
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
