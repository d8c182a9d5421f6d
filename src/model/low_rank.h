/* Low-rank pairs beside weights (train.lora): where a weight has one, y = x W^T + s (x A^T) B^T,
 * s = alpha / rank. W may be several weights of one input, each with a pair of its own, whose
 * outputs lie beside each other (q, k, v; gate, up):
 *
 *     u [n, parts * rank] = s x [A_0; A_1; …]^T       y [n, | out_0 | out_1 | … ] += u_i B_i^T
 *
 * Where tensor cuts the output, u is the same on every rank and a rank adds to its columns; where
 * it cuts the input, a rank's u and y are partial sums, and what completes y completes them too. So
 * pairs send nothing of their own in either direction; the gradients of what is whole on every rank
 * are partial sums (TRI_SYNC_SUM). Not in reproducible mode. */
#ifndef TRIDENT_MODEL_LOW_RANK_H
#define TRIDENT_MODEL_LOW_RANK_H

#include "model/frame.h"
#include "model/linear.h"

enum { TRI_LOW_PARTS = 3 };

struct tri_low_rank {
    int parts;               /* 0: there is none */
    int64_t rank, in, width; /* width: of all parts' outputs, on this rank; in likewise */
    struct tri_span a, b[TRI_LOW_PARTS];
    int64_t out[TRI_LOW_PARTS];
    enum tri_dtype gradient_dtype;
};

/* The pairs of `parts` weights whose first halves are the roles from first_a on; none where the
 * model has none. */
struct tri_low_rank tri_low_rank_get(const struct tri_params *params, enum tri_role first_a,
                                     enum tri_role first_b, int parts, enum tri_place place,
                                     int64_t layer, int64_t expert);

/* The pair of a weight; false where it has none. */
bool tri_low_rank_find(const struct tri_params *params, const struct tri_param *weight,
                       const struct tri_param **a, const struct tri_param **b);

/* One for each of `count` networks, on rows offsets[i] to offsets[i + 1]; all alike. */
struct tri_low_batch {
    const struct tri_frame *frame;
    int64_t count;
    const int64_t *offsets;
    const struct tri_low_rank *const *low; /* [count] */
};

/* u [rows, parts * rank], in the arena; NULL where there are no pairs. */
void *tri_low_rank_down(const struct tri_low_batch *batch, const void *x);
/* y [rows, width] dt += what the pairs add. Nothing where u is NULL, as below. */
void tri_low_rank_up(const struct tri_low_batch *batch, const void *u, void *y);
/* dx [rows, in] dt += the gradient at x, and the gradients of the pairs, from dy [rows, width]. */
void tri_low_rank_backward(const struct tri_low_batch *batch, const struct tri_cuts *cuts,
                           const void *x, const void *u, const void *dy, void *dx);

/* The same for one map, on all tokens of the frame's pass. */
void *tri_low_rank_down_one(const struct tri_frame *frame, const struct tri_low_rank *low,
                            const void *x);
void tri_low_rank_up_one(const struct tri_frame *frame, const struct tri_low_rank *low,
                         const void *u, void *y);
void tri_low_rank_backward_one(const struct tri_frame *frame, const struct tri_low_rank *low,
                               struct tri_cuts cuts, const void *x, const void *u, const void *dy,
                               void *dx);

#endif
