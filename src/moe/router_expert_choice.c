/* Experts choose tokens (arXiv 2202.09368): of each row every expert takes the C tokens that score
 * it highest by the softmax over experts, C = ceil(tokens * k / experts * capacity factor), a
 * factor of 1 where there is none. A token goes to as many experts as took it, and each weighs by
 * its score. Experts are busy alike by construction, so there is no balance loss.
 *
 * What stands behind a token in its row decides where it goes: such a model is not causal.
 *
 * A token has a record for every expert, in their order, and most of them are -1. And the same
 * without logits, for plans: each expert takes tokens spread evenly over the row. */
#include "moe/router_kind.h"
#include "moe/strategies.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

/* The larger score first, then the earlier token: a total order, also with NaNs (scores are not
 * negative, so their bits are in order). */
static uint64_t key_of(float score, int64_t token)
{
    uint32_t bits;
    memcpy(&bits, &score, sizeof(bits));
    return (uint64_t)bits << 32 | (UINT32_MAX - (uint32_t)token);
}

static float score_of(uint64_t key)
{
    uint32_t bits = (uint32_t)(key >> 32);
    float score;
    memcpy(&score, &bits, sizeof(score));
    return score;
}

/* Of each expert: the keys of a row's tokens, that of the last one taken, that of the first one
 * refused (0: none is). */
struct row_keys {
    uint64_t *all, *last, *first;
};

static struct row_keys take_keys(struct tri_router *router, int64_t seq)
{
    const int64_t experts = router->rules.experts;
    struct tri_router_scratch *scratch = &router->queue;
    uint64_t *block = tri_grow(TRI_MEMORY_OTHER, &scratch->block, &scratch->capacity,
                               (size_t)(experts * (seq + 2)) * sizeof(uint64_t));
    return (struct row_keys){block, block + experts * seq, block + experts * (seq + 1)};
}

static void find_bounds(const struct tri_router *router, const float *probs, int64_t seq,
                        int64_t taken, const struct row_keys *keys)
{
    const int64_t experts = router->rules.experts;
#pragma omp parallel for num_threads(router->threads)                                              \
    schedule(static) if (seq * experts > TRI_TOKENS_ALONE)
    for (int64_t e = 0; e < experts; e++) {
        uint64_t *own = keys->all + e * seq;
        for (int64_t t = 0; t < seq; t++) {
            own[t] = key_of(probs[t * experts + e], t);
        }
        keys->last[e] = tri_router_select_key(own, seq, taken - 1);
        keys->first[e] = taken < seq ? tri_router_select_key(own, seq, taken) : 0;
    }
}

/* A token's experts, and the least that parts it from the other side of an expert's bound. */
static float take_token(const struct row_keys *keys, const float *probs, int64_t experts,
                        int64_t token, int32_t *chosen)
{
    float gap = INFINITY;
    for (int64_t e = 0; e < experts; e++) {
        bool taken = key_of(probs[e], token) >= keys->last[e];
        chosen[e] = taken ? (int32_t)e : -1;
        if (keys->first[e]) {
            float own =
                taken ? probs[e] - score_of(keys->first[e]) : score_of(keys->last[e]) - probs[e];
            gap = own < gap ? own : gap;
        }
    }
    return gap;
}

/* Before they are taken tokens want every expert. */
static float want_all(const struct tri_router *router, const struct tri_router_call *call,
                      const struct tri_scores *scores, int32_t *chosen, float *room)
{
    (void)call;
    (void)scores;
    (void)room;
    for (int64_t e = 0; e < router->rules.experts; e++) {
        chosen[e] = (int32_t)e;
    }
    return INFINITY;
}

static void choose(const struct tri_router *router, const struct tri_router_call *call,
                   struct tri_routes *routes)
{
    tri_router_choose_tokens(router, call, (struct tri_scores){.of_probs = true}, want_all, routes);
}

static int64_t taken_of(const struct tri_router *router, const struct tri_router_call *call)
{
    return tri_router_capacity(router->config, call->training, call->seq);
}

static void measure_loads(struct tri_router *router, const struct tri_router_call *call,
                          struct tri_routes *routes, struct tri_aux_model *model)
{
    (void)model;
    for (int64_t e = 0; e < router->rules.experts; e++) {
        routes->load[e] = call->rows * taken_of(router, call);
    }
    routes->aux_terms = routes->z_terms = (struct tri_exact){0};
    routes->aux_loss = routes->z_loss = 0;
}

static void measure(struct tri_router *router, const struct tri_router_call *call,
                    struct tri_routes *routes, struct tri_aux_model *model)
{
    measure_loads(router, call, routes, model);
    for (int64_t t = 0; t < call->rows * call->seq; t++) {
        double lse = (double)routes->lse[t];
        tri_exact_add(&routes->z_terms, lse * lse / (double)call->global_tokens);
    }
    routes->z_loss = tri_exact_get(&routes->z_terms);
}

static void fill(struct tri_router *router, const struct tri_router_call *call,
                 struct tri_routes *routes)
{
    const int64_t experts = router->rules.experts;
    const int64_t tokens = call->rows * call->seq;
    const struct row_keys keys = take_keys(router, call->seq);
    routes->capacity = taken_of(router, call);
    routes->dropped = 0;
    for (int64_t first = 0; first < tokens; first += call->seq) {
        find_bounds(router, routes->probs + first * experts, call->seq, routes->capacity, &keys);
        for (int64_t t = 0; t < call->seq; t++) {
            int64_t at = (first + t) * experts;
            routes->gap[first + t] =
                take_token(&keys, routes->probs + at, experts, t, routes->chosen + at);
        }
    }
    const int32_t *taken = call->imposed_drops ? call->imposed_drops : routes->chosen;
    memmove(routes->chosen, taken, (size_t)(tokens * experts) * sizeof(*taken));
    memcpy(routes->expert, taken, (size_t)(tokens * experts) * sizeof(*taken));
}

