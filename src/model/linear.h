/* The three products of a linear map y = x W^T, W [out, in], on n rows. Local: bias, and sums over
 * ranks, are the caller's. Before each product begun calls are helped on (tri_mesh_progress). */
#ifndef TRIDENT_MODEL_LINEAR_H
#define TRIDENT_MODEL_LINEAR_H

#include "kernel/kernel.h"
#include "model/param_open.h"

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
    struct tri_span rows; /* W [out, in]; none where the model has no such map */
    enum tri_dtype dtype; /* of W, x and the gradients at x and y */
    enum tri_dtype gradient_dtype;
    struct tri_fixed *fixed;   /* of the gradient */
    struct tri_block block[3]; /* of the dimension that tensor cuts, in its order */
    int blocks;
    /* Of one that is open, and read by its products. */
    const void *weight; /* [out, in] dtype */
    void *gradient;     /* [out, in] gradient_dtype; open for a backward only, of trained rows */
    bool first;         /* the gradient is undefined, and to be set */
};

/* The map whose W [out, in] is these rows of the table. Without blocks, and not open: what a layer
 * keeps. */
struct tri_linear tri_linear_get(struct tri_params *params, struct tri_span rows, int64_t out,
                                 int64_t in);

/* The same, open for its products: the weight; for a backward the gradient too, which then takes
 * one product where its rows are overwritten (tri_param_overwritten). */
struct tri_linear tri_linear_open(struct tri_params *params, const struct tri_linear *linear,
                                  enum tri_use use);
void tri_linear_close(struct tri_params *params, const struct tri_linear *open);

/* y [n, out] y_dtype = x [n, in] W^T (+ bias [out] f32, unless NULL). */
void tri_linear_forward(const struct tri_linear *linear, const struct tri_kernels *kernels,
                        int64_t n, const void *x, const float *bias, void *y,
                        enum tri_dtype y_dtype);
/* dx [n, in] = dy [n, out] W. */
void tri_linear_input_gradient(const struct tri_linear *linear, const struct tri_kernels *kernels,
                               int64_t n, const void *dy, void *dx);
/* gradient (+)= dy^T x, of trained rows (else nothing): set when it is the first, else added to;
 * with cuts added to always, part by part. */
void tri_linear_weight_gradient(const struct tri_linear *linear, const struct tri_kernels *kernels,
                                int64_t n, const void *dy, const void *x, struct tri_cuts cuts);

#endif
