#ifndef TRIDENT_MOE_SHARED_EXPERT_H
#define TRIDENT_MOE_SHARED_EXPERT_H

#include "model/network.h"

/* The expert that every token meets, cut over tensor, with or without a sigmoid gate. */
struct tri_shared_expert;

/* NULL when the config has none. */
struct tri_shared_expert *tri_shared_expert_create(const struct tri_context *context,
                                                   int64_t layer);
void tri_shared_expert_destroy(struct tri_shared_expert *shared);
/* y += sigmoid(gate x) * expert(x), on the tokens of the stream; y NULL: only what the backward
 * needs. x must stay until then. Collective over tensor. */
void tri_shared_expert_forward(struct tri_shared_expert *shared, const struct tri_frame *frame,
                               const void *x, void *y);
/* dx += the gradient at x. Collective over tensor. */
void tri_shared_expert_backward(struct tri_shared_expert *shared, const struct tri_frame *frame,
                                const void *dy, void *dx);

#endif
