#include "train/rehearsal.h"

#include "base/room.h"
#include "checkpoint/hf.h"
#include "moe/moe.h"
#include "moe/router_kind.h"
#include "shard/rows.h"
#include "train/engine.h"
#include "train/environment.h"
#include "train/evaluate.h"

#include <string.h>

enum { STEPS = 2 };

/* More than any rank can be sent. */
#define ALL_ROWS 1e18

/* ---- a batch no longer than it has to be ----------------------------------------------------- */

/* Full micro-batches come in periods that differ in nothing: of `rows` a step, `periods` of
 * `period_rows` can be left out, which leaves one whole period after the first micro-batch. */
struct batch {
    int64_t rows, periods, period_rows;
};

static struct batch shorten(const struct tri_config *config, int replicas, int64_t rows)
{
    int64_t period = config->moe.num_experts > 0 ? config->moe.router->ops->period(config) : 1;
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
                            const struct tri_row_arrays *out, struct tri_error *error)
{
    int64_t n = rows * *(const int64_t *)state;
    (void)step;
    (void)first_row;
    (void)error;
    memset(out->targets, 0xff, (size_t)n * sizeof(*out->targets));
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
                                      const struct tri_config *config,
                                      const struct tri_kernels *kernels, int64_t rows,
                                      struct tri_ledger *ledger)
{
    const struct tri_layout *layout = &rehearsal->layout;
    const double loads[TRI_LOAD_COUNT] = {1.0, config->moe.headroom, ALL_ROWS};
    int64_t seq = config->data.sequence_length;
    struct tri_memory_scope scope = tri_memory_scope_begin();
    struct tri_mesh *mesh =
        tri_mesh_create_view(layout->tensor, layout->expert, layout->data, rehearsal->rank);
    tri_mesh_set_max_message(mesh, config->comm_max_message);
    struct tri_engine *engine = tri_engine_create(config, mesh, kernels, rehearsal->training);
    if (engine->moe_layers > 0) {
        tri_moe_set_load(tri_model_moe(engine->model), loads[rehearsal->load]);
    }
    if (rehearsal->active) {
        tri_moe_set_active(tri_model_moe(engine->model), rehearsal->active);
    }
    if (config->init_from[0]) { /* once they are loaded this is free again */
        tri_free(tri_alloc(TRI_MEMORY_OTHER, TRI_HF_BUFFER_BYTES));
    }
    struct tri_rows_source source = {.state = &seq,
                                     .fill = fill,
                                     .rows = rows,
                                     .seq = seq,
                                     .counted_tokens = rows * seq,
                                     .tokens = rows * seq,
                                     .documents = config->data.separator >= 0 ||
                                                  config->data.packing == TRI_ROWS_DOCUMENTS};
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

/* ---- whether there is room ------------------------------------------------------------------- */

/* Bytes that are touched, not only counted: targets and positions; the router's work. */
enum { TOKEN_BYTES = 8, ROUTED_BYTES = 4, ROUTE_BYTES = 8 };

static double gigabytes(int64_t bytes)
{
    return (double)bytes / 1e9;
}

static enum tri_status check_tokens(const struct tri_config *config, int64_t own_rows,
                                    int local_ranks, struct tri_error *error)
{
    struct tri_memory_room room = tri_room_find(local_ranks);
    int64_t seq = config->data.sequence_length;
    int64_t routed = config->moe.num_experts > 0
                         ? tri_model_moe_layers(config) *
                               (ROUTED_BYTES + ROUTE_BYTES * tri_config_routes(&config->moe))
                         : 0;
    int64_t micro = own_rows < config->train.micro_batch ? own_rows : config->train.micro_batch;
    int64_t bytes = seq * (own_rows * TOKEN_BYTES + micro * routed);
    if (bytes <= room.bytes) {
        return TRI_OK;
    }
    return tri_fail(error, TRI_FAILED,
                    "micro-batches of %lld x %lld tokens take %.2f GB only to plan, but %.2f "
                    "GB is free (limit: %s)",
                    (long long)micro, (long long)seq, gigabytes(bytes), gigabytes(room.bytes),
                    room.limit);
}

/* Where what is asked for counts, touched or not, a rehearsal needs as much as the run. What the
 * parameters take is known before it begins. */
static enum tri_status check_parameters(const struct tri_rehearsal *rehearsal,
                                        const struct tri_config *config,
                                        const struct tri_mesh *mesh, struct tri_error *error)
{
    struct tri_memory_room room = tri_room_of_addresses(rehearsal->local_ranks);
    int64_t weights = 0, gradients = 0, optimizer = 0;
    if (room.bytes == INT64_MAX) {
        return TRI_OK;
    }
    struct tri_params *params = tri_params_create(config, mesh);
    for (int i = 0; i < TRI_BUFFERS; i++) {
        const struct tri_buffer *buffer = &params->buffer[i];
        int64_t states = buffer->dtype == TRI_F32 ? 2 : 3;
        weights += buffer->count * (int64_t)tri_dtype_size(buffer->dtype);
        if (!buffer->trained) {
            continue;
        }
        gradients += buffer->count * (int64_t)tri_dtype_size(buffer->gradient_dtype);
        optimizer += buffer->shard * states * (int64_t)sizeof(float);
    }
    tri_params_destroy(params);
    int64_t all = weights + (rehearsal->training ? gradients + optimizer : 0);
    if (all <= room.bytes) {
        return TRI_OK;
    }
    return tri_fail(
        error, TRI_FAILED,
        "the parameters alone take %.2f GB a rank (weights %.2f, gradients %.2f, "
        "optimizer %.2f), but %.2f GB is free (limit: %s)",
        gigabytes(all), gigabytes(weights), rehearsal->training ? gigabytes(gradients) : 0.0,
        rehearsal->training ? gigabytes(optimizer) : 0.0, gigabytes(room.bytes), room.limit);
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* Rows of one replica's step, of whose tokens the engine keeps arrays. */
static int64_t share_of(const struct tri_rehearsal *rehearsal, int64_t rows)
{
    const struct tri_layout *layout = &rehearsal->layout;
    int replicas = layout->expert * layout->data;
    return tri_range_size(tri_rows_share(rows, replicas, rehearsal->rank / layout->tensor));
}

static void rehearse(const struct tri_rehearsal *rehearsal, const struct tri_config *config,
                     const struct batch *batch, struct tri_ledger *ledger,
                     struct tri_memory_plan *plan)
{
    struct tri_ledger *ledgers = tri_alloc(TRI_MEMORY_OTHER, 2 * sizeof(*ledgers));
    int threads = rehearsal->threads ? rehearsal->threads : (int)config->threads;
    struct tri_kernels *kernels =
        tri_kernels_create(TRI_KERNELS_DRY, tri_environment_kernels(), threads > 0 ? threads : 1);
    struct tri_memory_counters counters = run(rehearsal, config, kernels, batch->rows, &ledgers[0]);
    if (ledger) {
        if (batch->periods > 0) {
            (void)run(rehearsal, config, kernels, batch->rows + batch->period_rows, &ledgers[1]);
            extend(&ledgers[0], &ledgers[1], batch->periods);
        }
        *ledger = ledgers[0];
    }
    *plan = (struct tri_memory_plan){.scratch = tri_kernels_dry_scratch(kernels)};
    tri_kernels_destroy(kernels);
    memcpy(plan->bytes, counters.peak, sizeof(plan->bytes));
    tri_free(ledgers);
}

static enum tri_status check_room(const struct tri_rehearsal *rehearsal,
                                  const struct tri_config *config, int64_t rows,
                                  struct tri_error *error)
{
    const struct tri_layout *layout = &rehearsal->layout;
    TRI_TRY(check_tokens(config, share_of(rehearsal, rows), rehearsal->local_ranks, error));
    struct tri_memory_scope scope = tri_memory_scope_begin();
    struct tri_mesh *mesh =
        tri_mesh_create_view(layout->tensor, layout->expert, layout->data, rehearsal->rank);
    enum tri_status status = check_parameters(rehearsal, config, mesh, error);
    tri_mesh_destroy(mesh);
    (void)tri_memory_scope_end(&scope);
    return status;
}

enum tri_status tri_rehearse(const struct tri_rehearsal *rehearsal, struct tri_ledger *ledger,
                             struct tri_memory_plan *plan, struct tri_error *error)
{
    const struct tri_layout *layout = &rehearsal->layout;
    int replicas = layout->expert * layout->data;
    struct tri_config *config = tri_alloc(TRI_MEMORY_OTHER, sizeof(*config));
    *config = *rehearsal->config;
    config->moe.router = config->moe.router->rehearsed;
    config->parallel =
        (struct tri_config_parallel){layout->tensor, layout->expert, layout->expert_tensor};
    int64_t rows =
        rehearsal->training ? config->train.global_batch : tri_evaluate_rows(config, replicas);
    struct batch batch = shorten(config, replicas, rows);
    *plan = (struct tri_memory_plan){0};
    int64_t longer = batch.periods > 0 ? batch.period_rows : 0;
    enum tri_status status = check_room(rehearsal, config, batch.rows + longer, error);
    if (status == TRI_OK) {
        rehearse(rehearsal, config, &batch, ledger, plan);
        plan->bytes[TRI_MEMORY_OTHER] +=
            tri_engine_row_bytes(share_of(rehearsal, rows) - share_of(rehearsal, batch.rows),
                                 config->data.sequence_length);
        for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
            plan->total += plan->bytes[i];
        }
    }
    tri_free(config);
    return status;
}

enum tri_status tri_rehearse_layout(const struct tri_config *config, struct tri_layout layout,
                                    int rank, enum tri_load load, struct tri_ledger *ledger,
                                    struct tri_memory_plan *plan, struct tri_error *error)
{
    const struct tri_rehearsal rehearsal = {
        .config = config,
        .layout = layout,
        .rank = rank,
        .training = true,
        .load = load,
        .local_ranks = 1,
    };
    return tri_rehearse(&rehearsal, ledger, plan, error);
}
