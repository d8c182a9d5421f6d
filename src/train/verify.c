/* Rank 0 also runs the reference: the same config alone. Both sides see the same rows of the same
 * global batches; a step's flow is
 *
 *   reference's weights ──> layout        (compared steps: before each of them)
 *   reference: gradients, routes, gaps    layout: gradients, routes
 *   routes differ? only where the reference's gap is tiny; then the reference's are imposed
 *   gather both gradients, compare
 */
#include "train/verify.h"

#include "base/memory.h"
#include "moe/moe.h"
#include "shard/rows.h"
#include "train/evaluate.h"
#include "train/session.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const double loss_limit = 2e-6;
static const double training_limit = 1e-5;
static const double gradient_limit = 2e-5;
static const double small_limit = 2e-8; /* of the whole gradient's norm, for tensors below… */
static const double small_share = 1e-3; /* …this share of it */
static const double tie_gap = 1e-6;

struct verify {
    struct tri_config config;           /* of the layout, f32 */
    struct tri_config reference_config; /* of one rank */
    const struct tri_verify_options *options;
    struct tri_verify_result *result;
    struct tri_session *session;
    struct tri_text text;
    struct tri_mesh *serial;      /* rank 0 */
    struct tri_engine *reference; /* rank 0 */
    struct tri_rows_source source, reference_source;
    int64_t *row_of; /* [rows] reference row -> row of the global batch */
    struct tri_route_tap tap, reference_tap;
    float *global[2];    /* one whole tensor: the layout's, the reference's */
    double worst_excess; /* of error over limit */
};

static bool is_root(const struct verify *v)
{
    return v->session->mesh->rank == 0;
}

static const struct tri_where meta = {TRI_PHASE_CHECKPOINT, TRI_KIND_META};

/* ---- rows ------------------------------------------------------------------------------------ */

/* The reference's row j is row row_of[j] of the global batch. */
static enum tri_status fill_reference(void *state, int64_t step, int64_t first_row, int64_t rows,
                                      int32_t *tokens, int32_t *targets, int32_t *first_key,
                                      struct tri_error *error)
{
    const struct verify *v = state;
    int64_t seq = v->source.seq;
    for (int64_t j = 0; j < rows; j++) {
        TRI_TRY(v->source.fill(v->source.state, step, v->row_of[first_row + j], 1, tokens + j * seq,
                               targets + j * seq, first_key + j * seq, error));
    }
    return TRI_OK;
}

static bool uses_window(const struct tri_config *config, enum tri_window window)
{
    return tri_model_moe_layers(config) > 0 &&
           ((config->moe.aux_loss > 0.0 && config->moe.aux_window == window) ||
            (config->moe.capacity_factor > 0.0 && config->moe.capacity_window == window));
}

/* Whether the router draws numbers, which are keyed by a row's place in the batch. */
static bool draws(const struct tri_config *config)
{
    const struct tri_config_moe *moe = &config->moe;
    return moe->jitter > 0.0 || moe->noise > 0.0 || moe->router == TRI_ROUTER_DEEPSPEED_TOP1 ||
           moe->router == TRI_ROUTER_DEEPSPEED_TOP2 ||
           (moe->capacity_factor > 0.0 && moe->drop_policy == TRI_DROP_RANDOM);
}

/* Windows over a micro-step or over a replica's micro-batch: the reference must see the same sets
 * of rows at once. */
