/* A kind of router, for who writes one: its functions (what others ask of it are fields of
 * struct tri_router_kind), and the blocks that kinds are made of: choosing (router_choose.c),
 * balance (router_balance.c), fitting into queues (router_capacity.c), weights
 * (router_weights.c). */
#ifndef TRIDENT_MOE_ROUTER_KIND_H
#define TRIDENT_MOE_ROUTER_KIND_H

#include "moe/router.h"

/* Fewer tokens than this are not worth waking other threads for. */
enum { TRI_TOKENS_ALONE = 256 };

/* Which probabilities the weights of a token are divided by the sum of. */
enum tri_share { TRI_SHARE_NONE, TRI_SHARE_OF_CHOSEN, TRI_SHARE_OF_KEPT };

/* What the blocks go by, decided once. */
struct tri_router_rules {
    int64_t experts, k;
    enum tri_share share;
    float share_floor;           /* the smallest divisor */
    double share_added;          /* added to the divisor */
    double scaling;              /* times the weights */
    bool sigmoid;                /* probs are sigmoids, of any sum */
    bool choice_major;           /* queues take all first choices before any second one */
    int64_t balance_choices;     /* the balance loss counts this many choices of each token */
    enum tri_drop_policy policy; /* whom a full queue keeps */
};

/* Tokens by their place in the global batch, of rows of seq, of which (or of whatever the window of
 * capacities is) an expert takes `capacity`; 0: all. */
struct tri_places {
    struct tri_range tokens;
    int64_t seq, capacity;
};

/* The functions of a kind. Of forward and backward each is called once a micro-batch, in the order
 * in which they stand here. */
struct tri_router_ops {
    /* Changes what it wants otherwise than tri_router_create makes it of the config. NULL: nothing.
     */
    void (*set_rules)(const struct tri_config_moe *moe, struct tri_router_rules *rules);
    /* Routes that an expert takes of so many tokens, before min_capacity. */
    int64_t (*share)(const struct tri_config_moe *moe, int64_t tokens, double factor);

    /* Fills probs, lse, chosen and gap; heeds what is imposed, as far as its kind says that it
     * can be. Local. */
    void (*choose)(const struct tri_router *router, const struct tri_router_call *call,
                   struct tri_routes *routes);
    /* Fills load, fraction and both losses; adds to model when the scope is model. This and fill
     * are collective over expert x data when their window is step. */
    void (*measure)(struct tri_router *router, const struct tri_router_call *call,
                    struct tri_routes *routes, struct tri_aux_model *model);
    /* Fills expert, capacity and dropped. */
    void (*fill)(struct tri_router *router, const struct tri_router_call *call,
                 struct tri_routes *routes);
    /* Fills weight. Local. */
    void (*weigh)(const struct tri_router *router, const struct tri_router_call *call,
                  struct tri_routes *routes);

    /* As tri_router_backward. */
    void (*backward)(struct tri_router *router, const struct tri_router_call *call,
                     const struct tri_routes *routes, const struct tri_aux_model *model,
                     struct tri_range own, const float *dweight, float *dlogits);

    /* Of one that a plan rehearses, which has neither logits nor other ranks, NULL of others: how
     * many routes tokens of these places in the global batch send to an expert; and after how many
     * full micro-batches everything repeats. Local. */
    int64_t (*routes_by_place)(const struct tri_config_moe *moe, const struct tri_places *places,
                               int64_t expert);
    int64_t (*period)(const struct tri_config *config);
};

struct tri_router_scratch {
    void *block;
    size_t capacity;
};

struct tri_router {
    const struct tri_config *config;
    const struct tri_mesh *mesh;
    int threads;
    const struct tri_router_ops *ops;
    struct tri_router_rules rules;
    struct tri_router_scratch queue, gather, entries, balance, slopes;
};

/* ---- choosing -------------------------------------------------------------------------------- */

/* One token's place in the random numbers of this call. */
enum tri_router_draw { TRI_DRAW_NOISE, TRI_DRAW_SELECTION, TRI_DRAW_GUMBEL, TRI_DRAW_SPARSEMIXER };
uint64_t tri_router_stream(const struct tri_router_call *call, enum tri_router_draw draw);

/* What the scores of one token are made of. */
struct tri_scores {
    const float *logits, *probs, *bias;
    bool of_probs; /* and not of logits; with a bias or sigmoids always */
    bool sigmoid;
    double noise; /* 0: none */
    uint64_t seed, stream;
    uint64_t place; /* of the token in the global batch, times experts */
};

