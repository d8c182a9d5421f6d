#include "kernel/ref/ref.h"

/* Where element (row, j) lies; rows are counted over outer and inner together. */
static int64_t at(const struct tri_rows *x, int64_t row, int64_t j)
{
    return row / x->inner * x->ld_outer + row % x->inner * x->ld_inner + j;
}

static double get(const struct tri_rows *x, int64_t row, int64_t j, enum tri_dtype dt)
{
    return ref_get(x->data, at(x, row, j), dt);
}

void tri_ref_rms_squares(const struct tri_kernels *self, const struct tri_rms_args *a)
{
    for (int64_t row = 0; row < a->x.outer * a->x.inner; row++) {
        double sum = 0.0;
        for (int64_t j = 0; j < a->x.width; j++) {
            sum += get(&a->x, row, j, a->dt) * get(&a->x, row, j, a->dt);
        }
        ref_set(a->squares, row, tri_stat_dtype(a->dt), sum);
    }
}

void tri_ref_rms_apply(const struct tri_kernels *self, const struct tri_rms_args *a)
{
    enum tri_dtype stat = tri_stat_dtype(a->dt);
    for (int64_t row = 0; row < a->x.outer * a->x.inner; row++) {
        for (int64_t j = 0; j < a->x.width; j++) {
            double scale = ref_get(a->rstd, row, stat) * ref_get(a->weight, j, stat);
            ref_set(a->y.data, at(&a->y, row, j), a->dt, get(&a->x, row, j, a->dt) * scale);
        }
    }
}

void tri_ref_rms_dots(const struct tri_kernels *self, const struct tri_rms_args *a)
{
    enum tri_dtype stat = tri_stat_dtype(a->dt);
    for (int64_t row = 0; row < a->x.outer * a->x.inner; row++) {
        double sum = 0.0;
        for (int64_t j = 0; j < a->x.width; j++) {
            sum += get(&a->dy, row, j, a->dt) * ref_get(a->weight, j, stat) *
                   get(&a->x, row, j, a->dt);
        }
        ref_set(a->dots, row, stat, sum);
    }
}

void tri_ref_rms_backward(const struct tri_kernels *self, const struct tri_rms_args *a)
{
    enum tri_dtype stat = tri_stat_dtype(a->dt);
    int64_t rows = a->x.outer * a->x.inner;
    for (int64_t j = 0; j < a->x.width; j++) {
        double sum = 0.0;
        for (int64_t row = 0; row < rows; row++) {
            sum += get(&a->dy, row, j, a->dt) * get(&a->x, row, j, a->dt) *
                   ref_get(a->rstd, row, stat);
        }
        ref_add(a->dweight, j, stat, sum);
    }
    for (int64_t row = 0; row < rows; row++) {
        double r = ref_get(a->rstd, row, stat);
        double slope = r * r * ref_get(a->dots, row, stat) / (double)a->total_width;
        for (int64_t j = 0; j < a->x.width; j++) {
            double g = get(&a->dy, row, j, a->dt) * ref_get(a->weight, j, stat);
            ref_set(a->dy.data, at(&a->dy, row, j), a->dt,
                    r * (g - get(&a->x, row, j, a->dt) * slope));
        }
    }
}

void tri_ref_rope(const struct tri_kernels *self, const struct tri_rope_args *a)
{
    enum tri_dtype stat = tri_stat_dtype(a->dt);
    int64_t half = a->x.width / 2;
    for (int64_t row = 0; row < a->x.outer * a->x.inner; row++) {
        int64_t angles = (int64_t)a->positions[row / a->x.inner] * a->x.width;
        for (int64_t j = 0; j < half; j++) {
            double c = ref_get(a->table, angles + j, stat);
            double s = ref_get(a->table, angles + half + j, stat) * (a->inverse ? -1.0 : 1.0);
            double first = get(&a->x, row, j, a->dt);
            double second = get(&a->x, row, half + j, a->dt);
            ref_set(a->x.data, at(&a->x, row, j), a->dt, first * c - second * s);
            ref_set(a->x.data, at(&a->x, row, half + j), a->dt, second * c + first * s);
        }
    }
}
