/* Inside kernel/: the reference operations and how they read and write numbers of any dtype. What
 * each does is said in kernel.h; how is meant to be obvious from its source. */
#ifndef TRIDENT_KERNEL_REF_REF_H
#define TRIDENT_KERNEL_REF_REF_H

#include "base/status.h"
#include "kernel/kernel.h"

static inline double ref_get(const void *data, int64_t index, enum tri_dtype dt)
{
    switch (dt) {
    case TRI_F32:
        return (double)((const float *)data)[index];
    case TRI_BF16:
        return (double)tri_bf16_to_f32(((const uint16_t *)data)[index]);
    case TRI_F64:
        return ((const double *)data)[index];
    default:
        tri_panic(TRI_FAILED, "no arithmetic on %s", tri_dtype_name(dt));
    }
}

/* To bf16 through f32: two roundings, as every program that stores bf16 does. */
static inline void ref_set(void *data, int64_t index, enum tri_dtype dt, double value)
{
    switch (dt) {
    case TRI_F32:
        ((float *)data)[index] = (float)value;
        break;
    case TRI_BF16:
        ((uint16_t *)data)[index] = tri_f32_to_bf16((float)value);
        break;
    case TRI_F64:
        ((double *)data)[index] = value;
        break;
    default:
        tri_panic(TRI_FAILED, "no arithmetic on %s", tri_dtype_name(dt));
    }
}

static inline void ref_add(void *data, int64_t index, enum tri_dtype dt, double value)
{
    ref_set(data, index, dt, ref_get(data, index, dt) + value);
}

void tri_ref_matmul(const struct tri_matmul *product);
void tri_ref_matmul_grouped(const struct tri_matmul *products, int64_t count);
void tri_ref_attention_forward(const struct tri_attention *args, enum tri_dtype dt);
void tri_ref_attention_backward(const struct tri_attention *args, enum tri_dtype dt);
int64_t tri_ref_attention_scratch(const struct tri_attention *args, bool backward, int threads);

void tri_ref_norm_forward(bool rms, const void *x, const void *add, void *sum, const void *weight,
                          const void *bias, double epsilon, void *y, void *stats, int64_t n,
                          int64_t width, enum tri_dtype dt);
void tri_ref_norm_backward(bool rms, const void *dy, const void *x, const void *weight,
                           const void *stats, void *dx, void *dweight, void *dbias, int64_t n,
                           int64_t width, enum tri_dtype dt);

void tri_ref_rms_squares(struct tri_rows x, void *squares, enum tri_dtype dt);
void tri_ref_rms_apply(struct tri_rows x, const void *rstd, const void *weight, struct tri_rows y,
                       enum tri_dtype dt);
void tri_ref_rms_dots(struct tri_rows dy, struct tri_rows x, const void *weight, void *dots,
                      enum tri_dtype dt);
void tri_ref_rms_backward(struct tri_rows dy, struct tri_rows x, const void *rstd,
                          const void *weight, const void *dots, int64_t total_width, void *dweight,
                          enum tri_dtype dt);
void tri_ref_rope(struct tri_rows x, const void *table, const int32_t *positions, bool inverse,
                  enum tri_dtype dt);

void tri_ref_activation_forward(enum tri_activation kind, const void *in, void *out, int64_t n,
                                int64_t width, enum tri_dtype dt);
void tri_ref_activation_backward(enum tri_activation kind, const void *in, const void *dout,
                                 void *din, int64_t n, int64_t width, enum tri_dtype dt);

void tri_ref_embedding_forward(const void *table, const int32_t *tokens, int64_t first_row,
                               int64_t rows, void *y, int64_t n, int64_t width, enum tri_dtype dt);
void tri_ref_embedding_backward(void *dtable, enum tri_dtype table_dtype, const int32_t *tokens,
                                int64_t first_row, int64_t rows, const void *dy, int64_t n,
                                int64_t width, enum tri_dtype dt);
void tri_ref_gather_rows(const void *src, const int32_t *index, void *dst, int64_t n, int64_t width,
                         enum tri_dtype dt);
void tri_ref_combine_rows(const void *rows, const int32_t *index, const void *weight,
                          const void *add, void *y, int64_t n, int64_t k, int64_t width,
                          enum tri_dtype dt);
void tri_ref_combine_rows_backward(const void *dy, const void *rows, const int32_t *index,
                                   const void *weight, void *drows, void *dweight, int64_t n,
                                   int64_t k, int64_t width, enum tri_dtype dt);
void tri_ref_scale_rows_add(const void *x, const void *gate, const void *add, void *y, int64_t n,
                            int64_t width, enum tri_dtype dt);
void tri_ref_row_dots(const void *a, const void *b, void *dots, int64_t n, int64_t width,
                      enum tri_dtype dt);

/* A NaN logit does not become the maximum; it makes the sum NaN. */
void tri_ref_cross_entropy_max(const void *logits, int64_t ld, int64_t cols, void *maxima,
                               int64_t n, enum tri_dtype stat);
void tri_ref_cross_entropy_sum(const void *logits, int64_t ld, int64_t cols, const void *maxima,
                               const int32_t *targets, int64_t first_col, void *sums, void *picked,
                               int64_t n, enum tri_dtype stat);
void tri_ref_cross_entropy_backward(const void *logits, int64_t ld, int64_t cols,
                                    const void *maxima, const void *sums, const int32_t *targets,
                                    int64_t first_col, double scale, void *d, int64_t ld_d,
                                    int64_t n, enum tri_dtype dt);

void tri_ref_add(const void *a, const void *b, void *y, int64_t n, enum tri_dtype dt);
void tri_ref_add_bias(void *y, const void *bias, int64_t n, int64_t width, enum tri_dtype dt);
void tri_ref_bias_backward(const void *dy, int64_t ld, void *db, int64_t n, int64_t width,
                           enum tri_dtype dt);
void tri_ref_cast(const void *src, enum tri_dtype from, void *dst, enum tri_dtype to, int64_t n);
void tri_ref_fixed_add(const void *x, int64_t *sums, int64_t n, struct tri_fixed *fixed,
                       enum tri_dtype dt);
void tri_ref_fixed_get(const int64_t *sums, float *y, int64_t n);
void tri_ref_fixed_squares(const int64_t *sums, struct tri_exact *sum, int64_t n);
double tri_ref_sum_squares(const void *x, int64_t n, enum tri_dtype dt);

void tri_ref_adamw(const struct tri_adamw *step, float *master, float *m, float *v,
                   const void *gradient, enum tri_dtype gradient_dtype, void *weights,
                   enum tri_dtype weight_dtype, int64_t n);

#endif
