/* Weights from probabilities or sigmoids, and the way back to the logits. */
#include "moe/router_kind.h"

#include <string.h>

double tri_router_sum(const struct tri_router_rules *rules, const float *probs)
{
    double sum = rules->share_added;
    for (int64_t e = 0; e < rules->experts; e++) {
        sum += (double)probs[e];
    }
    return sum;
}

/* What the weights of a token are divided by. */
static double divisor(const struct tri_router_rules *rules, const float *probs,
                      const int32_t *chosen, const int32_t *expert, bool *floored)
{
    double sum = 0;
    for (int64_t j = 0; j < rules->k; j++) {
        if (rules->share == TRI_SHARE_OF_CHOSEN || expert[j] >= 0) {
            sum += (double)probs[chosen[j]];
        }
    }
    sum += rules->share_added;
    *floored = sum < (double)rules->share_floor;
    return *floored ? (double)rules->share_floor : sum;
}

void tri_router_weigh_shares(const struct tri_router *router, const struct tri_router_call *call,
                             struct tri_routes *routes)
{
    const struct tri_router_rules *rules = &router->rules;
    const int64_t tokens = call->rows * call->seq;
    for (int64_t t = 0; t < tokens; t++) {
        const float *probs = routes->probs + t * rules->experts;
        const int32_t *chosen = routes->chosen + t * rules->k;
        const int32_t *expert = routes->expert + t * rules->k;
        float *weight = routes->weight + t * rules->k;
        bool floored = false;
        double by = 1;
        if (rules->share != TRI_SHARE_NONE) {
            by = divisor(rules, probs, chosen, expert, &floored);
        }
        for (int64_t j = 0; j < rules->k; j++) {
            weight[j] = expert[j] < 0 ? 0 : (float)((double)probs[chosen[j]] / by * rules->scaling);
        }
    }
}

/* One token. With g_j = d/d prob of choice j through the weights (w_j = c p_j / D, D over the
 * choices that share: g_j = [kept] c dw_j / D - [shares] sum_i dw_i w_i / D) and a_e the balance
 * loss's slope:
 *   dlogit_e = p_e (a_e + sum_j [e is choice j] g_j - sum_e p_e a_e - sum_j p_j g_j + z), z = the
 * z-loss's 2 lse coefficient / global tokens. Of sigmoids, whose balance goes by q_e = p_e / S, S
 * their sum:
 *   dlogit_e = p_e (1 - p_e) ((a_e - sum_e q_e a_e) / S + sum_j [e is choice j] g_j). */
struct token_gradient {
    const struct tri_router_rules *rules;
    const float *probs, *slopes, *weight, *dweight;
    const int32_t *chosen, *expert;
    double z;
};

static double route_gradient(const struct token_gradient *g, int64_t j, double by, double common)
{
    bool kept = g->expert[j] >= 0;
    bool shares = kept || g->rules->share == TRI_SHARE_OF_CHOSEN;
    return (kept ? (double)g->dweight[j] * g->rules->scaling : 0) / by - (shares ? common : 0);
}

/* D, and the sum in g_j. */
static double shared_gradient(const struct token_gradient *g, double *by)
{
    double common = 0;
    *by = 1;
    if (g->rules->share != TRI_SHARE_NONE) {
        bool floored;
        *by = divisor(g->rules, g->probs, g->chosen, g->expert, &floored);
        for (int64_t j = 0; j < g->rules->k && !floored; j++) {
            common += (double)g->dweight[j] * (double)g->weight[j] / *by;
        }
    }
    return common;
}

static void differentiate_sigmoids(const struct token_gradient *g, float *dlogits)
{
    const int64_t experts = g->rules->experts;
    double by;
    const double common = shared_gradient(g, &by);
    const double sum = g->slopes ? tri_router_sum(g->rules, g->probs) : 1;
    double mean = 0;
    for (int64_t e = 0; g->slopes && e < experts; e++) {
        mean += (double)g->probs[e] * (double)g->slopes[e] / sum;
    }
    for (int64_t e = 0; e < experts; e++) {
        double p = (double)g->probs[e];
        dlogits[e] = g->slopes ? (float)(p * (1 - p) * ((double)g->slopes[e] - mean) / sum) : 0;
    }
    for (int64_t j = 0; j < g->rules->k; j++) {
        double p = (double)g->probs[g->chosen[j]];
        dlogits[g->chosen[j]] += (float)(p * (1 - p) * route_gradient(g, j, by, common));
    }
}

static void differentiate(const struct token_gradient *g, float *dlogits)
{
    const int64_t experts = g->rules->experts;
    const int64_t k = g->rules->k;
    double by;
    const double common = shared_gradient(g, &by);
    double mean = 0;
    for (int64_t e = 0; g->slopes && e < experts; e++) {
        mean += (double)g->probs[e] * (double)g->slopes[e];
    }
    for (int64_t j = 0; j < k; j++) {
        mean += (double)g->probs[g->chosen[j]] * route_gradient(g, j, by, common);
    }
    const double shift = g->z - mean;
    for (int64_t e = 0; e < experts; e++) {
        double slope = g->slopes ? (double)g->slopes[e] : 0;
        dlogits[e] = (float)((double)g->probs[e] * (slope + shift));
    }
    for (int64_t j = 0; j < k; j++) {
        int32_t e = g->chosen[j];
        double slope = g->slopes ? (double)g->slopes[e] : 0;
        dlogits[e] =
            (float)((double)g->probs[e] * (slope + route_gradient(g, j, by, common) + shift));
    }
}

static void backward_by(const struct tri_router_rules *rules, struct tri_router *router,
                        const struct tri_router_call *call, const struct tri_routes *routes,
                        const struct tri_aux_model *model, struct tri_range own,
                        const float *dweight, float *dlogits)
{
    const struct tri_config_moe *moe = &router->config->moe;
    const int64_t tokens = call->rows * call->seq;
    const bool by_row = moe->aux_window == TRI_WINDOW_SEQUENCE;
    const float *slopes = tri_router_balance_slopes(router, call, routes, model);
    memset(dlogits, 0, (size_t)(tokens * rules->experts) * sizeof(*dlogits));
#pragma omp parallel for num_threads(router->threads)                                              \
    schedule(static) if (own.end - own.begin > TRI_TOKENS_ALONE)
    for (int64_t t = own.begin; t < own.end; t++) {
        struct token_gradient g = {
            .rules = rules,
            .probs = routes->probs + t * rules->experts,
            .slopes = slopes && by_row ? slopes + t / call->seq * rules->experts : slopes,
            .weight = routes->weight + t * rules->k,
            .dweight = dweight + t * rules->k,
            .chosen = routes->chosen + t * rules->k,
            .expert = routes->expert + t * rules->k,
            .z = 2 * moe->z_loss * (double)routes->lse[t] / (double)call->global_tokens,
        };
        (rules->sigmoid ? differentiate_sigmoids : differentiate)(&g, dlogits + t * rules->experts);
    }
}

void tri_router_backward_shares(struct tri_router *router, const struct tri_router_call *call,
                                const struct tri_routes *routes, const struct tri_aux_model *model,
                                struct tri_range own, const float *dweight, float *dlogits)
{
    backward_by(&router->rules, router, call, routes, model, own, dweight, dlogits);
}

void tri_router_backward_losses(struct tri_router *router, const struct tri_router_call *call,
                                const struct tri_routes *routes, const struct tri_aux_model *model,
                                struct tri_range own, float *dlogits)
{
    const struct tri_router_rules none = {.experts = router->rules.experts};
    backward_by(&none, router, call, routes, model, own, routes->weight, dlogits);
}
