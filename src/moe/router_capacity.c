/* Queues of limited length. An expert takes `capacity` routes of a window: the first ones, the most
 * probable ones, or random ones. First is in the order of tokens (deepspeed_top2: all first
 * choices, then all second ones).
 *
 * A window is a row, the call, or the call of every replica (step). For the last, ranks tell each
 * other their counts, and by score also every route, so that each finds the same cut. */
#include "moe/router_kind.h"

#include "base/memory.h"
#include "base/random.h"

#include <math.h>
#include <string.h>

/* Routes of one window, tokens of k choices each. */
struct window {
    int64_t tokens, capacity;
    const int32_t *chosen;
    const float *score; /* who stays when a queue is full; NULL: who comes first */
    int64_t *next;      /* [classes, experts] the next free place */
    int32_t *expert;
};

/* 1.1 * 30 is 33, not 34, although the double 1.1 is a little more than 1.1 */
int64_t tri_router_share(const struct tri_config_moe *moe, int64_t tokens, double factor)
{
    double exact = (double)(tokens * moe->top_k) / (double)moe->num_experts * factor;
    return (int64_t)ceil(exact * (1 - 1e-12));
}

/* Their factor times k is rounded to f32 and so is the product, which decides on which side of a
 * whole number it falls. */
int64_t tri_router_share_deepspeed(const struct tri_config_moe *moe, int64_t tokens, double factor)
{
    float mean = (float)((double)tokens / (double)moe->num_experts);
    return (int64_t)ceilf(mean * (float)(factor * (double)moe->top_k));
}

int64_t tri_router_capacity(const struct tri_config *config, bool training, int64_t tokens)
{
    const struct tri_config_moe *moe = &config->moe;
    double factor = training ? moe->capacity_factor : moe->eval_capacity_factor;
    if (moe->router->picks) {
        int64_t taken = moe->router->ops->share(moe, tokens, factor > 0 ? factor : 1);
        return taken < tokens ? taken : tokens;
    }
    if (!(factor > 0)) {
        return 0;
    }
    int64_t share = moe->router->ops->share(moe, tokens, factor);
    share = share > moe->min_capacity ? share : moe->min_capacity;
    return share < tokens ? share : tokens;
}

/* Higher scores first, then earlier routes: a total order, also with NaNs (scores are not
 * negative, so their bits are in order). */
static uint64_t key_of(const float *score, int64_t route)
{
    uint32_t bits;
    memcpy(&bits, score + route, sizeof(bits));
    return (uint64_t)bits << 32 | (UINT32_MAX - (uint32_t)route);
}

uint64_t tri_router_select_key(uint64_t *key, int64_t n, int64_t place)
{
    int64_t low = 0;
    int64_t high = n - 1;
    while (low < high) {
        uint64_t pivot = key[low + (high - low) / 2];
        int64_t i = low;
        int64_t j = high;
        while (i <= j) {
            while (key[i] > pivot) {
                i++;
            }
            while (key[j] < pivot) {
                j--;
            }
            if (i <= j) {
                uint64_t swap = key[i];
                key[i++] = key[j];
                key[j--] = swap;
            }
        }
        if (place <= j) {
            high = j;
        } else if (place >= i) {
            low = i;
        } else {
            break;
        }
    }
    return key[place];
}

static int64_t classes(const struct tri_router_rules *rules)
{
    return rules->choice_major ? rules->k : 1;
}

static void count_routes(const struct tri_router_rules *rules, const int32_t *chosen,
                         int64_t tokens, int64_t *count)
{
    const int64_t k = rules->k;
    memset(count, 0, (size_t)(classes(rules) * rules->experts) * sizeof(*count));
    for (int64_t r = 0; r < tokens * k; r++) {
        count[(rules->choice_major ? r % k * rules->experts : 0) + chosen[r]]++;
    }
}

/* For each expert the key below which a route is refused; 0 where all find room. Scratch: keys for
 * all routes, and for each expert where its own begin. */
static void find_cuts(const struct tri_router_rules *rules, const struct window *w,
                      const int64_t *count, uint64_t *keys, int64_t *begin, uint64_t *cut)
{
    int64_t total = 0;
    for (int64_t e = 0; e < rules->experts; e++) {
        begin[e] = total;
        total += count[e];
    }
    for (int64_t r = 0; r < total; r++) {
        keys[begin[w->chosen[r]]++] = key_of(w->score, r);
    }
    for (int64_t e = 0; e < rules->experts; e++) {
        cut[e] = 0;
        if (count[e] > w->capacity) {
            cut[e] = tri_router_select_key(keys + begin[e] - count[e], count[e], w->capacity - 1);
        }
    }
}

