/* The three products of a linear map y = x W^T, W [out, in], on n rows. Local: bias, and sums over
 * ranks, are the caller's. Before each product begun calls are helped on (tri_mesh_progress). */
#ifndef TRIDENT_MODEL_LINEAR_H
#define TRIDENT_MODEL_LINEAR_H

#include "kernel/kernel.h"
#include "model/param.h"

/* A block of rows (or columns) that tensor cuts: extent units of `unit` in the whole model. */
struct tri_block {
    int64_t extent, unit;
};

/* Parts of n tokens: part i is tokens cut[i] to cut[i + 1]. No cuts: cut is NULL. */
struct tri_cuts {
    const int64_t *cut;
    int64_t parts;
};

struct tri_linear {
    const struct tri_mesh *mesh; /* whose begun calls are helped on */
    int64_t out, in;
    const void *weight;   /* [out, in] dtype */
    void *gradient;       /* [out, in], or NULL in a model without them */
    enum tri_dtype dtype; /* of W, x and the gradients at x and y */
    enum tri_dtype gradient_dtype;
    struct tri_fixed *fixed;   /* of the gradient */
    struct tri_block block[3]; /* of the dimension that tensor cuts, in its order */
    int blocks;
};

/* The map whose W [out, in] begins at row of the table: that row alone, or it and rows that follow.
 * Without blocks. */
struct tri_linear tri_linear_get(struct tri_params *params, const struct tri_param *row,
                                 int64_t out, int64_t in);

/* y [n, out] y_dtype = x [n, in] W^T (+ bias [out] f32, unless NULL). */
void tri_linear_forward(const struct tri_linear *linear, const struct tri_kernels *kernels,
                        int64_t n, const void *x, const float *bias, void *y,
                        enum tri_dtype y_dtype);
/* dx [n, in] = dy [n, out] W. */
void tri_linear_input_gradient(const struct tri_linear *linear, const struct tri_kernels *kernels,
                               int64_t n, const void *dy, void *dx);
/* gradient (+)= dy^T x: added when accumulate, else set; with cuts added always, part by part. */
void tri_linear_weight_gradient(const struct tri_linear *linear, const struct tri_kernels *kernels,
                                int64_t n, const void *dy, const void *x, bool accumulate,
                                struct tri_cuts cuts);

#endif
