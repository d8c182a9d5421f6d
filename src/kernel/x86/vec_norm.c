/* Layer norm and RMS norm over whole rows. */
#include "kernel/x86/vec.h"

#include <math.h>

struct norm {
    bool rms;
    const void *x, *add, *dy;
    void *sum, *y, *dx;
    const float *weight, *bias, *moments; /* moments: stats, when read */
    float *stats, *dweight, *dbias;
    float epsilon;
    int64_t n, width;
};

VEC_INLINE void sum_and_square(const struct norm *args, int64_t at, int64_t count, vec_f32 *sum_x,
                               vec_f32 *sum_xx, enum tri_dtype dt)
{
    vec_f32 x = vec_load(args->x, at, count, dt);
    if (args->add) {
        x = vec_rounded(x + vec_load(args->add, at, count, dt), dt);
        vec_store(args->sum, at, count, dt, x);
    }
    *sum_x += x;
    *sum_xx = vec_fma(x, x, *sum_xx);
}

VEC_INLINE void centred_square(const void *x, vec_f32 mean, int64_t at, int64_t count, vec_f32 *sum,
                               enum tri_dtype dt)
{
    vec_f32 centred = vec_first(vec_load(x, at, count, dt) - mean, count, 0.0f);
    *sum = vec_fma(centred, centred, *sum);
}

VEC_INLINE void normalise(const struct norm *args, const void *x, vec_f32 mean, vec_f32 rstd,
                          int64_t row_begin, int64_t at, int64_t count, enum tri_dtype dt)
{
    vec_f32 normal = (vec_load(x, at, count, dt) - mean) * rstd;
    vec_f32 weight = vec_load(args->weight, at - row_begin, count, TRI_F32);
    vec_f32 y = normal * weight;
    if (args->bias) {
        y += vec_load(args->bias, at - row_begin, count, TRI_F32);
    }
    vec_store(args->y, at, count, dt, y);
}

VEC_INLINE void forward_row(const struct norm *args, int64_t i, enum tri_dtype dt)
{
    int64_t begin = i * args->width;
    int64_t end = begin + args->width;
    float scale = 1.0f / (float)args->width;
    vec_f32 sum_x[4] = {0};
    vec_f32 sum_xx[4] = {0};
    VEC_SWEEP(begin, end, sum_and_square(args, at, count, &sum_x[lane], &sum_xx[lane], dt));
    const void *x = args->add ? args->sum : args->x;
    float mean = 0.0f;
    float variance = vec_total(sum_xx) * scale;
    if (!args->rms) {
        mean = vec_total(sum_x) * scale;
        vec_f32 centre = vec_set(mean);
        vec_f32 sum[4] = {0};
        VEC_SWEEP(begin, end, centred_square(x, centre, at, count, &sum[lane], dt));
        variance = vec_total(sum) * scale;
    }
    float rstd = 1.0f / sqrtf(variance + args->epsilon);
    args->stats[2 * i] = mean;
    args->stats[2 * i + 1] = rstd;
    vec_f32 m = vec_set(mean);
    vec_f32 r = vec_set(rstd);
    VEC_SWEEP(begin, end, normalise(args, x, m, r, begin, at, count, dt));
}

static void norm_forward(const struct tri_kernels *self, const struct tri_norm_args *a)
{
    const struct norm args = {.rms = a->rms,
                              .x = a->x,
                              .add = a->add,
                              .sum = a->sum,
                              .weight = a->weight,
                              .bias = a->bias,
                              .epsilon = (float)a->epsilon,
                              .y = a->y,
                              .stats = a->stats,
                              .n = a->n,
                              .width = a->width};
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->n * a->width > VEC_FORK)
    for (int64_t i = 0; i < a->n; i++) {
        if (vec_is_bf16(a->dt)) {
            forward_row(&args, i, TRI_BF16);
        } else {
            forward_row(&args, i, TRI_F32);
        }
    }
}

/* g = dy * weight and the normalised h, of one vector. */
struct slopes {
    vec_f32 g, h;
};

VEC_INLINE struct slopes slopes_at(const struct norm *args, vec_f32 mean, vec_f32 rstd,
                                   int64_t row_begin, int64_t at, int64_t count, enum tri_dtype dt)
{
    vec_f32 weight = vec_load(args->weight, at - row_begin, count, TRI_F32);
    return (struct slopes){.g = vec_load(args->dy, at, count, dt) * weight,
                           .h = (vec_load(args->x, at, count, dt) - mean) * rstd};
}

