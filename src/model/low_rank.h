/* Low-rank pairs beside weights (train.lora): where a weight has one, y = x W^T + s (x A^T) B^T,
 * s = alpha / rank. W may be several weights of one input, each with a pair of its own, whose
 * outputs lie beside each other (q, k, v; gate, up):
 *
 *     u [n, parts * rank] = s x [A_0; A_1; …]^T       y [n, | out_0 | out_1 | … ] += u_i B_i^T
 *
 * Where tensor cuts the output, u is the same on every rank and a rank adds to its columns; where
 * it cuts the input, a rank's u and y are partial sums, and what completes y completes them too. So
 * pairs send nothing of their own in either direction; the gradients of what is whole on every rank
 * are partial sums (TRI_SYNC_SUM).
 *
 * In reproducible mode there is one partial sum for each virtual shard (partial.h): of u where the
 * input is cut, of its gradient where the output is. Each adds to its own term of y or dx, so that
 * the tree over the shards has the pair's part in it. */
#ifndef TRIDENT_MODEL_LOW_RANK_H
#define TRIDENT_MODEL_LOW_RANK_H

#include "model/frame.h"
#include "model/linear.h"
#include "model/partial.h"

enum { TRI_LOW_PARTS = 3 };

struct tri_low_rank {
    int parts;               /* 0: there is none */
    int64_t rank, in, width; /* width: of all parts' outputs, on this rank; in likewise */
    struct tri_span a, b[TRI_LOW_PARTS];
    int64_t out[TRI_LOW_PARTS];
    enum tri_dtype gradient_dtype;
    bool cut_in;               /* tensor cuts the input, else the outputs; */
    struct tri_virtual shards; /* into these */
};

/* The pairs of `parts` weights whose first halves are the roles from first_a on; none where the
 * model has none. */
struct tri_low_rank tri_low_rank_get(const struct tri_params *params, struct tri_virtual shards,
                                     enum tri_role first_a, int parts, enum tri_place place,
                                     int64_t layer, int64_t expert);

/* The pair of a weight; false where it has none. */
bool tri_low_rank_find(const struct tri_params *params, const struct tri_param *weight,
                       const struct tri_param **a, const struct tri_param **b);

/* One for each of `count` networks, on rows offsets[i] to offsets[i + 1]; all alike. */
struct tri_low_batch {
    const struct tri_frame *frame;
    int64_t count;
    const int64_t *offsets;            /* NULL: all tokens of the frame's pass, for one map */
    const struct tri_low_rank *low;    /* of network 0; */
    size_t stride;                     /* bytes to that of the next */
    const struct tri_low_batch *group; /* all, where these are some of them (network.h); or NULL */
};

/* u [sums, rows, parts * rank], in the arena; NULL where there are no pairs. */
void *tri_low_rank_down(const struct tri_low_batch *batch, const void *x);
/* y [rows, width] += what the pairs add, where tensor cuts the outputs. Nothing where u is NULL, as
 * below. */
void tri_low_rank_up(const struct tri_low_batch *batch, const void *u, void *y);
/* The gradients of the pairs from dy [rows, width]; du [sums, rows, parts * rank], in the arena. */
void *tri_low_rank_backward(const struct tri_low_batch *batch, const struct tri_cuts *cuts,
                            const void *x, const void *u, const void *dy);
/* dx [rows, in] += the gradient at x, where tensor cuts the input. */
void tri_low_rank_input_gradient(const struct tri_low_batch *batch, const void *du, void *dx);

/* What the pairs add to a partial sum: to y where tensor cuts the input, to dx where it cuts the
 * outputs. Borrows the batch. */
struct tri_low_sum {
    const struct tri_low_batch *batch;
    const void *u; /* or du */
};
struct tri_partial_more tri_low_rank_up_more(const struct tri_low_sum *sum);
struct tri_partial_more tri_low_rank_input_more(const struct tri_low_sum *sum);

#endif
