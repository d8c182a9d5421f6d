#include "train/engine.h"

#include "base/clock.h"
#include "base/meter.h"
#include "base/trace.h"
#include "model/param_open.h"
#include "moe/moe.h"
#include "shard/rows.h"

#include <math.h>
#include <string.h>

/* The block whose gradients are reduced after a block's backward: with depth they are scattered
 * beside the next one's first. */
static int64_t reduced_after(const struct tri_engine *engine, int64_t block)
{
    return block + (engine->mesh->size[TRI_AXIS_DEPTH] > 1 ? 1 : 0);
}

/* A block's sums over the replicas run beside the backward of the blocks below it. */
static void after_block(void *state, int64_t block)
{
    struct tri_engine *engine = state;
    double began = tri_trace_begin();
    int64_t reduced = reduced_after(engine, block);
    if (engine->last && engine->config->comm_overlap && reduced <= engine->params->layers) {
        tri_gradients_reduce(engine->params, engine->kernels, reduced, true);
        tri_trace_end(began, "reduction", "layer", reduced);
    }
    tri_mesh_progress(engine->mesh);
}

struct tri_engine *tri_engine_create(const struct tri_config *config, const struct tri_mesh *mesh,
                                     const struct tri_kernels *kernels, bool training)
{
    struct tri_engine *engine = tri_alloc(TRI_MEMORY_OTHER, sizeof(*engine));
    TRI_REQUIRE(kernels->reproducible || !config->reproducible);
    engine->kernels = kernels;
    engine->config = config;
    engine->mesh = mesh;
    engine->params = tri_params_create(config, mesh);
    tri_params_allocate(engine->params, training);
    tri_params_house(engine->params, config, kernels);
    if (training) {
        engine->optimizer = tri_optimizer_create(config, engine->params, kernels);
    }
    tri_params_init(engine->params, kernels, (uint64_t)config->seed);
    engine->model = tri_model_create(config, mesh, engine->params, kernels, &tri_moe_factory);
    engine->hooks = (struct tri_hooks){engine, after_block};
    engine->moe_layers = tri_model_moe_layers(config);
    int64_t loads = engine->moe_layers * config->moe.num_experts;
    engine->tally.load = tri_alloc(TRI_MEMORY_OTHER, (size_t)loads * sizeof(*engine->tally.load));
    return engine;
}

void tri_engine_destroy(struct tri_engine *engine)
{
    if (!engine) {
        return;
    }
    tri_model_destroy(engine->model);
    tri_optimizer_destroy(engine->optimizer);
    tri_params_destroy(engine->params);
    tri_free(engine->tally.load);
    tri_free(engine->tokens);
    tri_free(engine->targets);
    tri_free(engine->first_key);
    tri_free(engine->positions);
    tri_free(engine);
}

/* ---- rows ------------------------------------------------------------------------------------ */

enum { ROW_ARRAYS = 4 };

int64_t tri_engine_row_bytes(int64_t rows, int64_t seq)
{
    return ROW_ARRAYS * rows * seq * (int64_t)sizeof(int32_t);
}

static void make_room(struct tri_engine *engine, int64_t rows, int64_t seq)
{
    int64_t n = rows * seq;
    if (n <= engine->row_capacity) {
        return;
    }
    int32_t **arrays[ROW_ARRAYS] = {&engine->tokens, &engine->targets, &engine->first_key,
                                    &engine->positions};
    for (int i = 0; i < ROW_ARRAYS; i++) {
        tri_free(*arrays[i]);
        *arrays[i] = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(int32_t));
    }
    engine->row_capacity = n;
}

/* This replica's rows of a step, read before anything is sent, so that a bad token is an error that
 * all ranks agree on. */
static enum tri_status read_rows(struct tri_engine *engine, const struct tri_rows_source *source,
                                 int64_t step, struct tri_range share, struct tri_error *error)
{
    enum tri_status status = TRI_OK;
    int64_t rows = tri_range_size(share);
    make_room(engine, rows, source->seq);
    for (int64_t i = 0; i < rows * source->seq; i++) {
        engine->positions[i] = (int32_t)(i % source->seq);
    }
    if (rows > 0) {
        const struct tri_row_arrays out = {engine->tokens, engine->targets, engine->first_key,
                                           engine->positions};
        status = source->fill(source->state, step, share.begin, rows, &out, error);
    }
    TRI_TRY(tri_comm_agree(tri_mesh_group(engine->mesh, TRI_ON_ALL), status, error));
    engine->counted = source->count ? source->count(source->state, step) : source->counted_tokens;
    return TRI_OK;
}

static struct tri_pass make_pass(struct tri_engine *engine, const struct tri_rows_source *source,
                                 struct tri_range share, struct tri_range rows)
{
    int64_t at = (rows.begin - share.begin) * source->seq;
    return (struct tri_pass){
        .rows = tri_range_size(rows),
        .seq = source->seq,
        .tokens = engine->tokens + at,
        .targets = engine->targets + at,
        .positions = engine->positions + at,
        .first_key = source->documents ? engine->first_key + at : NULL,
        .first_row = rows.begin,
        .global_tokens = engine->counted,
        .batch_tokens = source->tokens > 0 ? source->tokens : source->rows * source->seq,
        .seed = (uint64_t)engine->config->seed,
        .tally = &engine->tally,
        .hooks = &engine->hooks,
    };
}

