/* Experts in turn: what a token chooses follows from its place in the global batch. Weights and
 * losses are those of the softmax. And the same without logits, for plans: what they would weigh is
 * left as it is. */
#include "moe/router_kind.h"
#include "moe/strategies.h"

#include <math.h>

static void choose_in_turn(uint64_t position, const struct tri_router_rules *rules, int32_t *chosen)
{
    for (int64_t j = 0; j < rules->k; j++) {
        chosen[j] =
            (int32_t)((position * (uint64_t)rules->k + (uint64_t)j) % (uint64_t)rules->experts);
    }
}

static float pick(const struct tri_router *router, const struct tri_router_call *call,
                  const struct tri_scores *scores, int32_t *chosen, float *room)
{
    (void)call;
    (void)room;
    choose_in_turn(scores->place / (uint64_t)router->rules.experts, &router->rules, chosen);
    return INFINITY;
}

static void choose(const struct tri_router *router, const struct tri_router_call *call,
                   struct tri_routes *routes)
{
    tri_router_choose_tokens(router, call, (struct tri_scores){0}, pick, routes);
}

static const struct tri_router_ops ops = {
    .share = tri_router_share,
    .choose = choose,
    .measure = tri_router_measure_balance,
    .fill = tri_router_fill_queues,
    .weigh = tri_router_weigh_shares,
    .backward = tri_router_backward_shares,
};

static const char *const keys[] = {"moe.normalize_top_k", "moe.drop_policy", NULL};

const struct tri_router_kind tri_router_balanced = {
    .strategy = {"balanced", "each in turn, by the token's place in the batch: for measuring",
                 keys},
    .by_place = true,
    .even = true,
    .imposed = TRI_IMPOSE_CHOICE | TRI_IMPOSE_DROPS,
    .rehearsed = &tri_router_rehearsed,
    .ops = &ops,
};

/* ---- for plans ------------------------------------------------------------------------------- */

static void choose_without_logits(const struct tri_router *router,
                                  const struct tri_router_call *call, struct tri_routes *routes)
{
    const uint64_t first = (uint64_t)(call->first_row * call->seq);
    for (int64_t t = 0; t < call->rows * call->seq; t++) {
        choose_in_turn(first + (uint64_t)t, &router->rules, routes->chosen + t * router->rules.k);
        routes->gap[t] = INFINITY;
    }
}

static void weigh_nothing(const struct tri_router *router, const struct tri_router_call *call,
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
    (void)own;
    (void)dweight;
    (void)dlogits;
    (void)tri_router_balance_slopes(router, call, routes, model); /* for the room that it takes */
}

/* Numbers below n that leave remainder r when divided by m. */
static int64_t with_remainder(int64_t n, int64_t m, int64_t r)
{
    return n > r ? (n - r - 1) / m + 1 : 0;
}

/* Token t's choices are the experts (t k) mod E, (t k + 1) mod E, … */
static int64_t routes_by_place(const struct tri_config_moe *moe, const struct tri_places *places,
                               int64_t expert)
{
    return with_remainder(places->tokens.end * moe->top_k, moe->num_experts, expert) -
           with_remainder(places->tokens.begin * moe->top_k, moe->num_experts, expert);
}

static int64_t gcd(int64_t a, int64_t b)
{
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static int64_t period(const struct tri_config *config)
{
    int64_t experts = config->moe.num_experts;
    int64_t routes = config->train.micro_batch * config->data.sequence_length * config->moe.top_k;
    return experts / gcd(experts, routes);
}

const struct tri_router_ops tri_router_rehearsed_ops = {
    .share = tri_router_share,
    .choose = choose_without_logits,
    .measure = tri_router_measure_balance,
    .fill = tri_router_fill_queues,
    .weigh = weigh_nothing,
    .backward = backward_of_nothing,
    .routes_by_place = routes_by_place,
    .period = period,
};

const struct tri_router_kind tri_router_rehearsed = {
    .strategy = {"rehearsed", "in turn, without logits", NULL},
    .by_place = true,
    .blind = true,
    .even = true,
    .rehearsed = &tri_router_rehearsed,
    .ops = &tri_router_rehearsed_ops,
};
