/* Every token to every expert, weighed by the softmax, so every expert and every weight has a
 * gradient (DS-MoE, arXiv 2404.05567). Which experts work afterwards: router_active.c.
 *
 * From moe.sharpen_step on the weights of a token are S_e of the top_k largest, not divided by
 * their sum, and 0 of the others, as there: what is trained is what is used. The others' experts
 * compute, for nothing, so that memory and messages stay what they are; they, and S_e where it is
 * no weight, have no gradient from the output. The information loss is of the whole softmax. */
#include "moe/router_kind.h"
#include "moe/strategies.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

static void set_rules(const struct tri_config_moe *moe, struct tri_router_rules *rules)
{
    rules->k = tri_config_choices(moe);
    rules->balance_choices = 0;
}

/* Nothing is chosen. */
static float pick(const struct tri_router *router, const struct tri_router_call *call,
                  const struct tri_scores *scores, int32_t *chosen, float *room)
{
    (void)router;
    (void)call;
    (void)scores;
    (void)chosen;
    (void)room;
    return INFINITY;
}

static void choose(const struct tri_router *router, const struct tri_router_call *call,
                   struct tri_routes *routes)
{
    const bool sharpens = router->rules.k > 0;
    tri_router_choose_tokens(router, call, (struct tri_scores){.of_probs = sharpens},
                             sharpens ? tri_router_pick_best : pick, routes);
}

static void measure(struct tri_router *router, const struct tri_router_call *call,
                    struct tri_routes *routes, struct tri_aux_model *model)
{
    TRI_REQUIRE(!model);
    routes->aux_terms = (struct tri_exact){0};
    routes->aux_loss = 0; /* of an even share for every expert: a constant */
    tri_router_measure_z(router, call, routes);
    tri_router_measure_information(router, call, routes);
}

static bool is_sharp(const struct tri_router *router, const struct tri_router_call *call)
{
    return call->training && tri_config_is_sharp(&router->config->moe, (int64_t)call->step + 1);
}

static void sharpen(const struct tri_router *router, const struct tri_router_call *call,
                    struct tri_routes *routes)
{
    const int64_t tokens = call->rows * call->seq;
    const int64_t experts = router->rules.experts;
    const int64_t k = router->rules.k;
    memset(routes->weight, 0, (size_t)(tokens * experts) * sizeof(*routes->weight));
    memset(routes->load, 0, (size_t)experts * sizeof(*routes->load));
    for (int64_t i = 0; i < tokens * k; i++) {
        int64_t at = i / k * experts + routes->chosen[i];
        routes->weight[at] = routes->probs[at];
        routes->load[routes->chosen[i]]++;
    }
}

/* No queue is full; which experts work. */
static void fill(struct tri_router *router, const struct tri_router_call *call,
                 struct tri_routes *routes)
{
    routes->capacity = routes->dropped = 0;
    if (is_sharp(router, call) && !router->config->moe.router->blind) {
        sharpen(router, call, routes);
        return;
    }
    routes->weight = routes->probs;
    if (call->active) {
        tri_router_activate(router, call, routes);
        return;
    }
    for (int64_t e = 0; e < router->rules.experts; e++) {
        routes->load[e] = call->rows * call->seq;
    }
}

static void weigh(const struct tri_router *router, const struct tri_router_call *call,
                  struct tri_routes *routes)
{
    (void)router;
    (void)call;
    (void)routes; /* weighed as they are */
}

/* dlogit_e = p_e (g_e - sum_j p_j g_j + z), g_e = dweight_e, where e has a weight, + the
 * information loss's slope, z = the z-loss's 2 lse coefficient / global tokens. */
static void differentiate(const struct tri_router *router, const struct tri_routes *routes,
                          int64_t token, const float *dweight, double z, double *slopes,
                          float *dlogits)
{
    const float *probs = routes->probs + token * router->rules.experts;
    const float *weight = routes->weight + token * router->rules.experts;
    double mean = 0;
    for (int64_t e = 0; e < router->rules.experts; e++) {
        slopes[e] += weight[e] != 0 ? (double)dweight[e] : 0;
        mean += (double)probs[e] * slopes[e];
    }
    for (int64_t e = 0; e < router->rules.experts; e++) {
        dlogits[e] = (float)((double)probs[e] * (slopes[e] - mean + z));
    }
}

static double *take_slopes(struct tri_router *router)
{
    return tri_grow(TRI_MEMORY_OTHER, &router->slopes.block, &router->slopes.capacity,
                    (size_t)router->rules.experts * sizeof(double));
}

static void backward(struct tri_router *router, const struct tri_router_call *call,
                     const struct tri_routes *routes, const struct tri_aux_model *model,
                     struct tri_range own, const float *dweight, float *dlogits)
{
    const int64_t experts = router->rules.experts;
    const double coefficient = 2 * router->config->moe.z_loss / (double)call->global_tokens;
    double *slopes = take_slopes(router);
    (void)model;
    memset(dlogits, 0, (size_t)(call->rows * call->seq * experts) * sizeof(*dlogits));
    for (int64_t t = own.begin; t < own.end; t++) {
        tri_router_information_slopes(router, call, routes, t, slopes);
        differentiate(router, routes, t, dweight + t * experts,
                      coefficient * (double)routes->lse[t], slopes, dlogits + t * experts);
    }
}

static const struct tri_router_ops ops = {
    .set_rules = set_rules,
    .share = tri_router_share,
    .choose = choose,
    .measure = measure,
    .fill = fill,
    .weigh = weigh,
    .backward = backward,
};

static const char *const keys[] = {"moe.mutual_information", "moe.sharpen_step", NULL};

const struct tri_router_kind tri_router_dense = {
    .strategy = {"dense", "none is: every token visits all, weighed by the softmax (DS-MoE)", keys},
    .layer_scope = true,
    .dense = true,
    .even = true,
    .dropless = true,
    .unbalanced = true,
    .imposed = TRI_IMPOSE_CHOICE,
    .rehearsed = &tri_router_dense_rehearsed,
    .ops = &ops,
};

/* ---- for plans ------------------------------------------------------------------------------- */

static void choose_nothing(const struct tri_router *router, const struct tri_router_call *call,
                           struct tri_routes *routes)
{
    (void)router;
    (void)call;
    (void)routes;
}

static void backward_of_nothing(struct tri_router *router, const struct tri_router_call *call,
                                const struct tri_routes *routes, const struct tri_aux_model *model,
                                struct tri_range own, const float *dweight, float *dlogits)
{
    (void)call;
    (void)routes;
    (void)model;
    (void)own;
    (void)dweight;
    (void)dlogits;
    (void)take_slopes(router);
}

static int64_t period(const struct tri_config *config)
{
    (void)config;
    return 1;
}

static const struct tri_router_ops rehearsed_ops = {
    .set_rules = set_rules,
    .share = tri_router_share,
    .choose = choose_nothing,
    .measure = measure,
    .fill = fill,
    .weigh = weigh,
    .backward = backward_of_nothing,
    .period = period,
};

const struct tri_router_kind tri_router_dense_rehearsed = {
    .strategy = {"dense_rehearsed", "all, without logits", NULL},
    .layer_scope = true,
    .dense = true,
    .blind = true,
    .even = true,
    .rehearsed = &tri_router_dense_rehearsed,
    .ops = &rehearsed_ops,
};
