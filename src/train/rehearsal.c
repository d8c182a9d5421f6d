#include "train/rehearsal.h"

#include "base/clock.h"
#include "base/room.h"
#include "checkpoint/hf.h"
#include "moe/moe.h"
#include "moe/router_kind.h"
#include "shard/rows.h"
#include "train/engine.h"
#include "train/environment.h"
#include "train/evaluate.h"
#include "train/run_trace.h"

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

static struct tri_mesh *view(const struct tri_config_parallel *parallel, int data, int rank)
{
    return tri_mesh_create_view((int)tri_config_cut(parallel), (int)tri_config_cross(parallel),
                                (int)tri_config_depth(parallel), (int)parallel->expert, data, rank);
}

/* One step of the engine; of its report only the times mean something, where they are planned. */
static struct tri_step_report step(struct tri_engine *engine, const struct tri_rows_source *source,
                                   bool training, int64_t index)
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
    return report;
}

static struct tri_step_time times_of(const struct tri_step_report *report, double seconds,
                                     double head)
{
    struct tri_step_time time = {
        .step = seconds,
        .exposed = report->seconds_exposed,
        .part = {[TRI_PART_ATTENTION] = report->seconds_attention,
                 [TRI_PART_ROUTER] = report->seconds_router,
                 [TRI_PART_EXCHANGE] = report->seconds_exchange,
                 [TRI_PART_EXPERTS] = report->seconds_experts,
                 [TRI_PART_HEAD] = head,
                 [TRI_PART_OPTIMIZER] = report->seconds_optimizer},
    };
    time.part[TRI_PART_REST] = seconds;
    for (int part = TRI_PART_REST + 1; part < TRI_PART_COUNT; part++) {
        time.part[TRI_PART_REST] -= time.part[part];
    }
    return time;
}

/* What rehearsing some rows gives, beside memory: of the last step. */
struct answer {
    struct tri_ledger ledger;
    struct tri_step_time time;
};

static int threads_of(const struct tri_rehearsal *rehearsal)
{
    int threads = rehearsal->threads ? rehearsal->threads : (int)rehearsal->config->threads;
    return threads > 0 ? threads : 1;
}

/* Peaks by category of steps of `rows` rows. */
static struct tri_memory_counters run(const struct tri_rehearsal *rehearsal,
                                      const struct tri_config *config, struct tri_kernels *kernels,
                                      int64_t rows, struct answer *answer)
{
    const struct tri_layout *layout = &rehearsal->layout;
    const double loads[TRI_LOAD_COUNT] = {1.0, config->moe.headroom, ALL_ROWS};
    int64_t seq = config->data.sequence_length;
    struct tri_memory_scope scope = tri_memory_scope_begin();
    struct tri_mesh *mesh = view(&config->parallel, layout->data, rehearsal->rank);
    tri_mesh_set_max_message(mesh, config->comm_max_message);
    tri_mesh_set_hosts(
        mesh, rehearsal->cluster ? rehearsal->cluster->ranks_per_host : config->comm_ranks_per_host,
        rehearsal->host);
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
    if (rehearsal->training && config->trace_steps[0] > 0) {
        tri_free(tri_alloc(TRI_MEMORY_TRACE, tri_run_trace_bytes(config, threads_of(rehearsal))));
    }
    struct tri_rows_source source = {.state = &seq,
                                     .fill = fill,
                                     .rows = rows,
                                     .seq = seq,
                                     .counted_tokens = rows * seq,
                                     .tokens = rows * seq,
                                     .documents = config->data.separator >= 0 ||
                                                  config->data.packing == TRI_ROWS_DOCUMENTS};
    struct tri_timing timing = {0};
    mesh->ledger = &answer->ledger;
    if (rehearsal->cluster) {
        tri_timing_begin(&timing, rehearsal->cluster, config->reproducible, kernels, mesh);
    }
    for (int64_t i = 0; i < STEPS; i++) {
        memset(&answer->ledger, 0, sizeof(answer->ledger));
        double start = tri_clock_now();
        double head = timing.head;
        struct tri_step_report report = step(engine, &source, rehearsal->training, i);
        answer->time = times_of(&report, tri_clock_now() - start, timing.head - head);
    }
    if (rehearsal->cluster) {
        tri_timing_end(&timing);
    }
    mesh->ledger = NULL;
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
    return tri_memory_scope_end(&scope);
}

/* answer += times * (longer - answer): what the periods left out have more. */
static void extend(struct answer *answer, const struct answer *longer, int64_t times)
{
    struct tri_ledger_cell *cell = &answer->ledger.cell[0][0][0][0];
    const struct tri_ledger_cell *other = &longer->ledger.cell[0][0][0][0];
    struct tri_step_time *time = &answer->time;
    for (size_t i = 0; i < sizeof(answer->ledger.cell) / sizeof(*cell); i++) {
        cell[i].calls += times * (other[i].calls - cell[i].calls);
        cell[i].bytes += times * (other[i].bytes - cell[i].bytes);
        cell[i].bytes_between += times * (other[i].bytes_between - cell[i].bytes_between);
        cell[i].messages_between += times * (other[i].messages_between - cell[i].messages_between);
    }
    time->step += (double)times * (longer->time.step - time->step);
    time->exposed += (double)times * (longer->time.exposed - time->exposed);
    for (int part = 0; part < TRI_PART_COUNT; part++) {
        time->part[part] += (double)times * (longer->time.part[part] - time->part[part]);
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
    struct answer *answers = tri_alloc(TRI_MEMORY_OTHER, 2 * sizeof(*answers));
    struct tri_kernels *kernels =
        tri_kernels_create(TRI_KERNELS_DRY, tri_environment_kernels(), threads_of(rehearsal));
    struct tri_memory_counters counters = run(rehearsal, config, kernels, batch->rows, &answers[0]);
    if (batch->periods > 0 && (ledger || rehearsal->time)) {
        (void)run(rehearsal, config, kernels, batch->rows + batch->period_rows, &answers[1]);
        extend(&answers[0], &answers[1], batch->periods);
    }
    if (ledger) {
        *ledger = answers[0].ledger;
    }
    if (rehearsal->time) {
        *rehearsal->time = answers[0].time;
    }
    *plan = (struct tri_memory_plan){.scratch = tri_kernels_dry_scratch(kernels)};
    tri_kernels_destroy(kernels);
    memcpy(plan->bytes, counters.peak, sizeof(plan->bytes));
    tri_free(answers);
}

static enum tri_status check_room(const struct tri_rehearsal *rehearsal,
                                  const struct tri_config *config, int64_t rows,
                                  struct tri_error *error)
{
    const struct tri_layout *layout = &rehearsal->layout;
    TRI_TRY(check_tokens(config, share_of(rehearsal, rows), rehearsal->local_ranks, error));
    struct tri_memory_scope scope = tri_memory_scope_begin();
    struct tri_mesh *mesh = view(&config->parallel, layout->data, rehearsal->rank);
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
    config->parallel = tri_layout_parallel(*layout);
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

enum tri_status tri_rehearse_timed(const struct tri_config *config, struct tri_layout layout,
                                   int rank, const struct tri_cluster *cluster,
                                   struct tri_ledger *ledger, struct tri_layout_plan *plan,
                                   struct tri_error *error)
{
    const struct tri_rehearsal rehearsal = {
        .config = config,
        .layout = layout,
        .rank = rank,
        .training = true,
        .local_ranks = 1,
        .cluster = cluster,
        .time = &plan->time,
    };
    return tri_rehearse(&rehearsal, ledger, &plan->memory, error);
}
