/* Rank 0 also runs the reference: the same config alone. A step:
 *
 *   reference's weights, moments ──> layout
 *   reference: gradients, routes, gaps      layout: gradients, routes
 *   compared steps: routes differ? only where the reference's gap is tiny; then the reference's are
 *     imposed; gather both gradients, compare.  Other steps: imposed from the start
 *   followed steps: both update; gather both weights, compare what changed
 *   on from the reference's
 *
 * Two trainings that run freely would be no measure: training is chaotic. */
#include "train/verify.h"

#include "base/memory.h"
#include "base/meter.h"
#include "base/room.h"
#include "base/runtime.h"
#include "plan/memory.h"
#include "train/evaluate.h"
#include "train/rehearsal.h"
#include "train/start.h"
#include "train/verify_internal.h"

#include <math.h>

static const double loss_limit = 2e-6;
static const double training_limit = 1e-5;

enum { WORD = sizeof(float), SHARP = 2 };

const struct tri_where tri_verify_where = {TRI_PHASE_CHECKPOINT, TRI_KIND_META};

/* ---- a step ---------------------------------------------------------------------------------- */

/* What rank 0 says of its step, on every rank. */
static enum tri_status reference_gradients(struct verify *v, int64_t step,
                                           struct tri_step_report *report, struct tri_error *error)
{
    enum tri_status status = TRI_OK;
    *report = (struct tri_step_report){0};
    if (verify_is_root(v)) {
        status = tri_engine_gradients(v->reference, &v->reference_source, step, &v->reference_tap,
                                      report, error);
    }
    TRI_TRY(tri_comm_agree(tri_mesh_group(v->session->mesh, TRI_ON_ALL), status, error));
    double said[3] = {report->loss, report->grad_norm, report->finite};
    tri_broadcast(tri_mesh_group(v->session->mesh, TRI_ON_ALL), tri_verify_where, said, 3, TRI_F64,
                  0);
    report->loss = said[0];
    report->grad_norm = said[1];
    report->finite = said[2] != 0.0;
    return TRI_OK;
}

static enum tri_status layout_gradients(struct verify *v, int64_t step, bool impose,
                                        struct tri_step_report *report, struct tri_error *error)
{
    v->tap.impose = impose;
    TRI_TRY(tri_engine_gradients(v->session->engine, &v->source, step, &v->tap, report, error));
    tri_verify_plant(v);
    return TRI_OK;
}

static void note_loss(double got, double expected, double floor, double *worst)
{
    double error = fabs(got - expected) / fmax(fabs(expected), floor);
    *worst = isnan(error) ? (double)INFINITY : fmax(error, *worst);
}

/* Both sides' updates, the layout's only where it is followed. As in training, a step that is not
 * finite changes nothing. */
static void update(struct verify *v, int64_t step, bool follow, struct tri_step_report *expected,
                   struct tri_step_report *got)
{
    double rate = tri_learning_rate(&v->config.train, step);
    if (follow && expected->finite != got->finite) {
        tri_verify_note(v, "gradient norm", (double)NAN, (double)INFINITY);
    }
    if (!expected->finite || (follow && !got->finite)) {
        return;
    }
    if (follow) {
        tri_engine_update(v->session->engine, step + 1, rate, got);
    }
    if (verify_is_root(v)) {
        tri_verify_keep_weights(v);
        tri_engine_update(v->reference, step + 1, rate, expected);
    }
    if (follow) {
        tri_verify_compare_changes(v, step, expected->grad_norm);
    }
}

static enum tri_status take_step(struct verify *v, int64_t step, struct tri_error *error)
{
    struct tri_step_report expected;
    struct tri_step_report got;
    bool compare = step < v->options->compared;
    bool follow = step < v->options->steps;
    bool impose = v->config.moe.router->imposed != TRI_IMPOSE_NOTHING;
    tri_verify_share_state(v);
    TRI_TRY(reference_gradients(v, step, &expected, error));
    if (compare) {
        TRI_TRY(layout_gradients(v, step, false, &got, error));
    }
    bool by_logits = v->config.moe.router->imposed & TRI_IMPOSE_LOGITS;
    bool undecided = compare && tri_verify_compare_routes(v);
    if (!compare || undecided || by_logits) {
        if (impose) {
            tri_verify_share_routes(v);
        }
        TRI_TRY(layout_gradients(v, step, impose, &got, error));
    }
    if (compare) {
        note_loss(got.loss, expected.loss, 1e-30, &v->result->worst_loss);
        tri_verify_compare_gradients(v, expected.grad_norm);
        v->result->compared++;
    }
    if (follow) {
        if (got.finite || expected.finite) {
            /* a loss near 0 is a small difference of large logarithms */
            note_loss(got.loss, expected.loss, 1.0, &v->result->worst_training_loss);
        }
        v->result->steps++;
    }
    update(v, step, follow, &expected, &got);
    return TRI_OK;
}

