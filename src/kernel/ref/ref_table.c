#include "kernel/ref/ref.h"

#include "kernel/loop.h"

const struct tri_kernels *tri_kernels_ref(void)
{
    static const struct tri_kernels table = {
        .name = "ref",
        .threads = 1,
        .reproducible = true,
        .matmul = tri_ref_matmul,
        .matmul_grouped = tri_ref_matmul_grouped,
        .norm_forward = tri_ref_norm_forward,
        .norm_backward = tri_ref_norm_backward,
        .rms_squares = tri_ref_rms_squares,
        .rms_apply = tri_ref_rms_apply,
        .rms_dots = tri_ref_rms_dots,
        .rms_backward = tri_ref_rms_backward,
        .rope = tri_ref_rope,
        .attention_forward = tri_ref_attention_forward,
        .attention_backward = tri_ref_attention_backward,
        .activation_forward = tri_ref_activation_forward,
        .activation_backward = tri_ref_activation_backward,
        .embedding_forward = tri_ref_embedding_forward,
        .embedding_backward = tri_ref_embedding_backward,
        .cross_entropy_max = tri_ref_cross_entropy_max,
        .cross_entropy_sum = tri_ref_cross_entropy_sum,
        .cross_entropy_backward = tri_ref_cross_entropy_backward,
        .gather_rows = tri_ref_gather_rows,
        .combine_rows = tri_ref_combine_rows,
        .combine_rows_backward = tri_ref_combine_rows_backward,
        .scale_rows_add = tri_ref_scale_rows_add,
        .row_dots = tri_ref_row_dots,
        .add = tri_ref_add,
        .add_bias = tri_ref_add_bias,
        .bias_backward = tri_ref_bias_backward,
        .zero = tri_ref_zero,
        .copy = tri_ref_copy,
        .cast = tri_ref_cast,
        .fixed_add = tri_ref_fixed_add,
        .fixed_get = tri_ref_fixed_get,
        .fixed_squares = tri_ref_fixed_squares,
        .sum_squares = tri_ref_sum_squares,
        .adamw = tri_ref_adamw,
        .loop = tri_loop_plain,
    };
    return &table;
}