VEC_INLINE void sum_slopes(struct slopes s, vec_f32 *sum_g, vec_f32 *sum_gh)
{
    *sum_g += s.g;
    *sum_gh = vec_fma(s.g, s.h, *sum_gh);
}

VEC_INLINE void add_dx(const struct norm *args, struct slopes s, vec_f32 mean_g, vec_f32 mean_gh,
                       vec_f32 rstd, int64_t at, int64_t count, enum tri_dtype dt)
{
    vec_f32 inner = s.g - mean_g - s.h * mean_gh;
    vec_f32 dx = vec_load(args->dx, at, count, dt);
    vec_store(args->dx, at, count, dt, vec_fma(inner, rstd, dx));
}

VEC_INLINE void backward_row(const struct norm *args, int64_t i, enum tri_dtype dt)
{
    int64_t begin = i * args->width;
    int64_t end = begin + args->width;
    float scale = 1.0f / (float)args->width;
    vec_f32 m = vec_set(args->moments[2 * i]);
    vec_f32 r = vec_set(args->moments[2 * i + 1]);
    vec_f32 sum_g[4] = {0};
    vec_f32 sum_gh[4] = {0};
    VEC_SWEEP(begin, end,
              sum_slopes(slopes_at(args, m, r, begin, at, count, dt), &sum_g[lane], &sum_gh[lane]));
    vec_f32 mean_g = vec_set(args->rms ? 0.0f : vec_total(sum_g) * scale);
    vec_f32 mean_gh = vec_set(vec_total(sum_gh) * scale);
    VEC_SWEEP(begin, end,
              add_dx(args, slopes_at(args, m, r, begin, at, count, dt), mean_g, mean_gh, r, at,
                     count, dt));
}

/* Rows [first, last), at most VEC_GROUP, of the columns at `at`. */
VEC_INLINE void column_sums(const struct norm *args, int64_t first, int64_t last, int64_t at,
                            int64_t count, enum tri_dtype dt)
{
    vec_f32 sum_weight = {0};
    vec_f32 sum_bias = {0};
    for (int64_t i = first; i < last; i++) {
        vec_f32 dy = vec_load(args->dy, i * args->width + at, count, dt);
        vec_f32 x = vec_load(args->x, i * args->width + at, count, dt);
        vec_f32 h = (x - args->moments[2 * i]) * args->moments[2 * i + 1];
        sum_weight = vec_fma(dy, h, sum_weight);
        sum_bias += dy;
    }
    vec_store(args->dweight, at, count, TRI_F32,
              vec_load(args->dweight, at, count, TRI_F32) + sum_weight);
    if (args->dbias) {
        vec_store(args->dbias, at, count, TRI_F32,
                  vec_load(args->dbias, at, count, TRI_F32) + sum_bias);
    }
}

VEC_INLINE void backward_columns(const struct norm *args, int64_t first, int64_t last,
                                 enum tri_dtype dt)
{
    int64_t begin;
    int64_t end;
    vec_columns(args->width, &begin, &end);
    for (int64_t i = first; i < last; i += VEC_GROUP) {
        int64_t group_end = vec_smaller(i + VEC_GROUP, last);
        VEC_SWEEP(begin, end, column_sums(args, i, group_end, at, count, dt));
    }
}

/* dx by rows, then the sums by columns while the rows are in cache: no sum crosses threads, and the
 * order of none depends on their number. */
static void norm_backward(const struct tri_kernels *self, const struct tri_norm_args *a)
{
    const struct norm args = {.rms = a->rms,
                              .dy = a->dy,
                              .x = a->x,
                              .weight = a->weight,
                              .moments = a->stats,
                              .dx = a->dx,
                              .dweight = a->dweight,
                              .dbias = a->dbias,
                              .n = a->n,
                              .width = a->width};
#pragma omp parallel num_threads(self->threads) if (a->n * a->width > VEC_FORK)
    {
        int64_t step = vec_super_rows();
        for (int64_t first = 0; first < a->n; first += step) {
            int64_t last = vec_smaller(first + step, a->n);
#pragma omp for schedule(static)
            for (int64_t i = first; i < last; i++) {
                if (vec_is_bf16(a->dt)) {
                    backward_row(&args, i, TRI_BF16);
                } else {
                    backward_row(&args, i, TRI_F32);
                }
            }
            if (vec_is_bf16(a->dt)) {
                backward_columns(&args, first, last, TRI_BF16);
            } else {
                backward_columns(&args, first, last, TRI_F32);
            }
        }
    }
}

void VEC_NAME(tri_vec_fill_norm)(struct tri_kernels *table)
{
    table->norm_forward = norm_forward;
    table->norm_backward = norm_backward;
}
