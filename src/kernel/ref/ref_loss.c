#include "kernel/ref/ref.h"

#include <math.h>

void tri_ref_cross_entropy_max(const struct tri_kernels *self,
                               const struct tri_cross_entropy_args *a)
{
    for (int64_t i = 0; i < a->n; i++) {
        double most = -(double)INFINITY;
        for (int64_t j = 0; j < a->cols; j++) {
            most = fmax(most, ref_get(a->logits, i * a->ld + j, a->dt));
        }
        ref_set(a->maxima, i, a->dt, most);
    }
}

void tri_ref_cross_entropy_sum(const struct tri_kernels *self,
                               const struct tri_cross_entropy_args *a)
{
    for (int64_t i = 0; i < a->n; i++) {
        double most = ref_get(a->maxima, i, a->dt);
        double sum = 0.0;
        for (int64_t j = 0; j < a->cols; j++) {
            sum += exp(ref_get(a->logits, i * a->ld + j, a->dt) - most);
        }
        int64_t target = a->targets[i] - a->first_col;
        bool here = 0 <= target && target < a->cols;
        ref_set(a->sums, i, a->dt, sum);
        ref_set(a->picked, i, a->dt,
                here ? ref_get(a->logits, i * a->ld + target, a->dt) - most : 0.0);
    }
}

void tri_ref_cross_entropy_backward(const struct tri_kernels *self,
                                    const struct tri_cross_entropy_args *a)
{
    enum tri_dtype stat = tri_stat_dtype(a->dt);
    for (int64_t i = 0; i < a->n; i++) {
        double most = ref_get(a->maxima, i, stat);
        double sum = ref_get(a->sums, i, stat);
        for (int64_t j = 0; j < a->ld_d; j++) {
            double hit = a->targets[i] - a->first_col == j ? 1.0 : 0.0;
            bool counts = j < a->cols && a->targets[i] >= 0;
            double p =
                counts ? exp(ref_get(a->logits, i * a->ld + j, stat) - most) / sum - hit : 0.0;
            ref_set(a->d, i * a->ld_d + j, a->dt, p * a->scale);
        }
    }
}