/* ---- sums over ranks ------------------------------------------------------------------------- */

static void reset_tally(struct tri_engine *engine)
{
    int64_t *load = engine->tally.load;
    memset(load, 0, (size_t)(engine->moe_layers * engine->config->moe.num_experts) * sizeof(*load));
    engine->tally = (struct tri_tally){.load = load};
}

/* Of dense routers; the sum of the others' is empty. */
static double sum_information(const struct tri_engine *engine, struct tri_where where)
{
    struct tri_exact sum = engine->tally.information_loss;
    if (engine->moe_layers > 0 && engine->config->moe.router->dense) {
        tri_all_reduce_sum(tri_mesh_group(engine->mesh, TRI_ON_EXPERT | TRI_ON_DATA), where, &sum,
                           sizeof(sum) / sizeof(int64_t), TRI_I64);
    }
    return tri_exact_get(&sum);
}

/* The losses of the ranks of depth are of their own rows; all else they count together. */
static void sum_parts(const struct tri_engine *engine, struct tri_where where,
                      struct tri_exact *cross_entropy, int64_t *targets)
{
    struct {
        struct tri_exact cross_entropy;
        int64_t targets;
    } sums = {*cross_entropy, *targets};
    tri_all_reduce_sum(tri_mesh_group(engine->mesh, TRI_ON_DEPTH), where, &sums,
                       sizeof(sums) / sizeof(int64_t), TRI_I64);
    tri_exact_carry(&sums.cross_entropy);
    *cross_entropy = sums.cross_entropy;
    *targets = sums.targets;
}

static void sum_tally(struct tri_engine *engine, enum tri_phase phase,
                      struct tri_step_report *report)
{
    const struct tri_config_moe *moe = &engine->config->moe;
    struct tri_tally *tally = &engine->tally;
    double began = tri_trace_begin();
    struct tri_where where = {phase, TRI_KIND_META};
    struct {
        struct tri_exact cross_entropy, aux_loss, z_loss;
        int64_t targets, dropped;
    } sums = {tally->cross_entropy, tally->aux_loss, tally->z_loss, tally->targets, tally->dropped};
    tri_exact_carry(&sums.cross_entropy);
    sum_parts(engine, where, &sums.cross_entropy, &sums.targets);
    tri_all_reduce_sum(tri_mesh_group(engine->mesh, TRI_ON_EXPERT | TRI_ON_DATA), where, &sums,
                       sizeof(sums) / sizeof(int64_t), TRI_I64);
    tri_all_reduce_sum(tri_mesh_group(engine->mesh, TRI_ON_EXPERT | TRI_ON_DATA), where,
                       tally->load, engine->moe_layers * moe->num_experts, TRI_I64);
    report->cross_entropy_sum = sums.cross_entropy;
    report->aux_loss_sum = sums.aux_loss;
    report->cross_entropy =
        engine->counted > 0 ? tri_exact_get(&sums.cross_entropy) / (double)engine->counted : 0.0;
    report->aux_loss = tri_exact_get(&sums.aux_loss);
    report->z_loss = tri_exact_get(&sums.z_loss);
    report->information_loss = sum_information(engine, where);
    report->loss = report->cross_entropy + moe->aux_loss * report->aux_loss +
                   moe->z_loss * report->z_loss +
                   moe->mutual_information * report->information_loss;
    report->targets = sums.targets;
    report->dropped = sums.dropped;
    report->load = tally->load;
    report->seconds_attention = tally->seconds_attention;
    report->seconds_router = tally->seconds_router;
    report->seconds_exchange = tally->seconds_exchange;
    report->seconds_experts = tally->seconds_experts;
    report->finite = isfinite(report->loss);
    tri_trace_end(began, "losses", NULL, 0);
}

/* ---- the step -------------------------------------------------------------------------------- */

