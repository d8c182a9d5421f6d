/* Softmax or sigmoids, and choice of experts, token by token. */
#include "moe/router_kind.h"

#include "base/random.h"

#include <math.h>

uint64_t tri_router_stream(const struct tri_router_call *call, enum tri_router_draw draw)
{
    static const char *const name[] = {
        [TRI_DRAW_NOISE] = "router.noise",
        [TRI_DRAW_SELECTION] = "router.selection",
        [TRI_DRAW_GUMBEL] = "router.gumbel",
        [TRI_DRAW_SPARSEMIXER] = "router.sparsemixer",
    };
    uint64_t when = call->step * (uint64_t)TRI_LAYERS_MAX + (uint64_t)call->layer;
    return tri_random_bits(call->seed, tri_random_stream(name[draw]), when);
}

static void softmax(const float *logits, int64_t n, float *probs, float *lse)
{
    float max = logits[0];
    for (int64_t e = 1; e < n; e++) {
        max = logits[e] > max ? logits[e] : max;
    }
    double sum = 0;
    for (int64_t e = 0; e < n; e++) {
        probs[e] = expf(logits[e] - max);
        sum += (double)probs[e];
    }
    double inverse = 1 / sum;
    for (int64_t e = 0; e < n; e++) {
        probs[e] = (float)((double)probs[e] * inverse);
    }
    *lse = (float)((double)max + log(sum));
}

/* Each by itself. */
static void sigmoids(const float *logits, int64_t n, float *probs)
{
    for (int64_t e = 0; e < n; e++) {
        probs[e] = (float)(1 / (1 + (double)expf(-logits[e])));
    }
}

static float score_of_probs(const struct tri_scores *s, double noise, int64_t e)
{
    double prob = (double)s->probs[e];
    if (s->sigmoid && s->noise > 0) {
        prob = 1 / (1 + exp(-((double)s->logits[e] + noise)));
    } else {
        prob *= exp(noise);
    }
    return s->bias ? (float)prob + s->bias[e] : (float)prob;
}

static inline float score_of(const struct tri_scores *s, int64_t e)
{
    double noise = 0;
    if (s->noise > 0) {
        noise = s->noise * tri_random_normal(s->seed, s->stream, s->place + (uint64_t)e);
    }
    if (s->of_probs) {
        return score_of_probs(s, noise, e);
    }
    return s->noise > 0 ? (float)((double)s->logits[e] + noise) : s->logits[e];
}

/* The k best of those that were offered, in falling order, by insertion: only what beats the last
 * so far costs more than one comparison. A NaN never beats anything, so the result is k distinct
 * ones whatever comes in. */
struct best {
    float *score;
    int32_t *chosen;
    int64_t k, offered;
    float refused;
};

static inline void offer(struct best *best, int64_t e, float score)
{
    int64_t at = best->offered < best->k ? best->offered++ : best->k;
    if (at == best->k) {
        at--;
        if (!(score > best->score[at])) {
            best->refused = score > best->refused ? score : best->refused;
            return;
        }
        best->refused = best->score[at];
    }
    while (at > 0 && score > best->score[at - 1]) {
        best->score[at] = best->score[at - 1];
        best->chosen[at] = best->chosen[at - 1];
        at--;
    }
    best->score[at] = score;
    best->chosen[at] = (int32_t)e;
}

static inline float gap_of(const struct best *best)
{
    return best->score[best->k - 1] - best->refused;
}

float tri_router_pick_best(const struct tri_router *router, const struct tri_router_call *call,
                           const struct tri_scores *s, int32_t *chosen, float *room)
{
    struct best best = {room, chosen, router->rules.k, 0, -INFINITY};
    (void)call;
    for (int64_t e = 0; e < router->rules.experts; e++) {
        offer(&best, e, score_of(s, e));
    }
    return gap_of(&best);
}

/* Opens the groups with the largest sums of their two best scores; returns half of what parts the
 * last of them from the next: each score moves the sums of two groups no further apart than twice
 * what it moves itself. */
