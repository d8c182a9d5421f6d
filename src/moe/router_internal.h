/* What the files of the router share: choosing (router_topk.c, router_deepspeed.c), fitting into
 * queues (router_capacity.c), balance (router_balance.c), and router.c, which ties them
 * together. */
#ifndef TRIDENT_MOE_ROUTER_INTERNAL_H
#define TRIDENT_MOE_ROUTER_INTERNAL_H

#include "moe/router.h"

/* Fewer tokens than this are not worth waking other threads for. */
enum { ROUTER_TOKENS_ALONE = 256 };

/* Which probabilities the weights of a token are divided by the sum of. */
enum router_share { SHARE_NONE, SHARE_OF_CHOSEN, SHARE_OF_KEPT };

/* Everything in which the kinds of router differ, decided once. */
struct router_rules {
    enum tri_router_kind kind;
    int64_t experts, k;
    enum router_share share;
    float share_floor;           /* the smallest divisor */
    bool choice_major;           /* queues take all first choices before any second one */
    int64_t balance_choices;     /* the balance loss counts this many choices of each token */
    enum tri_drop_policy policy; /* whom a full queue keeps */
};

struct router_scratch {
    void *block;
    size_t capacity;
};

struct tri_router {
    const struct tri_config *config;
    const struct tri_mesh *mesh;
    struct router_rules rules;
    struct router_scratch queue, gather, entries, balance, slopes;
};

/* Rules that follow from the config; REQUIREs a sensible k. */
struct router_rules tri_router_rules(const struct tri_config_moe *moe);

/* One token's place in the random numbers of this call. */
enum router_draw { DRAW_NOISE, DRAW_SELECTION, DRAW_GUMBEL };
uint64_t tri_router_stream(const struct tri_router_call *call, enum router_draw draw);

/* Fills probs, lse, chosen and gap. */
void tri_router_choose(const struct tri_router *router, const struct tri_router_call *call,
                       struct tri_routes *routes);

/* DeepSpeed's second choice: the best of the rest by logits, plus Gumbel noise when sampled.
 * Returns the gap: the smaller of the first choice's and the second's. */
float tri_router_choose_first_and_second(const struct tri_router *router,
                                         const struct tri_router_call *call, int64_t token,
                                         int32_t *chosen);

/* Fills load, fraction and both losses; adds to model when the scope is model. */
void tri_router_measure_balance(struct tri_router *router, const struct tri_router_call *call,
                                struct tri_routes *routes, struct tri_aux_model *model);

/* d(coefficient * balance loss) / d prob, [windows, experts]; NULL when it is zero. Borrowed until
 * the next call. */
const float *tri_router_balance_slopes(struct tri_router *router,
                                       const struct tri_router_call *call,
                                       const struct tri_routes *routes,
                                       const struct tri_aux_model *model);

/* Fills expert, capacity and dropped. */
void tri_router_fill_queues(struct tri_router *router, const struct tri_router_call *call,
                            struct tri_routes *routes);

/* ceil(tokens / experts * factor * k) rounded as DeepSpeed does, in f32. */
int64_t tri_router_deepspeed_share(int64_t tokens, int64_t experts, double factor, int64_t k);

#endif
