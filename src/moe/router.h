/* Choosing experts. From logits [tokens, experts] a router makes routes: for each token and choice
 * j an expert, a weight and a place in that expert's queue; its backward turns gradients of the
 * weights (and of the balance and z losses) into gradients of the logits. All numbers f32; sums in
 * double. Everything a router draws at random is keyed by (seed, step, layer, global row, place in
 * the row), so that every layout draws the same. */
#ifndef TRIDENT_MOE_ROUTER_H
#define TRIDENT_MOE_ROUTER_H

#include "base/exact.h"
#include "comm/comm.h"
#include "config/config.h"
#include "shard/range.h"

/* One call of one layer's router on one micro-batch of this replica. */
struct tri_router_call {
    const float *logits;   /* [rows*seq, experts] */
    int64_t rows, seq;     /* whole sequences; may be 0 rows */
    int64_t first_row;     /* global row, within the global batch, of the first */
    int64_t global_tokens; /* of the whole global batch, counted as targets or not: every mean is
                              over these */
    uint64_t seed, step;
    int64_t layer; /* counted over all layers */
    bool training;
    const float *bias; /* [experts] bias-balancing's, added to the scores that choose; or NULL */
    const int32_t *imposed; /* [tokens, k] experts to take instead of choosing (verify); or NULL */
    const int32_t
        *imposed_drops;          /* [tokens, k] -1 for those that a full expert refuses first, where
                                     scores would decide; or NULL */
    const float *imposed_logits; /* [tokens, experts] what decides instead of logits; or NULL */
    const float *uniform; /* [tokens, experts] numbers of random selection; NULL: keyed ones */
    const struct tri_active *active; /* which experts of a dense router work; NULL: all */
    enum tri_phase phase;            /* for the ledger */
};

/* Sparse use of what was trained with a dense router (DS-MoE, arXiv 2404.05567): the experts of a
 * token with the n largest probabilities; those whose probability times the number of experts is
 * above epsilon; or as many of the largest as that is on average over the tokens of the balance
 * loss's window, rounded. The most probable one always works. */
enum tri_active_kind { TRI_ACTIVE_TOP, TRI_ACTIVE_THRESHOLD, TRI_ACTIVE_AVERAGE };
struct tri_active {
    enum tri_active_kind kind;
    int64_t n;
    double epsilon;
};

/* What a router decided. Caller-owned arrays (the frame's), placed by tri_routes_place.
 *
 * Scores: what chooses is logit + noise (top_k; noise in training only), or with a bias or groups
 * softmax * exp(noise) + bias, or sigmoid(logit + noise) + bias; the weights never see noise or
 * bias. Ties go to the lower expert.
 *
 * A dense router chooses nothing, k is 0, and weight [tokens, experts] is probs; where only some
 * experts work it is 0 for the others. One that sharpens (moe.sharpen_step) has k = top_k: it
 * records the most probable, and from that step on they are the ones that weigh. */
struct tri_routes {
    int32_t *chosen; /* [tokens, k] before capacity; in order of falling score, imposed as given;
                        where experts pick tokens the same as */
    int32_t *expert; /* [tokens, k] after capacity; -1 where dropped, or not picked */
    float *weight;   /* [tokens, k] multiplies the expert's output; 0 where dropped */
    float *back;     /* [tokens, k] multiplies the gradient on its way back to the expert; NULL:
                        weight does. Of routers that are `apart`, as is: */
    float *logits;   /* [tokens, experts] those of the call, for the backward; or NULL */
    float *probs;    /* [tokens, experts] softmax of the (noiseless) logits; or their sigmoids, each
                        by itself, of any sum */
    float *lse;      /* [tokens] log-sum-exp of the logits; sigmoid: 0, there is no z-loss */
    float *gap;      /* [tokens] last chosen minus first refused score, so in logits unless
                   gap_in_probs; inf when k == experts or nothing was weighed (balanced); may be
                   negative when imposed; deepspeed_top2: the first choice's if smaller; with groups
                   half of what parts the last open group from the first closed one if smaller (a
                   group's score is a sum of two), groups being ignored when imposed */
    bool gap_in_probs;
    bool sparse;      /* dense router: not all experts work, */
    int64_t most;     /* at most so many on a token */
    float *fraction;  /* [rows, experts] for window sequence, [1, experts] otherwise: the share f_e
                          that the balance loss's gradient needs; scope model: unused. Dense
                          router: the mean probability */
    int64_t capacity; /* of an expert, per window; 0 when dropless */
    int64_t dropped;  /* routes dropped here */
    double aux_loss; /* this rank's share of the layer's unscaled balance loss: summed over replicas
                          and micro-steps it is the layer's loss (windows step: booked by the first
                          replica only) */
    double z_loss;   /* likewise, mean of lse^2, unscaled */
    double information_loss; /* likewise, of a dense router (router_information.c); else 0 */
    struct tri_exact aux_terms, z_terms,
        information_terms; /* the same before rounding, whatever the micro-batches */
    int64_t *load; /* [experts] tokens chosen here, before capacity; that a dense router weighs */
};