static float open_groups(const struct tri_scores *s, int64_t groups, int64_t size, int64_t top,
                         bool *open)
{
    float room[TRI_GROUPS_MAX];
    int32_t chosen[TRI_GROUPS_MAX];
    struct best best = {room, chosen, top, 0, -INFINITY};
    for (int64_t g = 0; g < groups; g++) {
        float first = -INFINITY;
        float second = -INFINITY;
        for (int64_t e = g * size; e < (g + 1) * size; e++) {
            float score = score_of(s, e);
            second = score > first ? first : score > second ? score : second;
            first = score > first ? score : first;
        }
        offer(&best, g, first + second);
        open[g] = false;
    }
    for (int64_t i = 0; i < top; i++) {
        open[chosen[i]] = true;
    }
    return gap_of(&best) / 2;
}

float tri_router_pick_in_groups(const struct tri_router *router, const struct tri_router_call *call,
                                const struct tri_scores *s, int32_t *chosen, float *room)
{
    const struct tri_config_moe *moe = &router->config->moe;
    const int64_t size = moe->num_experts / moe->groups;
    bool open[TRI_GROUPS_MAX];
    struct best best = {room, chosen, router->rules.k, 0, -INFINITY};
    (void)call;
    float between = open_groups(s, moe->groups, size, moe->groups_top, open);
    for (int64_t e = 0; e < moe->num_experts; e++) {
        if (open[e / size]) {
            offer(&best, e, score_of(s, e));
        }
    }
    float within = gap_of(&best);
    return between < within ? between : within;
}

static float impose(const struct tri_scores *s, int64_t experts, int64_t k, const int32_t *imposed,
                    int32_t *chosen)
{
    float taken = INFINITY;
    float refused = -INFINITY;
    for (int64_t j = 0; j < k; j++) {
        chosen[j] = imposed[j];
    }
    for (int64_t e = 0; e < experts; e++) {
        bool is_chosen = false;
        for (int64_t j = 0; j < k; j++) {
            is_chosen = is_chosen || chosen[j] == e;
        }
        float score = score_of(s, e);
        if (is_chosen) {
            taken = score < taken ? score : taken;
        } else {
            refused = score > refused ? score : refused;
        }
    }
    return taken - refused;
}

static void choose_token(const struct tri_router *router, const struct tri_router_call *call,
                         struct tri_scores *s, tri_router_pick *pick, int64_t token,
                         struct tri_routes *routes)
{
    const int64_t experts = router->rules.experts;
    const int64_t k = router->rules.k;
    const uint64_t position = (uint64_t)(call->first_row * call->seq + token);
    float *probs = routes->probs + token * experts;
    int32_t *chosen = routes->chosen + token * k;
    s->logits = call->logits + token * experts;
    s->probs = probs;
    s->place = position * (uint64_t)experts;
    if (s->sigmoid) {
        sigmoids(s->logits, experts, probs);
        routes->lse[token] = 0;
    } else {
        softmax(s->logits, experts, probs, routes->lse + token);
    }
    if (call->imposed) {
        routes->gap[token] = impose(s, experts, k, call->imposed + token * k, chosen);
    } else {
        /* the weights' place is free until the weights are known */
        routes->gap[token] = pick(router, call, s, chosen, routes->weight + token * k);
    }
}

void tri_router_choose_tokens(const struct tri_router *router, const struct tri_router_call *call,
                              struct tri_scores common, tri_router_pick *pick,
                              struct tri_routes *routes)
{
    const int64_t tokens = call->rows * call->seq;
    for (int64_t i = 0; call->imposed && i < tokens * router->rules.k; i++) {
        TRI_REQUIRE(call->imposed[i] >= 0 && call->imposed[i] < router->rules.experts);
    }
    common.sigmoid = router->rules.sigmoid;
    common.of_probs = common.of_probs || common.sigmoid || common.bias;
    routes->gap_in_probs = common.of_probs;
#pragma omp parallel for num_threads(router->threads)                                              \
    schedule(static) if (tokens > TRI_TOKENS_ALONE)
    for (int64_t t = 0; t < tokens; t++) {
        struct tri_scores s = common;
        choose_token(router, call, &s, pick, t, routes);
    }
}

void tri_router_choose_best(const struct tri_router *router, const struct tri_router_call *call,
                            struct tri_routes *routes)
{
    tri_router_choose_tokens(router, call, (struct tri_scores){0}, tri_router_pick_best, routes);
}