static enum tri_status order_rows(struct verify *v, struct tri_error *error)
{
    const struct tri_config *config = &v->config;
    int64_t rows = config->train.global_batch;
    int64_t micro = config->train.micro_batch;
    int replicas = tri_group_size(v->session->mesh->expert_data);
    v->row_of = tri_alloc(TRI_MEMORY_OTHER, (size_t)rows * sizeof(*v->row_of));
    for (int64_t j = 0; j < rows; j++) {
        v->row_of[j] = j;
    }
    if (uses_window(config, TRI_WINDOW_RANK) && replicas > 1) {
        for (int r = 0; r < replicas; r++) {
            if (tri_range_size(tri_rows_share(rows, replicas, r)) % micro != 0) {
                return tri_config_refuse(
                    config, error, "train.micro_batch",
                    "with a window of 'rank' layouts agree only if they keep the "
                    "micro-batches, and %lld rows over %d replicas do not divide into "
                    "micro-batches of %lld",
                    (long long)rows, replicas, (long long)micro);
            }
        }
    }
    if (uses_window(config, TRI_WINDOW_STEP)) {
        if (uses_window(config, TRI_WINDOW_RANK) && replicas > 1) {
            return tri_config_refuse(
                config, error, "moe.capacity_window",
                "one window of 'step' and one of 'rank' cannot both be reproduced on one rank");
        }
        if (draws(config) && tri_rows_micro_steps(rows, replicas, micro) > 1 && replicas > 1) {
            return tri_config_refuse(
                config, error, "train.micro_batch",
                "with a window of 'step' and a router that draws numbers, one rank agrees only on "
                "a single micro-step: expected at least %lld for %lld rows over %d replicas",
                (long long)((rows + replicas - 1) / replicas), (long long)rows, replicas);
        }
        v->reference_config.train.micro_batch = micro * replicas;
        int64_t at = 0;
        for (int64_t i = 0; i < tri_rows_micro_steps(rows, replicas, micro); i++) {
            for (int r = 0; r < replicas; r++) {
                struct tri_range part = tri_rows_micro(rows, replicas, r, micro, i);
                for (int64_t row = part.begin; row < part.end; row++) {
                    v->row_of[at++] = row;
                }
            }
        }
    }
    return TRI_OK;
}

/* ---- routes ---------------------------------------------------------------------------------- */

static int64_t tap_size(const struct verify *v)
{
    return tri_model_moe_layers(&v->config) * v->tap.tokens * v->tap.k;
}

static void make_taps(struct verify *v)
{
    struct tri_route_tap *taps[2] = {&v->tap, &v->reference_tap};
    int64_t layers = tri_model_moe_layers(&v->config);
    for (int i = 0; i < 2; i++) {
        taps[i]->tokens = v->source.rows * v->source.seq;
        taps[i]->k = v->config.moe.top_k;
        taps[i]->chosen = tri_alloc(TRI_MEMORY_OTHER, (size_t)tap_size(v) * sizeof(int32_t));
        taps[i]->expert = tri_alloc(TRI_MEMORY_OTHER, (size_t)tap_size(v) * sizeof(int32_t));
        taps[i]->gap =
            tri_alloc(TRI_MEMORY_OTHER, (size_t)(layers * taps[i]->tokens) * sizeof(float));
    }
}

/* Copies routes between the reference's order of rows and the global batch's. */
static void reorder(const struct verify *v, int32_t *global, int32_t *reference, bool to_global)
{
    int64_t row = v->source.seq * v->tap.k;
    int64_t layers = tri_model_moe_layers(&v->config);
    for (int64_t layer = 0; layer < layers; layer++) {
        for (int64_t j = 0; j < v->source.rows; j++) {
            int32_t *r = reference + (layer * v->source.rows + j) * row;
            int32_t *g = global + (layer * v->source.rows + v->row_of[j]) * row;
            memcpy(to_global ? g : r, to_global ? r : g, (size_t)row * sizeof(*r));
        }
    }
}

/* The layout's recorded routes, whole on rank 0: replicas fill disjoint rows of zeroed arrays. */
static void collect_routes(struct verify *v, int64_t *routes)
{
    int64_t n = tap_size(v);
    struct tri_group *replicas = v->session->mesh->expert_data;
    struct tri_range share =
        tri_rows_share(v->source.rows, tri_group_size(replicas), tri_group_rank(replicas));
    int64_t row = v->source.seq * v->tap.k;
    for (int64_t i = 0; i < n; i++) {
        int64_t r = i / row % v->source.rows;
        routes[i] = r >= share.begin && r < share.end ? v->tap.chosen[i] : 0;
    }
    tri_all_reduce_sum(replicas, meta, routes, n, TRI_I64);
}

static bool same_set(const int64_t *a, const int32_t *b, int64_t k)
{
    for (int64_t i = 0; i < k; i++) {
        bool found = false;
        for (int64_t j = 0; j < k; j++) {
            found = found || a[i] == b[j];
        }
        if (!found) {
            return false;
        }
    }
    return true;
}

