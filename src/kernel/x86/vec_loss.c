/* Cross-entropy over a slice of the vocabulary. */
#include "kernel/x86/vec_math.h"

#include <math.h>

VEC_INLINE void keep_max(const float *logits, int64_t at, int64_t count, vec_f32 *most)
{
    /* vec_max keeps its second argument when the first is NaN */
    *most = vec_max(vec_first(vec_load(logits, at, count, TRI_F32), count, -INFINITY), *most);
}

static float row_max(const float *logits, int64_t cols)
{
    vec_f32 most[4];
    for (int i = 0; i < 4; i++) {
        most[i] = vec_set(-INFINITY);
    }
    VEC_SWEEP(0, cols, keep_max(logits, at, count, &most[lane]));
    vec_f32 all = vec_max(vec_max(most[0], most[1]), vec_max(most[2], most[3]));
    float result = all[0];
    for (int i = 1; i < VEC; i++) {
        result = all[i] > result ? all[i] : result;
    }
    return result;
}

static void cross_entropy_max(const struct tri_kernels *self,
                              const struct tri_cross_entropy_args *a)
{
    const float *in = a->logits;
    float *out = a->maxima;
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->n * a->cols > VEC_FORK)
    for (int64_t i = 0; i < a->n; i++) {
        out[i] = row_max(in + i * a->ld, a->cols);
    }
}

VEC_INLINE void add_exp(const float *logits, vec_f32 most, int64_t at, int64_t count, vec_f32 *sum)
{
    vec_f32 e = vec_exp(vec_load(logits, at, count, TRI_F32) - most);
    *sum += vec_first(e, count, 0.0f);
}

static float row_sum(const float *logits, int64_t cols, float max)
{
    vec_f32 sum[4] = {0};
    vec_f32 most = vec_set(max);
    VEC_SWEEP(0, cols, add_exp(logits, most, at, count, &sum[lane]));
    return vec_total(sum);
}

static void cross_entropy_sum(const struct tri_kernels *self,
                              const struct tri_cross_entropy_args *a)
{
    const float *in = a->logits;
    const float *most = a->maxima;
    float *sum = a->sums;
    float *pick = a->picked;
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->n * a->cols > VEC_FORK)
    for (int64_t i = 0; i < a->n; i++) {
        int64_t target = a->targets[i] - a->first_col;
        sum[i] = row_sum(in + i * a->ld, a->cols, most[i]);
        pick[i] = 0 <= target && target < a->cols ? in[i * a->ld + target] - most[i] : 0.0f;
    }
}

struct loss_row {
    const float *logits;
    void *d;
    int64_t d_at, cols, ld_d, target; /* target outside [0, cols): in another slice */
    float most, factor, scale;        /* factor = scale / sum */
};

VEC_INLINE void softmax_at(const struct loss_row *row, vec_f32 most, vec_f32 factor, int64_t at,
                           int64_t count, enum tri_dtype dt)
{
    vec_f32 e = vec_exp(vec_load(row->logits, at, count, TRI_F32) - most);
    vec_store(row->d, row->d_at + at, count, dt, e * factor);
}

VEC_INLINE void backward_row(const struct loss_row *row, enum tri_dtype dt)
{
    vec_f32 most = vec_set(row->most);
    vec_f32 factor = vec_set(row->factor);
    VEC_SWEEP(0, row->cols, softmax_at(row, most, factor, at, count, dt));
    VEC_SWEEP(row->cols, row->ld_d, vec_store(row->d, row->d_at + at, count, dt, vec_set(0.0f)));
    if (0 <= row->target && row->target < row->cols) {
        vec_f32 e = vec_exp(vec_load(row->logits, row->target, 1, TRI_F32) - most);
        vec_store(row->d, row->d_at + row->target, 1, dt, e * factor - row->scale);
    }
}

static void cross_entropy_backward(const struct tri_kernels *self,
                                   const struct tri_cross_entropy_args *a)
{
    const float *in = a->logits;
    const float *most = a->maxima;
    const float *sum = a->sums;
#pragma omp parallel for num_threads(self->threads) schedule(static) if (a->n * a->ld_d > VEC_FORK)
    for (int64_t i = 0; i < a->n; i++) {
        const struct loss_row row = {.logits = in + i * a->ld,
                                     .d = a->d,
                                     .d_at = i * a->ld_d,
                                     .cols = a->targets[i] < 0 ? 0 : a->cols,
                                     .ld_d = a->ld_d,
                                     .target = a->targets[i] - a->first_col,
                                     .most = most[i],
                                     .factor = (float)(a->scale / (double)sum[i]),
                                     .scale = (float)a->scale};
        if (vec_is_bf16(a->dt)) {
            backward_row(&row, TRI_BF16);
        } else {
            backward_row(&row, TRI_F32);
        }
    }
}

void VEC_NAME(tri_vec_fill_loss)(struct tri_kernels *table)
{
    table->cross_entropy_max = cross_entropy_max;
    table->cross_entropy_sum = cross_entropy_sum;
    table->cross_entropy_backward = cross_entropy_backward;
}
