/* The table of a run that only counts: nothing is read or written. */
#include "kernel/own.h"
#include "kernel/x86/attention.h"

/* Functions ignore their parameters, and C17 has no definitions with unnamed ones. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

static void matmul(const struct tri_kernels *self, const struct tri_matmul *product)
{
}

static void matmul_grouped(const struct tri_kernels *self, const struct tri_matmul *products,
                           int64_t count)
{
}

static void norm_forward(const struct tri_kernels *self, const struct tri_norm_args *args)
{
}

static void norm_backward(const struct tri_kernels *self, const struct tri_norm_args *args)
{
}

static void rms_squares(const struct tri_kernels *self, const struct tri_rms_args *args)
{
}

static void rms_apply(const struct tri_kernels *self, const struct tri_rms_args *args)
{
}

static void rms_dots(const struct tri_kernels *self, const struct tri_rms_args *args)
{
}

static void rms_backward(const struct tri_kernels *self, const struct tri_rms_args *args)
{
}

static void rope(const struct tri_kernels *self, const struct tri_rope_args *args)
{
}

/* Of scratch, what grows with the shapes; that of other functions is small. */
static void count_scratch(const struct tri_kernels *self, const struct tri_attention *args,
                          bool backward)
{
    struct tri_kernels_own *own = self->own;
    if (own->counted) {
        int64_t bytes = tri_attention_scratch(own->counted, args, backward, own->counted_threads);
        own->most = bytes > own->most ? bytes : own->most;
    }
}

int64_t tri_kernels_dry_scratch(const struct tri_kernels *kernels)
{
    return kernels->own->most;
}

static void attention_forward(const struct tri_kernels *self, const struct tri_attention *args)
{
    count_scratch(self, args, false);
}

static void attention_backward(const struct tri_kernels *self, const struct tri_attention *args)
{
    count_scratch(self, args, true);
}

static void activation_forward(const struct tri_kernels *self,
                               const struct tri_activation_args *args)
{
}

static void activation_backward(const struct tri_kernels *self,
                                const struct tri_activation_args *args)
{
}

static void embedding_forward(const struct tri_kernels *self, const struct tri_embedding_args *args)
{
}

static void embedding_backward(const struct tri_kernels *self,
                               const struct tri_embedding_args *args)
{
}

static void cross_entropy_max(const struct tri_kernels *self,
                              const struct tri_cross_entropy_args *args)
{
}

static void cross_entropy_sum(const struct tri_kernels *self,
                              const struct tri_cross_entropy_args *args)
{
}

static void cross_entropy_backward(const struct tri_kernels *self,
                                   const struct tri_cross_entropy_args *args)
{
}

static void gather_rows(const struct tri_kernels *self, const struct tri_gather_args *args)
{
}

static void combine_rows(const struct tri_kernels *self, const struct tri_combine_args *args)
{
}

static void combine_rows_backward(const struct tri_kernels *self,
                                  const struct tri_combine_args *args)
{
}

static void scale_rows_add(const struct tri_kernels *self, const struct tri_scale_args *args)
{
}

static void row_dots(const struct tri_kernels *self, const struct tri_dots_args *args)
{
}

static void add(const struct tri_kernels *self, const struct tri_add_args *args)
{
}

static void add_bias(const struct tri_kernels *self, const struct tri_bias_args *args)
{
}

static void bias_backward(const struct tri_kernels *self, const struct tri_bias_args *args)
{
}

static void zero(const struct tri_kernels *self, const struct tri_zero_args *args)
{
}

static void copy(const struct tri_kernels *self, const struct tri_copy_args *args)
{
}

static void cast(const struct tri_kernels *self, const struct tri_cast_args *args)
{
}

static void fixed_add(const struct tri_kernels *self, const struct tri_fixed_add_args *args)
{
}

static void fixed_get(const struct tri_kernels *self, const struct tri_fixed_get_args *args)
{
}

static void fixed_squares(const struct tri_kernels *self, const struct tri_fixed_get_args *args)
{
}

static double sum_squares(const struct tri_kernels *self, const struct tri_squares_args *args)
{
    return 0.0;
}

static void adamw(const struct tri_kernels *self, const struct tri_adamw *args)
{
}

static void loop(const struct tri_kernels *self, const struct tri_loop_args *args)
{
}

void tri_dry_fill(struct tri_kernels *table)
{
    *table = (struct tri_kernels){
        .name = "dry",
        .threads = 1, /* there is too little to do to wake threads for */
        .dry = true,
        .reproducible = true,
        .matmul = matmul,
        .matmul_grouped = matmul_grouped,
        .norm_forward = norm_forward,
        .norm_backward = norm_backward,
        .rms_squares = rms_squares,
        .rms_apply = rms_apply,
        .rms_dots = rms_dots,
        .rms_backward = rms_backward,
        .rope = rope,
        .attention_forward = attention_forward,
        .attention_backward = attention_backward,
        .activation_forward = activation_forward,
        .activation_backward = activation_backward,
        .embedding_forward = embedding_forward,
        .embedding_backward = embedding_backward,
        .cross_entropy_max = cross_entropy_max,
        .cross_entropy_sum = cross_entropy_sum,
        .cross_entropy_backward = cross_entropy_backward,
        .gather_rows = gather_rows,
        .combine_rows = combine_rows,
        .combine_rows_backward = combine_rows_backward,
        .scale_rows_add = scale_rows_add,
        .row_dots = row_dots,
        .add = add,
        .add_bias = add_bias,
        .bias_backward = bias_backward,
        .zero = zero,
        .copy = copy,
        .cast = cast,
        .fixed_add = fixed_add,
        .fixed_get = fixed_get,
        .fixed_squares = fixed_squares,
        .sum_squares = sum_squares,
        .adamw = adamw,
        .loop = loop,
    };
}
