/* The router sparsemixer on every layout of this number of ranks: what one rank computes, and what
 * a plan says, with routes that are imposed in turn. An argument: all words on all layouts. */
#include "support/small.h"

#include "base/memory.h"
#include "moe/strategies.h"
#include "train/rehearsal.h"
#include "train/verify.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- verify ---------------------------------------------------------------------------------- */

static const char *const forms[] = {
    "moe.mask_range=1",
    "moe.mask_range=0.3 moe.sparsemixer_form=released",
    "moe.mask_range=0.5 moe.sparsemixer_form=corrected",
    "",
};
static const char *const words[] = {
    "moe.aux_loss=0.1",
    "moe.aux_window=sequence train.recompute=full",
    "train.duplicate_token_dropping=false moe.z_loss=0.01",
    "train.sequence_parallel=true moe.aux_loss=0.1",
    "moe.aux_window=sequence train.recompute=full train.communication_aware_checkpointing=false",
    "train.sequence_parallel=true moe.aux_scope=model moe.aux_loss=0.1 train.recompute=[1]",
    "moe.aux_window=sequence moe.top_k=3 train.global_batch=3",
    "moe.top_k=8 moe.jitter=0.1",
};
#define COUNT(array) ((int)(sizeof(array) / sizeof(*(array))))

static void verify(struct small_layout layout, enum small_style style, int form, int word)
{
    const struct tri_verify_options options = {.compared = 2, .steps = 3, .factor = 1.0};
    struct tri_verify_result result;
    struct tri_error error;
    struct tri_config config;
    char text[256];
    int replicas = job_size() / layout.tensor;
    (void)snprintf(text, sizeof(text), "moe.router=sparsemixer %s %s", forms[form % COUNT(forms)],
                   words[word % COUNT(words)]);
    small_config(style, text, &config);
    small_config_lay_out(&config, layout);
    if (config.moe.aux_window == TRI_WINDOW_STEP) { /* which one rank can follow in one go only */
        config.train.micro_batch = (config.train.global_batch + replicas - 1) / replicas;
    }
    if (tri_verify(job(), &config, &options, &result, &error) != TRI_OK) {
        tri_panic(TRI_FAILED, "%s: %s: %s", small_layout_text(layout), text, error.message);
    }
    if (!result.passed) {
        tri_panic(TRI_FAILED, "%s: %s: %s: %.3g (loss %.3g, %lld wrong routes)",
                  small_layout_text(layout), text, result.worst_parameter, result.worst_relative_l2,
                  result.worst_loss, (long long)result.wrong_routes);
    }
    CHECK(result.compared == 2 && result.steps == 3);
    job_note("%s: %s: %a %a %a %s", small_layout_text(layout), text, result.worst_loss,
             result.worst_relative_l2, result.worst_training_loss, result.worst_parameter);
}

/* ---- imposed routes -------------------------------------------------------------------------- */

/* Each token to the experts that a plan's would go to. */
static struct tri_route_tap make_tap(const struct tri_config *config)
{
    int64_t k = config->moe.top_k;
    int64_t tokens = config->train.global_batch * config->data.sequence_length;
    int64_t routes = tri_model_moe_layers(config) * tokens * k;
    struct tri_route_tap tap = {.impose = true, .tokens = tokens, .k = k};
    tap.chosen = tri_alloc(TRI_MEMORY_OTHER, (size_t)routes * sizeof(*tap.chosen));
    for (int64_t i = 0; i < routes; i++) {
        tap.chosen[i] = (int32_t)(i % (tokens * k) % config->moe.num_experts);
    }
    return tap;
}

static double loss_of(struct tri_config *config, struct tri_route_tap *tap)
{
    struct tri_rows_source source = small_source(config);
    struct tri_mesh *mesh = small_mesh(config);
    struct tri_engine *engine = tri_engine_create(config, mesh, small_kernels(config), true);
    double loss = small_gradients(engine, &source, 0, tap).loss;
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
    return loss;
}

/* Ties alone are drawn, and there are none: experts that are imposed weigh nothing. By imposed
 * logits that are all the same they weigh what one's own say. */