static void fill_window(const struct tri_router_rules *rules, const struct window *w,
                        const uint64_t *cut)
{
    const int64_t k = rules->k;
    for (int64_t r = 0; r < w->tokens * k; r++) {
        int32_t e = w->chosen[r];
        int64_t *next = w->next + (rules->choice_major ? r % k * rules->experts : 0) + e;
        bool kept =
            w->capacity == 0 || (w->score ? key_of(w->score, r) >= cut[e] : *next < w->capacity);
        w->expert[r] = kept ? e : -1;
        *next += kept;
    }
}

struct work {
    int64_t *count, *next, *begin;
    uint64_t *cut, *keys;
};

static struct work get_work(struct tri_router *router, int64_t keys)
{
    const int64_t experts = router->rules.experts;
    const int64_t cells = classes(&router->rules) * experts;
    struct tri_router_scratch *scratch = &router->queue;
    uint64_t *block = tri_grow(TRI_MEMORY_OTHER, &scratch->block, &scratch->capacity,
                               (size_t)(2 * cells + 2 * experts + keys) * sizeof(uint64_t));
    int64_t *integers = (int64_t *)block;
    return (struct work){.count = integers,
                         .next = integers + cells,
                         .begin = integers + 2 * cells,
                         .cut = block + 2 * cells + experts,
                         .keys = block + 2 * cells + 2 * experts};
}

/* A window that is all here. */
static void fill_local(struct tri_router *router, struct window w)
{
    const struct tri_router_rules *rules = &router->rules;
    TRI_REQUIRE(w.tokens * rules->k < (int64_t)UINT32_MAX);
    struct work work = get_work(router, w.score ? w.tokens * rules->k : 0);
    w.next = work.next;
    count_routes(rules, w.chosen, w.tokens, work.count);
    for (int64_t e = 0; e < rules->experts; e++) {
        int64_t place = 0;
        for (int64_t c = 0; c < classes(rules); c++) {
            work.next[c * rules->experts + e] = place;
            place += work.count[c * rules->experts + e];
        }
    }
    if (w.score) {
        find_cuts(rules, &w, work.count, work.keys, work.begin, work.cut);
    }
    fill_window(rules, &w, work.cut);
}

/* The numbers that random and probability selection go by, in the array that the weights overwrite
 * afterwards. */
static const float *score_routes(const struct tri_router *router,
                                 const struct tri_router_call *call, struct tri_routes *routes)
{
    const struct tri_router_rules *rules = &router->rules;
    const uint64_t first = (uint64_t)(call->first_row * call->seq * rules->experts);
    const uint64_t stream = tri_router_stream(call, TRI_DRAW_SELECTION);
    for (int64_t r = 0; r < call->rows * call->seq * rules->k; r++) {
        int64_t cell = r / rules->k * rules->experts + routes->chosen[r];
        if (call->imposed_drops) {
            routes->weight[r] = call->imposed_drops[r] < 0 ? 0.0F : 1.0F;
        } else if (rules->policy == TRI_DROP_PROBABILITY) {
            routes->weight[r] = routes->probs[cell];
        } else if (call->uniform) {
            routes->weight[r] = call->uniform[cell];
        } else {
            routes->weight[r] =
                (float)tri_random_uniform(call->seed, stream, first + (uint64_t)cell);
        }
    }
    return routes->weight;
}

/* What each replica says first: its tokens, then its counts. Returns [ranks, 1 + cells]. */
static const int64_t *exchange_counts(struct tri_router *router, const struct tri_router_call *call,
                                      const int32_t *chosen, int64_t *all_tokens)
{
    struct tri_group *group = tri_mesh_group(router->mesh, TRI_ON_EXPERT | TRI_ON_DATA);
    const int ranks = tri_group_size(group);
    const int64_t width = 1 + classes(&router->rules) * router->rules.experts;
    struct tri_router_scratch *scratch = &router->gather;
    int64_t *table = tri_grow(TRI_MEMORY_OTHER, &scratch->block, &scratch->capacity,
                              (size_t)(ranks * (width + 1)) * sizeof(int64_t));
    int64_t *sizes = table + ranks * width;
    int64_t *own = table + tri_group_rank(group) * width;
    own[0] = call->rows * call->seq;
    count_routes(&router->rules, chosen, own[0], own + 1);
    for (int r = 0; r < ranks; r++) {
        sizes[r] = width;
    }
    tri_all_gather_v(group, (struct tri_where){call->phase, TRI_KIND_META}, table, sizes, TRI_I64);
    *all_tokens = 0;
    for (int r = 0; r < ranks; r++) {
        *all_tokens += table[r * width];
    }
    return table;
}

