/* The model's own sublayers, and its two ends. */
#ifndef TRIDENT_MODEL_LAYERS_H
#define TRIDENT_MODEL_LAYERS_H

#include "model/frame.h"

/* Multi-head attention with grouped KV heads, optional q/k norm, rotary or learned positions; heads
 * cut over tensor (column-parallel q, k, v; row-parallel output, one all-reduce each way). */
struct tri_sublayer *tri_attention_create(const struct tri_context *context, int64_t layer);

/* Dense MLP cut over tensor: one all-reduce each way. */
struct tri_sublayer *tri_mlp_create(const struct tri_context *context, int64_t layer);

/* x [tokens, hidden] <- embedding of the tokens (vocabulary cut over tensor: one all-reduce) plus
 * learned positions. */
void tri_embedding_forward(const struct tri_frame *frame, void *x);
void tri_embedding_backward(const struct tri_frame *frame, const void *dx);

/* Vocabulary-parallel logits and cross-entropy of h [part's tokens, hidden], in chunks of tokens:
 * the logits of the whole micro-batch never exist. Adds to pass->tally. With pass->backward also
 * adds to the head's gradients and returns dh [part's tokens, hidden] (arena), in sum_dt, this
 * rank's partial sum over tensor, of the mean over pass->global_tokens; else NULL. */
void *tri_head_loss(const struct tri_frame *frame, const void *h);
/* logits [rows, each, vocab] f32 of the micro-batch, whole on every rank of the grid, from h
 * [part's rows, each, hidden]. */
void tri_head_logits(const struct tri_frame *frame, const void *h, int64_t each, float *logits);

#endif
