#include "kernel/ref/ref.h"

#include <string.h>

void tri_ref_add(const struct tri_kernels *self, const struct tri_add_args *a)
{
    for (int64_t i = 0; i < a->n; i++) {
        ref_set(a->y, i, a->dt, ref_get(a->left, i, a->dt) + ref_get(a->right, i, a->dt));
    }
}

void tri_ref_add_bias(const struct tri_kernels *self, const struct tri_bias_args *a)
{
    for (int64_t i = 0; i < a->n * a->width; i++) {
        ref_add(a->y, i, a->dt, ref_get(a->bias, i % a->width, tri_stat_dtype(a->dt)));
    }
}

void tri_ref_bias_backward(const struct tri_kernels *self, const struct tri_bias_args *a)
{
    for (int64_t j = 0; j < a->width; j++) {
        double sum = 0.0;
        for (int64_t i = 0; i < a->n; i++) {
            sum += ref_get(a->dy, i * a->ld + j, a->dt);
        }
        ref_add(a->dbias, j, tri_stat_dtype(a->dt), sum);
    }
}

void tri_ref_zero(const struct tri_kernels *self, const struct tri_zero_args *a)
{
    memset(a->dst, 0, a->bytes);
}

void tri_ref_copy(const struct tri_kernels *self, const struct tri_copy_args *a)
{
    memcpy(a->dst, a->src, a->bytes);
}

void tri_ref_cast(const struct tri_kernels *self, const struct tri_cast_args *a)
{
    for (int64_t i = 0; i < a->n; i++) {
        ref_set(a->dst, i, a->to, ref_get(a->src, i, a->from));
    }
}

double tri_ref_sum_squares(const struct tri_kernels *self, const struct tri_squares_args *a)
{
    double sum = 0.0;
    for (int64_t i = 0; i < a->n; i++) {
        sum += ref_get(a->x, i, a->dt) * ref_get(a->x, i, a->dt);
    }
    return sum;
}
