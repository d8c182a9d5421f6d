/* What a block keeps for its backward changes no bit: recompute of all blocks or of one, with and
 * without communication-aware checkpointing, against keeping everything; on every layout. With it a
 * recompute sends nothing at all. Duplicate token dropping changes no bit of the loss, and
 * gradients only by the order of sums; the all-to-all bytes, summed over the tensor group, fall by
 * exactly T. */
#include "support/small.h"

#include "base/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* One step's loss and all of its gradients, one after the other, on rank 0. */
struct outcome {
    double loss, grad_norm;
    float *gradients;
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
    CHECK(outcome->count == engine->params->total);
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
    return outcome;
}

static void release(struct outcome *outcome)
{
    tri_free(outcome->gradients);
    tri_free(outcome);
}

static int64_t bytes_of(const struct outcome *outcome, int op, int phase, int kind)
{
    return tri_ledger_sum(&outcome->ledger, op, -1, phase, kind).bytes;
}

static int64_t calls_of(const struct outcome *outcome, int phase)
{
    return tri_ledger_sum(&outcome->ledger, -1, -1, phase, -1).calls;
}

static bool same_number(double a, double b)
{
    uint64_t bits[2];
    memcpy(&bits[0], &a, sizeof(a));
    memcpy(&bits[1], &b, sizeof(b));
    return bits[0] == bits[1];
}

static void expect_same_bits(const struct outcome *a, const struct outcome *b,
                             struct small_layout layout, const char *words)
{
    bool same = same_number(a->loss, b->loss) && same_number(a->grad_norm, b->grad_norm) &&
                memcmp(a->gradients, b->gradients, (size_t)a->count * sizeof(float)) == 0;
    if (!same) {
        tri_panic(TRI_FAILED, "%s: %s: other bits (loss %.17g, %.17g; gradients apart by %.3g)",
                  small_layout_text(layout), words, a->loss, b->loss,
                  small_distance(a->gradients, b->gradients, a->count, 0.0));
    }
}

/* Block 1 is MoE in both styles. */
static const char *const policies[] = {
    "train.recompute=full",
    "train.recompute=full train.communication_aware_checkpointing=false",
    "train.recompute=[0]",
    "train.recompute=[1] train.communication_aware_checkpointing=false",
};
enum { POLICIES = sizeof(policies) / sizeof(*policies) };

static void with_recompute(enum small_style style, const char *flavour, struct small_layout layout)
{
    char words[400];
    struct outcome *kept = take_step(style, flavour, layout);
    CHECK(calls_of(kept, TRI_PHASE_RECOMPUTE) == 0);
    for (int i = 0; i < POLICIES; i++) {
        (void)snprintf(words, sizeof(words), "%s %s", flavour, policies[i]);
        struct outcome *again = take_step(style, words, layout);
        expect_same_bits(kept, again, layout, words);
        bool sends = strstr(policies[i], "=false") && layout.tensor * layout.expert > 1;
        CHECK((calls_of(again, TRI_PHASE_RECOMPUTE) > 0) == sends);
        CHECK(bytes_of(kept, -1, TRI_PHASE_FORWARD, -1) ==
              bytes_of(again, -1, TRI_PHASE_FORWARD, -1));
        CHECK(bytes_of(kept, -1, TRI_PHASE_BACKWARD, -1) ==
              bytes_of(again, -1, TRI_PHASE_BACKWARD, -1));
        release(again);
    }
    release(kept);
}

static int64_t over_tensor(const struct tri_mesh *mesh, int64_t bytes)
{
    tri_all_reduce_sum(tri_mesh_group(mesh, TRI_ON_TENSOR),
                       (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, &bytes, 1, TRI_I64);
    return bytes;
}

static void with_dropping(enum small_style style, const char *flavour, struct small_layout layout)
{
    char words[400];
    struct tri_config config;
    (void)snprintf(words, sizeof(words), "%s train.duplicate_token_dropping=false", flavour);
    struct outcome *whole = take_step(style, words, layout);
    struct outcome *dropped = take_step(style, flavour, layout);
    small_config(style, flavour, &config);
    small_config_lay_out(&config, layout);
    struct tri_mesh *mesh = small_mesh(&config);
    int64_t before = over_tensor(mesh, bytes_of(whole, TRI_OP_ALL_TO_ALL, -1, TRI_KIND_MOE));
    int64_t after = over_tensor(mesh, bytes_of(dropped, TRI_OP_ALL_TO_ALL, -1, TRI_KIND_MOE));
    int64_t factor = layout.expert_tensor == layout.tensor ? layout.tensor : 1;
    if (before != after * factor || (before == 0) != (layout.expert * factor == factor &&
                                                      layout.expert_tensor == layout.tensor)) {
        tri_panic(TRI_FAILED, "%s: %s: all-to-all of %lld bytes, with dropping %lld",
                  small_layout_text(layout), words, (long long)before, (long long)after);
    }
    CHECK(same_number(whole->loss, dropped->loss));
    if (job_rank() == 0) {
        CHECK(small_distance(dropped->gradients, whole->gradients, whole->count, 0.0) < 1e-6);
    }
    tri_mesh_destroy(mesh);
    release(dropped);
    release(whole);
}

static const char *const gpt_flavours[] = {
    "",
    "moe.capacity_factor=0.7 moe.min_capacity=1 moe.jitter=0.1 moe.aux_scope=model",
    "precision=bf16 moe.top_k=3 moe.noise=0.3",
    "train.sequence_parallel=true train.global_batch=3",
    "moe.router=dense moe.mutual_information=0.1 train.sequence_parallel=true",
};
static const char *const llama_flavours[] = {
    "model.qk_norm=full moe.shared_gate=false",
    "precision=bf16 moe.capacity_factor=1.1 moe.drop_policy=probability model.num_kv_heads=1",
    "moe.router=deepspeed_top2 moe.aux_window=step moe.every=2",
    "train.sequence_parallel=true model.qk_norm=full data.sequence_length=13",
    "moe.router=dense moe.mutual_information=0.1 precision=bf16 moe.jitter=0.1",
};
enum { FLAVOURS = sizeof(gpt_flavours) / sizeof(*gpt_flavours) };

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct small_layout layouts[SMALL_LAYOUTS];
    int ranks = job_size();
    int count = small_layouts(ranks, 8, layouts);
    int rounds = ranks < 8 ? FLAVOURS : 2;
    for (int i = 0; i < count * rounds; i++) {
        int flavour = (i / count + i % count) % FLAVOURS;
        with_recompute(SMALL_GPT, gpt_flavours[flavour], layouts[i % count]);
        with_recompute(SMALL_LLAMA, llama_flavours[flavour], layouts[i % count]);
        if (!strstr(gpt_flavours[flavour], "sequence_parallel") &&
            !strstr(llama_flavours[flavour], "dense")) {
            with_dropping(SMALL_GPT, gpt_flavours[flavour], layouts[i % count]);
            with_dropping(SMALL_LLAMA, llama_flavours[flavour], layouts[i % count]);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
