/* Every layout of this number of ranks computes what one rank computes: tri_verify, over all of
 * them, in both styles, without and with capacity. What else a config can say rides along, another
 * of `flavours` each time, so that each is tried on several layouts. An argument N takes only every
 * N-th of them; "grids" behind it: of those whose tensor ranks are a grid instead. */
#include "support/small.h"

#include "base/memory.h"
#include "train/verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const gpt_flavours[] = {
    "",
    "moe.z_loss=0.01 moe.jitter=0.1",
    "moe.noise=0.5 moe.aux_loss=0.1",
    "moe.bias_balancing=0.01",
    "moe.groups=4 moe.groups_top=2 moe.top_k=3 moe.noise=0.2 moe.routed_scaling=2.5",
    "moe.score=sigmoid moe.bias_balancing=0.01 moe.aux_loss=0.1 train.recompute=full",
    "moe.aux_window=step moe.aux_loss=0.1 moe.capacity_window=step",
    "moe.aux_scope=model moe.aux_loss=0.1",
    "moe.normalize_top_k=true moe.router=balanced",
    "moe.router=expert_choice moe.z_loss=0.01 train.recompute=full",
    "moe.top_k=8",
    "train.global_batch=3",
    "model.num_heads=24 model.head_dim=4 model.num_kv_heads=3 moe.top_k=3",
    "moe.router=deepspeed_top1 moe.aux_loss=0.1",
    "train.recompute=full moe.aux_loss=0",
    "train.sequence_parallel=true",
    "moe.normalize_top_k=true moe.aux_loss=0.5",
    "train.duplicate_token_dropping=false moe.top_k=2",
    "train.sequence_parallel=true train.recompute=[0] model.qk_norm=head moe.every=1",
};
static const char *const llama_flavours[] = {
    "model.qk_norm=full",
    ("moe.score=sigmoid moe.groups=4 moe.groups_top=2 moe.bias_balancing=0.02 moe.aux_loss=0.1 "
     "moe.routed_scaling=2.5"),
    "model.qk_norm=head moe.z_loss=0.01",
    "model.num_heads=24 model.head_dim=4 model.num_kv_heads=3 model.qk_norm=full moe.every=2",
    "moe.aux_scope=model moe.aux_loss=0.1 moe.aux_window=step",
    "moe.aux_loss=0.1 moe.aux_window=step model.bias=qkv",
    "moe.top_k=8 model.num_kv_heads=1",
    "moe.normalize_top_k=false moe.jitter=0.05 moe.noise=0.2",
    "moe.shared_gate=false model.bias=all model.num_kv_heads=1 model.qk_norm=full",
    "moe.bias_balancing=0.02 moe.capacity_window=step",
    "train.global_batch=2 moe.aux_window=step moe.aux_loss=0.1",
    "model.mlp=gelu_erf model.norm=layernorm model.tie_embeddings=true",
    "moe.router=deepspeed_top2 moe.aux_loss=0.1",
    "moe.router=expert_choice train.sequence_parallel=true moe.jitter=0.1",
    "data.sequence_length=13 moe.shared_intermediate_size=3 moe.intermediate_size=5",
    "train.sequence_parallel=true moe.aux_loss=0.1 moe.jitter=0.1",
    "train.recompute=full train.communication_aware_checkpointing=false moe.aux_scope=model",
    "moe.aux_loss=0 train.global_batch=5",
    ("moe.score=sigmoid moe.aux_loss=0.1 moe.aux_window=step moe.aux_scope=model "
     "train.sequence_parallel=true train.recompute=full"),
    "train.sequence_parallel=true model.qk_norm=full data.sequence_length=13 train.recompute=full",
    "train.duplicate_token_dropping=false moe.aux_loss=0.1 model.bias=all",
};
/* Windows of rank: the micro-batches must stay, so each replica gets one of the same size. */
static const char *const rank_flavours[] = {
    "moe.aux_window=rank moe.aux_loss=0.1 train.global_batch=8",
    "moe.capacity_window=rank train.global_batch=8",
    "moe.aux_window=rank moe.capacity_window=rank moe.aux_scope=model train.global_batch=8",
};
static const char *const capacities[] = {
    "moe.capacity_factor=1.0 moe.min_capacity=1",
    "moe.capacity_factor=0.6 moe.min_capacity=1",
    "moe.capacity_factor=1.2 moe.min_capacity=0",
};
static const char *const policies[] = {
    "",
    "moe.drop_policy=probability",
    "moe.drop_policy=random",
};
/* Every token to every expert, with a schedule of its own. */
static const char *const dense_flavours[] = {
    "",
    "moe.mutual_information=0.1 train.sequence_parallel=true train.recompute=full "
    "moe.sharpen_step=2",
    "moe.mutual_information=0.1 moe.aux_window=step train.duplicate_token_dropping=false",
    "moe.z_loss=0.01 moe.jitter=0.05 train.recompute=full "
    "train.communication_aware_checkpointing=false",
    "data.sequence_length=13 moe.intermediate_size=5 train.global_batch=3 model.bias=all "
    "moe.sharpen_step=1000 moe.top_k=3",
    "train.lora.rank=3 train.lora.targets=attention,experts,shared",
    "moe.mutual_information=0.1 train.duplicate_token_dropping=false moe.every=1",
    "train.sequence_parallel=true moe.mutual_information=0.1 moe.aux_window=step "
    "train.global_batch=5",
};
#define COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))