/* Counts tokens whose routes differ; returns whether any did. Collective: same on all ranks. */
static bool compare_routes(struct verify *v)
{
    int64_t n = tap_size(v);
    int64_t k = v->tap.k;
    int64_t counts[2] = {0, 0}; /* near ties, wrong */
    if (n == 0) {
        return false;
    }
    int64_t *routes = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*routes));
    collect_routes(v, routes);
    if (is_root(v)) {
        int32_t *expected = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*expected));
        reorder(v, expected, v->reference_tap.chosen, true);
        for (int64_t layer = 0; layer < n / (v->tap.tokens * k); layer++) {
            for (int64_t j = 0; j < v->tap.tokens; j++) {
                int64_t t = layer * v->tap.tokens + v->row_of[j / v->source.seq] * v->source.seq +
                            j % v->source.seq;
                if (!same_set(routes + t * k, expected + t * k, k)) {
                    double gap = (double)v->reference_tap.gap[layer * v->tap.tokens + j];
                    counts[gap < tie_gap ? 0 : 1]++;
                }
            }
        }
        tri_free(expected);
    }
    tri_free(routes);
    tri_broadcast(v->session->mesh->world, meta, counts, 2, TRI_I64, 0);
    v->result->near_ties += counts[0];
    v->result->wrong_routes += counts[1];
    return counts[0] + counts[1] > 0;
}

/* Gives every rank the reference's routes, to impose; and its drops, which near ties of
 * probabilities could flip as well. */
static void share_routes(struct verify *v)
{
    int64_t n = tap_size(v);
    if (is_root(v) && n > 0) {
        reorder(v, v->tap.chosen, v->reference_tap.chosen, true);
        reorder(v, v->tap.expert, v->reference_tap.expert, true);
    }
    tri_broadcast(v->session->mesh->world, meta, v->tap.chosen, n, TRI_I32, 0);
    tri_broadcast(v->session->mesh->world, meta, v->tap.expert, n, TRI_I32, 0);
}

/* ---- weights and gradients ------------------------------------------------------------------- */

static int64_t elements(const struct tri_param *param)
{
    return param->shape[0] * param->shape[1];
}

/* The balancing biases, which choose experts as the weights do; NULL when the config has none. */
static float *biases(const struct tri_engine *engine)
{
    return engine->moe_layers ? tri_moe_bias(tri_model_moe(engine->model)) : NULL;
}

static int64_t bias_count(const struct tri_engine *engine)
{
    return engine->moe_layers * engine->config->moe.num_experts;
}

static void share_biases(const struct verify *v)
{
    const struct tri_engine *engine = v->session->engine;
    float *bias = biases(engine);
    if (bias) {
        int64_t n = bias_count(engine);
        if (is_root(v)) {
            memcpy(bias, biases(v->reference), (size_t)n * sizeof(*bias));
        }
        tri_broadcast(v->session->mesh->world, meta, bias, n, TRI_F32, 0);
    }
}

static void share_weights(struct verify *v)
{
    struct tri_params *params = v->session->engine->params;
    share_biases(v);
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        if (is_root(v)) {
            tri_param_gather(v->reference->params, &v->reference->params->param[p],
                             TRI_FIELD_WEIGHT, v->global[1]);
        }
        tri_broadcast(v->session->mesh->world, meta, v->global[1], elements(param), TRI_F32, 0);
        tri_param_scatter(params, param, TRI_FIELD_WEIGHT, v->global[1]);
    }
}

/* Scales this rank's part of the planted gradient: the shard that the reduction left here. */
static void plant(const struct verify *v)
{
    struct tri_params *params = v->session->engine->params;
    const struct tri_param *param =
        v->options->plant ? tri_params_by_name(params, v->options->plant) : NULL;
    if (!param) {
        return;
    }
    struct tri_buffer *buffer = &params->buffer[param->buffer];
    struct tri_range part = tri_param_own(params, param);
    for (int64_t i = part.begin; i < part.end; i++) {
        if (buffer->gradient_dtype == TRI_I64) {
            int64_t *sum = (int64_t *)buffer->gradients + i;
            *sum = (int64_t)((double)*sum * v->options->factor);
        } else {
            float *gradient = (float *)buffer->gradients + i; /* verify runs in f32 */
            *gradient = (float)((double)*gradient * v->options->factor);
        }
    }
}

static void note_worst(struct verify *v, const char *what, double relative, double excess)
{
    if (excess > v->worst_excess || !(excess == excess)) {
        v->worst_excess = excess == excess ? excess : (double)INFINITY;
        v->result->worst_relative_l2 = relative;
        (void)snprintf(v->result->worst_parameter, sizeof(v->result->worst_parameter), "%s", what);
    }
}

