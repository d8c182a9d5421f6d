/* Top-k of the softmax: with noise in training, and with the biases of bias balancing. And what
 * DeepSeek-V3 makes of it (arXiv 2412.19437, 2.1.2): sigmoids in place of the softmax, experts of
 * the best groups only, weights times a constant. */
#include "moe/router_kind.h"
#include "moe/strategies.h"

/* transformers' DeepseekV3MoE adds the 1e-20. */
static void set_rules(const struct tri_config_moe *moe, struct tri_router_rules *rules)
{
    rules->scaling = moe->routed_scaling;
    if (moe->score == TRI_SCORE_SIGMOID) {
        rules->sigmoid = true;
        rules->share_floor = 0;
        rules->share_added = 1e-20;
    }
}

static void choose(const struct tri_router *router, const struct tri_router_call *call,
                   struct tri_routes *routes)
{
    const struct tri_scores common = {
        .bias = call->bias,
        .of_probs = router->config->moe.groups > 1,
        .noise = call->training ? router->config->moe.noise : 0,
        .seed = call->seed,
        .stream = tri_router_stream(call, TRI_DRAW_NOISE),
    };
    const bool limited = router->config->moe.groups_top < router->config->moe.groups;
    tri_router_choose_tokens(router, call, common,
                             limited ? tri_router_pick_in_groups : tri_router_pick_best, routes);
}

static const struct tri_router_ops ops = {
    .set_rules = set_rules,
    .share = tri_router_share,
    .choose = choose,
    .measure = tri_router_measure_balance,
    .fill = tri_router_fill_queues,
    .weigh = tri_router_weigh_shares,
    .backward = tri_router_backward_shares,
};

static const char *const keys[] = {"moe.normalize_top_k", "moe.drop_policy",    "moe.noise",
                                   "moe.bias_balancing",  "moe.score",          "moe.groups",
                                   "moe.groups_top",      "moe.routed_scaling", NULL};

const struct tri_router_kind tri_router_top_k = {
    .strategy = {"top_k", "the most probable of the softmax, or the largest sigmoids", keys},
    .biased = true,
    .scored = true,
    .exported = true,
    .imposed = TRI_IMPOSE_CHOICE | TRI_IMPOSE_DROPS,
    .rehearsed = &tri_router_rehearsed,
    .ops = &ops,
};
