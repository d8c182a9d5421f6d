/* What a rehearsal counts is what a run counts: bytes by category at their peak, and every cell of
 * the ledger, on every rank of every layout, with each option. */
#include "support/small.h"

#include "moe/moe.h"
#include "moe/strategies.h"
#include "train/evaluate.h"
#include "train/rehearsal.h"

#include <string.h>

enum { STEPS = 2 };

struct counted {
    struct tri_memory_counters memory;
    struct tri_ledger ledger; /* of the last step */
};

static void count(struct tri_config *config, bool training, const struct tri_active *active,
                  struct counted *counted)
{
    struct tri_rows_source source = small_source(config);
    struct tri_memory_scope scope = tri_memory_scope_begin();
    struct tri_mesh *mesh = small_mesh(config);
    struct tri_engine *engine = tri_engine_create(config, mesh, small_kernels(config), training);
    if (active) {
        tri_moe_set_active(tri_model_moe(engine->model), active);
    }
    for (int64_t i = 0; i < STEPS; i++) {
        tri_ledger_reset(job_ledger());
        if (training) {
            struct tri_step_report report = small_gradients(engine, &source, i, NULL);
            tri_engine_update(engine, i + 1, 1e-3, &report);
        } else {
            struct tri_step_report report;
            struct tri_error error;
            CHECK(tri_engine_evaluate(engine, &source, &report, &error) == TRI_OK);
        }
    }
    counted->ledger = *job_ledger();
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
    counted->memory = tri_memory_scope_end(&scope);
}

/* exact: else a plan is for as many rows as there can be. */
static void compare_memory(const struct tri_memory_plan *plan, const struct counted *counted,
                           bool exact, const char *words, struct small_layout layout)
{
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        int64_t spare = plan->bytes[i] - counted->memory.peak[i];
        if ((spare < 0 || (exact && spare > 0)) && i != TRI_MEMORY_KERNELS) {
            tri_panic(TRI_FAILED, "%s, %s: %lld bytes of %s planned, %lld counted", words,
                      small_layout_text(layout), (long long)plan->bytes[i],
                      tri_memory_name((enum tri_memory)i), (long long)counted->memory.peak[i]);
        }
    }
}

static void compare_ledgers(const struct tri_ledger *plan, const struct counted *counted,
                            const char *words, struct small_layout layout)
{
    for (int op = 0; op < TRI_OP_COUNT; op++) {
        for (int group = 0; group < TRI_GROUP_COUNT; group++) {
            for (int phase = 0; phase < TRI_PHASE_COUNT; phase++) {
                for (int kind = 0; kind < TRI_KIND_COUNT; kind++) {
                    const struct tri_ledger_cell *p = &plan->cell[op][group][phase][kind];
                    const struct tri_ledger_cell *c = &counted->ledger.cell[op][group][phase][kind];
                    if (p->calls != c->calls || p->bytes != c->bytes ||
                        p->bytes_between != c->bytes_between ||
                        p->messages_between != c->messages_between) {
                        tri_panic(TRI_FAILED,
                                  "%s, %s: %s over %s, %s, %s: %lld calls of %lld bytes, %lld of "
                                  "them to other hosts, planned, %lld of %lld, %lld, counted",
                                  words, small_layout_text(layout), tri_op_name((enum tri_op)op),
                                  tri_groups[group].name, tri_phase_name((enum tri_phase)phase),
                                  tri_kind_name((enum tri_kind)kind), (long long)p->calls,
                                  (long long)p->bytes, (long long)p->bytes_between,
                                  (long long)c->calls, (long long)c->bytes,
                                  (long long)c->bytes_between);
                    }
                }
            }
        }
    }
}

static void run_active(enum small_style style, const char *words, struct small_layout layout,
                       bool training, const struct tri_active *active)
{
    struct tri_config config;
    struct tri_error error;
    small_config(style, words, &config);
    small_config_lay_out(&config, layout);
    if (tri_config_check_layout(&config, job_size(), &error) != TRI_OK) {
        return; /* reproducible mode has layouts of its own */
    }
    struct counted *counted = tri_alloc(TRI_MEMORY_OTHER, sizeof(*counted));
    struct tri_ledger *ledger = tri_alloc(TRI_MEMORY_OTHER, sizeof(*ledger));
    /* neither needs it: the one is even always, the other where no parts of rows are sent */
    if (!config.moe.router->dense && !config.moe.router->picks) {
        config.moe.router = &tri_router_balanced;
    }
    if (!training) {
        /* An evaluation takes a few micro-batches at a time. */
        int replicas = job_size() / layout.tensor;
        config.train.global_batch = tri_evaluate_rows(&config, replicas);
    }
    count(&config, training, active, counted);
    struct tri_rehearsal rehearsal = {
        .config = &config,
        .layout = {layout.tensor, layout.expert, job_size() / (layout.tensor * layout.expert),
                   layout.expert_tensor, layout.depth, layout.cross},
        .rank = job_rank(),
        .training = training,
        .active = active,
        .load = TRI_LOAD_BALANCED,
        .local_ranks = job_size(),
    };
    struct tri_memory_plan plan;
    CHECK(tri_rehearse(&rehearsal, ledger, &plan, &error) == TRI_OK);
    bool here = layout.expert == 1 && layout.expert_tensor == layout.tensor;
    bool exact = here || !active || active->n == config.moe.num_experts;
    compare_memory(&plan, counted, exact, words, layout);
    compare_ledgers(ledger, counted, words, layout);
    tri_free(ledger);
    tri_free(counted);
}

