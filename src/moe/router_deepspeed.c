/* What only DeepSpeed's gates do (deepspeed/moe/sharded_moe.py, 0.19.8): top-1 with random token
 * selection and weights that are not renormalised; top-2 whose second choice may be sampled and
 * whose first choices queue before all second ones; top-k. Weights of top-2 and top-k are
 * renormalised over the choices that found a place. */
#include "moe/router_internal.h"

#include "base/random.h"

#include <float.h>
#include <math.h>

static void apply_deepspeed(const struct tri_config_moe *moe, struct router_rules *rules)
{
    switch (rules->kind) {
    case TRI_ROUTER_DEEPSPEED_TOP1:
        TRI_REQUIRE(rules->k == 1);
        rules->share = SHARE_NONE;
        rules->policy = moe->deepspeed_rts ? TRI_DROP_RANDOM : TRI_DROP_POSITION;
        return;
    case TRI_ROUTER_DEEPSPEED_TOP2:
        TRI_REQUIRE(rules->k == 2);
        rules->share = SHARE_OF_KEPT;
        rules->share_floor = FLT_EPSILON;
        rules->choice_major = true;
        rules->balance_choices = 1;
        rules->policy = TRI_DROP_POSITION;
        return;
    case TRI_ROUTER_DEEPSPEED_TOPK:
        rules->share = SHARE_OF_KEPT;
        rules->share_floor = FLT_EPSILON;
        return;
    case TRI_ROUTER_TOP_K:
    case TRI_ROUTER_BALANCED:
        return;
    }
}

struct router_rules tri_router_rules(const struct tri_config_moe *moe)
{
    TRI_REQUIRE(moe->num_experts > 0 && moe->top_k > 0 && moe->top_k <= moe->num_experts);
    struct router_rules rules = {
        .kind = moe->router,
        .experts = moe->num_experts,
        .k = moe->top_k,
        .share = moe->normalize_top_k ? SHARE_OF_CHOSEN : SHARE_NONE,
        .share_floor = FLT_MIN,
        .balance_choices = moe->top_k,
        .policy = moe->drop_policy,
    };
    apply_deepspeed(moe, &rules);
    return rules;
}

/* Their factor times k is rounded to f32 and so is the product, which decides on which side of a
 * whole number it falls. */
int64_t tri_router_deepspeed_share(int64_t tokens, int64_t experts, double factor, int64_t k)
{
    float mean = (float)((double)tokens / (double)experts);
    return (int64_t)ceilf(mean * (float)(factor * (double)k));
}

static float gumbel(const struct tri_router_call *call, uint64_t stream, uint64_t index)
{
    return (float)-log(-log(tri_random_uniform(call->seed, stream, index)));
}

float tri_router_choose_first_and_second(const struct tri_router *router,
                                         const struct tri_router_call *call, int64_t token,
                                         int32_t *chosen)
{
    const int64_t experts = router->rules.experts;
    const float *logits = call->logits + token * experts;
    const uint64_t index = (uint64_t)((call->first_row * call->seq + token) * experts);
    const bool sampled = router->config->moe.deepspeed_second_sampling;
    const uint64_t stream = sampled ? tri_router_stream(call, DRAW_GUMBEL) : 0;
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
