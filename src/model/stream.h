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

/* On a tensor grid (parallel.tensor_grid) the stream of a rank is of its part of the rows
 * (frame->part): all of them, or cut over cross by tokens, or over tensor. Products then take all
 * tokens of the part, and where cross cuts the hidden size a part of that: an all-to-all over cross
 * turns the one into the other. An MoE layer, whose experts the whole grid cuts, is of all tokens.
 *
 *   | rows of depth 0                                | rows of depth 1 …       |   all tokens
 *   | of cross 0            | of cross 1             | …                       |   streams
 *   | tensor 0  | tensor 1  | tensor 0   | tensor 1  | …                       |   own parts
 */

/* Whether the stream is cut over more than one tensor rank. */
bool tri_stream_is_cut(const struct tri_config *config, const struct tri_mesh *mesh);
/* Whether the tensor ranks of an MoE layer each route their own part of the tokens, as the config's
 * schedule says, so that gradients of the router are partial sums over tensor. */
bool tri_moe_splits_tokens(const struct tri_config *config, const struct tri_mesh *mesh);

/* Whether a rank's stream lacks some tokens of the micro-batch. */
bool tri_stream_is_part(const struct tri_context *context);
/* Whether cross has more than one rank. Then sum_dt is dt. */
bool tri_stream_is_crossed(const struct tri_context *context);
/* The part of the hidden size that products see. */
int64_t tri_stream_hidden(const struct tri_context *context);
/* A group that what leaves a sublayer has passed, with more than one rank if any has. */
struct tri_group *tri_stream_group(const struct tri_context *context);
/* The sum over cross of n elements of a product over the hidden size, in place. Collective over
 * cross. */
void tri_cross_sum(const struct tri_context *context, struct tri_where where, void *partial,
                   int64_t n, enum tri_dtype dtype);
/* The same, to be ended by tri_request_end: with comm.overlap it runs beside what comes between;
 * else it is done, and there is nothing to wait for. */
struct tri_request *tri_cross_sum_begin(const struct tri_context *context, struct tri_where where,
                                        void *partial, int64_t n, enum tri_dtype dtype);
/* The tokens of place t among the ranks of the grid, of `rows` rows when they are cut over depth by
 * rows, then over cross and over tensor by tokens. */
struct tri_range tri_grid_part(const struct tri_mesh *mesh, int64_t rows, int64_t seq, int t);
/* This rank's part of the micro-batch's tokens when they are cut so. */
struct tri_range tri_tokens_part(const struct tri_frame *frame);
/* The tokens of the stream that this rank holds. */
struct tri_range tri_stream_tokens(const struct tri_frame *frame);
int64_t tri_stream_count(const struct tri_frame *frame);

/* Fills `whole` [tokens, width], of which this rank has its part of the tokens. Collective over
 * the grid. */
void tri_tokens_gather(const struct tri_frame *frame, struct tri_where where, void *whole,
                       int64_t width, enum tri_dtype dtype);

/* The same of the tokens that the ranks of tensor share. Collective over tensor. */
void tri_part_gather(const struct tri_frame *frame, struct tri_where where, void *whole,
                     int64_t width, enum tri_dtype dtype);

/* x [stream, hidden] as products take it, [part's tokens, tri_stream_hidden]: itself, gathered, or
 * exchanged. A result of a collective to the tape. Collective over tensor and cross. */
const void *tri_stream_whole(const struct tri_frame *frame, struct tri_where where, const void *x);
/* The same for a gradient: in the arena, whatever the tape does. */
const void *tri_stream_whole_gradient(const struct tri_frame *frame, struct tri_where where,
                                      const void *dy);
/* Memory for a partial sum, in dtype, of such a shape that tri_stream_sum turns into y: y itself,
 * or the arena's. */
void *tri_stream_partial(const struct tri_frame *frame, void *y, enum tri_dtype dtype);
/* y [stream, hidden] <- the sum over tensor of `partial`, in dtype, rounded once to that of
 * activations. Collective over tensor and cross. */
void tri_stream_sum(const struct tri_frame *frame, struct tri_where where, void *partial,
                    enum tri_dtype dtype, void *y);
/* The same in two, as tri_cross_sum_begin: between them nobody touches `partial` or y. */
struct tri_request *tri_stream_sum_begin(const struct tri_frame *frame, struct tri_where where,
                                         void *partial, enum tri_dtype dtype);
void tri_stream_sum_end(const struct tri_frame *frame, struct tri_where where,
                        struct tri_request *request, void *partial, enum tri_dtype dtype, void *y);

#endif
