/* From accumulated gradients to new weights: reduction over the replicas, the global norm, AdamW on
 * this rank's shard (ZeRO-1), and the gathering of the new weights. All loop over the parameter
 * table. */
#ifndef TRIDENT_OPTIM_OPTIM_H
#define TRIDENT_OPTIM_OPTIM_H

#include "model/param.h"
#include "kernel/kernel.h"

/* Makes the gradients ready for a step: zeroes those that are added to, and marks the others
 * (tri_param_overwritten) as fresh, to be set by who opens them first (model/param_open.h). Saves a
 * pass over most of the memory. Nothing may be open. Local. */
void tri_gradients_begin(struct tri_params *params, const struct tri_kernels *kernels);

/* Zeroes what nobody wrote of a block's gradients, then sums them over the grid where the
 * table says so, then over the replicas of each buffer: afterwards each rank holds the sums of the
 * pieces it owns (elsewhere the buffers are undefined). Experts are reduced over {data}, the rest
 * over {expert, data}; the loss is already a mean over the global batch, so nothing is divided.
 * Called once for each block, from the last (num_layers) to the first (-1), in the order in which a
 * backward completes them. begin: returns while the sums over replicas are still under way; the
 * block's gradients must then be left alone until tri_gradients_reduce_end. Both ways give the same
 * bits. Collective over the mesh. */
void tri_gradients_reduce(struct tri_params *params, const struct tri_kernels *kernels,
                          int64_t block, bool begin);
/* Ends all that was begun. Collective over the mesh. */
void tri_gradients_reduce_end(struct tri_params *params);

/* Norm over all trained parameters, each element counted once, from the reduced pieces.
 * Collective over the mesh's world. */
double tri_gradients_norm(const struct tri_params *params, const struct tri_kernels *kernels);

struct tri_optimizer;

/* Takes memory for m, v and (bf16 weights) masters in the shards of params, and for one tile of
 * widened gradients where they are not f32: 4 min(train.optimizer_tile, such elements of the shard)
 * bytes. Masters start as the weights given by tri_params_init or tri_param_scatter afterwards.
 * config, params and kernels are borrowed. */
struct tri_optimizer *tri_optimizer_create(const struct tri_config *config,
                                           struct tri_params *params,
                                           const struct tri_kernels *kernels);
void tri_optimizer_destroy(struct tri_optimizer *optimizer);

/* One AdamW step (decoupled decay on rows with `decay`) on this rank's shards, in tiles of
 * train.optimizer_tile elements, whose size changes no bit; and the all-gathers of the weights,
 * block by block as they are done: with comm.overlap only begun, for tri_params_settle to end.
 * update counts from 1; scale is the clip factor. Collective over the mesh. */
void tri_optimizer_step(struct tri_optimizer *optimizer, int64_t update, double learning_rate,
                        double scale);

/* min(1, clip / (norm + 1e-6)); 1 when clip is 0. */
double tri_clip_factor(double norm, double clip);

/* Learning rate of a step counted from 0: linear warm-up, which reaches learning_rate at step
 * warmup_steps - 1; then, from learning_rate at step warmup_steps, cosine or linear to
 * min_learning_rate at step `steps - 1`; wsd: learning_rate but for the last decay_steps, which
 * fall linearly and end likewise; constant. A run of one step without warm-up takes
 * learning_rate. */
double tri_learning_rate(const struct tri_config_train *train, int64_t step);

#endif
