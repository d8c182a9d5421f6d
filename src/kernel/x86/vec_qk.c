/* Norms and rotations of heads inside rows. */
#include "kernel/x86/vec.h"

VEC_INLINE int64_t row_at(const struct tri_rows *x, int64_t row)
{
    return row / x->inner * x->ld_outer + row % x->inner * x->ld_inner;
}

VEC_INLINE void add_product(vec_f32 a, vec_f32 b, vec_f32 *sum)
{
    *sum = vec_fma(a, b, *sum);
}

VEC_INLINE float squares_row(const void *x, int64_t begin, int64_t width, enum tri_dtype dt)
{
    vec_f32 sum[4] = {0};
    VEC_SWEEP(0, width,
              add_product(vec_load(x, begin + at, count, dt), vec_load(x, begin + at, count, dt),
                          &sum[lane]));
    return vec_total(sum);
}

static void rms_squares(const struct tri_kernels *self, const struct tri_rms_args *a)
{
    int64_t rows = a->x.outer * a->x.inner;
    float *out = a->squares;
#pragma omp parallel for num_threads(self->threads)                                                \
    schedule(static) if (rows * a->x.width > VEC_FORK)
    for (int64_t i = 0; i < rows; i++) {
        out[i] = vec_is_bf16(a->dt) ? squares_row(a->x.data, row_at(&a->x, i), a->x.width, TRI_BF16)
                                    : squares_row(a->x.data, row_at(&a->x, i), a->x.width, TRI_F32);
    }
}

VEC_INLINE void apply_row(const struct tri_rows *x, const struct tri_rows *y, int64_t i, float rstd,
                          const float *weight, enum tri_dtype dt)
{
    int64_t in = row_at(x, i);
    int64_t out = row_at(y, i);
    vec_f32 scale = vec_set(rstd);
    VEC_SWEEP(0, x->width,
              vec_store(y->data, out + at, count, dt,
                        vec_load(x->data, in + at, count, dt) * scale *
                            vec_load(weight, at, count, TRI_F32)));
}

static void rms_apply(const struct tri_kernels *self, const struct tri_rms_args *a)
{
    int64_t rows = a->x.outer * a->x.inner;
    const float *scale = a->rstd;
#pragma omp parallel for num_threads(self->threads)                                                \
    schedule(static) if (rows * a->x.width > VEC_FORK)
    for (int64_t i = 0; i < rows; i++) {
        if (vec_is_bf16(a->dt)) {
            apply_row(&a->x, &a->y, i, scale[i], a->weight, TRI_BF16);
        } else {
            apply_row(&a->x, &a->y, i, scale[i], a->weight, TRI_F32);
        }
    }
}

VEC_INLINE float dots_row(const struct tri_rms_args *a, int64_t i, enum tri_dtype dt)
{
    int64_t dy_at = row_at(&a->dy, i);
    int64_t x_at = row_at(&a->x, i);
    vec_f32 sum[4] = {0};
    VEC_SWEEP(0, a->x.width,
              add_product(vec_load(a->dy.data, dy_at + at, count, dt) *
                              vec_load(a->weight, at, count, TRI_F32),
                          vec_load(a->x.data, x_at + at, count, dt), &sum[lane]));
    return vec_total(sum);
}

static void rms_dots(const struct tri_kernels *self, const struct tri_rms_args *a)
{
    int64_t rows = a->x.outer * a->x.inner;
    float *out = a->dots;
#pragma omp parallel for num_threads(self->threads)                                                \
    schedule(static) if (rows * a->x.width > VEC_FORK)
    for (int64_t i = 0; i < rows; i++) {
        out[i] = vec_is_bf16(a->dt) ? dots_row(a, i, TRI_BF16) : dots_row(a, i, TRI_F32);
    }
}

struct rms_backward {
    struct tri_rows dy, x;
    const float *rstd, *weight, *dots;
    float *dweight;
    float scale; /* 1 / total width */
};