static void expect_imposed(struct small_layout layout)
{
    struct tri_config config;
    double loss[3];
    for (int i = 0; i < 3; i++) {
        small_config(SMALL_LLAMA,
                     i == 2 ? "moe.router=sparsemixer moe.mask_range=1"
                            : "moe.router=sparsemixer moe.mask_range=0",
                     &config);
        small_config_lay_out(&config, layout);
        struct tri_route_tap tap = make_tap(&config);
        int64_t cells = tri_model_moe_layers(&config) * tap.tokens * config.moe.num_experts;
        tap.logits =
            i > 0 ? tri_alloc(TRI_MEMORY_OTHER, (size_t)cells * sizeof(*tap.logits)) : NULL;
        loss[i] = loss_of(&config, &tap);
        tri_free(tap.logits);
        tri_free(tap.chosen);
    }
    CHECK(fabs(loss[0] - loss[1]) > 1e-3 && fabs(loss[1] - loss[2]) == 0);
}

/* ---- plans ----------------------------------------------------------------------------------- */

/* What a step takes where every expert gets as much as in a plan. */
static struct tri_memory_counters count(struct tri_config *config, struct tri_ledger *ledger)
{
    struct tri_rows_source source = small_source(config);
    struct tri_route_tap tap = make_tap(config);
    struct tri_memory_scope scope = tri_memory_scope_begin();
    struct tri_mesh *mesh = small_mesh(config);
    struct tri_engine *engine = tri_engine_create(config, mesh, small_kernels(config), true);
    for (int64_t step = 0; step < 2; step++) {
        tri_ledger_reset(job_ledger());
        struct tri_step_report report = small_gradients(engine, &source, step, &tap);
        tri_engine_update(engine, step + 1, 1e-3, &report);
    }
    *ledger = *job_ledger();
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
    struct tri_memory_counters counters = tri_memory_scope_end(&scope);
    tri_free(tap.chosen);
    return counters;
}

static const char *const plans[] = {
    "",
    "train.recompute=full precision=bf16",
    "train.sequence_parallel=true moe.top_k=3",
};

static void expect_planned(struct small_layout layout, enum small_style style, const char *more)
{
    struct tri_config config;
    struct tri_error error;
    struct tri_memory_plan plan;
    char text[256];
    (void)snprintf(text, sizeof(text), "moe.router=sparsemixer %s", more);
    small_config(style, text, &config);
    small_config_lay_out(&config, layout);
    struct tri_ledger *ledgers = tri_alloc(TRI_MEMORY_OTHER, 2 * sizeof(*ledgers));
    struct tri_memory_counters counted = count(&config, &ledgers[0]);
    const struct tri_layout place = {
        layout.tensor,        layout.expert, job_size() / (layout.tensor * layout.expert),
        layout.expert_tensor, layout.depth,  layout.cross};
    CHECK(tri_rehearse_layout(&config, place, job_rank(), TRI_LOAD_BALANCED, &ledgers[1], &plan,
                              &error) == TRI_OK);
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        if (plan.bytes[i] != counted.peak[i] && i != TRI_MEMORY_KERNELS) {
            tri_panic(TRI_FAILED, "%s, %s: %lld bytes of %s planned, %lld counted", text,
                      small_layout_text(layout), (long long)plan.bytes[i],
                      tri_memory_name((enum tri_memory)i), (long long)counted.peak[i]);
        }
    }
    struct tri_ledger_cell planned = tri_ledger_sum(&ledgers[1], -1, -1, -1, -1);
    struct tri_ledger_cell booked = tri_ledger_sum(&ledgers[0], -1, -1, -1, -1);
    CHECK(planned.calls == booked.calls && planned.bytes == booked.bytes);
    tri_free(ledgers);
}

static int run_job(int argc, char **argv)
{
    (void)argv;
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    bool all = argc > 1;
    int cells = all ? count * COUNT(words) : count < COUNT(words) ? COUNT(words) : count;
    for (int i = 0; i < cells && !all; i++) {
        verify(layouts[i % count], i % 2 ? SMALL_GPT : SMALL_LLAMA, i / 2, i);
    }
    for (int i = 0; i < cells && all; i++) {
        verify(layouts[i % count], (i + i / count) % 2 ? SMALL_GPT : SMALL_LLAMA, i, i / count);
    }
    expect_imposed(layouts[count - 1]);
    for (int i = 0; i < (count < COUNT(plans) ? COUNT(plans) : count); i++) {
        expect_planned(layouts[i % count], i % 2 ? SMALL_GPT : SMALL_LLAMA,
                       plans[i % COUNT(plans)]);
    }
    if (job_rank() == 0) {
        (void)printf("%d comparisons on %d layouts\n", cells, count);
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
