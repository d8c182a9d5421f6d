#include "kernel/ref/ref.h"

#include <math.h>

static void row_stats(bool rms, const void *x, int64_t row, int64_t width, double epsilon,
                      enum tri_dtype dt, double *mean, double *rstd)
{
    *mean = 0.0;
    for (int64_t j = 0; j < width && !rms; j++) {
        *mean += ref_get(x, row * width + j, dt) / (double)width;
    }
    double variance = 0.0;
    for (int64_t j = 0; j < width; j++) {
        double centred = ref_get(x, row * width + j, dt) - *mean;
        variance += centred * centred / (double)width;
    }
    *rstd = 1.0 / sqrt(variance + epsilon);
}

void tri_ref_norm_forward(const struct tri_kernels *self, const struct tri_norm_args *a)
{
    enum tri_dtype stat = tri_stat_dtype(a->dt);
    for (int64_t i = 0; a->add && i < a->n * a->width; i++) {
        ref_set(a->sum, i, a->dt, ref_get(a->x, i, a->dt) + ref_get(a->add, i, a->dt));
    }
    const void *in = a->add ? a->sum : a->x;
    for (int64_t i = 0; i < a->n; i++) {
        double mean;
        double rstd;
        row_stats(a->rms, in, i, a->width, a->epsilon, a->dt, &mean, &rstd);
        ref_set(a->stats, 2 * i, stat, mean);
        ref_set(a->stats, 2 * i + 1, stat, rstd);
        for (int64_t j = 0; j < a->width; j++) {
            double normal = (ref_get(in, i * a->width + j, a->dt) - mean) * rstd;
            double shift = a->bias ? ref_get(a->bias, j, stat) : 0.0;
            ref_set(a->y, i * a->width + j, a->dt, normal * ref_get(a->weight, j, stat) + shift);
        }
    }
}

/* With h = normalised row and g = dy * weight: dx = rstd * (g - mean(g) - h * mean(g h)); without
 * the mean(g) term for RMS. */
void tri_ref_norm_backward(const struct tri_kernels *self, const struct tri_norm_args *a)
{
    enum tri_dtype stat = tri_stat_dtype(a->dt);
    for (int64_t i = 0; i < a->n; i++) {
        double mean = ref_get(a->stats, 2 * i, stat);
        double rstd = ref_get(a->stats, 2 * i + 1, stat);
        double mean_g = 0.0;
        double mean_gh = 0.0;
        for (int64_t j = 0; j < a->width; j++) {
            double g = ref_get(a->dy, i * a->width + j, a->dt) * ref_get(a->weight, j, stat);
            double h = (ref_get(a->x, i * a->width + j, a->dt) - mean) * rstd;
            mean_g += a->rms ? 0.0 : g / (double)a->width;
            mean_gh += g * h / (double)a->width;
        }
        for (int64_t j = 0; j < a->width; j++) {
            double d = ref_get(a->dy, i * a->width + j, a->dt);
            double h = (ref_get(a->x, i * a->width + j, a->dt) - mean) * rstd;
            double g = d * ref_get(a->weight, j, stat);
            ref_add(a->dx, i * a->width + j, a->dt, rstd * (g - mean_g - h * mean_gh));
        }
    }
    for (int64_t j = 0; j < a->width; j++) {
        double sum_weight = 0.0;
        double sum_bias = 0.0;
        for (int64_t i = 0; i < a->n; i++) {
            double d = ref_get(a->dy, i * a->width + j, a->dt);
            double mean = ref_get(a->stats, 2 * i, stat);
            double rstd = ref_get(a->stats, 2 * i + 1, stat);
            sum_weight += d * (ref_get(a->x, i * a->width + j, a->dt) - mean) * rstd;
            sum_bias += d;
        }
        ref_add(a->dweight, j, stat, sum_weight);
        if (a->dbias) {
            ref_add(a->dbias, j, stat, sum_bias);
        }
    }
}
