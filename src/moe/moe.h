/* MoE layers: a router that chooses, a schedule that moves tokens to the experts and back, an
 * optional shared expert. Implements the model's sublayer interface. */
#ifndef TRIDENT_MOE_MOE_H
#define TRIDENT_MOE_MOE_H

#include "model/model.h"
#include "moe/router.h"

/* What the MoE layers of one model share: tri_model_moe() returns it. */
struct tri_moe;

/* Hand this to tri_model_create. */
extern const struct tri_moe_factory tri_moe_factory;

/* Bias-balancing vectors [MoE layers, experts], kept in checkpoints; NULL when the config has none
 * and none were set. */
float *tri_moe_bias(struct tri_moe *moe);
/* From now on experts are chosen by these (copied), whether or not the config goes on adjusting
 * them. */
void tri_moe_set_bias(struct tri_moe *moe, const float *bias);

/* From now on only these experts of a dense router work, in forwards that no backward follows
 * (copied); NULL: all. */
void tri_moe_set_active(struct tri_moe *moe, const struct tri_active *active);

/* The same where the config sharpens: those that step `steps` has trained. */
void tri_moe_set_steps(struct tri_moe *moe, int64_t steps);

/* Tokens that experts have worked on since, and that they would have with all of them. */
struct tri_expert_work {
    int64_t done, all;
};
struct tri_expert_work tri_moe_work(const struct tri_moe *moe);

/* With a router that reads no logits (a rehearsal's), where no peer says what it sends: from now on
 * this rank's experts receive `load` times (at first 1) the rows of balanced routing, or all that
 * there are. */
void tri_moe_set_load(struct tri_moe *moe, double load);

/* How often a micro-batch made the exchange buffers grow past the headroom. */
int64_t tri_moe_exchange_growths(const struct tri_moe *moe);

#endif
