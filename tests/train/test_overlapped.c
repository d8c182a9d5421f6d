/* Schedule overlapped is schedule ted in chunks: for every number of chunks, forward and backward,
 * the same bits of loss, norm and every gradient, with all that a layer can have beside it, and the
 * same bytes in every cell of the ledger; its all-to-alls carry 1/T of what ted's carry without
 * dropping duplicates. With the argument "all", all flavours and numbers of chunks on each
 * layout; with "grids", of those whose tensor ranks are a grid. */
#include "support/small.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

struct outcome {
    double loss, grad_norm;
    float *gradients; /* all, on rank 0 */
    int64_t count;
    struct tri_ledger ledger;
};

static struct outcome *take_step(enum small_style style, const char *words,
                                 struct small_layout layout)
{
    struct outcome *outcome = tri_alloc(TRI_MEMORY_OTHER, sizeof(*outcome));
    struct tri_config config;
    small_config(style, words, &config);
    small_config_lay_out(&config, layout);
    struct tri_mesh *mesh = small_mesh(&config);
    struct tri_engine *engine = tri_engine_create(&config, mesh, small_kernels(&config), true);
    struct tri_rows_source source = small_source(&config);
    tri_ledger_reset(job_ledger());
    struct tri_step_report report = small_gradients(engine, &source, 0, NULL);
    outcome->ledger = *job_ledger();
    outcome->loss = report.loss;
    outcome->grad_norm = report.grad_norm;
    outcome->gradients = tri_alloc(TRI_MEMORY_OTHER, (size_t)engine->params->total * sizeof(float));
    for (int p = 0; p < engine->params->count; p++) {
        const struct tri_param *param = &engine->params->param[p];
        tri_param_gather(engine->params, param, TRI_FIELD_GRADIENT,
                         outcome->gradients + outcome->count);
        outcome->count += param->shape[0] * param->shape[1];
    }
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
    return outcome;
}

static void release(struct outcome *outcome)
{
    tri_free(outcome->gradients);
    tri_free(outcome);
}

static void expect_same_bits(const struct outcome *a, const struct outcome *b,
                             struct small_layout layout, const char *words)
{
    if (memcmp(&a->loss, &b->loss, sizeof(a->loss)) != 0 ||
        memcmp(&a->grad_norm, &b->grad_norm, sizeof(a->grad_norm)) != 0 ||
        memcmp(a->gradients, b->gradients, (size_t)a->count * sizeof(float)) != 0) {
        tri_panic(TRI_FAILED, "%s: %s: other bits (loss %.17g, %.17g; gradients apart by %.3g)",
                  small_layout_text(layout), words, a->loss, b->loss,
                  small_distance(a->gradients, b->gradients, a->count, 0.0));
    }
}

/* Calls more than ted's in a cell of the ledger: each time that rows go to the experts and back,
 * there are two all-to-alls over the homes, and where experts are cut a gather and a scatter over
 * tensor; each in so many chunks. */
static int64_t further_calls(const struct outcome *ted, struct small_layout layout, int op,
                             int group, int phase, int chunks)
{
    bool whole = layout.expert_tensor < layout.tensor;
    int homes = tri_group_id(whole ? TRI_ON_GRID | TRI_ON_EXPERT : TRI_ON_EXPERT);
    int64_t both = ted->ledger.cell[TRI_OP_ALL_TO_ALL][homes][phase][TRI_KIND_MOE].calls;
    if (op == TRI_OP_ALL_TO_ALL && group == homes) {
        return both * (chunks - 1);
    }
    bool grid = layout.cross * layout.depth > 1;
    bool over_tensor =
        layout.tensor > 1 && !whole && group == tri_group_id(grid ? TRI_ON_GRID : TRI_ON_TENSOR);
    bool moves = op == TRI_OP_ALL_GATHER || op == TRI_OP_REDUCE_SCATTER;
    return over_tensor && moves ? both / 2 * (chunks - 1) : 0;
}

/* Of every cell, the bytes of ted's formula (test_ledger.c), in more calls. */
static void expect_same_bytes(const struct outcome *ted, const struct outcome *outcome, int there,
                              int back, struct small_layout layout, const char *words)
{
    for (int i = 0; i < TRI_OP_COUNT * TRI_GROUP_COUNT * TRI_PHASE_COUNT * TRI_KIND_COUNT; i++) {
        int kind = i % TRI_KIND_COUNT, phase = i / TRI_KIND_COUNT % TRI_PHASE_COUNT;
        int group = i / (TRI_KIND_COUNT * TRI_PHASE_COUNT) % TRI_GROUP_COUNT;
        int op = i / (TRI_KIND_COUNT * TRI_PHASE_COUNT * TRI_GROUP_COUNT);
        const struct tri_ledger_cell *want = &ted->ledger.cell[op][group][phase][kind];
        const struct tri_ledger_cell *got = &outcome->ledger.cell[op][group][phase][kind];
        int64_t calls = want->calls;
        if (kind == TRI_KIND_MOE) {
            calls += further_calls(ted, layout, op, group, phase,
                                   phase == TRI_PHASE_BACKWARD ? back : there);
        }
        if (got->bytes != want->bytes || got->calls != calls) {
            tri_panic(TRI_FAILED,
                      "%s: %s: %s over %s, %s: %lld calls of %lld bytes, expected %lld "
                      "of %lld",
                      small_layout_text(layout), words, tri_op_name((enum tri_op)op),
                      tri_groups[group].name, tri_phase_name((enum tri_phase)phase),
                      (long long)got->calls, (long long)got->bytes, (long long)calls,
                      (long long)want->bytes);
        }
    }
}

