/* What must agree: gradients computed from equal weights, and what an update from equal weights and
 * moments changes. */
#include "train/verify_internal.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* What a parameter's gradient may differ by: relative L2, and of the whole gradient's norm for
 * tensors whose own is below a share of it. */
#define GRADIENT_LIMIT 2e-5
#define SMALL_LIMIT    2e-8
#define SMALL_SHARE    1e-3
/* … and of the norm of the values' gradient, for what stands behind the scores. */
#define SCORES_LIMIT 2e-6

static const double change_limit = 5e-3;

void tri_verify_note(struct verify *v, const char *what, double relative, double excess)
{
    if (excess > v->worst_excess || !(excess == excess)) {
        v->worst_excess = excess == excess ? excess : (double)INFINITY;
        v->result->worst_relative_l2 = relative;
        (void)snprintf(v->result->worst_parameter, sizeof(v->result->worst_parameter), "%s", what);
    }
}

static void note_change(struct verify *v, const char *what, double relative)
{
    double excess = relative / change_limit;
    if (excess > v->change_excess || !(excess == excess)) {
        v->change_excess = excess == excess ? excess : (double)INFINITY;
        v->result->worst_change = relative;
        (void)snprintf(v->result->worst_changed, sizeof(v->result->worst_changed), "%s", what);
    }
}

static double norm_of(const float *values, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += (double)values[i] * (double)values[i];
    }
    return sqrt(sum);
}

/* Of the reference's gradient of the values beside these queries or keys: weights beside weights,
 * biases beside biases, halves of pairs beside such halves; 0 for all else. In whole[1]. Rank 0. */
static double values_norm(struct verify *v, const struct tri_param *param)
{
    const struct tri_params *params = v->reference->params;
    static const enum tri_role beside[][3] = {
        {TRI_ROLE_Q, TRI_ROLE_K, TRI_ROLE_V},
        {TRI_ROLE_Q_BIAS, TRI_ROLE_K_BIAS, TRI_ROLE_V_BIAS},
        {TRI_ROLE_Q_A, TRI_ROLE_K_A, TRI_ROLE_V_A},
        {TRI_ROLE_Q_B, TRI_ROLE_K_B, TRI_ROLE_V_B},
    };
    enum { KINDS = sizeof(beside) / sizeof(*beside) };
    int kind = 0;
    while (kind < KINDS && param->role != beside[kind][0] && param->role != beside[kind][1]) {
        kind++;
    }
    if (kind == KINDS) {
        return 0.0;
    }
    const struct tri_param *values =
        tri_params_find(params, beside[kind][2], param->place, param->layer, param->expert);
    TRI_REQUIRE(values);
    tri_param_gather(params, values, TRI_FIELD_GRADIENT, v->whole[1]);
    return norm_of(v->whole[1], verify_elements(values));
}

/* The distance that a parameter's gradient of this norm may have. What stands behind the scores has
 * its gradient from differences, P (dP - sum P dP), whose terms are as large as those of the
 * values' gradient. Where what counts sees few keys they cancel, and all of them where it sees one:
 * what is left is what f32 rounds. Where keys are neither turned nor normalised, their bias adds
 * the same to all scores of a query: its gradient is 0 but for the rounding of a sum, whose terms
 * are as large as those of the key weight's, a row before it. */
static double gradient_limit(struct verify *v, const struct tri_param *param, double norm,
                             double whole_norm, double values)
{
    double limit =
        norm < SMALL_SHARE * whole_norm ? SMALL_LIMIT * whole_norm : GRADIENT_LIMIT * norm;
    limit = fmax(limit, SCORES_LIMIT * values);
    if (param->role == TRI_ROLE_K) {
        v->keys_norm = norm;
    }
    bool cancels = v->config.model.position == TRI_POSITION_LEARNED &&
                   v->config.model.qk_norm == TRI_QK_NORM_NONE;
    return param->role == TRI_ROLE_K_BIAS && cancels ? fmax(limit, GRADIENT_LIMIT * v->keys_norm)
                                                     : limit;
}

static void compare_gradient(struct verify *v, const struct tri_param *param, double whole_norm,
                             double values)
{
    double distance = 0.0;
    double norm = norm_of(v->whole[1], verify_elements(param));
    for (int64_t i = 0; i < verify_elements(param); i++) {
        double difference = (double)v->whole[0][i] - (double)v->whole[1][i];
        distance += difference * difference;
    }
    double limit = gradient_limit(v, param, norm, whole_norm, values);
    distance = sqrt(distance);
    if (distance == 0.0) {
        tri_verify_note(v, param->name, 0.0, 0.0);
        return;
    }
    tri_verify_note(v, param->name, norm > 0.0 ? distance / norm : (double)INFINITY,
                    distance / limit);
}

