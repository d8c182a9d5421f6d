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

void tri_ref_norm_forward(bool rms, const void *x, const void *add, void *sum, const void *weight,
                          const void *bias, double epsilon, void *y, void *stats, int64_t n,
                          int64_t width, enum tri_dtype dt)
{
    enum tri_dtype stat = tri_stat_dtype(dt);
    for (int64_t i = 0; add && i < n * width; i++) {
        ref_set(sum, i, dt, ref_get(x, i, dt) + ref_get(add, i, dt));
    }
    const void *in = add ? sum : x;
    for (int64_t i = 0; i < n; i++) {
        double mean;
        double rstd;
        row_stats(rms, in, i, width, epsilon, dt, &mean, &rstd);
        ref_set(stats, 2 * i, stat, mean);
        ref_set(stats, 2 * i + 1, stat, rstd);
        for (int64_t j = 0; j < width; j++) {
            double normal = (ref_get(in, i * width + j, dt) - mean) * rstd;
            double shift = bias ? ref_get(bias, j, stat) : 0.0;
            ref_set(y, i * width + j, dt, normal * ref_get(weight, j, stat) + shift);
        }
    }
}

/* With h = normalised row and g = dy * weight: dx = rstd * (g - mean(g) - h * mean(g h)); without
 * the mean(g) term for RMS. */
void tri_ref_norm_backward(bool rms, const void *dy, const void *x, const void *weight,
                           const void *stats, void *dx, void *dweight, void *dbias, int64_t n,
                           int64_t width, enum tri_dtype dt)
{
    enum tri_dtype stat = tri_stat_dtype(dt);
    for (int64_t i = 0; i < n; i++) {
        double mean = ref_get(stats, 2 * i, stat);
        double rstd = ref_get(stats, 2 * i + 1, stat);
        double mean_g = 0.0;
        double mean_gh = 0.0;
        for (int64_t j = 0; j < width; j++) {
            double g = ref_get(dy, i * width + j, dt) * ref_get(weight, j, stat);
            double h = (ref_get(x, i * width + j, dt) - mean) * rstd;
            mean_g += rms ? 0.0 : g / (double)width;
            mean_gh += g * h / (double)width;
        }
        for (int64_t j = 0; j < width; j++) {
            double d = ref_get(dy, i * width + j, dt);
            double h = (ref_get(x, i * width + j, dt) - mean) * rstd;
            double g = d * ref_get(weight, j, stat);
            ref_add(dx, i * width + j, dt, rstd * (g - mean_g - h * mean_gh));
        }
    }
    for (int64_t j = 0; j < width; j++) {
        double sum_weight = 0.0;
        double sum_bias = 0.0;
        for (int64_t i = 0; i < n; i++) {
            double d = ref_get(dy, i * width + j, dt);
            double mean = ref_get(stats, 2 * i, stat);
            double rstd = ref_get(stats, 2 * i + 1, stat);
            sum_weight += d * (ref_get(x, i * width + j, dt) - mean) * rstd;
            sum_bias += d;
        }
        ref_add(dweight, j, stat, sum_weight);
        if (dbias) {
            ref_add(dbias, j, stat, sum_bias);
        }
    }
}
