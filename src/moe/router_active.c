/* Which experts of a dense router work, once it is trained: a number of the most probable, those
 * above a threshold, or as many of the most probable as that is on average (DS-MoE). */
#include "moe/router_kind.h"

#include "base/memory.h"

#include <math.h>

/* Leaves the n largest of a token's, the lower expert of equal ones first. */
static void keep_largest(float *weight, int64_t experts, int64_t n)
{
    for (int64_t drop = experts - n; drop > 0; drop--) {
        int64_t least = -1;
        for (int64_t e = 0; e < experts; e++) {
            bool candidate = weight[e] > 0 && (least < 0 || weight[e] <= weight[least]);
            least = candidate ? e : least;
        }
        if (least < 0) {
            return; /* what is 0 does not work either */
        }
        weight[least] = 0;
    }
}

static bool is_above(const struct tri_active *active, float weight, int64_t experts)
{
    return (double)weight * (double)experts > active->epsilon;
}

static int64_t count_above(const struct tri_active *active, const float *weight, int64_t experts)
{
    int64_t count = 0;
    for (int64_t e = 0; e < experts; e++) {
        count += is_above(active, weight[e], experts);
    }
    return count > 1 ? count : 1;
}

static void keep_above(const struct tri_active *active, float *weight, int64_t experts)
{
    if (count_above(active, weight, experts) == 1) {
        keep_largest(weight, experts, 1);
        return;
    }
    for (int64_t e = 0; e < experts; e++) {
        weight[e] = is_above(active, weight[e], experts) ? weight[e] : 0;
    }
}

/* The experts of a token that work, on average over a window. Sums of integers: the same on every
 * layout. */
static int64_t average(struct tri_router *router, const struct tri_router_call *call,
                       const float *weight, int64_t tokens)
{
    const int64_t experts = router->rules.experts;
    const int64_t read = router->config->moe.router->blind ? 0 : tokens;
    int64_t sums[2] = {tokens, 0};
    for (int64_t t = 0; t < read; t++) {
        sums[1] += count_above(call->active, weight + t * experts, experts);
    }
    if (router->config->moe.aux_window == TRI_WINDOW_STEP) {
        tri_all_reduce_sum(tri_mesh_group(router->mesh, TRI_ON_EXPERT | TRI_ON_DATA),
                           (struct tri_where){call->phase, TRI_KIND_META}, sums, 2, TRI_I64);
    }
    return sums[0] > 0 ? (2 * sums[1] + sums[0]) / (2 * sums[0]) : 1;
}

void tri_router_activate(struct tri_router *router, const struct tri_router_call *call,
                         struct tri_routes *routes)
{
    const struct tri_active *active = call->active;
    const int64_t experts = router->rules.experts;
    const int64_t read = router->config->moe.router->blind ? 0 : call->rows * call->seq;
    const bool by_row = router->config->moe.aux_window == TRI_WINDOW_SEQUENCE;
    const int64_t windows = by_row ? call->rows : 1;
    const int64_t length = by_row ? call->seq : call->rows * call->seq;
    for (int64_t w = 0; w < windows; w++) {
        float *weight = routes->weight + w * length * experts;
        int64_t n = active->n;
        if (active->kind == TRI_ACTIVE_AVERAGE) {
            n = average(router, call, weight, length);
        }
        for (int64_t t = 0; t < length && read > 0; t++) {
            if (active->kind == TRI_ACTIVE_THRESHOLD) {
                keep_above(active, weight + t * experts, experts);
            } else {
                keep_largest(weight + t * experts, experts, n);
            }
        }
    }
    for (int64_t e = 0; e < experts; e++) {
        routes->load[e] = 0;
        for (int64_t t = 0; t < read; t++) {
            routes->load[e] += routes->weight[t * experts + e] != 0;
        }
    }
    routes->sparse = true;
    routes->most = active->kind == TRI_ACTIVE_TOP ? active->n : experts;
}