static void run(enum small_style style, const char *words, struct small_layout layout,
                bool training)
{
    run_active(style, words, layout, training, NULL);
}

/* Sparse use: where each rank has all experts, or all of them work, what they take is known. */
static void run_sparse(struct small_layout layout)
{
    static const struct tri_active active[] = {{TRI_ACTIVE_TOP, 2, 0},
                                               {TRI_ACTIVE_TOP, 8, 0},
                                               {TRI_ACTIVE_AVERAGE, 8, 0},
                                               {TRI_ACTIVE_THRESHOLD, 8, 0}};
    for (int i = 0; i < 4; i++) {
        run_active(SMALL_LLAMA,
                   i % 2 ? "moe.router=dense precision=bf16 moe.aux_window=step"
                         : "moe.router=dense",
                   layout, false, &active[i]);
    }
}

/* Each option by itself, and together what a large model takes. */
static const char *const options[] = {
    "",
    "precision=bf16",
    "precision=bf16 train.gradient_dtype=bf16",
    "train.recompute=full",
    "train.recompute=full train.communication_aware_checkpointing=false",
    "train.recompute=[1] train.duplicate_token_dropping=false",
    "train.duplicate_token_dropping=false",
    "train.sequence_parallel=true",
    "train.sequence_parallel=true train.recompute=full precision=bf16",
    "train.optimizer_tile=none precision=bf16 train.gradient_dtype=bf16",
    "train.optimizer_tile=100 precision=bf16 train.gradient_dtype=bf16",
    "comm.overlap=false",
    "model.qk_norm=full model.num_kv_heads=1",
    "moe.capacity_factor=1 moe.aux_window=step moe.aux_scope=model moe.bias_balancing=0",
    "moe.capacity_factor=0.5",
    "moe.capacity_factor=0.6 moe.capacity_window=rank",
    "train.global_batch=59 train.micro_batch=1",
    ("precision=bf16 train.gradient_dtype=bf16 model.vocab_size=131073 "
     "model.hidden_size=8 model.head_dim=4 train.micro_batch=7"),
    "moe.headroom=1 comm.max_message=100",
    "precision=bf16 train.freeze=embedding.*,layers.0.*,layers.1.attention.*",
    "precision=bf16 train.gradient_dtype=bf16 train.recompute=full train.freeze=*expert*",
    "precision=bf16 train.lora.rank=4 train.recompute=[1]",
    "reproducible=true model.num_kv_heads=8 model.qk_norm=full",
    "reproducible=true model.num_kv_heads=8 precision=bf16 train.recompute=full model.bias=all",
};

static const char *const overlapped[] = {
    "moe.schedule=overlapped moe.chunks=3 precision=bf16",
    "moe.schedule=overlapped moe.chunks_backward=2 train.sequence_parallel=true "
    "train.recompute=full",
    "moe.schedule=overlapped moe.chunks=7 train.recompute=[1] moe.headroom=1 "
    "train.communication_aware_checkpointing=false",
    ("moe.schedule=overlapped reproducible=true model.num_kv_heads=8 precision=bf16 "
     "train.lora.rank=4"),
};

/* One all-to-all over tensor x expert, its results gathered or not. */
static const char *const fused[] = {
    "moe.schedule=s1 train.recompute=full",
    "moe.schedule=s2 train.recompute=full precision=bf16",
    "moe.schedule=s1 train.sequence_parallel=true moe.capacity_factor=0.6 precision=bf16",
    "moe.schedule=s2 moe.headroom=1 comm.max_message=100",
};

/* By way of relays, on hosts even and uneven. */
static const char *const hierarchical[] = {
    "moe.schedule=hierarchical comm.ranks_per_host=1 train.recompute=full",
    "moe.schedule=hierarchical comm.ranks_per_host=3 moe.top_k=3 train.recompute=[1] "
    "precision=bf16 "
    "train.communication_aware_checkpointing=false",
    "moe.schedule=hierarchical comm.ranks_per_host=2 moe.capacity_factor=0.6 moe.headroom=1",
    "moe.schedule=hierarchical comm.ranks_per_host=3 reproducible=true model.num_kv_heads=8",
    "moe.schedule=hierarchical comm.ranks_per_host=1 moe.router=sparsemixer "
    "train.sequence_parallel=true",
};

