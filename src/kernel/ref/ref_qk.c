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

void tri_ref_rms_squares(struct tri_rows x, void *squares, enum tri_dtype dt)
{
    for (int64_t row = 0; row < x.outer * x.inner; row++) {
        double sum = 0.0;
        for (int64_t j = 0; j < x.width; j++) {
            sum += get(&x, row, j, dt) * get(&x, row, j, dt);
        }
        ref_set(squares, row, tri_stat_dtype(dt), sum);
    }
}

void tri_ref_rms_apply(struct tri_rows x, const void *rstd, const void *weight, struct tri_rows y,
                       enum tri_dtype dt)
{
    enum tri_dtype stat = tri_stat_dtype(dt);
    for (int64_t row = 0; row < x.outer * x.inner; row++) {
        for (int64_t j = 0; j < x.width; j++) {
            double scale = ref_get(rstd, row, stat) * ref_get(weight, j, stat);
            ref_set(y.data, at(&y, row, j), dt, get(&x, row, j, dt) * scale);
        }
    }
}

void tri_ref_rms_dots(struct tri_rows dy, struct tri_rows x, const void *weight, void *dots,
                      enum tri_dtype dt)
{
    enum tri_dtype stat = tri_stat_dtype(dt);
    for (int64_t row = 0; row < x.outer * x.inner; row++) {
        double sum = 0.0;
        for (int64_t j = 0; j < x.width; j++) {
            sum += get(&dy, row, j, dt) * ref_get(weight, j, stat) * get(&x, row, j, dt);
        }
        ref_set(dots, row, stat, sum);
    }
}

void tri_ref_rms_backward(struct tri_rows dy, struct tri_rows x, const void *rstd,
                          const void *weight, const void *dots, int64_t total_width, void *dweight,
                          enum tri_dtype dt)
{
    enum tri_dtype stat = tri_stat_dtype(dt);
    int64_t rows = x.outer * x.inner;
    for (int64_t j = 0; j < x.width; j++) {
        double sum = 0.0;
        for (int64_t row = 0; row < rows; row++) {
            sum += get(&dy, row, j, dt) * get(&x, row, j, dt) * ref_get(rstd, row, stat);
        }
        ref_add(dweight, j, stat, sum);
    }
    for (int64_t row = 0; row < rows; row++) {
        double r = ref_get(rstd, row, stat);
        double slope = r * r * ref_get(dots, row, stat) / (double)total_width;
        for (int64_t j = 0; j < x.width; j++) {
            double g = get(&dy, row, j, dt) * ref_get(weight, j, stat);
            ref_set(dy.data, at(&dy, row, j), dt, r * (g - get(&x, row, j, dt) * slope));
        }
    }
}

void tri_ref_rope(struct tri_rows x, const void *table, const int32_t *positions, bool inverse,
                  enum tri_dtype dt)
{
    enum tri_dtype stat = tri_stat_dtype(dt);
    int64_t half = x.width / 2;
    for (int64_t row = 0; row < x.outer * x.inner; row++) {
        int64_t angles = (int64_t)positions[row / x.inner] * x.width;
        for (int64_t j = 0; j < half; j++) {
            double c = ref_get(table, angles + j, stat);
            double s = ref_get(table, angles + half + j, stat) * (inverse ? -1.0 : 1.0);
            double first = get(&x, row, j, dt);
            double second = get(&x, row, half + j, dt);
            ref_set(x.data, at(&x, row, j), dt, first * c - second * s);
            ref_set(x.data, at(&x, row, half + j), dt, second * c + first * s);
        }
    }
}
