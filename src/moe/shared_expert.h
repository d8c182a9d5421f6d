#ifndef TRIDENT_MOE_SHARED_EXPERT_H
#define TRIDENT_MOE_SHARED_EXPERT_H

#include "model/network.h"

/* The expert that every token meets, cut over tensor, with or without a sigmoid gate. */
struct tri_shared_expert;

/* What its forward leaves in a frame. */
struct tri_shared_kept {
    struct tri_network_saved saved;
    const void *x;  /* [stream tokens, hidden], borrowed */
    void *out;      /* [stream tokens, hidden] the expert's output, before the gate */
    float *opening; /* [stream tokens] sigmoid of the gate; 1 without one */
};

/* NULL when the config has none. */
struct tri_shared_expert *tri_shared_expert_create(const struct tri_context *context,
                                                   int64_t layer);
void tri_shared_expert_destroy(struct tri_shared_expert *shared);
/* y += sigmoid(gate x) * expert(x), on the tokens of the stream; y NULL: only what the backward
 * needs. x must stay until then. Collective over tensor. */
void tri_shared_expert_forward(const struct tri_shared_expert *shared,
                               const struct tri_frame *frame, struct tri_shared_kept *kept,
                               const void *x, void *y);
/* dx += the gradient at x. Collective over tensor. */
void tri_shared_expert_backward(const struct tri_shared_expert *shared,
                                const struct tri_frame *frame, const struct tri_shared_kept *kept,
                                const void *dy, void *dx);

#endif
