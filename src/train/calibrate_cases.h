/* The calls that calibrate times. */
#ifndef TRIDENT_TRAIN_CALIBRATE_CASES_H
#define TRIDENT_TRAIN_CALIBRATE_CASES_H

#include "kernel/note.h"
#include "moe/router.h"

enum {
    TRI_CASE_AREA = 32 << 20, /* bytes of what stays in place: two such */
};

enum tri_case_kind {
    TRI_CASE_PRODUCT,
    TRI_CASE_ATTENTION_FORWARD,
    TRI_CASE_ATTENTION_BACKWARD,
    TRI_CASE_NORM_FORWARD,
    TRI_CASE_NORM_BACKWARD,
    TRI_CASE_ROPE,
    TRI_CASE_ACTIVATION_FORWARD,
    TRI_CASE_ACTIVATION_BACKWARD,
    TRI_CASE_EMBEDDING_FORWARD,
    TRI_CASE_EMBEDDING_BACKWARD,
    TRI_CASE_LOSS,
    TRI_CASE_GATHER,
    TRI_CASE_COMBINE,
    TRI_CASE_COMBINE_BACKWARD,
    TRI_CASE_ADD,
    TRI_CASE_CAST,
    TRI_CASE_COPY,
    TRI_CASE_ZERO,
    TRI_CASE_SQUARES,
    TRI_CASE_ADAMW,
    TRI_CASE_LOOP,
    TRI_CASE_ROUTER
};

/* m, n, k: of a product tokens, outputs, inputs, and how many; of attention sequences, positions,
 * heads (of 64); else rows, their width, and choices. */
struct tri_case_shape {
    enum tri_case_kind kind;
    int64_t m, n, k, count;
};

struct tri_case {
    struct tri_case_shape shape;
    enum tri_task task; /* of products and activations, which there are several of */
    enum tri_dtype dtype;
    const struct tri_kernels *kernels;
    char *left, *right, *pool; /* [TRI_CASE_AREA], [TRI_CASE_AREA], [pool_bytes] */
    size_t pool_bytes, at;     /* at: in the pool, where what changes place is next */
    int32_t *index;            /* distinct places in each 512 */
    struct tri_router *router; /* of routers alone */
    struct tri_routes *routes;
};

/* Makes the call; state is a struct tri_case. */
void tri_case_run(void *state);

#endif
