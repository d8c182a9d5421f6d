/* Softmax and choice of experts, token by token. */
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

static inline float score_of(const struct tri_scores *s, int64_t e)
{
    double noise = 0;
    if (s->noise > 0) {
        noise = s->noise * tri_random_normal(s->seed, s->stream, s->place + (uint64_t)e);
    }
    if (s->bias) {
        return (float)((double)s->probs[e] * exp(noise)) + s->bias[e];
    }
    return s->noise > 0 ? (float)((double)s->logits[e] + noise) : s->logits[e];
}

/* The k best in falling order, by insertion: only what beats the last so far costs more than one
 * comparison. A NaN never beats anything, so the result is k distinct experts whatever comes in. */
float tri_router_pick_best(const struct tri_router *router, const struct tri_router_call *call,
                           const struct tri_scores *s, int32_t *chosen, float *best)
{
    const int64_t experts = router->rules.experts;
    const int64_t k = router->rules.k;
    (void)call;
    float refused = -INFINITY;
    for (int64_t e = 0; e < experts; e++) {
        float score = score_of(s, e);
        int64_t at = e < k ? e : k;
        if (at == k) {
            if (!(score > best[k - 1])) {
                refused = score > refused ? score : refused;
                continue;
            }
            refused = best[k - 1];
            at = k - 1;
        }
        while (at > 0 && score > best[at - 1]) {
            best[at] = best[at - 1];
            chosen[at] = chosen[at - 1];
            at--;
        }
        best[at] = score;
        chosen[at] = (int32_t)e;
    }
    return best[k - 1] - refused;
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
    softmax(s->logits, experts, probs, routes->lse + token);
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
