/* One micro-batch on its way through the model. */
#ifndef TRIDENT_MODEL_PASS_H
#define TRIDENT_MODEL_PASS_H

#include "base/exact.h"
#include "comm/comm.h"

#include <stdbool.h>
#include <stdint.h>

/* Keys and values of the tokens decoded so far, one block's: [rows, capacity, kv_heads * dim]. */
struct tri_cache {
    int64_t capacity, length; /* tokens; all rows have the same length */
    void **k, **v;            /* [layers] */
};

/* Records the experts that each MoE layer chose, or imposes recorded ones; indexed by the token's
 * place in the global batch, so that layouts can be compared. */
struct tri_route_tap {
    bool impose;
    int64_t tokens, k; /* of the global batch */
    int32_t *chosen;   /* [MoE layers, tokens, k] */
    int32_t *expert;   /* [MoE layers, tokens, k] -1 where capacity dropped it; may be NULL */
    float *gap;        /* [MoE layers, tokens] between probabilities; recorded only; may be NULL */
    float *logits;     /* [MoE layers, tokens, experts]; imposed where a router decides by them; may
                          be NULL */
};

/* This rank's share of the sums that the step reports. */
struct tri_tally {
    struct tri_exact cross_entropy; /* sum over counted targets of -log p; add over depth too */
    int64_t targets;                /* counted targets; likewise */
    struct tri_exact aux_loss, z_loss,
        information_loss; /* shares of the global means: add over {expert, data} */
    int64_t dropped;
    int64_t *load; /* [MoE layers, experts] tokens chosen, before capacity */
    double seconds_attention, seconds_router, seconds_exchange, seconds_experts;
};

/* Told about a model's parts as a micro-batch passes: block 0 to num_layers - 1; -1, the
 * embeddings; num_layers, the final norm and the head. */
struct tri_hooks {
    void *state;
    void (*after)(void *state,
                  int64_t block); /* its gradients are complete, this micro-batch's too */
};

struct tri_pass {
    /* the micro-batch: whole rows of the global batch; rows may be 0 */
    int64_t rows, seq;
    const int32_t *tokens;          /* [rows, seq] */
    const int32_t *targets;         /* [rows, seq], -1: not counted; NULL when no loss is wanted */
    const int32_t *positions;       /* [rows, seq] */
    const int32_t *first_key;       /* [rows, seq] or NULL: see struct tri_attention */
    int64_t first_row;              /* of the global batch */
    int64_t batch_rows, micro_step; /* rows of the global batch, and which of its micro-steps this
                                       is: what tri_rows_micro takes, for any replica */
    int64_t global_tokens; /* counted targets of the global batch, 0 or more: the loss's mean */
    int64_t batch_tokens;  /* tokens of the global batch: the means of routers' losses */
    uint64_t seed, step;
    bool training; /* noise, training capacity */
    bool backward; /* a backward follows */
    enum tri_phase phase;
    double *row_losses; /* [batch_rows] or NULL: each row's sum over counted targets of -log p is
                           added to its element, on every tensor rank; add over depth */
    struct tri_cache *cache;   /* decoding; or NULL */
    struct tri_route_tap *tap; /* or NULL */
    struct tri_tally *tally;
    const struct tri_hooks *hooks; /* or NULL */
};

static inline int64_t tri_pass_tokens(const struct tri_pass *pass)
{
    return pass->rows * pass->seq;
}

#endif
