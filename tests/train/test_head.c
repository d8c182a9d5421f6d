/* The head on several ranks: targets that do not count, and logits that come in chunks. */
#include "support/small.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Routes of near ties may differ between layouts; here the same layout runs each time. */
static const char quiet[] = "moe.aux_loss=0 moe.z_loss=0 ";

/* small_source's rows; a target counts when keep says so. */
struct some {
    struct tri_rows_source all;
    bool (*keep)(int64_t place);
};

static bool none(int64_t place)
{
    (void)place;
    return false;
}

static bool third(int64_t place)
{
    return place % 3 == 0;
}

static bool others(int64_t place)
{
    return !third(place);
}

static enum tri_status fill(void *state, int64_t step, int64_t first_row, int64_t rows,
                            const struct tri_row_arrays *out, struct tri_error *error)
{
    const struct some *some = state;
    int64_t seq = some->all.seq;
    CHECK(some->all.fill(some->all.state, step, first_row, rows, out, error) == TRI_OK);
    for (int64_t i = 0; i < rows * seq; i++) {
        out->targets[i] = some->keep(first_row * seq + i) ? out->targets[i] : -1;
    }
    return TRI_OK;
}

/* All gradients of a step, whole, one after the other; on rank 0. */
struct gradients {
    int64_t count;
    int64_t head, head_count; /* the head's place among them */
    float *values;
    struct tri_step_report report;
};

static struct gradients compute(const char *words, struct small_layout layout,
                                bool (*keep)(int64_t place))
{
    struct tri_config config;
    small_config(SMALL_LLAMA, words, &config);
    small_config_lay_out(&config, layout);
    struct some some = {small_source(&config), keep};
    struct tri_rows_source source = some.all;
    if (keep) {
        source.fill = fill;
        source.state = &some;
    }
    struct tri_mesh *mesh = small_mesh(&config);
    struct tri_engine *engine = tri_engine_create(&config, mesh, small_kernels(&config), true);
    struct gradients g = {.report = small_gradients(engine, &source, 0, NULL)};
    g.report.load = NULL;
    for (int pass = 0; pass < 2; pass++) {
        int64_t at = 0;
        for (int p = 0; p < engine->params->count; p++) {
            const struct tri_param *param = &engine->params->param[p];
            if (pass == 1) {
                tri_param_gather(engine->params, param, TRI_FIELD_GRADIENT, g.values + at);
            }
            if (param->role == TRI_ROLE_HEAD) {
                g.head = at;
                g.head_count = param->shape[0] * param->shape[1];
            }
            at += param->shape[0] * param->shape[1];
        }
        g.count = at;
        g.values = pass == 0 ? tri_alloc(TRI_MEMORY_OTHER, (size_t)at * sizeof(float)) : g.values;
    }
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
    return g;
}

/* Nothing counts: no gradient anywhere, to the bit. */
static void check_none(const char *words, struct small_layout layout)
{
    struct gradients g = compute(words, layout, none);
    CHECK(g.report.targets == 0 && g.report.grad_norm == 0.0 && g.report.cross_entropy == 0.0);
    for (int64_t i = 0; i < g.count && job_rank() == 0; i++) {
        CHECK(g.values[i] == 0.0F);
    }
    tri_free(g.values);
}

/* A third of the targets, and the others: their gradients add up to that of all. */
static void check_parts(const char *words, struct small_layout layout, double limit)
{
    struct gradients a = compute(words, layout, third);
    struct gradients b = compute(words, layout, others);
    struct gradients all = compute(words, layout, NULL);
    CHECK(a.report.targets + b.report.targets == all.report.targets);
    for (int64_t i = 0; i < all.count; i++) {
        a.values[i] += b.values[i];
    }
    CHECK(job_rank() != 0 || small_distance(a.values, all.values, all.count, 0.0) <= limit);
    tri_free(a.values);
    tri_free(b.values);
    tri_free(all.values);
}

/* Routers count tokens, their targets counted or not: their losses have the same bits, and where
 * nothing else counts they are the loss. */
static void check_routers(struct small_layout layout)
{
    static const char *const windows[] = {"sequence", "step moe.capacity_window=step",
                                          "step moe.aux_scope=model", "rank precision=bf16"};
    for (size_t i = 0; i < sizeof(windows) / sizeof(*windows); i++) {
        char words[256];
        (void)snprintf(words, sizeof(words),
                       "moe.aux_loss=0.1 moe.z_loss=0.01 moe.capacity_factor=1.5 moe.aux_window=%s",
                       windows[i]);
        struct gradients g[3] = {compute(words, layout, NULL), compute(words, layout, third),
                                 compute(words, layout, none)};
        for (int j = 0; j < 3; j++) {
            CHECK(g[j].report.finite && g[j].report.aux_loss == g[0].report.aux_loss &&
                  g[j].report.z_loss == g[0].report.z_loss);
            tri_free(g[j].values);
        }
        CHECK(g[0].report.aux_loss > 0 && g[0].report.z_loss > 0 && g[2].report.grad_norm > 0);
        CHECK(g[2].report.targets == 0 && g[2].report.cross_entropy == 0);
    }
}