/* Rank 0's verdict, made everyone's. */
static void conclude(struct verify *v)
{
    struct tri_verify_result *r = v->result;
    if (verify_is_root(v)) {
        if (!(r->worst_loss <= loss_limit)) {
            tri_verify_note(v, "loss", r->worst_loss, r->worst_loss / loss_limit);
        }
        if (r->wrong_routes) {
            tri_verify_note(v, "routes", (double)r->wrong_routes, (double)INFINITY);
        }
        bool same = v->worst_excess <= 1.0 && r->worst_loss <= loss_limit && r->wrong_routes == 0;
        bool trained = r->worst_training_loss <= training_limit;
        r->passed = same && trained && v->change_excess <= 1.0;
        if (same && !trained) {
            tri_verify_note(v, "loss while training", r->worst_training_loss, (double)INFINITY);
        } else if (same && !r->passed) {
            tri_verify_note(v, r->worst_changed, r->worst_change, (double)INFINITY);
        }
    }
    tri_broadcast(tri_mesh_group(v->session->mesh, TRI_ON_ALL), tri_verify_where, r,
                  (int64_t)sizeof(*r), TRI_U8, 0);
}

/* ---- setup ----------------------------------------------------------------------------------- */

/* Whether rank 0's reference has room beside so many ranks that take `each` bytes more. */
static enum tri_status check_ranks(const struct verify *v, int ranks, int64_t each,
                                   const char *whose, struct tri_memory_room room,
                                   struct tri_error *error)
{
    int64_t needed = v->result->reference_bytes + ranks * each;
    if (needed <= room.bytes) {
        return TRI_OK;
    }
    return tri_fail(error, TRI_FAILED,
                    "verify: rank 0 needs %.2f GB for the reference, and %s ranks %.2f GB in all, "
                    "but %.2f GB are free (limit: %s)",
                    (double)v->result->reference_bytes / 1e9, whose, (double)needed / 1e9,
                    (double)room.bytes / 1e9, room.limit);
}

/* Rank 0 also holds the reference, whose weights and moments are whole, and what is compared. */
static enum tri_status check_root(struct verify *v, struct tri_error *error)
{
    const struct tri_memory_plan *own = &v->session->plan;
    int local = tri_comm_local_size(v->session->mesh->comm);
    const struct tri_rehearsal rehearsal = {.config = &v->reference_config,
                                            .layout = {1, 1, 1, 1, 1, 1},
                                            .training = true,
                                            .load = v->session->load,
                                            .threads = v->session->kernels->threads,
                                            .local_ranks = local};
    struct tri_memory_plan plan;
    TRI_TRY(tri_rehearse(&rehearsal, NULL, &plan, error));
    struct tri_memory_counters now = tri_memory_get();
    int64_t compared = (v->session->engine->params->total + 4 * v->largest) * WORD;
    v->result->reference_bytes = plan.total + compared;
    /* What the layout has taken already is no longer free. */
    int64_t each = own->total + own->process;
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        each -= now.current[i];
    }
    int here = tri_runtime_ranks();
    const char *whose = here == local ? "this node's" : "this process's";
    TRI_TRY(check_ranks(v, here, each, whose, tri_room_find(1), error));
    return here == local
               ? TRI_OK
               : check_ranks(v, local, each, "this node's", tri_room_of_machine(""), error);
}

static enum tri_status check_memory(struct verify *v, struct tri_error *error)
{
    enum tri_status status = verify_is_root(v) ? check_root(v, error) : TRI_OK;
    return tri_comm_agree(tri_mesh_group(v->session->mesh, TRI_ON_ALL), status, error);
}