/* Bytes that the arrays of a tri_routes take for rows of seq tokens, and the arrays set up in such
 * a block (64-byte aligned, content undefined). */
size_t tri_routes_bytes(const struct tri_config *config, int64_t rows, int64_t seq);
void tri_routes_place(const struct tri_config *config, int64_t rows, int64_t seq, void *block,
                      struct tri_routes *routes);

/* Places in an expert's queue for a window of `tokens` tokens: max(min_capacity,
 * ceil(tokens * k / experts * factor)), at most tokens; 0: no limit. */
int64_t tri_router_capacity(const struct tri_config *config, bool training, int64_t tokens);

/* Balance statistics over all MoE layers, for aux_scope model: filled by the forwards of a
 * micro-batch, finished once, read by the backwards. */
struct tri_aux_model {
    int64_t rows; /* windows: rows for sequence, 1 otherwise */
    int64_t experts, layers;
    double *counts; /* [rows, experts] */
    double *probs;  /* [rows, experts] sums */
    double tokens;  /* per window, over all layers */
};

/* As tri_routes_bytes and tri_routes_place, for a micro-batch of rows; the sums start at zero. */
size_t tri_aux_model_bytes(const struct tri_config *config, int64_t rows);
void tri_aux_model_begin(const struct tri_config *config, int64_t rows, void *block,
                         struct tri_aux_model *model);

struct tri_router;

/* One for each MoE layer (cheap), which works with so many threads; config is borrowed, as is mesh:
 * window step exchanges counts over expert x data, window rank and sequence send nothing. */
struct tri_router *tri_router_create(const struct tri_config *config, const struct tri_mesh *mesh,
                                     int threads);
void tri_router_destroy(struct tri_router *router);

/* model is NULL unless aux_scope is model (its layers' aux_loss is then 0). deepspeed_*: capacity,
 * order of queues, balance loss and weights as DeepSpeed 0.19's gates, window by window (theirs is
 * `rank`). Collective over expert x data when a window is step. */
void tri_router_forward(struct tri_router *router, const struct tri_router_call *call,
                        struct tri_routes *routes, struct tri_aux_model *model);

/* dlogits [tokens, experts] for tokens in `own` (others are set to 0): through the weights from
 * dweight [tokens, k] (dense router: [tokens, experts]), plus the coefficients of the losses times
 * their gradients. Local. */
void tri_router_backward(struct tri_router *router, const struct tri_router_call *call,
                         const struct tri_routes *routes, const struct tri_aux_model *model,
                         struct tri_range own, const float *dweight, float *dlogits);

/* Exchanges the sums when the window is step; returns this rank's share of the unscaled model-wide
 * loss (see aux_loss above). Collective over expert x data when the window is step. */
double tri_aux_model_finish(struct tri_router *router, struct tri_aux_model *model,
                            enum tri_phase phase, int64_t global_tokens);

/* DeepSeek-V3 (arXiv 2412.19437, 2.1.2): bias_e += rate * sign(mean load - load_e), from the loads
 * of a whole step summed over all ranks. Local. */
void tri_router_update_bias(float *bias, const int64_t *load, int64_t experts, double rate);

#endif