/* By position: the queues begin where earlier classes and earlier replicas leave them. */
static void fill_step_by_position(struct tri_router *router, struct window w, const int64_t *table)
{
    const struct tri_router_rules *rules = &router->rules;
    const int64_t cells = classes(rules) * rules->experts;
    const int ranks = tri_group_size(tri_mesh_group(router->mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    const int rank = tri_group_rank(tri_mesh_group(router->mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    struct work work = get_work(router, 0);
    w.next = work.next;
    for (int64_t e = 0; e < rules->experts; e++) {
        int64_t place = 0;
        for (int64_t cell = e; cell < cells; cell += rules->experts) {
            for (int r = 0; r < ranks; r++) {
                if (r == rank) {
                    work.next[cell] = place;
                }
                place += table[r * (1 + cells) + 1 + cell];
            }
        }
    }
    fill_window(rules, &w, work.cut);
}

/* By score: every rank fills the whole window and takes its own part. */
static void fill_step_by_score(struct tri_router *router, const struct tri_router_call *call,
                               struct window own, const int64_t *table, int64_t all_tokens)
{
    struct tri_group *group = tri_mesh_group(router->mesh, TRI_ON_EXPERT | TRI_ON_DATA);
    const int64_t k = router->rules.k;
    const int64_t width = 1 + router->rules.experts;
    const int ranks = tri_group_size(group);
    const size_t routes = (size_t)(all_tokens * k);
    struct tri_router_scratch *scratch = &router->entries;
    int64_t *sizes = tri_grow(TRI_MEMORY_OTHER, &scratch->block, &scratch->capacity,
                              (size_t)ranks * sizeof(int64_t) + routes * 3 * sizeof(int32_t));
    int32_t *chosen = (int32_t *)(sizes + ranks);
    float *score = (float *)(chosen + routes);
    int64_t before = 0;
    for (int r = 0; r < ranks; r++) {
        sizes[r] = table[r * width] * k;
        before += r < tri_group_rank(group) ? sizes[r] : 0;
    }
    const size_t bytes = (size_t)(own.tokens * k) * sizeof(int32_t);
    memcpy(chosen + before, own.chosen, bytes);
    memcpy(score + before, own.score, bytes);
    const struct tri_where where = {call->phase, TRI_KIND_META};
    tri_all_gather_v(group, where, chosen, sizes, TRI_I32);
    tri_all_gather_v(group, where, score, sizes, TRI_F32);
    struct window all = {.tokens = all_tokens,
                         .capacity = own.capacity,
                         .chosen = chosen,
                         .score = score,
                         .expert = chosen + 2 * routes};
    fill_local(router, all);
    memcpy(own.expert, all.expert + before, bytes);
}

static void fill_step(struct tri_router *router, const struct tri_router_call *call,
                      struct window w, struct tri_routes *routes)
{
    int64_t all_tokens = 0;
    const int64_t *table = exchange_counts(router, call, w.chosen, &all_tokens);
    w.capacity = tri_router_capacity(router->config, call->training, all_tokens);
    routes->capacity = w.capacity;
    if (w.score) {
        fill_step_by_score(router, call, w, table, all_tokens);
    } else {
        fill_step_by_position(router, w, table);
    }
}

void tri_router_fill_queues(struct tri_router *router, const struct tri_router_call *call,
                            struct tri_routes *routes)
{
    const struct tri_router_rules *rules = &router->rules;
    const enum tri_window kind = router->config->moe.capacity_window;
    const bool by_row = kind == TRI_WINDOW_SEQUENCE;
    const int64_t tokens = call->rows * call->seq;
    const int64_t windows = by_row ? call->rows : 1;
    const bool limited = tri_router_capacity(router->config, call->training, 1) > 0;
    struct window w = {.tokens = by_row ? call->seq : tokens};
    if (limited && rules->policy != TRI_DROP_POSITION) {
        w.score = score_routes(router, call, routes);
    }
    routes->capacity = tri_router_capacity(router->config, call->training, w.tokens);
    w.capacity = routes->capacity;
    for (int64_t i = 0; i < windows; i++) {
        int64_t first = i * w.tokens * rules->k;
        struct window part = w;
        part.chosen = routes->chosen + first;
        part.score = w.score ? w.score + first : NULL;
        part.expert = routes->expert + first;
        if (limited && kind == TRI_WINDOW_STEP) {
            fill_step(router, call, part, routes);
        } else {
            fill_local(router, part);
        }
    }
    routes->dropped = 0;
    for (int64_t r = 0; r < tokens * rules->k; r++) {
        routes->dropped += routes->expert[r] < 0 ? 1 : 0;
    }
}
