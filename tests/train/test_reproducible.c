/* Reproducible mode: three steps on every layout of this number of ranks give the bits of one rank
 * alone: losses, gradient norms and every weight. What a model can be rotates over the layouts, and
 * so do, on the layout's side only, what must change nothing: micro-batch, recompute, CAC,
 * duplicate token dropping, sequence parallelism, tiles, overlap. */
#include "support/small.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *const models[] = {
    "",
    "precision=bf16",
    "moe.capacity_factor=1.0 moe.min_capacity=1 moe.aux_loss=0.1 moe.z_loss=0.01",
    "precision=bf16 model.qk_norm=full moe.top_k=3 model.bias=all moe.aux_loss=0.1",
    "model.qk_norm=head model.bias=qkv moe.jitter=0.1 moe.noise=0.3 train.global_batch=5",
    "precision=bf16 moe.capacity_factor=0.6 moe.min_capacity=1 moe.drop_policy=random",
    "model.qk_norm=full moe.top_k=1 moe.every=2 model.norm=layernorm",
    "precision=bf16 model.qk_norm=head moe.bias_balancing=0.02 moe.shared_gate=false",
    "data.sequence_length=5 model.vocab_size=7 moe.intermediate_size=3 moe.z_loss=0.1",
    "moe.capacity_factor=1.2 moe.min_capacity=0 moe.drop_policy=probability moe.top_k=3",
    "moe.router=sparsemixer moe.mask_range=0.5 moe.aux_loss=0.1",
    "precision=bf16 moe.router=sparsemixer moe.mask_range=1 moe.sparsemixer_form=corrected",
    ("moe.score=sigmoid moe.groups=4 moe.groups_top=2 moe.bias_balancing=0.02 moe.aux_loss=0.1 "
     "moe.routed_scaling=2.5"),
    "moe.router=dense moe.mutual_information=0.1 moe.z_loss=0.01 train.global_batch=5",
    ("precision=bf16 moe.router=dense moe.mutual_information=0.1 moe.sharpen_step=2 moe.top_k=3 "
     "model.bias=all"),
    "precision=bf16 moe.router=expert_choice moe.capacity_factor=1.3 moe.z_loss=0.01",
};
static const char *const mechanisms[] = {
    "",
    "train.recompute=full train.optimizer_tile=1",
    "train.sequence_parallel=true train.micro_batch=1",
    "train.duplicate_token_dropping=false train.micro_batch=3 train.optimizer_tile=none",
    "train.recompute=full train.communication_aware_checkpointing=false comm.overlap=false",
    "train.sequence_parallel=true train.recompute=[1] train.optimizer_tile=1000",
    "train.micro_batch=7 train.duplicate_token_dropping=false train.recompute=full",
};
/* With low-rank pairs of all that a style can have beside them. */
static const char *const paired[] = {
    "train.lora.rank=3",
    "train.lora.rank=2 precision=bf16 model.qk_norm=full moe.top_k=3",
    "train.lora.rank=5 moe.capacity_factor=0.8 moe.min_capacity=1 model.bias=qkv",
    "train.lora.rank=1 precision=bf16 moe.intermediate_size=3 moe.aux_loss=0.1",
};
#define COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))
enum { STEPS = 3 };

struct trace {
    double loss[STEPS], norm[STEPS];
};

static void train(struct tri_engine *engine, struct tri_config *config, struct trace *trace)
{
    const struct tri_rows_source rows = small_source(config);
    for (int step = 0; step < STEPS; step++) {
        struct tri_step_report report = small_gradients(engine, &rows, step, NULL);
        trace->loss[step] = report.loss;
        trace->norm[step] = report.grad_norm;
        tri_engine_update(engine, step + 1, 1e-2, &report);
    }
}

/* Collective; alone: NULL but on rank 0. */
static void compare_weights(const struct tri_engine *alone, const struct tri_engine *layout,
                            const char *what)
{
    for (int p = 0; p < layout->params->count; p++) {
        const struct tri_param *param = &layout->params->param[p];
        size_t bytes = (size_t)(param->shape[0] * param->shape[1]) * sizeof(float);
        float *got = tri_alloc(TRI_MEMORY_OTHER, bytes);
        tri_param_gather(layout->params, param, TRI_FIELD_WEIGHT, got);
        if (alone) {
            float *want = tri_alloc(TRI_MEMORY_OTHER, bytes);
            tri_param_gather(alone->params, &alone->params->param[p], TRI_FIELD_WEIGHT, want);
            if (memcmp(got, want, bytes) != 0) {
                tri_panic(TRI_FAILED, "%s: %s: other bits", what, param->name);
            }
            tri_free(want);
        }
        tri_free(got);
    }
}

