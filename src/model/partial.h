/* Sums over what tensor cuts: the outputs of row-parallel products, the input gradients of
 * column-parallel ones, sums over the vocabulary. A rank makes its partial sum, in context->sum_dt,
 * and a collective over tensor adds them.
 *
 * In reproducible mode a partial sum is made virtual shard by virtual shard (shard/virtual.h), each
 * in f32 by products of a shape that no layout changes, and added in one binary tree, which the
 * collective's tree over the ranks completes (tri_all_reduce_sum). Otherwise a rank has one
 * shard. */
#ifndef TRIDENT_MODEL_PARTIAL_H
#define TRIDENT_MODEL_PARTIAL_H

#include "model/linear.h"
#include "model/frame.h"
#include "shard/virtual.h"

/* out[n] <- the term of own shard `shard`. */
typedef void (*tri_partial_term)(void *state, int shard, float *out);

/* out[n] <- the sum over the rank's shards. */
void tri_partial_sum(const struct tri_frame *frame, struct tri_virtual shards,
                     tri_partial_term term, void *state, int64_t n, float *out);

/* What else belongs to a partial sum: adds to own shard `shard` of y [rows, out] sum_dt. */
struct tri_partial_more {
    void (*add)(const void *state, int shard, void *y); /* or NULL: nothing */
    const void *state;
};

static inline void tri_partial_add_more(struct tri_partial_more more, int shard, void *y)
{
    if (more.add) {
        more.add(more.state, shard, y);
    }
}

/* One product for each of `count` networks, on rows offsets[i] to offsets[i + 1]:
 * y [rows, out] sum_dt = x [rows, in] w_i, where tensor cuts `in`, which consists of blocks. w_i is
 * stored [in, out], or [out, in] when transposed; it may be NULL where there are no rows.
 * Reproducible mode only. */
struct tri_partial_products {
    int64_t count;
    const int64_t *offsets;
    int64_t out, in;
    const void *x;
    enum tri_dtype dtype; /* of x and the weights */
    const void *const *weights;
    bool transposed;
    struct tri_virtual shards;
    const struct tri_block *block;
    int blocks;
    struct tri_partial_more more;
};
void tri_partial_products(const struct tri_frame *frame,
                          const struct tri_partial_products *products, void *y);

/* y [n, out] sum_dt = x W^T (+ bias, unless NULL; not in reproducible mode), where tensor cuts
 * `in`. */
void tri_partial_forward(const struct tri_frame *frame, const struct tri_linear *linear, int64_t n,
                         const void *x, const float *bias, struct tri_partial_more more, void *y);
/* dx [n, in] sum_dt = dy W, where tensor cuts `out`. */
void tri_partial_input_gradient(const struct tri_frame *frame, const struct tri_linear *linear,
                                int64_t n, const void *dy, struct tri_partial_more more, void *dx);

#endif