/* Of the all-to-alls of MoE layers over expert, of all ranks. */
static int64_t bytes_over_expert(const struct outcome *outcome)
{
    struct tri_mesh *mesh;
    struct tri_config config;
    small_config(SMALL_LLAMA, "", &config);
    mesh = small_mesh(&config);
    int64_t bytes = tri_ledger_sum(&outcome->ledger, TRI_OP_ALL_TO_ALL, tri_group_id(TRI_ON_EXPERT),
                                   -1, TRI_KIND_MOE)
                        .bytes;
    tri_all_reduce_sum(tri_mesh_group(mesh, TRI_ON_ALL),
                       (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, &bytes, 1, TRI_I64);
    tri_mesh_destroy(mesh);
    return bytes;
}

struct flavour {
    enum small_style style;
    const char *words;
};
static const struct flavour flavours[] = {
    {SMALL_LLAMA, ""},
    {SMALL_LLAMA, "precision=bf16 moe.capacity_factor=0.7 moe.min_capacity=1"},
    {SMALL_GPT, "train.recompute=full model.bias=all moe.top_k=3"},
    {SMALL_LLAMA, "precision=bf16 train.sequence_parallel=true train.recompute=[1] "
                  "train.communication_aware_checkpointing=false"},
    {SMALL_GPT, "reproducible=true model.num_kv_heads=8 precision=bf16 model.bias=all "
                "moe.capacity_factor=1"},
    {SMALL_LLAMA, "reproducible=true model.num_kv_heads=8 train.recompute=full"},
    {SMALL_LLAMA, "train.lora.rank=3 train.lora.targets=experts,shared,attention precision=bf16"},
    {SMALL_GPT, "train.freeze=embedding.*,layers.1.moe.experts.* train.sequence_parallel=true"},
    {SMALL_LLAMA, "data.sequence_length=2 train.micro_batch=1 moe.top_k=1 moe.z_loss=0.1"},
    {SMALL_LLAMA, "moe.router=expert_choice train.gradient_dtype=bf16 precision=bf16"},
    {SMALL_LLAMA, "moe.router=sparsemixer moe.mask_range=0.5 train.global_batch=3"},
    {SMALL_GPT, "moe.router=balanced moe.num_experts=16 precision=bf16 train.recompute=full"},
};
enum { FLAVOURS = sizeof(flavours) / sizeof(*flavours), CHUNKS = 7, MANY = 100 };

/* Numbers of chunks there and back: 1 to 7 each, and more than there are rows. */
static void in_chunks(struct flavour flavour, struct small_layout layout, int first, int step)
{
    char words[512];
    struct tri_config config;
    struct tri_error error;
    small_config(flavour.style, flavour.words, &config);
    small_config_lay_out(&config, layout);
    if (layout.cross * layout.depth > 1 &&
        tri_config_check_layout(&config, job_size(), &error) != TRI_OK) {
        return; /* a stream cut twice */
    }
    struct outcome *ted = take_step(flavour.style, flavour.words, layout);
    for (int turn = first; turn <= CHUNKS + 1; turn += step) {
        int there = turn > CHUNKS ? MANY : turn;
        int back = turn == 4 ? there : (turn * 3 + first) % CHUNKS + 1;
        (void)snprintf(words, sizeof(words),
                       "%s moe.schedule=overlapped moe.chunks=%d moe.chunks_backward=%d",
                       flavour.words, there, back);
        struct outcome *outcome = take_step(flavour.style, words, layout);
        expect_same_bits(ted, outcome, layout, words);
        expect_same_bytes(ted, outcome, there, back, layout, words);
        release(outcome);
    }
    release(ted);
}

static void drops_duplicates(struct small_layout layout)
{
    struct outcome *naive = take_step(SMALL_LLAMA, "train.duplicate_token_dropping=false", layout);
    struct outcome *outcome = take_step(SMALL_LLAMA, "moe.schedule=overlapped", layout);
    if (layout.expert_tensor == layout.tensor) {
        CHECK(bytes_over_expert(naive) == layout.tensor * bytes_over_expert(outcome));
        CHECK((bytes_over_expert(outcome) > 0) == (layout.expert > 1));
    }
    release(outcome);
    release(naive);
}

static int run_job(int argc, char **argv)
{
    struct small_layout layouts[SMALL_LAYOUTS];
    bool grids = argc > 1 && strcmp(argv[1], "grids") == 0;
    int count = grids ? small_grids(job_size(), 8, layouts) : small_layouts(job_size(), 8, layouts);
    bool all = argc > 1 && strcmp(argv[1], "all") == 0;
    bool few = job_size() > 2 && !all;
    int turn = 0;
    for (int i = 0; i < count; i++) {
        if (layouts[i].expert == 1 && layouts[i].expert_tensor == layouts[i].tensor && !all) {
            continue;
        }
        if (!grids) {
            drops_duplicates(layouts[i]);
        }
        for (int f = few ? i % 3 : 0; f < FLAVOURS; f += few ? 3 : 1, turn++) {
            in_chunks(flavours[f], layouts[i], all ? 1 : 1 + turn % 4, all ? 1 : 4);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
