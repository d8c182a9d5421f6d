#include "train/rehearsal.h"

#include "moe/moe.h"
#include "shard/rows.h"
#include "train/engine.h"
#include "train/evaluate.h"

#include <string.h>

enum { STEPS = 2 };

/* More than any rank can be sent. */
#define ALL_ROWS 1e18

/* ---- a batch no longer than it has to be ----------------------------------------------------- */

static int64_t gcd(int64_t a, int64_t b)
{
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* After this many full micro-batches routing in turn begins again at the same expert. */
static int64_t period_of(const struct tri_config *config)
{
    int64_t experts = config->moe.num_experts;
    int64_t routes = config->train.micro_batch * config->data.sequence_length * config->moe.top_k;
    return experts > 0 ? experts / gcd(experts, routes) : 1;
}

/* Full micro-batches come in periods that differ in nothing: of `rows` a step, `periods` of
 * `period_rows` can be left out, which leaves one whole period after the first micro-batch. */
struct batch {
    int64_t rows, periods, period_rows;
};

static struct batch shorten(const struct tri_config *config, int replicas, int64_t rows)
{
    int64_t period = period_of(config);
    int64_t full = rows / replicas / config->train.micro_batch;
    struct batch batch = {.rows = rows,
                          .period_rows = period * config->train.micro_batch * replicas};
    if (full > 2 * period + 1) {
        batch.periods = (full - period - 1) / period;
        batch.rows -= batch.periods * batch.period_rows;
    }
    return batch;
}

/* ---- the steps ------------------------------------------------------------------------------- */

/* Tokens 0, and no target that counts: nobody looks at them. */
static enum tri_status fill(void *state, int64_t step, int64_t first_row, int64_t rows,
                            int32_t *tokens, int32_t *targets, int32_t *first_key,
                            struct tri_error *error)
{
    int64_t n = rows * *(const int64_t *)state;
    (void)step;
    (void)first_row;
    (void)tokens;
    (void)first_key;
    (void)error;
    memset(targets, 0xff, (size_t)n * sizeof(*targets));
    return TRI_OK;
}

/* One step of the engine; its report means nothing. */
static void step(struct tri_engine *engine, const struct tri_rows_source *source, bool training,
                 int64_t index)
{
    struct tri_step_report report;
    struct tri_error error;
    enum tri_status status =
        training ? tri_engine_gradients(engine, source, index, NULL, &report, &error)
                 : tri_engine_evaluate(engine, source, &report, &error);
    TRI_REQUIRE(status == TRI_OK);
    if (training) {
        tri_engine_update(engine, index + 1, 0.0, &report);
    }
}

/* Peaks by category of steps of `rows` rows; ledger is that of the last one. */
static struct tri_memory_counters run(const struct tri_rehearsal *rehearsal,
                                      const struct tri_config *config, int64_t rows,
                                      struct tri_ledger *ledger)
{
    const struct tri_layout *layout = &rehearsal->layout;
    const double loads[TRI_LOAD_COUNT] = {1.0, config->moe.headroom, ALL_ROWS};
    int64_t seq = config->data.sequence_length;
    struct tri_memory_scope scope = tri_memory_scope_begin();
    struct tri_mesh *mesh =
        tri_mesh_create_planned(layout->tensor, layout->expert, layout->data, rehearsal->rank);
    struct tri_engine *engine =
        tri_engine_create(config, mesh, tri_kernels_dry(), rehearsal->training);
    if (engine->moe_layers > 0) {
        tri_moe_set_load(tri_model_moe(engine->model), loads[rehearsal->load]);
    }
    struct tri_rows_source source = {&seq, fill,       rows,
                                     seq,  rows * seq, config->data.separator >= 0};
    mesh->ledger = ledger;
    for (int64_t i = 0; i < STEPS; i++) {
        memset(ledger, 0, sizeof(*ledger));
        step(engine, &source, rehearsal->training, i);
    }
    mesh->ledger = NULL;
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
    return tri_memory_scope_end(&scope);
}

/* ledger += times * (longer - ledger): the calls of the periods left out. */
static void extend(struct tri_ledger *ledger, const struct tri_ledger *longer, int64_t times)
{
    struct tri_ledger_cell *cell = &ledger->cell[0][0][0][0];
    const struct tri_ledger_cell *other = &longer->cell[0][0][0][0];
    for (size_t i = 0; i < sizeof(ledger->cell) / sizeof(*cell); i++) {
        cell[i].calls += times * (other[i].calls - cell[i].calls);
        cell[i].bytes += times * (other[i].bytes - cell[i].bytes);
    }
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* Rows of one replica's step, of whose tokens the engine keeps arrays. */
static int64_t share_of(const struct tri_rehearsal *rehearsal, int64_t rows)
{
    const struct tri_layout *layout = &rehearsal->layout;
    int replicas = layout->expert * layout->data;
    return tri_range_size(tri_rows_share(rows, replicas, rehearsal->rank / layout->tensor));
}

struct tri_memory_plan tri_rehearse(const struct tri_rehearsal *rehearsal,
                                    struct tri_ledger *ledger)
{
    const struct tri_layout *layout = &rehearsal->layout;
    int replicas = layout->expert * layout->data;
    struct tri_config *config = tri_alloc(TRI_MEMORY_OTHER, sizeof(*config));
    struct tri_ledger *ledgers = tri_alloc(TRI_MEMORY_OTHER, 2 * sizeof(*ledgers));
    *config = *rehearsal->config;
    config->moe.router = TRI_ROUTER_BALANCED;
    config->parallel =
        (struct tri_config_parallel){layout->tensor, layout->expert, layout->expert_tensor};
    int64_t rows =
        rehearsal->training ? config->train.global_batch : tri_evaluate_rows(config, replicas);
    struct batch batch = shorten(config, replicas, rows);
    /* There is too little to do to wake threads for. */
    int threads = tri_kernels_threads();
    tri_kernels_set_threads(1);
    tri_kernels_dry_begin(threads);
    struct tri_memory_counters counters = run(rehearsal, config, batch.rows, &ledgers[0]);
    if (ledger) {
        if (batch.periods > 0) {
            (void)run(rehearsal, config, batch.rows + batch.period_rows, &ledgers[1]);
            extend(&ledgers[0], &ledgers[1], batch.periods);
        }
        *ledger = ledgers[0];
    }
    tri_kernels_set_threads(threads);
    struct tri_memory_plan plan = {.scratch = tri_kernels_dry_scratch()};
    memcpy(plan.bytes, counters.peak, sizeof(plan.bytes));
    plan.bytes[TRI_MEMORY_OTHER] += tri_engine_row_bytes(
        share_of(rehearsal, rows) - share_of(rehearsal, batch.rows), config->data.sequence_length);
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        plan.total += plan.bytes[i];
    }
    tri_free(ledgers);
    tri_free(config);
    return plan;
}

struct tri_memory_plan tri_rehearse_layout(const struct tri_config *config,
                                           struct tri_layout layout, int rank, enum tri_load load,
                                           struct tri_ledger *ledger)
{
    return tri_rehearse(&(struct tri_rehearsal){config, layout, rank, true, load}, ledger);
}
