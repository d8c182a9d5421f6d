/* DeepSpeed's top-2 gate (deepspeed/moe/sharded_moe.py, 0.19.8): its second choice may be sampled,
 * first choices queue before all second ones, and weights are renormalised over the choices that
 * found a place. */
#include "moe/router_kind.h"
#include "moe/strategies.h"

#include "base/random.h"

#include <float.h>
#include <math.h>

static float gumbel(const struct tri_router_call *call, uint64_t stream, uint64_t index)
{
    return (float)-log(-log(tri_random_uniform(call->seed, stream, index)));
}

/* The second choice is the best of the rest by logits, plus Gumbel noise when sampled. The gap is
 * the smaller of the first choice's and the second's. */
static float pick(const struct tri_router *router, const struct tri_router_call *call,
                  const struct tri_scores *scores, int32_t *chosen, float *room)
{
    const int64_t experts = router->rules.experts;
    const float *logits = scores->logits;
    const uint64_t index = scores->place;
    (void)room;
    const bool sampled = router->config->moe.deepspeed_second_sampling;
    const uint64_t stream = sampled ? tri_router_stream(call, TRI_DRAW_GUMBEL) : 0;
    int64_t first = 0;
    float runner_up = -INFINITY;
    for (int64_t e = 1; e < experts; e++) {
        if (logits[e] > logits[first]) {
            runner_up = logits[first];
            first = e;
        } else if (logits[e] > runner_up) {
            runner_up = logits[e];
        }
    }
    int64_t second = -1;
    float best = -INFINITY;
    float refused = -INFINITY;
    for (int64_t e = 0; e < experts; e++) {
        if (e == first) {
            continue;
        }
        float score = logits[e] + (sampled ? gumbel(call, stream, index + (uint64_t)e) : 0);
        if (second < 0 || score > best) {
            refused = best;
            best = score;
            second = e;
        } else if (score > refused) {
            refused = score;
        }
    }
    chosen[0] = (int32_t)first;
    chosen[1] = (int32_t)second;
    return fminf(logits[first] - runner_up, best - refused);
}

static void choose(const struct tri_router *router, const struct tri_router_call *call,
                   struct tri_routes *routes)
{
    tri_router_choose_tokens(router, call, (struct tri_scores){0}, pick, routes);
}

static void set_rules(const struct tri_config_moe *moe, struct tri_router_rules *rules)
{
    (void)moe;
    rules->share = TRI_SHARE_OF_KEPT;
    rules->share_floor = FLT_EPSILON;
    rules->choice_major = true;
    rules->balance_choices = 1;
    rules->policy = TRI_DROP_POSITION;
}

static const struct tri_router_ops ops = {
    .set_rules = set_rules,
    .share = tri_router_share_deepspeed,
    .choose = choose,
    .measure = tri_router_measure_balance,
    .fill = tri_router_fill_queues,
    .weigh = tri_router_weigh_shares,
    .backward = tri_router_backward_shares,
};

static const char *const keys[] = {"moe.deepspeed_second_sampling", NULL};

const struct tri_router_kind tri_router_deepspeed_top2 = {
    .strategy = {"deepspeed_top2", "as DeepSpeed's top2gating chooses and drops", keys},
    .top_k = 2,
    .layer_scope = true,
    .by_place = true,
    .imposed = TRI_IMPOSE_CHOICE | TRI_IMPOSE_DROPS,
    .rehearsed = &tri_router_rehearsed,
    .ops = &ops,
};
