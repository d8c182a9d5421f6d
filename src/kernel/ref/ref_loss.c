#include "kernel/ref/ref.h"

#include <math.h>

void tri_ref_cross_entropy_max(const void *logits, int64_t ld, int64_t cols, void *maxima,
                               int64_t n, enum tri_dtype stat)
{
    for (int64_t i = 0; i < n; i++) {
        double most = -(double)INFINITY;
        for (int64_t j = 0; j < cols; j++) {
            most = fmax(most, ref_get(logits, i * ld + j, stat));
        }
        ref_set(maxima, i, stat, most);
    }
}

void tri_ref_cross_entropy_sum(const void *logits, int64_t ld, int64_t cols, const void *maxima,
                               const int32_t *targets, int64_t first_col, void *sums, void *picked,
                               int64_t n, enum tri_dtype stat)
{
    for (int64_t i = 0; i < n; i++) {
        double most = ref_get(maxima, i, stat);
        double sum = 0.0;
        for (int64_t j = 0; j < cols; j++) {
            sum += exp(ref_get(logits, i * ld + j, stat) - most);
        }
        int64_t target = targets[i] - first_col;
        bool here = 0 <= target && target < cols;
        ref_set(sums, i, stat, sum);
        ref_set(picked, i, stat, here ? ref_get(logits, i * ld + target, stat) - most : 0.0);
    }
}

void tri_ref_cross_entropy_backward(const void *logits, int64_t ld, int64_t cols,
                                    const void *maxima, const void *sums, const int32_t *targets,
                                    int64_t first_col, double scale, void *d, int64_t ld_d,
                                    int64_t n, enum tri_dtype dt)
{
    enum tri_dtype stat = tri_stat_dtype(dt);
    for (int64_t i = 0; i < n; i++) {
        double most = ref_get(maxima, i, stat);
        double sum = ref_get(sums, i, stat);
        for (int64_t j = 0; j < ld_d; j++) {
            double hit = targets[i] - first_col == j ? 1.0 : 0.0;
            bool counts = j < cols && targets[i] >= 0;
            double p = counts ? exp(ref_get(logits, i * ld + j, stat) - most) / sum - hit : 0.0;
            ref_set(d, i * ld_d + j, dt, p * scale);
        }
    }
}