static void check_ignored(struct small_layout layout)
{
    static const char *const options[] = {"", "precision=bf16", "train.sequence_parallel=true",
                                          "reproducible=true model.num_kv_heads=8"};
    for (size_t i = 0; i < sizeof(options) / sizeof(*options); i++) {
        char words[256];
        struct tri_config config;
        struct tri_error error;
        (void)snprintf(words, sizeof(words), "%s%s", quiet, options[i]);
        small_config(SMALL_LLAMA, words, &config);
        small_config_lay_out(&config, layout);
        if (tri_config_check_layout(&config, job_size(), &error) != TRI_OK) {
            continue; /* reproducible mode has layouts of its own */
        }
        check_none(words, layout);
        check_parts(words, layout, i == 1 ? 2e-2 : 2e-5);
    }
}

/* ---- chunks ---------------------------------------------------------------------------------- */

/* Of so many columns 64 rows of logits exist at once: four chunks, or micro-batches of one. */
static const char chunks[] = "model.vocab_size=131073 model.hidden_size=8 model.head_dim=4 "
                             "data.sequence_length=64 model.max_position=64 train.global_batch=4 ";

static struct gradients compute_chunks(const char *words, struct small_layout layout)
{
    char all[512];
    (void)snprintf(all, sizeof(all), "%s%s%s", quiet, chunks, words);
    return compute(all, layout, NULL);
}

static void check_chunks(struct small_layout layout)
{
    struct gradients one = compute_chunks("train.micro_batch=1", layout);
    struct gradients four = compute_chunks("train.micro_batch=4", layout);
    CHECK(fabs(four.report.loss - one.report.loss) <= 2e-6 * one.report.loss);
    CHECK(job_rank() != 0 || small_distance(four.values, one.values, one.count, 0.0) <= 2e-5);
    tri_free(one.values);
    tri_free(four.values);
}

static void check_chunk_bits(struct small_layout layout)
{
    static const char words[] = "reproducible=true model.num_kv_heads=8 train.micro_batch=%d";
    struct gradients g[2];
    for (int i = 0; i < 2; i++) {
        char text[128];
        (void)snprintf(text, sizeof(text), words, 1 + 3 * i);
        g[i] = compute_chunks(text, layout);
    }
    CHECK(g[0].report.loss == g[1].report.loss);
    CHECK(job_rank() != 0 ||
          memcmp(g[0].values, g[1].values, (size_t)g[0].count * sizeof(float)) == 0);
    tri_free(g[0].values);
    tri_free(g[1].values);
}

/* A bf16 gradient of one micro-batch is the f32 one, rounded once, however many chunks it has. */
static void check_rounded_once(struct small_layout layout)
{
    struct gradients wide = compute_chunks("precision=bf16 train.micro_batch=4", layout);
    struct gradients narrow =
        compute_chunks("precision=bf16 train.gradient_dtype=bf16 train.micro_batch=4", layout);
    CHECK(wide.head_count > 0);
    for (int64_t i = 0; i < wide.head_count && job_rank() == 0; i++) {
        float once = tri_bf16_to_f32(tri_f32_to_bf16(wide.values[wide.head + i]));
        CHECK(narrow.values[wide.head + i] == once);
    }
    tri_free(wide.values);
    tri_free(narrow.values);
}

/* Of more micro-batches it is rounded once for each, and holds all of them. */
static void check_rounded_each(struct small_layout layout)
{
    struct gradients wide = compute_chunks("precision=bf16 train.micro_batch=2", layout);
    struct gradients narrow =
        compute_chunks("precision=bf16 train.gradient_dtype=bf16 train.micro_batch=2", layout);
    CHECK(job_rank() != 0 || small_distance(narrow.values + narrow.head, wide.values + wide.head,
                                            wide.head_count, 0.0) <= 5e-3);
    tri_free(wide.values);
    tri_free(narrow.values);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct small_layout layouts[SMALL_LAYOUTS];
    int ranks = job_size();
    int count = small_layouts(ranks, 8, layouts);
    for (int i = 0; i < count; i++) {
        check_ignored(layouts[i]);
    }
    struct small_layout cut = {ranks, 1, ranks, 1, 1};
    check_routers(cut);
    check_routers((struct small_layout){1, ranks, 1, 1, 1});
    check_chunks(cut);
    check_chunk_bits(cut);
    check_rounded_once(cut);
    check_rounded_each(cut);
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