static void expect_same(enum small_style style, struct small_layout layout, const char *model,
                        const char *mechanism)
{
    struct tri_config one;
    struct tri_config many;
    char words[512];
    char what[640];
    struct trace want;
    struct trace got;
    (void)snprintf(words, sizeof(words), "reproducible=true model.num_kv_heads=8 %s", model);
    small_config(style, words, &one);
    one.train.micro_batch = one.train.global_batch;
    (void)snprintf(words, sizeof(words), "reproducible=true model.num_kv_heads=8 %s %s", model,
                   mechanism);
    small_config(style, words, &many);
    small_config_lay_out(&many, layout);
    (void)snprintf(what, sizeof(what), "%s: %s: %s", small_layout_text(layout),
                   style == SMALL_GPT ? "gpt" : "llama", words);
    struct tri_mesh *mesh = small_mesh(&many);
    struct tri_mesh *serial = tri_mesh_create_serial();
    struct tri_engine *engine = tri_engine_create(&many, mesh, small_kernels(&many), true);
    struct tri_engine *alone = NULL;
    train(engine, &many, &got);
    if (mesh->rank == 0) {
        alone = tri_engine_create(&one, serial, small_kernels(&one), true);
        train(alone, &one, &want);
        for (int step = 0; step < STEPS; step++) {
            if (memcmp(&got.loss[step], &want.loss[step], sizeof(double)) != 0 ||
                memcmp(&got.norm[step], &want.norm[step], sizeof(double)) != 0) {
                tri_panic(TRI_FAILED, "%s: step %d: loss %a, norm %a; one rank: %a, %a", what, step,
                          got.loss[step], got.norm[step], want.loss[step], want.norm[step]);
            }
        }
    }
    compare_weights(alone, engine, what);
    for (int step = 0; step < STEPS; step++) {
        job_note("%s: %a %a", what, got.loss[step], got.norm[step]);
    }
    tri_engine_destroy(alone);
    tri_engine_destroy(engine);
    tri_mesh_destroy(serial);
    tri_mesh_destroy(mesh);
}

static void expect_pairs_same(struct small_layout layout, int round)
{
    static const char *const targets[] = {
        [SMALL_GPT] = "attention,experts,mlp", [SMALL_LLAMA] = "attention,experts,shared"};
    enum small_style style = round % 2 ? SMALL_GPT : SMALL_LLAMA;
    char model[256];
    (void)snprintf(model, sizeof(model), "%s train.lora.targets=%s",
                   paired[round / 2 % COUNT(paired)], targets[style]);
    expect_same(style, layout, model, mechanisms[round % COUNT(mechanisms)]);
}

/* Two numbers of choices, dropless and with capacity, keeping and recomputing, all with all; and
 * every token to every expert. */
static void cross(struct small_layout layout, int which)
{
    char model[160];
    bool narrow = which % 2 == 1;
    for (int i = 0; i < 4; i++) {
        (void)snprintf(model, sizeof(model), "%s moe.top_k=%d %s", narrow ? "precision=bf16" : "",
                       1 + i % 2, i / 2 ? "moe.capacity_factor=0.8 moe.min_capacity=1" : "");
        expect_same(SMALL_LLAMA, layout, model, "");
        expect_same(SMALL_LLAMA, layout, model, "train.recompute=full");
    }
    (void)snprintf(model, sizeof(model), "moe.router=dense %s",
                   narrow ? "precision=bf16 moe.mutual_information=0.1" : "");
    expect_same(SMALL_LLAMA, layout, model, mechanisms[which % COUNT(mechanisms)]);
}

/* What one rank's fixed-point sums refuse makes the step's norm NaN on all. */
static void expect_refused(struct small_layout layout)
{
    struct tri_config config;
    struct tri_step_report report;
    struct tri_error error;
    small_config(SMALL_LLAMA, "reproducible=true model.num_kv_heads=8", &config);
    small_config_lay_out(&config, layout);
    struct tri_rows_source rows = small_source(&config);
    struct tri_mesh *mesh = small_mesh(&config);
    struct tri_engine *engine = tri_engine_create(&config, mesh, small_kernels(&config), true);
    (void)small_gradients(engine, &rows, 0, NULL);
    float limit = engine->params->fixed.limit;
    CHECK(limit > 0.0F && limit * (float)(rows.rows * rows.seq) <= 2048.0F);
    engine->params->fixed.limit = mesh->rank == mesh->ranks - 1 ? 0x1p-40F : limit;
    CHECK(tri_engine_gradients(engine, &rows, 1, NULL, &report, &error) == TRI_OK);
    CHECK(!report.finite && isnan(report.grad_norm) && isfinite(report.loss));
    engine->params->fixed.limit = limit;
    (void)small_gradients(engine, &rows, 2, NULL);
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
}

static int run_job(int argc, char **argv)
{
    struct small_layout layouts[SMALL_LAYOUTS];
    bool grids = argc > 1 && strcmp(argv[1], "grids") == 0;
    int count = grids ? small_grids(job_size(), 8, layouts) : small_layouts(job_size(), 8, layouts);
    int kept = 0;
    for (int i = 0; i < count; i++) {
        layouts[kept] = layouts[i];
        kept += layouts[i].cross == 1; /* others are refused */
    }
    count = kept;
    /* Few layouts: more rounds, so that every number of ranks sees all models. */
    int rounds = count < 3 ? 8 : count < 6 ? 3 : count < 12 ? 2 : 1;
    for (int i = 0; i < count * rounds; i++) {
        struct small_layout layout = layouts[i % count];
        expect_same(SMALL_GPT, layout, models[i % COUNT(models)],
                    mechanisms[i % COUNT(mechanisms)]);
        expect_same(SMALL_LLAMA, layout, models[(i + COUNT(models) / 2) % COUNT(models)],
                    mechanisms[(i + 3) % COUNT(mechanisms)]);
    }
    for (int i = 0; i < 8 || i < count; i++) {
        expect_pairs_same(layouts[i % count], i);
    }
    for (int i = 0; i < count && job_size() == 8; i++) {
        cross(layouts[i], i);
    }
    expect_refused(layouts[count - 1]);
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