static _Thread_local int cases; /* of this rank */

static void expect_equal(struct tri_config *config, struct small_layout layout, const char *words)
{
    const struct tri_verify_options options = {.compared = 2, .steps = 5, .factor = 1.0};
    struct tri_verify_result result;
    struct tri_error error;
    small_config_lay_out(config, layout);
    bool grid = layout.depth * layout.cross > 1;
    if (grid && tri_config_check_layout(config, job_size(), &error) != TRI_OK) {
        return; /* weights of fewer rows than depth has ranks, a stream cut twice */
    }
    if (tri_verify(job(), config, &options, &result, &error) != TRI_OK) {
        tri_panic(TRI_FAILED, "%s: %s: %s", small_layout_text(layout), words, error.message);
    }
    if (!result.passed) {
        tri_panic(
            TRI_FAILED, "%s: %s: %s: %.3g (loss %.3g, while training %.3g, %lld wrong routes)",
            small_layout_text(layout), words, result.worst_parameter, result.worst_relative_l2,
            result.worst_loss, result.worst_training_loss, (long long)result.wrong_routes);
    }
    CHECK(result.compared == 2 && result.steps == 5 && result.parameters > 30);
    job_note("%s: %s: %a %a %a %a %s %s", small_layout_text(layout), words, result.worst_loss,
             result.worst_relative_l2, result.worst_training_loss, result.worst_change,
             result.worst_parameter, result.worst_changed);
    cases++;
}

static const char *flavour(enum small_style style, int index)
{
    return style == SMALL_GPT ? gpt_flavours[index % COUNT(gpt_flavours)]
                              : llama_flavours[index % COUNT(llama_flavours)];
}

/* Some routers have a policy of their own. */
static void tell_capacity(const char *flavour, int index, char *capacity, size_t bytes)
{
    bool polices = !strstr(flavour, "moe.router=") || strstr(flavour, "=balanced");
    (void)snprintf(capacity, bytes, "%s %s", capacities[index % COUNT(capacities)],
                   polices ? policies[index % COUNT(policies)] : "");
}

static void in_style(enum small_style style, struct small_layout layout, int index)
{
    struct tri_config config;
    char words[256];
    int replicas = job_size() / layout.tensor;
    for (int with_capacity = 0; with_capacity < 2; with_capacity++) {
        /* The second time another flavour, so that neither meets only one of the two. */
        const char *more = flavour(style, index + 4 * with_capacity);
        char capacity[96] = "";
        if (with_capacity) {
            tell_capacity(more, index, capacity, sizeof(capacity));
        }
        (void)snprintf(words, sizeof(words), "%s %s", more, capacity);
        small_config(style, words, &config);
        if (config.model.num_heads % layout.tensor != 0) {
            small_config(style, capacity, &config);
        }
        /* A window over a micro-step and random numbers: only with one micro-step. */
        config.train.micro_batch = (config.train.global_batch + replicas - 1) / replicas;
        if (!strstr(words, "=step") || !strstr(words, "random")) {
            config.train.micro_batch = 2;
        }
        expect_equal(&config, layout, words);
    }
}

static void with_window_of_rank(struct small_layout layout, int index)
{
    struct tri_config config;
    char words[256], capacity[96];
    int replicas = job_size() / layout.tensor;
    tell_capacity("", index, capacity, sizeof(capacity));
    (void)snprintf(words, sizeof(words), "%s train.micro_batch=%d %s",
                   rank_flavours[index % COUNT(rank_flavours)], 8 / replicas, capacity);
    small_config(SMALL_LLAMA, words, &config);
    expect_equal(&config, layout, words);
}

static void dense(struct small_layout layout, int index)
{
    struct tri_config config;
    char words[256];
    (void)snprintf(words, sizeof(words), "moe.router=dense train.micro_batch=2 %s",
                   dense_flavours[index % COUNT(dense_flavours)]);
    small_config(index % 2 == 0 ? SMALL_GPT : SMALL_LLAMA, words, &config);
    expect_equal(&config, layout, words);
}

static int run_job(int argc, char **argv)
{
    struct small_layout layouts[SMALL_LAYOUTS];
    bool grids = argc > 2 && strcmp(argv[2], "grids") == 0;
    int every = argc > 1 ? (int)strtol(argv[1], NULL, 10) : 1;
    int ranks = job_size();
    int count = grids ? small_grids(ranks, 8, layouts) : small_layouts(ranks, 8, layouts);
    /* Few layouts: more flavours on each, so that every rank count sees all of them. */
    int rounds = count < 3 ? 4 : count < 6 ? 3 : count < 12 ? 2 : 1;
    for (int i = 0; i < count * rounds; i += every) {
        in_style(SMALL_GPT, layouts[i % count], i);
        in_style(SMALL_LLAMA, layouts[i % count], i);
    }
    for (int i = 0; i < (count < COUNT(dense_flavours) ? COUNT(dense_flavours) : count);
         i += every) {
        dense(layouts[i % count], i);
    }
    for (int i = 0; i < count; i += every * (ranks < 8 ? 1 : 3)) {
        with_window_of_rank(layouts[i], i);
    }
    CHECK(cases >= (grids ? 2 : 4) * count / every);
    if (job_rank() == 0) {
        (void)printf("%d comparisons on %d layouts\n", cases, count);
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