VEC_INLINE void rms_column_sums(const struct rms_backward *args, const int64_t *dy_at,
                                const int64_t *x_at, const float *rstd, int64_t rows, int64_t at,
                                int64_t count, float *sums, enum tri_dtype dt)
{
    vec_f32 sum = {0};
    for (int64_t i = 0; i < rows; i++) {
        vec_f32 h = vec_load(args->x.data, x_at[i] + at, count, dt) * rstd[i];
        sum = vec_fma(vec_load(args->dy.data, dy_at[i] + at, count, dt), h, sum);
    }
    vec_store(sums, at, count, TRI_F32, vec_load(sums, at, count, TRI_F32) + sum);
}

/* sums[begin..end) += those columns of rows [first, last). */
VEC_INLINE void rms_columns(const struct rms_backward *args, int64_t first, int64_t last,
                            int64_t begin, int64_t end, float *sums, enum tri_dtype dt)
{
    for (int64_t i = first; i < last; i += VEC_GROUP) {
        int64_t dy_at[VEC_GROUP];
        int64_t x_at[VEC_GROUP];
        int64_t rows = vec_smaller(VEC_GROUP, last - i);
        for (int64_t r = 0; r < rows; r++) {
            dy_at[r] = row_at(&args->dy, i + r);
            x_at[r] = row_at(&args->x, i + r);
        }
        VEC_SWEEP(begin, end,
                  rms_column_sums(args, dy_at, x_at, args->rstd + i, rows, at, count, sums, dt));
    }
}

VEC_INLINE void rms_dx(const struct rms_backward *args, int64_t dy_at, int64_t x_at, vec_f32 rstd,
                       vec_f32 slope, int64_t at, int64_t count, enum tri_dtype dt)
{
    vec_f32 g =
        vec_load(args->dy.data, dy_at + at, count, dt) * vec_load(args->weight, at, count, TRI_F32);
    vec_f32 x = vec_load(args->x.data, x_at + at, count, dt);
    vec_store(args->dy.data, dy_at + at, count, dt, rstd * (g - x * slope));
}

VEC_INLINE void rms_backward_row(const struct rms_backward *args, int64_t i, enum tri_dtype dt)
{
    int64_t dy_at = row_at(&args->dy, i);
    int64_t x_at = row_at(&args->x, i);
    float rstd = args->rstd[i];
    vec_f32 r = vec_set(rstd);
    vec_f32 slope = vec_set(rstd * rstd * args->dots[i] * args->scale);
    VEC_SWEEP(0, args->x.width, rms_dx(args, dy_at, x_at, r, slope, at, count, dt));
}

enum { NARROW = 256, PARTS = 32 };

VEC_INLINE void rms_backward_part(const struct rms_backward *args, int64_t first, int64_t last,
                                  float *sums, enum tri_dtype dt)
{
    for (int64_t i = first; i < last; i += VEC_GROUP) {
        int64_t group_end = vec_smaller(i + VEC_GROUP, last);
        rms_columns(args, i, group_end, 0, args->x.width, sums, dt);
        for (int64_t row = i; row < group_end; row++) {
            rms_backward_row(args, row, dt);
        }
    }
}

/* Heads: too few columns to share out. Rows are cut into parts whatever the number of threads, each
 * with sums of its own, added in order at the end. */
static void rms_backward_narrow(const struct tri_kernels *self, const struct rms_backward *args,
                                enum tri_dtype dt)
{
    int64_t rows = args->x.outer * args->x.inner;
    int64_t width = args->x.width;
    float sums[PARTS * NARROW];
#pragma omp parallel for num_threads(self->threads) schedule(static) if (rows * width > VEC_FORK)
    for (int64_t part = 0; part < PARTS; part++) {
        float *own = sums + part * NARROW;
        int64_t first = rows * part / PARTS;
        int64_t last = rows * (part + 1) / PARTS;
        memset(own, 0, NARROW * sizeof(*own));
        if (vec_is_bf16(dt)) {
            rms_backward_part(args, first, last, own, TRI_BF16);
        } else {
            rms_backward_part(args, first, last, own, TRI_F32);
        }
    }
    for (int part = 0; part < PARTS; part++) {
        for (int64_t j = 0; j < width; j++) {
            args->dweight[j] += sums[part * NARROW + j];
        }
    }
}