static void compare_gradient(struct verify *v, const struct tri_param *param, double whole)
{
    double distance = 0.0;
    double norm = 0.0;
    for (int64_t i = 0; i < elements(param); i++) {
        double expected = (double)v->global[1][i];
        double difference = (double)v->global[0][i] - expected;
        distance += difference * difference;
        norm += expected * expected;
    }
    distance = sqrt(distance);
    norm = sqrt(norm);
    if (distance == 0.0) {
        note_worst(v, param->name, 0.0, 0.0);
        return;
    }
    double limit = norm < small_share * whole ? small_limit * whole : gradient_limit * norm;
    note_worst(v, param->name, norm > 0.0 ? distance / norm : (double)INFINITY, distance / limit);
}

static void compare_gradients(struct verify *v, double whole)
{
    const struct tri_params *params = v->session->engine->params;
    for (int p = 0; p < params->count; p++) {
        tri_param_gather(params, &params->param[p], TRI_FIELD_GRADIENT, v->global[0]);
        if (is_root(v)) {
            tri_param_gather(v->reference->params, &v->reference->params->param[p],
                             TRI_FIELD_GRADIENT, v->global[1]);
            compare_gradient(v, &params->param[p], whole);
        }
    }
}

/* ---- the two phases -------------------------------------------------------------------------- */

static double relative(double got, double expected)
{
    return fabs(got - expected) / fmax(fabs(expected), 1e-30);
}

static enum tri_status reference_gradients(struct verify *v, int64_t step,
                                           struct tri_step_report *report, struct tri_error *error)
{
    enum tri_status status = TRI_OK;
    *report = (struct tri_step_report){0};
    if (is_root(v)) {
        status = tri_engine_gradients(v->reference, &v->reference_source, step, &v->reference_tap,
                                      report, error);
    }
    TRI_TRY(tri_comm_agree(v->session->mesh->world, status, error));
    double loss = report->loss;
    tri_broadcast(v->session->mesh->world, meta, &loss, 1, TRI_F64, 0);
    report->loss = loss;
    return TRI_OK;
}

static enum tri_status layout_gradients(struct verify *v, int64_t step, bool impose,
                                        struct tri_step_report *report, struct tri_error *error)
{
    v->tap.impose = impose;
    TRI_TRY(tri_engine_gradients(v->session->engine, &v->source, step, &v->tap, report, error));
    plant(v);
    return TRI_OK;
}

static void update(const struct verify *v, struct tri_engine *engine, int64_t step,
                   struct tri_step_report *report)
{
    tri_engine_update(engine, step + 1, tri_learning_rate(&v->config.train, step), report);
}

static enum tri_status compare_step(struct verify *v, int64_t step, struct tri_error *error)
{
    struct tri_step_report expected;
    struct tri_step_report got;
    share_weights(v);
    TRI_TRY(reference_gradients(v, step, &expected, error));
    TRI_TRY(layout_gradients(v, step, false, &got, error));
    if (compare_routes(v)) {
        share_routes(v);
        TRI_TRY(layout_gradients(v, step, true, &got, error));
    }
    double loss = relative(got.loss, expected.loss);
    if (!(loss <= v->result->worst_loss)) {
        v->result->worst_loss = loss;
    }
    compare_gradients(v, expected.grad_norm);
    if (is_root(v)) {
        update(v, v->reference, step, &expected);
    }
    return TRI_OK;
}

static void start_over(struct tri_engine *engine)
{
    struct tri_params *params = engine->params;
    tri_params_init(params, (uint64_t)engine->config->seed);
    for (int i = 0; i < TRI_BUFFERS; i++) {
        size_t bytes = (size_t)params->buffer[i].shard * sizeof(float);
        memset(params->buffer[i].m, 0, bytes);
        memset(params->buffer[i].v, 0, bytes);
    }
    if (biases(engine)) {
        memset(biases(engine), 0, (size_t)bias_count(engine) * sizeof(float));
    }
}

static enum tri_status train_side_by_side(struct verify *v, struct tri_error *error)
{
    start_over(v->session->engine);
    if (is_root(v)) {
        start_over(v->reference);
    }
    for (int64_t step = 0; step < v->options->steps; step++) {
        struct tri_step_report expected;
        struct tri_step_report got;
        TRI_TRY(reference_gradients(v, step, &expected, error));
        share_routes(v);
        TRI_TRY(layout_gradients(v, step, true, &got, error));
        double loss = relative(got.loss, expected.loss);
        if (!(loss <= v->result->worst_training_loss)) {
            v->result->worst_training_loss = loss;
        }
        update(v, v->session->engine, step, &got);
        if (is_root(v)) {
            update(v, v->reference, step, &expected);
        }
    }
    return TRI_OK;
}