static enum tri_status run(struct tri_engine *engine, const struct tri_rows_source *source,
                           int64_t step, struct tri_pass options, struct tri_error *error)
{
    const struct tri_mesh *mesh = engine->mesh;
    int replicas = tri_group_size(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    int replica = tri_group_rank(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    int64_t micro = engine->config->train.micro_batch;
    struct tri_range share = tri_rows_share(source->rows, replicas, replica);
    int64_t micro_steps = tri_rows_micro_steps(source->rows, replicas, micro);
    reset_tally(engine);
    double began = tri_trace_begin();
    enum tri_status status = read_rows(engine, source, step, share, error);
    tri_trace_end(began, "data", NULL, 0);
    TRI_TRY(status);
    for (int64_t i = 0; i < micro_steps; i++) {
        began = tri_trace_begin();
        struct tri_range rows = tri_rows_micro(source->rows, replicas, replica, micro, i);
        struct tri_pass pass = make_pass(engine, source, share, rows);
        pass.batch_rows = source->rows;
        pass.micro_step = i;
        pass.step = (uint64_t)step;
        pass.training = options.training;
        pass.backward = options.backward;
        pass.phase = options.phase;
        pass.tap = options.tap;
        pass.row_losses = options.row_losses;
        engine->last = i + 1 == micro_steps;
        tri_model_step(engine->model, &pass);
        tri_trace_end(began, "micro-batch", "micro_batch", i);
        tri_meter_add(TRI_METER_MICRO_BATCHES, 1);
    }
    return TRI_OK;
}

static double exposed_seconds(const struct tri_engine *engine)
{
    return tri_ledger_sum(engine->mesh->ledger, -1, -1, -1, -1).seconds_exposed;
}

static void reduce_gradients(struct tri_engine *engine)
{
    struct tri_params *params = engine->params;
    bool begun = engine->config->comm_overlap;
    for (int64_t block = begun ? reduced_after(engine, -1) - 1 : params->layers; block >= -1;
         block--) {
        tri_gradients_reduce(params, engine->kernels, block, begun);
    }
    tri_gradients_reduce_end(params);
}

enum tri_status tri_engine_gradients(struct tri_engine *engine,
                                     const struct tri_rows_source *source, int64_t step,
                                     struct tri_route_tap *tap, struct tri_step_report *report,
                                     struct tri_error *error)
{
    double start = tri_clock_now();
    double exposed = exposed_seconds(engine);
    *report = (struct tri_step_report){0};
    tri_gradients_begin(engine->params, engine->kernels);
    struct tri_pass options = {
        .training = true, .backward = true, .phase = TRI_PHASE_FORWARD, .tap = tap};
    TRI_TRY(run(engine, source, step, options, error));
    sum_tally(engine, TRI_PHASE_OPTIMIZER, report);
    double reduce = tri_clock_now();
    reduce_gradients(engine);
    double norm = tri_trace_begin();
    tri_trace_span(reduce, norm, "reduction", NULL, 0);
    report->grad_norm =
        tri_gradients_norm(engine->params, tri_model_context(engine->model)->kernels);
    report->finite = report->finite && isfinite(report->grad_norm);
    double now = tri_clock_now();
    tri_trace_span(norm, now, "gradient norm", NULL, 0);
    report->seconds_optimizer = now - reduce;
    report->seconds = now - start;
    report->seconds_exposed = exposed_seconds(engine) - exposed;
    return TRI_OK;
}

void tri_engine_update(struct tri_engine *engine, int64_t update, double learning_rate,
                       struct tri_step_report *report)
{
    const struct tri_config *config = engine->config;
    double start = tri_clock_now();
    double exposed = exposed_seconds(engine);
    tri_optimizer_step(engine->optimizer, update, learning_rate,
                       tri_clip_factor(report->grad_norm, config->train.clip));
    if (config->moe.bias_balancing > 0.0) {
        float *bias = tri_moe_bias(tri_model_moe(engine->model));
        for (int64_t i = 0; i < engine->moe_layers; i++) {
            int64_t at = i * config->moe.num_experts;
            tri_router_update_bias(bias + at, report->load + at, config->moe.num_experts,
                                   config->moe.bias_balancing);
        }
    }
    double now = tri_clock_now();
    tri_trace_span(start, now, "optimizer", NULL, 0);
    report->seconds_optimizer += now - start;
    report->seconds += now - start;
    report->seconds_exposed += exposed_seconds(engine) - exposed;
}

enum tri_status tri_engine_evaluate(struct tri_engine *engine, const struct tri_rows_source *source,
                                    struct tri_step_report *report, struct tri_error *error)
{
    *report = (struct tri_step_report){0};
    TRI_TRY(run(engine, source, 0, (struct tri_pass){.phase = TRI_PHASE_EVAL}, error));
    sum_tally(engine, TRI_PHASE_EVAL, report);
    return TRI_OK;
}

enum tri_status tri_engine_score(struct tri_engine *engine, const struct tri_rows_source *source,
                                 double *row_losses, struct tri_step_report *report,
                                 struct tri_error *error)
{
    struct tri_pass options = {.phase = TRI_PHASE_EVAL, .row_losses = row_losses};
    *report = (struct tri_step_report){0};
    memset(row_losses, 0, (size_t)source->rows * sizeof(*row_losses));
    TRI_TRY(run(engine, source, 0, options, error));
    sum_tally(engine, TRI_PHASE_EVAL, report);
    for (int i = 0; i < 2; i++) {
        int axes = i ? TRI_ON_DEPTH : TRI_ON_EXPERT | TRI_ON_DATA;
        tri_all_reduce_sum(tri_mesh_group(engine->mesh, axes),
                           (struct tri_where){TRI_PHASE_EVAL, TRI_KIND_META}, row_losses,
                           source->rows, TRI_F64);
    }
    return TRI_OK;
}
