/* GRIN's SparseMixer-v2 (moe/sparsemixer.h): in training each choice is drawn, without replacement;
 * else the largest are taken, in turn, and weigh by the same probabilities. Nothing is dropped. A
 * draw is known by (seed, step, layer, place of the token, choice), so that every layout draws the
 * same; B of Heun's method likewise. */
#include "moe/router_kind.h"
#include "moe/sparsemixer.h"
#include "moe/strategies.h"

#include "base/random.h"

#include <string.h>

enum { NUMBERS = 2 }; /* of a draw: which expert, and B */

static struct tri_sparsemixer mixer_of(const struct tri_router *router)
{
    const struct tri_config_moe *moe = &router->config->moe;
    return (struct tri_sparsemixer){moe->sparsemixer_form, moe->mask_range, router->rules.experts};
}

static const float *deciding(const struct tri_router_call *call, const float *logits, int64_t at)
{
    return call->imposed_logits ? call->imposed_logits + at : logits + at;
}

/* Number `which` of a draw of the token at this place of the global batch. */
static double draw_number(const struct tri_router *router, const struct tri_router_call *call,
                          uint64_t stream, uint64_t place, int64_t choice, int which)
{
    uint64_t draw = place * (uint64_t)router->rules.k + (uint64_t)choice;
    return tri_random_uniform(call->seed, stream, draw * NUMBERS + (uint64_t)which);
}

static float pick(const struct tri_router *router, const struct tri_router_call *call,
                  const struct tri_scores *scores, int32_t *chosen, float *room)
{
    const struct tri_sparsemixer mixer = mixer_of(router);
    const uint64_t place = scores->place / (uint64_t)router->rules.experts;
    double nearest = 0;
    (void)room;
    for (int64_t j = 0; j < router->rules.k; j++) {
        double gap;
        struct tri_sparse_draw draw = {
            .mixer = &mixer,
            .logits = scores->logits,
            .deciding = deciding(call, call->logits, scores->logits - call->logits),
            .taken = chosen,
            .before = j,
        };
        tri_sparse_draw_begin(&draw);
        if (call->training) {
            double u = draw_number(router, call, scores->stream, place, j, 0);
            chosen[j] = (int32_t)tri_sparse_draw_choose(&draw, u, &gap);
        } else {
            chosen[j] = (int32_t)tri_sparse_draw_largest(&draw, &gap);
        }
        nearest = j > 0 && nearest < gap ? nearest : gap;
    }
    return (float)nearest;
}

static void choose(const struct tri_router *router, const struct tri_router_call *call,
                   struct tri_routes *routes)
{
    const struct tri_scores common = {
        .seed = call->seed,
        .stream = tri_router_stream(call, TRI_DRAW_SPARSEMIXER),
    };
    int64_t tokens = call->rows * call->seq;
    tri_router_choose_tokens(router, call, common, pick, routes);
    memcpy(routes->logits, call->logits,
           (size_t)(tokens * router->rules.experts) * sizeof(*routes->logits));
}

/* Choice j of a token, drawn again. */
static struct tri_sparse_draw redraw(const struct tri_sparsemixer *mixer,
                                     const struct tri_router_call *call,
                                     const struct tri_routes *routes, int64_t token, int64_t k,
                                     int64_t j)
{
    struct tri_sparse_draw draw = {
        .mixer = mixer,
        .logits = routes->logits + token * mixer->experts,
        .deciding = deciding(call, routes->logits, token * mixer->experts),
        .taken = routes->chosen + token * k,
        .before = j,
    };
    tri_sparse_draw_begin(&draw);
    tri_sparse_draw_take(&draw, routes->chosen[token * k + j]);
    return draw;
}

static void weigh(const struct tri_router *router, const struct tri_router_call *call,
                  struct tri_routes *routes)
{
    const struct tri_sparsemixer mixer = mixer_of(router);
    const int64_t tokens = call->rows * call->seq;
    const int64_t k = router->rules.k;
    const uint64_t stream = tri_router_stream(call, TRI_DRAW_SPARSEMIXER);
    const double rate = tri_sparsemixer_rate(&mixer);
#pragma omp parallel for num_threads(router->threads)                                              \
    schedule(static) if (tokens > TRI_TOKENS_ALONE)
    for (int64_t t = 0; t < tokens; t++) {
        const uint64_t place = (uint64_t)(call->first_row * call->seq + t);
        for (int64_t j = 0; j < k; j++) {
            struct tri_sparse_draw draw = redraw(&mixer, call, routes, t, k, j);
            bool full = !call->training || draw_number(router, call, stream, place, j, 1) < rate;
            double scale = tri_sparsemixer_scale(&mixer, draw.chosen == draw.largest, full);
            routes->weight[t * k + j] = (float)(scale * draw.share);
            routes->back[t * k + j] = (float)(tri_sparsemixer_back(&mixer, scale) * draw.share);
        }
    }
}

static void backward(struct tri_router *router, const struct tri_router_call *call,
                     const struct tri_routes *routes, const struct tri_aux_model *model,
                     struct tri_range own, const float *dweight, float *dlogits)
{
    const struct tri_sparsemixer mixer = mixer_of(router);
    const int64_t k = router->rules.k;
    tri_router_backward_losses(router, call, routes, model, own, dlogits);
#pragma omp parallel for num_threads(router->threads)                                              \
    schedule(static) if (own.end - own.begin > TRI_TOKENS_ALONE)
    for (int64_t t = own.begin; t < own.end; t++) {
        float *row = dlogits + t * mixer.experts;
        for (int64_t j = 0; j < k; j++) {
            const struct tri_sparse_draw draw = redraw(&mixer, call, routes, t, k, j);
            for (int64_t e = 0; e < mixer.experts; e++) {
                double through = (double)dweight[t * k + j] * tri_sparse_draw_slope(&draw, e);
                row[e] = (float)((double)row[e] + through);
            }
        }
    }
}

static const struct tri_router_ops ops = {
    .share = tri_router_share,
    .choose = choose,
    .measure = tri_router_measure_balance,
    .fill = tri_router_fill_queues,
    .weigh = weigh,
    .backward = backward,
};

static const struct tri_router_kind rehearsed = {
    .strategy = {"rehearsed", "in turn, without logits", NULL},
    .by_place = true,
    .blind = true,
    .even = true,
    .apart = true,
    .rehearsed = &rehearsed,
    .ops = &tri_router_rehearsed_ops,
};

static const char *const keys[] = {"moe.sparsemixer_form", "moe.mask_range", NULL};

const struct tri_router_kind tri_router_sparsemixer = {
    .strategy = {"sparsemixer", "drawn by the softmax of those near the best (GRIN)", keys},
    .by_place = true,
    .dropless = true,
    .balances_step = true,
    .apart = true,
    .imposed = TRI_IMPOSE_CHOICE | TRI_IMPOSE_LOGITS,
    .rehearsed = &rehearsed,
    .ops = &ops,
};
