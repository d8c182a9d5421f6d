#include "kernel/ref/ref.h"

void tri_ref_add(const void *a, const void *b, void *y, int64_t n, enum tri_dtype dt)
{
    for (int64_t i = 0; i < n; i++) {
        ref_set(y, i, dt, ref_get(a, i, dt) + ref_get(b, i, dt));
    }
}

void tri_ref_add_bias(void *y, const void *bias, int64_t n, int64_t width, enum tri_dtype dt)
{
    for (int64_t i = 0; i < n * width; i++) {
        ref_add(y, i, dt, ref_get(bias, i % width, tri_stat_dtype(dt)));
    }
}

void tri_ref_bias_backward(const void *dy, int64_t ld, void *db, int64_t n, int64_t width,
                           enum tri_dtype dt)
{
    for (int64_t j = 0; j < width; j++) {
        double sum = 0.0;
        for (int64_t i = 0; i < n; i++) {
            sum += ref_get(dy, i * ld + j, dt);
        }
        ref_add(db, j, tri_stat_dtype(dt), sum);
    }
}

void tri_ref_cast(const void *src, enum tri_dtype from, void *dst, enum tri_dtype to, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        ref_set(dst, i, to, ref_get(src, i, from));
    }
}

double tri_ref_sum_squares(const void *x, int64_t n, enum tri_dtype dt)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += ref_get(x, i, dt) * ref_get(x, i, dt);
    }
    return sum;
}
