/* The residual stream over the tensor ranks. Without sequence parallelism every tensor rank holds
 * all tokens, and a partial sum over tensor is made whole by an all-reduce. With it (Megatron-LM,
 * arXiv 2205.05198) each holds its own consecutive part of the tokens: a sublayer gathers them
 * before its products, and its partial sum is reduced and scattered.
 *
 *   | own tokens | ─ all_gather ─> all tokens ─ sublayer ─> partial ─ reduce_scatter ─> | own |
 */
#ifndef TRIDENT_MODEL_STREAM_H
#define TRIDENT_MODEL_STREAM_H

#include "model/frame.h"

/* Whether the stream is cut over more than one tensor rank. */
bool tri_stream_is_cut(const struct tri_config *config, const struct tri_mesh *mesh);
/* Whether the tensor ranks of an MoE layer each route their own part of the tokens, as the config's
 * schedule says, so that gradients of the router are partial sums over tensor. */
bool tri_moe_splits_tokens(const struct tri_config *config, const struct tri_mesh *mesh);

/* This rank's part of the micro-batch's tokens when they are cut over tensor. */
struct tri_range tri_tokens_part(const struct tri_frame *frame);
/* The tokens of the stream that this rank holds. */
struct tri_range tri_stream_tokens(const struct tri_frame *frame);
int64_t tri_stream_count(const struct tri_frame *frame);

/* Fills `whole` [tokens, width], of which this rank has its part of the tokens. Collective over
 * tensor. */
void tri_tokens_gather(const struct tri_frame *frame, struct tri_where where, void *whole,
                       int64_t width, enum tri_dtype dtype);

/* x [stream, hidden] for all tokens: itself, or gathered. A result of a collective to the tape.
 * Collective over tensor. */
const void *tri_stream_whole(const struct tri_frame *frame, struct tri_where where, const void *x);
/* The same for a gradient: in the arena, whatever the tape does. */
const void *tri_stream_whole_gradient(const struct tri_frame *frame, struct tri_where where,
                                      const void *dy);
/* Memory for a partial sum, in dtype, of all tokens that tri_stream_sum turns into y: y itself, or
 * the arena's. */
void *tri_stream_partial(const struct tri_frame *frame, void *y, enum tri_dtype dtype);
/* y [stream, hidden] <- the sum over tensor of `partial` [tokens, hidden], in dtype, rounded once
 * to that of activations. Collective over tensor. */
void tri_stream_sum(const struct tri_frame *frame, struct tri_where where, void *partial,
                    enum tri_dtype dtype, void *y);

#endif
