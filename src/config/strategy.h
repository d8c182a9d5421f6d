/* What moe.router and moe.schedule may be, and where weights may be kept. Each strategy is a
 * constant in a file of its own in moe/: here is what is known of one without its functions, and so
 * without asking for its name. A config is read with a list of them (moe/strategies.h has ours),
 * and points to those that it names. */
#ifndef TRIDENT_CONFIG_STRATEGY_H
#define TRIDENT_CONFIG_STRATEGY_H

#include <stdbool.h>
#include <stdint.h>

struct tri_config;

/* The beginning of each. */
struct tri_strategy {
    const char *name; /* as one writes it */
    const char *help; /* a phrase */
    const char *const
        *keys; /* those that it reads and not every other one, ends in NULL; or NULL. Given where
                  another router is, they are refused. */
};

/* What of another layout's routes can be imposed on a router, when verify compares two. */
enum tri_imposed {
    TRI_IMPOSE_NOTHING,
    TRI_IMPOSE_DROPS = 1,
    TRI_IMPOSE_CHOICE = 2,
    TRI_IMPOSE_LOGITS = 4 /* whatever is decided by comparing goes by the other's logits */
};

struct tri_router_ops;
struct tri_router_kind {
    struct tri_strategy strategy;
    int64_t top_k;    /* the only moe.top_k that it takes; 0: any */
    bool layer_scope; /* balances each layer by itself: takes no moe.aux_scope model */
    bool biased;      /* chooses by the biases of moe.bias_balancing; others refuse that key */
    bool picks;       /* experts choose tokens, of a row each time: a token has a record for every
                         expert, and capacities are not how many find room but how many are taken */
    bool scored;      /* likewise moe.score, moe.groups and moe.routed_scaling */
    bool by_place;    /* chooses or drops by a token's place in the global batch (random numbers are
                         keyed by it too), whatever the keys of noise and of drops say */
    bool dense;       /* every token visits every expert: nothing is chosen, and a weight is a
                         probability. Goes with the schedules that are `dense` too. */
    bool blind;       /* reads no logits, and asks no peer: a rehearsal's */
    bool even;        /* every expert gets the same share: a plan needs no headroom */
    bool dropless;    /* takes no capacity */
    bool balances_step; /* moe.aux_window is step unless it is given */
    bool apart;         /* experts' outputs weigh otherwise in the forward than in the backward, and
                           the backward needs the logits: routes have room for both */
    bool unbalanced;    /* has no balance loss: moe.aux_loss is not read */
    bool exported;      /* transformers' models choose and weigh like this */
    unsigned imposed;   /* of enum tri_imposed */
    const struct tri_router_kind
        *rehearsed;                   /* who chooses instead in a plan: see moe/router_kind.h */
    const struct tri_router_ops *ops; /* likewise */
};

struct tri_schedule_ops;
struct tri_schedule_kind {
    struct tri_strategy strategy;
    bool dense;      /* for routers that are, and no others */
    bool drops;      /* is made for tensor ranks that send different tokens: takes no
                   train.duplicate_token_dropping false */
    bool by_host;    /* does what its like do where all ranks that share experts share a host: the
                           planner does not try it there */
    bool deep;       /* goes with any parallel.tensor_grid: a rank's stream may lack tokens */
    bool gates_part; /* a tensor rank makes the router's logits of its own part of the tokens,
                           and the others tell it theirs */
    bool adds_at_owner; /* partial results of cut experts are added where the token is from, and no
                           expert's bias is known: reproducible sums take none */
    /* Whether on a mesh of so many tensor and expert ranks the tensor ranks of an MoE layer each
     * route their own part of the tokens, so that gradients of the router are partial sums over
     * tensor. */
    bool (*splits_tokens)(const struct tri_config *config, int tensor, int expert);
    const struct tri_schedule_ops *ops; /* moe/schedule.h */
};

/* Lists that end in NULL. Of routers and schedules the `strategy` that the kinds begin with, the
 * first of each being the default; of residencies all that are asked, of any config, what they keep
 * (model/param_open.h). */
struct tri_residency_kind;
struct tri_strategies {
    const struct tri_strategy *const *routers;
    const struct tri_strategy *const *schedules;
    const struct tri_residency_kind *const *residencies;
};

#endif
