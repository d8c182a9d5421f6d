/* Sums over the experts that every token visits, in one binary tree (comm/comm.h): whoever has a
 * branch of the experts makes its sum, and a reduction over ranks completes the tree. */
#ifndef TRIDENT_MOE_EXPERT_SUM_H
#define TRIDENT_MOE_EXPERT_SUM_H

#include "kernel/kernel.h"

/* y [n, width] f32 <- sum over j < k of (weight ? weight[t*k+j] : 1) * rows[index[t*k+j]], of
 * products rounded to f32; index -1 adds nothing. */
struct tri_expert_sum {
    const void *rows;
    enum tri_dtype dtype; /* of rows */
    const int32_t *index;
    const float *weight;
    int64_t n, k, width;
    float *y;
};
void tri_expert_sum(const struct tri_kernels *kernels, const struct tri_expert_sum *sum);

#endif
