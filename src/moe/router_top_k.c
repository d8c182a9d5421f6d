/* Top-k of the softmax: with noise in training, and with the biases of bias balancing. */
#include "moe/router_kind.h"
#include "moe/strategies.h"

static void choose(const struct tri_router *router, const struct tri_router_call *call,
                   struct tri_routes *routes)
{
    const struct tri_scores common = {
        .bias = call->bias,
        .noise = call->training ? router->config->moe.noise : 0,
        .seed = call->seed,
        .stream = tri_router_stream(call, TRI_DRAW_NOISE),
    };
    tri_router_choose_tokens(router, call, common, tri_router_pick_best, routes);
}

static const struct tri_router_ops ops = {
    .share = tri_router_share,
    .choose = choose,
    .measure = tri_router_measure_balance,
    .fill = tri_router_fill_queues,
    .weigh = tri_router_weigh_shares,
    .backward = tri_router_backward_shares,
};

static const char *const keys[] = {"moe.normalize_top_k", "moe.drop_policy", "moe.noise",
                                   "moe.bias_balancing", NULL};

const struct tri_router_kind tri_router_top_k = {
    .strategy = {"top_k", "the most probable of the softmax", keys},
    .biased = true,
    .exported = true,
    .imposed = TRI_IMPOSE_CHOICE | TRI_IMPOSE_DROPS,
    .rehearsed = &tri_router_rehearsed,
    .ops = &ops,
};