static const char *const dense[] = {
    "moe.router=dense moe.mutual_information=0.1 moe.aux_window=step train.recompute=[1]",
    ("moe.router=dense precision=bf16 train.sequence_parallel=true train.recompute=full "
     "train.communication_aware_checkpointing=false"),
    ("moe.router=dense moe.sharpen_step=2 moe.top_k=3 train.duplicate_token_dropping=false "
     "train.recompute=full"),
    "moe.router=dense reproducible=true model.num_kv_heads=8 train.recompute=full precision=bf16",
};

/* Each expert takes as many tokens of every row, but of parts of a row as it happens. */
static const char *const picking[] = {
    "moe.router=expert_choice",
    "moe.router=expert_choice moe.capacity_factor=1.3 train.recompute=full precision=bf16",
    "moe.router=expert_choice train.global_batch=59 train.micro_batch=1 moe.headroom=1",
    "moe.router=expert_choice reproducible=true model.num_kv_heads=8",
};

/* Options in turn, so that each is tried on some grid. */
static void on_grid(struct small_layout layout, int index)
{
    enum { ALL = sizeof(options) / sizeof(options[0]), EACH = 4 };
    for (int o = 0; o < EACH; o++) {
        run(o % 2 == 0 ? SMALL_GPT : SMALL_LLAMA, options[(EACH * index + o) % ALL], layout, true);
    }
    run(SMALL_LLAMA, dense[index % (int)(sizeof(dense) / sizeof(dense[0]))], layout, true);
    run(SMALL_GPT, overlapped[index % (int)(sizeof(overlapped) / sizeof(overlapped[0]))], layout,
        true);
    run(SMALL_LLAMA, fused[index % (int)(sizeof(fused) / sizeof(fused[0]))], layout, true);
    run(SMALL_LLAMA, hierarchical[index % (int)(sizeof(hierarchical) / sizeof(hierarchical[0]))],
        layout, true);
    run(SMALL_LLAMA, "", layout, false);
}

static int run_job(int argc, char **argv)
{
    struct small_layout layouts[SMALL_LAYOUTS];
    if (argc > 1 && strcmp(argv[1], "grids") == 0) {
        int grids = small_grids(job_size(), 8, layouts);
        for (int i = 0; i < grids; i++) {
            on_grid(layouts[i], i);
        }
        return 0;
    }
    int count = small_layouts(job_size(), 8, layouts);
    for (int i = 0; i < count; i++) {
        for (size_t o = 0; o < sizeof(options) / sizeof(options[0]); o++) {
            run(SMALL_GPT, options[o], layouts[i], true);
            run(SMALL_LLAMA, options[o], layouts[i], true);
        }
        for (size_t o = 0; o < sizeof(overlapped) / sizeof(overlapped[0]); o++) {
            run(o % 2 == 0 ? SMALL_GPT : SMALL_LLAMA, overlapped[o], layouts[i], true);
        }
        for (size_t o = 0; o < sizeof(dense) / sizeof(dense[0]); o++) {
            run(o % 2 == 0 ? SMALL_GPT : SMALL_LLAMA, dense[o], layouts[i], true);
        }
        for (size_t o = 0; o < sizeof(fused) / sizeof(fused[0]); o++) {
            run(o % 2 == 0 ? SMALL_LLAMA : SMALL_GPT, fused[o], layouts[i], true);
        }
        for (size_t o = 0; o < sizeof(hierarchical) / sizeof(hierarchical[0]); o++) {
            run(SMALL_LLAMA, hierarchical[o], layouts[i], true);
        }
        run(SMALL_LLAMA, "moe.schedule=s2 reproducible=true model.num_kv_heads=8 precision=bf16",
            layouts[i], true);
        for (size_t o = 0; o < sizeof(picking) / sizeof(picking[0]) && layouts[i].tensor == 1;
             o++) {
            run(SMALL_GPT, picking[o], layouts[i], true);
            run(SMALL_LLAMA, picking[o], layouts[i], o < 2);
        }
        run(SMALL_LLAMA, "", layouts[i], false);
        run(SMALL_LLAMA, "moe.router=dense", layouts[i], false);
        run_sparse(layouts[i]);
        run(SMALL_LLAMA,
            "train.lora.rank=3 train.lora.targets=experts,shared,attention "
            "train.sequence_parallel=true train.recompute=full",
            layouts[i], true);
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