/* Whole rows: each thread sums its own columns first, as the rows then overwrite dy. */
static void rms_backward_wide(const struct tri_kernels *self, const struct rms_backward *args,
                              enum tri_dtype dt)
{
    int64_t rows = args->x.outer * args->x.inner;
#pragma omp parallel num_threads(self->threads) if (rows * args->x.width > VEC_FORK)
    {
        int64_t begin;
        int64_t end;
        vec_columns(args->x.width, &begin, &end);
        int64_t step = vec_super_rows();
        for (int64_t first = 0; first < rows; first += step) {
            int64_t last = vec_smaller(first + step, rows);
            if (vec_is_bf16(dt)) {
                rms_columns(args, first, last, begin, end, args->dweight, TRI_BF16);
            } else {
                rms_columns(args, first, last, begin, end, args->dweight, TRI_F32);
            }
#pragma omp barrier
#pragma omp for schedule(static) nowait
            for (int64_t i = first; i < last; i++) {
                if (vec_is_bf16(dt)) {
                    rms_backward_row(args, i, TRI_BF16);
                } else {
                    rms_backward_row(args, i, TRI_F32);
                }
            }
        }
    }
}

static void rms_backward(const struct tri_kernels *self, const struct tri_rms_args *a)
{
    const struct rms_backward args = {.dy = a->dy,
                                      .x = a->x,
                                      .rstd = a->rstd,
                                      .weight = a->weight,
                                      .dots = a->dots,
                                      .dweight = a->dweight,
                                      .scale = 1.0f / (float)a->total_width};
    if (a->x.width <= NARROW) {
        rms_backward_narrow(self, &args, a->dt);
    } else {
        rms_backward_wide(self, &args, a->dt);
    }
}

VEC_INLINE void rotate(void *data, int64_t first, int64_t half, const float *angles, float sign,
                       int64_t at, int64_t count, enum tri_dtype dt)
{
    vec_f32 c = vec_load(angles, at, count, TRI_F32);
    vec_f32 s = vec_load(angles, half + at, count, TRI_F32) * sign;
    vec_f32 a = vec_load(data, first + at, count, dt);
    vec_f32 b = vec_load(data, first + half + at, count, dt);
    vec_store(data, first + at, count, dt, a * c - b * s);
    vec_store(data, first + half + at, count, dt, b * c + a * s);
}

VEC_INLINE void rope_row(const struct tri_rows *x, int64_t i, const float *table,
                         const int32_t *positions, float sign, enum tri_dtype dt)
{
    const float *angles = table + (int64_t)positions[i / x->inner] * x->width;
    int64_t first = row_at(x, i);
    int64_t half = x->width / 2;
    VEC_SWEEP(0, half, rotate(x->data, first, half, angles, sign, at, count, dt));
}

static void rope(const struct tri_kernels *self, const struct tri_rope_args *a)
{
    int64_t rows = a->x.outer * a->x.inner;
    float sign = a->inverse ? -1.0f : 1.0f;
#pragma omp parallel for num_threads(self->threads)                                                \
    schedule(static) if (rows * a->x.width > VEC_FORK)
    for (int64_t i = 0; i < rows; i++) {
        if (vec_is_bf16(a->dt)) {
            rope_row(&a->x, i, a->table, a->positions, sign, TRI_BF16);
        } else {
            rope_row(&a->x, i, a->table, a->positions, sign, TRI_F32);
        }
    }
}

void VEC_NAME(tri_vec_fill_qk)(struct tri_kernels *table)
{
    table->rms_squares = rms_squares;
    table->rms_apply = rms_apply;
    table->rms_dots = rms_dots;
    table->rms_backward = rms_backward;
    table->rope = rope;
}
