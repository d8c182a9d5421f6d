/* What a plan's kernels say of each call: what kind of work it would be, and how much. Whoever
 * plans times listens. */
#ifndef TRIDENT_KERNEL_NOTE_H
#define TRIDENT_KERNEL_NOTE_H

#include "kernel/kernel.h"

/* Kinds of work whose rates differ. */
enum tri_task {
    TRI_TASK_PRODUCT_FORWARD, /* y = x W^T */
    TRI_TASK_PRODUCT_INPUT,   /* dx = dy W */
    TRI_TASK_PRODUCT_WEIGHT,  /* dW = dy^T x */
    TRI_TASK_ATTENTION_FORWARD,
    TRI_TASK_ATTENTION_BACKWARD,
    TRI_TASK_NORM,
    TRI_TASK_ROPE,
    TRI_TASK_GATED, /* swiglu */
    TRI_TASK_GELU,
    TRI_TASK_EMBEDDING,
    TRI_TASK_LOSS,
    TRI_TASK_ROWS,     /* rows of tokens gathered and combined */
    TRI_TASK_ELEMENTS, /* sums, casts, biases */
    TRI_TASK_COPY,
    TRI_TASK_SQUARES, /* of gradients, for their norm */
    TRI_TASK_ADAMW,
    TRI_TASK_LOOP,   /* small loops of layers */
    TRI_TASK_ROUTER, /* choosing experts and going back; told, since a plan does not choose */
    TRI_TASK_COUNT
};

const char *tri_task_name(enum tri_task work);

/* flops: of products and attention, multiplications and additions; else 0. bytes: of operands and
 * results, each once. calls: products of a group; else 1. */
struct tri_kernel_note {
    enum tri_task work;
    enum tri_dtype dtype; /* of the main operands: F32 or BF16 */
    double calls, flops, bytes;
    double seconds, busy; /* that it took, and had of a processor; 0 where nothing was done */
};

struct tri_kernel_listener {
    void (*work)(void *state, const struct tri_kernel_note *note);
    void (*head)(void *state, bool begins); /* the model's head and its loss begin, or end */
    void *state;
};

/* From now on the dry kernels tell listener of each call; NULL: nobody. Borrowed. */
void tri_kernels_listen(struct tri_kernels *dry, const struct tri_kernel_listener *listener);

/* A table whose calls are those of `kernels`, which listener is told of and how long each took.
 * Both are borrowed; as many threads at a time as of `kernels`. */
struct tri_kernels *tri_kernels_create_timed(const struct tri_kernels *kernels,
                                             const struct tri_kernel_listener *listener)
    __attribute__((returns_nonnull));

/* What is no call of the table: these do nothing unless somebody listens. Timed is what is between
 * the two. */
void tri_kernels_start(const struct tri_kernels *kernels);
void tri_kernels_tell(const struct tri_kernels *kernels, enum tri_task work, enum tri_dtype dtype,
                      double bytes);
void tri_kernels_tell_head(const struct tri_kernels *kernels, bool begins);

#endif