static void find_largest(struct verify *v)
{
    const struct tri_params *params = v->session->engine->params;
    for (int p = 0; p < params->count; p++) {
        int64_t n = verify_elements(&params->param[p]);
        v->largest = n > v->largest ? n : v->largest;
    }
}

static void take_room(struct verify *v)
{
    int arrays = verify_is_root(v) ? 4 : 3;
    float *room = tri_alloc(TRI_MEMORY_OTHER, (size_t)(arrays * v->largest) * sizeof(*room));
    for (int i = 0; i < arrays; i++) {
        v->whole[i] = room + i * v->largest;
    }
    if (verify_is_root(v)) {
        size_t all = (size_t)v->session->engine->params->total;
        v->before = tri_alloc(TRI_MEMORY_OTHER, all * sizeof(*v->before));
    }
}

static enum tri_status prepare(struct verify *v, struct tri_comm *comm, struct tri_error *error)
{
    struct tri_config *config = &v->config;
    TRI_TRY(tri_session_create(comm, config, true, 0, NULL, &v->session, error));
    struct tri_params *params = v->session->engine->params;
    if (v->options->plant && !tri_params_by_name(params, v->options->plant)) {
        return tri_fail(error, TRI_BAD_INPUT, "--plant: no parameter is called '%s'",
                        v->options->plant);
    }
    if (v->options->plant && !tri_params_by_name(params, v->options->plant)->trained) {
        return tri_fail(error, TRI_BAD_INPUT, "--plant: '%s' is frozen and has no gradient",
                        v->options->plant);
    }
    v->source = tri_source_random(config);
    if (config->data.train[0]) {
        TRI_TRY(tri_text_open_training(v->session, &v->text, error));
        v->source = tri_source_of_loader(v->text.loader, config);
    }
    TRI_TRY(tri_verify_order_rows(v, error));
    find_largest(v);
    TRI_TRY(check_memory(v, error));
    take_room(v);
    tri_verify_make_taps(v);
    if (verify_is_root(v)) {
        v->serial = tri_mesh_create_serial();
        v->reference =
            tri_engine_create(&v->reference_config, v->serial, v->session->kernels, true);
    }
    if (config->init_from[0]) {
        TRI_TRY(tri_start_weights(v->session, error));
        tri_verify_give_weights(v);
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
    tri_free(v->tap.logits);
    tri_free(v->reference_tap.logits);
    tri_free(v->row_of);
    tri_free(v->whole[0]);
    tri_free(v->before);
    tri_text_close(&v->text);
    tri_session_destroy(v->session);
}

static enum tri_status run(struct verify *v, struct tri_comm *comm, struct tri_error *error)
{
    const struct tri_verify_options *options = v->options;
    TRI_TRY(prepare(v, comm, error));
    int64_t steps = options->compared > options->steps ? options->compared : options->steps;
    enum tri_status status = TRI_OK;
    tri_meter_begin(TRI_METER_STEPS, steps, "verifying");
    for (int64_t step = 0; step < steps && status == TRI_OK; step++) {
        status = take_step(v, step, error);
        tri_meter_add(TRI_METER_STEPS, 1);
    }
    tri_meter_end();
    TRI_TRY(status);
    conclude(v);
    return TRI_OK;
}

enum tri_status tri_verify(struct tri_comm *comm, const struct tri_config *config,
                           const struct tri_verify_options *options,
                           struct tri_verify_result *result, struct tri_error *error)
{
    struct verify *v = tri_alloc(TRI_MEMORY_OTHER, sizeof(*v));
    *result = (struct tri_verify_result){0};
    v->config = *config;
    v->config.precision = TRI_PRECISION_F32;
    v->config.train.gradient_dtype = TRI_PRECISION_F32;
    if (v->config.moe.sharpen_step > SHARP) {
        v->config.moe.sharpen_step = SHARP; /* so that steps before and after it are compared */
    }
    v->reference_config = v->config;
    v->reference_config.parallel = (struct tri_config_parallel){1, 1, 1, {0}};
    v->reference_config.train.recompute = 0; /* the reference keeps everything */
    v->options = options;
    v->result = result;
    v->worst_excess = -1.0;
    v->change_excess = -1.0;
    enum tri_status status = run(v, comm, error);
    release(v);
    tri_free(v);
    return status;
}
