/* Made of its own functions but for the queues. */
#include "base/random.h"
#include "moe/router_kind.h"
#include "moe/strategies.h"
#include "support/own_strategies.h"

#include <math.h>
#include <string.h>

static void choose(const struct tri_router *router, const struct tri_router_call *call,
                   struct tri_routes *routes)
{
    const int64_t experts = router->rules.experts;
    const int64_t k = router->rules.k;
    for (int64_t t = 0; t < call->rows * call->seq; t++) {
        uint64_t place = (uint64_t)(call->first_row * call->seq + t);
        uint64_t hash = tri_random_bits(17, (uint64_t)call->layer, place);
        for (int64_t j = 0; j < k; j++) {
            routes->chosen[t * k + j] = (int32_t)((hash + (uint64_t)j) % (uint64_t)experts);
        }
        for (int64_t e = 0; e < experts; e++) {
            double logit = (double)call->logits[t * experts + e];
            routes->probs[t * experts + e] = (float)(1 / (1 + exp(-logit)));
        }
        routes->lse[t] = 0;
        routes->gap[t] = INFINITY;
    }
}

static void measure(struct tri_router *router, const struct tri_router_call *call,
                    struct tri_routes *routes, struct tri_aux_model *model)
{
    (void)model;
    memset(routes->load, 0, (size_t)router->rules.experts * sizeof(*routes->load));
    for (int64_t r = 0; r < call->rows * call->seq * router->rules.k; r++) {
        routes->load[routes->chosen[r]]++;
    }
    routes->aux_terms = routes->z_terms = (struct tri_exact){0};
    routes->aux_loss = routes->z_loss = 0;
}

static void weigh(const struct tri_router *router, const struct tri_router_call *call,
                  struct tri_routes *routes)
{
    const int64_t k = router->rules.k;
    for (int64_t r = 0; r < call->rows * call->seq * k; r++) {
        const float *probs = routes->probs + r / k * router->rules.experts;
        routes->weight[r] = routes->expert[r] < 0 ? 0 : probs[routes->chosen[r]];
    }
}

static void backward(struct tri_router *router, const struct tri_router_call *call,
                     const struct tri_routes *routes, const struct tri_aux_model *model,
                     struct tri_range own, const float *dweight, float *dlogits)
{
    const int64_t experts = router->rules.experts;
    const int64_t k = router->rules.k;
    (void)model;
    memset(dlogits, 0, (size_t)(call->rows * call->seq * experts) * sizeof(*dlogits));
    for (int64_t r = own.begin * k; r < own.end * k; r++) {
        if (routes->expert[r] >= 0) {
            float s = routes->weight[r];
            dlogits[r / k * experts + routes->chosen[r]] += dweight[r] * s * (1 - s);
        }
    }
}

static const struct tri_router_ops ops = {
    .share = tri_router_share,
    .choose = choose,
    .measure = measure,
    .fill = tri_router_fill_queues,
    .weigh = weigh,
    .backward = backward,
};

const struct tri_router_kind own_router_hash = {
    .strategy = {"hash", "by a hash of the token's place", NULL},
    .layer_scope = true,
    .by_place = true,
    .imposed = TRI_IMPOSE_NOTHING,
    .rehearsed = &tri_router_rehearsed,
    .ops = &ops,
};