/* Rank 0's verdict, made everyone's. */
static void conclude(struct verify *v)
{
    struct tri_verify_result *r = v->result;
    if (is_root(v)) {
        if (!(r->worst_loss <= loss_limit)) {
            note_worst(v, "loss", r->worst_loss, r->worst_loss / loss_limit);
        }
        if (r->wrong_routes) {
            note_worst(v, "routes", (double)r->wrong_routes, (double)INFINITY);
        }
        bool trained = r->worst_training_loss <= training_limit;
        r->passed = v->worst_excess <= 1.0 && r->worst_loss <= loss_limit && r->wrong_routes == 0 &&
                    trained;
        if (!trained && v->worst_excess <= 1.0) {
            note_worst(v, "loss while training", r->worst_training_loss, (double)INFINITY);
        }
    }
    tri_broadcast(v->session->mesh->world, meta, r, (int64_t)sizeof(*r), TRI_U8, 0);
}

/* ---- setup ----------------------------------------------------------------------------------- */

static enum tri_status prepare(struct verify *v, struct tri_error *error)
{
    struct tri_config *config = &v->config;
    TRI_TRY(tri_session_create(config, true, &v->session, error));
    struct tri_params *params = v->session->engine->params;
    int64_t largest = 0;
    for (int p = 0; p < params->count; p++) {
        largest = elements(&params->param[p]) > largest ? elements(&params->param[p]) : largest;
    }
    if (v->options->plant && !tri_params_by_name(params, v->options->plant)) {
        return tri_fail(error, TRI_BAD_INPUT, "--plant: no parameter is called '%s'",
                        v->options->plant);
    }
    v->global[0] = tri_alloc(TRI_MEMORY_OTHER, (size_t)largest * sizeof(float));
    v->global[1] = tri_alloc(TRI_MEMORY_OTHER, (size_t)largest * sizeof(float));
    v->source = tri_source_random(config);
    if (config->data.train[0]) {
        TRI_TRY(tri_text_open(v->session, config->data.train, false, &v->text, error));
        v->source = tri_source_of_loader(v->text.loader, config);
    }
    TRI_TRY(order_rows(v, error));
    v->reference_source = v->source;
    v->reference_source.state = v;
    v->reference_source.fill = fill_reference;
    make_taps(v);
    if (is_root(v)) {
        v->serial = tri_mesh_create_serial();
        v->reference = tri_engine_create(&v->reference_config, v->serial, tri_kernels_fast(), true);
    }
    v->result->parameters = params->count;
    return TRI_OK;
}

static void release(struct verify *v)
{
    tri_engine_destroy(v->reference);
    tri_mesh_destroy(v->serial);
    tri_free(v->tap.chosen);
    tri_free(v->tap.expert);
    tri_free(v->tap.gap);
    tri_free(v->reference_tap.chosen);
    tri_free(v->reference_tap.expert);
    tri_free(v->reference_tap.gap);
    tri_free(v->row_of);
    tri_free(v->global[0]);
    tri_free(v->global[1]);
    tri_text_close(&v->text);
    tri_session_destroy(v->session);
}

static enum tri_status run(struct verify *v, struct tri_error *error)
{
    TRI_TRY(prepare(v, error));
    for (int64_t step = 0; step < v->options->compared; step++) {
        TRI_TRY(compare_step(v, step, error));
        v->result->compared++;
    }
    TRI_TRY(train_side_by_side(v, error));
    v->result->steps = v->options->steps;
    conclude(v);
    return TRI_OK;
}

enum tri_status tri_verify(const struct tri_config *config,
                           const struct tri_verify_options *options,
                           struct tri_verify_result *result, struct tri_error *error)
{
    struct verify *v = tri_alloc(TRI_MEMORY_OTHER, sizeof(*v));
    *result = (struct tri_verify_result){0};
    v->config = *config;
    v->config.precision = TRI_PRECISION_F32;
    v->config.train.gradient_dtype = TRI_PRECISION_F32;
    v->reference_config = v->config;
    v->reference_config.parallel = (struct tri_config_parallel){1, 1, 1};
    v->reference_config.train.recompute = 0; /* the reference keeps everything */
    v->options = options;
    v->result = result;
    v->worst_excess = -1.0;
    enum tri_status status = run(v, error);
    release(v);
    tri_free(v);
    return status;
}