/* Chooses k experts of a token, and returns its gap; room [k]. */
typedef float tri_router_pick(const struct tri_router *router, const struct tri_router_call *call,
                              const struct tri_scores *scores, int32_t *chosen, float *room);

/* `choose` by the softmax or sigmoids: what is imposed, or what pick chooses of each token. common:
 * bias and noise of the scores. */
void tri_router_choose_tokens(const struct tri_router *router, const struct tri_router_call *call,
                              struct tri_scores common, tri_router_pick *pick,
                              struct tri_routes *routes);
/* The k best scores, in falling order. */
tri_router_pick tri_router_pick_best;
/* The same of the experts of the best groups. */
tri_router_pick tri_router_pick_in_groups;
/* `choose` of those by the logits alone. */
void tri_router_choose_best(const struct tri_router *router, const struct tri_router_call *call,
                            struct tri_routes *routes);

/* ---- balance --------------------------------------------------------------------------------- */

/* `measure` of the losses of router_balance.c. */
void tri_router_measure_balance(struct tri_router *router, const struct tri_router_call *call,
                                struct tri_routes *routes, struct tri_aux_model *model);
/* The part of that which is no balance: z_terms and z_loss. */
void tri_router_measure_z(const struct tri_router *router, const struct tri_router_call *call,
                          struct tri_routes *routes);
/* d(coefficient * balance loss) / d prob, [windows, experts]; NULL when it is zero. Borrowed until
 * the next call. */
const float *tri_router_balance_slopes(struct tri_router *router,
                                       const struct tri_router_call *call,
                                       const struct tri_routes *routes,
                                       const struct tri_aux_model *model);

/* Fills fraction with each window's mean probabilities, and information_terms and information_loss.
 * Collective over expert x data when the window is step. */
void tri_router_measure_information(struct tri_router *router, const struct tri_router_call *call,
                                    struct tri_routes *routes);
/* slopes [experts] <- d(coefficient * information loss) / d prob of a token. */
void tri_router_information_slopes(const struct tri_router *router,
                                   const struct tri_router_call *call,
                                   const struct tri_routes *routes, int64_t token, double *slopes);

/* ---- queues ---------------------------------------------------------------------------------- */

/* `share`: ceil(tokens * k / experts * factor). */
int64_t tri_router_share(const struct tri_config_moe *moe, int64_t tokens, double factor);
/* The same, rounded as DeepSpeed does, in f32. */
int64_t tri_router_share_deepspeed(const struct tri_config_moe *moe, int64_t tokens, double factor);
/* The place-th largest (from 0) of n distinct keys; reorders them. */
uint64_t tri_router_select_key(uint64_t *key, int64_t n, int64_t place);
/* `fill` by the rules. */
void tri_router_fill_queues(struct tri_router *router, const struct tri_router_call *call,
                            struct tri_routes *routes);

/* ---- sparse use of a dense router ------------------------------------------------------------ */

/* weight, which is probs, <- 0 where an expert does not work; of a rehearsal's router it stays as
 * it is. Collective over expert x data where it goes by an average and the window is step. */
void tri_router_activate(struct tri_router *router, const struct tri_router_call *call,
                         struct tri_routes *routes);

/* ---- weights --------------------------------------------------------------------------------- */

/* Of a token's sigmoids, never 0. */
double tri_router_sum(const struct tri_router_rules *rules, const float *probs);
/* `weigh`: probabilities, over the sum that the rules say; and the `backward` of that, of the
 * balance and of the z-loss. */
void tri_router_weigh_shares(const struct tri_router *router, const struct tri_router_call *call,
                             struct tri_routes *routes);
void tri_router_backward_shares(struct tri_router *router, const struct tri_router_call *call,
                                const struct tri_routes *routes, const struct tri_aux_model *model,
                                struct tri_range own, const float *dweight, float *dlogits);
/* The backward of the balance and z-losses alone, of routers that have weights of their own. */
void tri_router_backward_losses(struct tri_router *router, const struct tri_router_call *call,
                                const struct tri_routes *routes, const struct tri_aux_model *model,
                                struct tri_range own, float *dlogits);

/* ---- plans ----------------------------------------------------------------------------------- */

/* Of who stands for a router in a plan: in turn, without logits. */
extern const struct tri_router_ops tri_router_rehearsed_ops;

#endif