void tri_verify_compare_gradients(struct verify *v, double whole_norm)
{
    const struct tri_params *params = v->session->engine->params;
    for (int p = 0; p < params->count; p++) {
        tri_param_gather(params, &params->param[p], TRI_FIELD_GRADIENT, v->whole[0]);
        if (verify_is_root(v)) {
            double values = values_norm(v, &params->param[p]);
            tri_param_gather(v->reference->params, &v->reference->params->param[p],
                             TRI_FIELD_GRADIENT, v->whole[1]);
            compare_gradient(v, &params->param[p], whole_norm, values);
        }
    }
}

/* ---- changes --------------------------------------------------------------------------------- */

/* One parameter before and after an update, and what it went by. */
struct change {
    int64_t n;
    const float *before, *after, *expected;
    const float *squares; /* Adam's v, after */
    double correction;    /* of v */
    double epsilon;
    double slack; /* how far a gradient error within its limit moves an element of root v 1 */
};

/* Relative L2 of what the layout changed. AdamW divides an element's gradient by the root of its
 * second moment: where there is next to no gradient, rounding alone decides which way an element
 * goes. So each is allowed what an error that the gradients' limit allows would do to it, and the
 * rounding of its weight. */
static double change_error(const struct change *c)
{
    double error = 0.0;
    double norm = 0.0;
    for (int64_t i = 0; i < c->n; i++) {
        double expected = (double)c->expected[i] - (double)c->before[i];
        double difference = fabs((double)c->after[i] - (double)c->expected[i]);
        double root = sqrt((double)c->squares[i] / c->correction) + c->epsilon;
        double allowed = c->slack / root + (double)FLT_EPSILON * fabs((double)c->expected[i]);
        if (!(difference <= allowed)) {
            error += (difference - allowed) * (difference - allowed);
        }
        norm += expected * expected;
    }
    return error == 0.0 ? 0.0 : sqrt(error / norm);
}

/* From the reference's gradient of the parameter, in whole[1]. */
static double slack_of(struct verify *v, const struct tri_param *param, int64_t step,
                       double whole_norm, double values)
{
    const struct tri_config_train *train = &v->config.train;
    int64_t n = verify_elements(param);
    double limit =
        gradient_limit(v, param, norm_of(v->whole[1], n), whole_norm, values) / sqrt((double)n);
    double share = (1.0 - train->betas[0]) / (1.0 - pow(train->betas[0], (double)(step + 1)));
    return tri_learning_rate(train, step) * share * limit *
           tri_clip_factor(whole_norm, train->clip);
}

static void compare_biases(struct verify *v)
{
    const float *bias = tri_verify_biases(v->session->engine);
    size_t bytes = (size_t)tri_verify_bias_count(v->session->engine) * sizeof(*bias);
    if (bias && memcmp(bias, tri_verify_biases(v->reference), bytes) != 0) {
        note_change(v, "balancing biases", (double)INFINITY);
    }
}

void tri_verify_compare_changes(struct verify *v, int64_t step, double whole_norm)
{
    const struct tri_params *params = v->session->engine->params;
    const struct tri_config_train *train = &v->config.train;
    const float *before = v->before;
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        tri_param_gather(params, param, TRI_FIELD_WEIGHT, v->whole[0]);
        if (verify_is_root(v)) {
            const struct tri_params *reference = v->reference->params;
            double values = values_norm(v, &params->param[p]);
            tri_param_gather(reference, &reference->param[p], TRI_FIELD_GRADIENT, v->whole[1]);
            tri_param_gather(reference, &reference->param[p], TRI_FIELD_WEIGHT, v->whole[2]);
            tri_param_gather(reference, &reference->param[p], TRI_FIELD_V, v->whole[3]);
            struct change change = {
                .n = verify_elements(param),
                .before = before,
                .after = v->whole[0],
                .expected = v->whole[2],
                .squares = v->whole[3],
                .correction = 1.0 - pow(train->betas[1], (double)(step + 1)),
                .epsilon = train->epsilon,
                .slack = slack_of(v, param, step, whole_norm, values),
            };
            note_change(v, param->name, change_error(&change));
            before += change.n;
        }
    }
    if (verify_is_root(v)) {
        compare_biases(v);
    }
}
