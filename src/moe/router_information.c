/* The loss that makes a dense router decided about each token and even over all of them (DS-MoE,
 * arXiv 2404.05567): of a window of T tokens
 *
 *   -H(p) + mean over tokens of H(S_t),   p = mean over tokens of S_t, H in nats,
 *
 * minus the mutual information of token and expert: 0 when tokens don't differ, -ln E when each is
 * sure of its expert and all experts are used alike. A window counts T / global tokens, so
 *   d / d prob[t, e] = ln(p_e / S_te) / global tokens. */
#include "moe/router_kind.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

static double entropy_term(double p)
{
    return p > 0 ? -p * log(p) : 0;
}

/* Tokens, sums of probabilities [experts], sum of the tokens' entropies. */
static void add_tokens(const struct tri_router *router, const struct tri_routes *routes,
                       struct tri_range tokens, double *sums)
{
    const int64_t experts = router->rules.experts;
    memset(sums, 0, (size_t)(experts + 2) * sizeof(*sums));
    sums[0] = (double)tri_range_size(tokens);
    if (router->config->moe.router->blind) {
        return;
    }
    for (int64_t t = tokens.begin; t < tokens.end; t++) {
        for (int64_t e = 0; e < experts; e++) {
            double p = (double)routes->probs[t * experts + e];
            sums[1 + e] += p;
            sums[1 + experts] += entropy_term(p);
        }
    }
}

void tri_router_measure_information(struct tri_router *router, const struct tri_router_call *call,
                                    struct tri_routes *routes)
{
    const enum tri_window kind = router->config->moe.aux_window;
    const int64_t experts = router->rules.experts;
    const int64_t windows = kind == TRI_WINDOW_SEQUENCE ? call->rows : 1;
    const int64_t length = kind == TRI_WINDOW_SEQUENCE ? call->seq : call->rows * call->seq;
    double *sums = tri_grow(TRI_MEMORY_OTHER, &router->balance.block, &router->balance.capacity,
                            (size_t)(experts + 2) * sizeof(double));
    routes->information_terms = (struct tri_exact){0};
    for (int64_t w = 0; w < windows; w++) {
        bool booked = true;
        add_tokens(router, routes, (struct tri_range){w * length, (w + 1) * length}, sums);
        if (kind == TRI_WINDOW_STEP) {
            struct tri_group *group = tri_mesh_group(router->mesh, TRI_ON_EXPERT | TRI_ON_DATA);
            tri_all_reduce_sum(group, (struct tri_where){call->phase, TRI_KIND_META}, sums,
                               experts + 2, TRI_F64);
            booked = tri_group_rank(group) == 0;
        }
        double tokens = sums[0];
        double loss = sums[1 + experts];
        for (int64_t e = 0; e < experts; e++) {
            double mean = tokens > 0 ? sums[1 + e] / tokens : 0;
            routes->fraction[w * experts + e] = (float)mean;
            loss -= tokens * entropy_term(mean);
        }
        if (booked && tokens > 0) {
            tri_exact_add(&routes->information_terms, loss / (double)call->global_tokens);
        }
    }
    routes->information_loss = tri_exact_get(&routes->information_terms);
}

void tri_router_information_slopes(const struct tri_router *router,
                                   const struct tri_router_call *call,
                                   const struct tri_routes *routes, int64_t token, double *slopes)
{
    const struct tri_config_moe *moe = &router->config->moe;
    const int64_t experts = router->rules.experts;
    const int64_t window = moe->aux_window == TRI_WINDOW_SEQUENCE ? token / call->seq : 0;
    const float *mean = routes->fraction + window * experts;
    const float *probs = routes->probs + token * experts;
    double scale = moe->mutual_information / (double)call->global_tokens;
    for (int64_t e = 0; e < experts; e++) {
        /* times a probability of 0 it is 0 */
        bool any = scale > 0 && probs[e] > 0 && mean[e] > 0;
        slopes[e] = any ? scale * log((double)mean[e] / (double)probs[e]) : 0;
    }
}
