/* Inside kernel/: the reference operations and how they read and write numbers of any dtype. What
 * each does is said in kernel.h; how is meant to be obvious from its source. */
#ifndef TRIDENT_KERNEL_REF_REF_H
#define TRIDENT_KERNEL_REF_REF_H

#include "base/status.h"
#include "kernel/kernel.h"

/* These functions need nothing of their table. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

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

void tri_ref_matmul(const struct tri_kernels *self, const struct tri_matmul *product);
void tri_ref_matmul_grouped(const struct tri_kernels *self, const struct tri_matmul *products,
                            int64_t count);
void tri_ref_norm_forward(const struct tri_kernels *self, const struct tri_norm_args *args);
void tri_ref_norm_backward(const struct tri_kernels *self, const struct tri_norm_args *args);
void tri_ref_rms_squares(const struct tri_kernels *self, const struct tri_rms_args *args);
void tri_ref_rms_apply(const struct tri_kernels *self, const struct tri_rms_args *args);
void tri_ref_rms_dots(const struct tri_kernels *self, const struct tri_rms_args *args);
void tri_ref_rms_backward(const struct tri_kernels *self, const struct tri_rms_args *args);
void tri_ref_rope(const struct tri_kernels *self, const struct tri_rope_args *args);
void tri_ref_attention_forward(const struct tri_kernels *self, const struct tri_attention *args);
void tri_ref_attention_backward(const struct tri_kernels *self, const struct tri_attention *args);
void tri_ref_activation_forward(const struct tri_kernels *self,
                                const struct tri_activation_args *args);
void tri_ref_activation_backward(const struct tri_kernels *self,
                                 const struct tri_activation_args *args);
void tri_ref_embedding_forward(const struct tri_kernels *self,
                               const struct tri_embedding_args *args);
void tri_ref_embedding_backward(const struct tri_kernels *self,
                                const struct tri_embedding_args *args);
void tri_ref_cross_entropy_max(const struct tri_kernels *self,
                               const struct tri_cross_entropy_args *args);
void tri_ref_cross_entropy_sum(const struct tri_kernels *self,
                               const struct tri_cross_entropy_args *args);
void tri_ref_cross_entropy_backward(const struct tri_kernels *self,
                                    const struct tri_cross_entropy_args *args);
void tri_ref_gather_rows(const struct tri_kernels *self, const struct tri_gather_args *args);
void tri_ref_combine_rows(const struct tri_kernels *self, const struct tri_combine_args *args);
void tri_ref_combine_rows_backward(const struct tri_kernels *self,
                                   const struct tri_combine_args *args);
void tri_ref_scale_rows_add(const struct tri_kernels *self, const struct tri_scale_args *args);
void tri_ref_row_dots(const struct tri_kernels *self, const struct tri_dots_args *args);
void tri_ref_add(const struct tri_kernels *self, const struct tri_add_args *args);
void tri_ref_add_bias(const struct tri_kernels *self, const struct tri_bias_args *args);
void tri_ref_bias_backward(const struct tri_kernels *self, const struct tri_bias_args *args);
void tri_ref_zero(const struct tri_kernels *self, const struct tri_zero_args *args);
void tri_ref_copy(const struct tri_kernels *self, const struct tri_copy_args *args);
void tri_ref_cast(const struct tri_kernels *self, const struct tri_cast_args *args);
void tri_ref_fixed_add(const struct tri_kernels *self, const struct tri_fixed_add_args *args);
void tri_ref_fixed_get(const struct tri_kernels *self, const struct tri_fixed_get_args *args);
void tri_ref_fixed_squares(const struct tri_kernels *self, const struct tri_fixed_get_args *args);
double tri_ref_sum_squares(const struct tri_kernels *self, const struct tri_squares_args *args);
void tri_ref_adamw(const struct tri_kernels *self, const struct tri_adamw *args);

#endif