static void weigh(const struct tri_router *router, const struct tri_router_call *call,
                  struct tri_routes *routes)
{
    for (int64_t r = 0; r < call->rows * call->seq * router->rules.experts; r++) {
        routes->weight[r] = routes->expert[r] < 0 ? 0 : routes->probs[r];
    }
}

/* dlogit_e = p_e (g_e - sum_e p_e g_e + z), g_e = dweight where the expert took the token, z = the
 * z-loss's 2 lse coefficient / global tokens. */
static void backward(struct tri_router *router, const struct tri_router_call *call,
                     const struct tri_routes *routes, const struct tri_aux_model *model,
                     struct tri_range own, const float *dweight, float *dlogits)
{
    const int64_t experts = router->rules.experts;
    const double by = 2 * router->config->moe.z_loss / (double)call->global_tokens;
    (void)model;
    memset(dlogits, 0, (size_t)(call->rows * call->seq * experts) * sizeof(*dlogits));
#pragma omp parallel for num_threads(router->threads)                                              \
    schedule(static) if (own.end - own.begin > TRI_TOKENS_ALONE)
    for (int64_t t = own.begin; t < own.end; t++) {
        const int64_t at = t * experts;
        double mean = 0;
        for (int64_t e = 0; e < experts; e++) {
            mean += (double)routes->weight[at + e] * (double)dweight[at + e];
        }
        for (int64_t e = 0; e < experts; e++) {
            double g = routes->expert[at + e] < 0 ? 0 : (double)dweight[at + e];
            dlogits[at + e] =
                (float)((double)routes->probs[at + e] * (g - mean + by * (double)routes->lse[t]));
        }
    }
}

static const struct tri_router_ops ops = {
    .share = tri_router_share,
    .choose = choose,
    .measure = measure,
    .fill = fill,
    .weigh = weigh,
    .backward = backward,
};

const struct tri_router_kind tri_router_expert_choice = {
    .strategy = {"expert_choice", "the tokens of a row that an expert scores highest, for research",
                 NULL},
    .layer_scope = true,
    .picks = true,
    .unbalanced = true,
    .imposed = TRI_IMPOSE_DROPS,
    .rehearsed = &tri_router_expert_choice_rehearsed,
    .ops = &ops,
};

/* ---- for plans ------------------------------------------------------------------------------- */

/* Of a row: expert e takes the tokens at floor((i experts + e) seq / (taken experts)), i < taken:
 * so many of those before a token. */
static int64_t taken_before(const struct tri_config_moe *moe, int64_t seq, int64_t taken,
                            int64_t token, int64_t expert)
{
    int64_t places = (token * taken * moe->num_experts + seq - 1) / seq;
    return places > expert ? (places - expert - 1) / moe->num_experts + 1 : 0;
}

static int64_t routes_by_place(const struct tri_config_moe *moe, const struct tri_places *places,
                               int64_t expert)
{
    int64_t count = 0;
    for (int i = 0; i < 2; i++) {
        int64_t at = i ? places->tokens.end : places->tokens.begin;
        int64_t before = at / places->seq * places->capacity +
                         taken_before(moe, places->seq, places->capacity, at % places->seq, expert);
        count += i ? before : -before;
    }
    return count;
}

static int64_t period(const struct tri_config *config)
{
    (void)config;
    return 1;
}

static void choose_nothing(const struct tri_router *router, const struct tri_router_call *call,
                           struct tri_routes *routes)
{
    (void)router;
    (void)call;
    (void)routes;
}

static void fill_by_place(struct tri_router *router, const struct tri_router_call *call,
                          struct tri_routes *routes)
{
    const int64_t experts = router->rules.experts;
    const struct tri_config_moe *moe = &router->config->moe;
    (void)take_keys(router, call->seq); /* for the room that it takes */
    routes->capacity = taken_of(router, call);
    routes->dropped = 0;
    for (int64_t t = 0; t < call->rows * call->seq; t++) {
        for (int64_t e = 0; e < experts; e++) {
            int64_t at = t % call->seq;
            bool taken = taken_before(moe, call->seq, routes->capacity, at + 1, e) >
                         taken_before(moe, call->seq, routes->capacity, at, e);
            routes->expert[t * experts + e] = taken ? (int32_t)e : -1;
        }
    }
}

static void backward_of_nothing(struct tri_router *router, const struct tri_router_call *call,
                                const struct tri_routes *routes, const struct tri_aux_model *model,
                                struct tri_range own, const float *dweight, float *dlogits)
{
    (void)router;
    (void)call;
    (void)routes;
    (void)model;
    (void)own;
    (void)dweight;
    (void)dlogits;
}

static const struct tri_router_ops rehearsed_ops = {
    .share = tri_router_share,
    .choose = choose_nothing,
    .measure = measure_loads,
    .fill = fill_by_place,
    .weigh = choose_nothing,
    .backward = backward_of_nothing,
    .routes_by_place = routes_by_place,
    .period = period,
};

const struct tri_router_kind tri_router_expert_choice_rehearsed = {
    .strategy = {"rehearsed", "tokens spread evenly, without logits", NULL},
    .layer_scope = true,
    .picks = true,
    .blind = true,
    .rehearsed = &tri_router_expert_choice_rehearsed,
    .ops = &rehearsed_ops,
};
