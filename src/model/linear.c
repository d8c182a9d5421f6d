#include "model/linear.h"

struct tri_linear tri_linear_get(struct tri_params *params, struct tri_span rows, int64_t out,
                                 int64_t in)
{
    if (!rows.row) {
        return (struct tri_linear){.out = out, .in = in};
    }
    TRI_REQUIRE(tri_span_opened(rows) == out * in);
    return (struct tri_linear){
        .mesh = params->mesh,
        .out = out,
        .in = in,
        .rows = rows,
        .dtype = rows.row->dtype,
        .gradient_dtype = params->buffer[rows.row->buffer].gradient_dtype,
        .fixed = &params->fixed,
    };
}

struct tri_linear tri_linear_open(struct tri_params *params, const struct tri_linear *linear,
                                  enum tri_use use)
{
    struct tri_linear open = *linear;
    open.weight = tri_weights_open(params, linear->rows, use);
    if (use == TRI_USE_BACKWARD && tri_span_is_trained(linear->rows)) {
        open.gradient = tri_gradients_open(params, linear->rows, &open.first);
    }
    return open;
}

void tri_linear_close(struct tri_params *params, const struct tri_linear *open)
{
    if (open->gradient) {
        tri_gradients_close(params, open->rows, open->gradient);
    }
    tri_weights_close(params, open->rows, open->weight);
}

void tri_linear_forward(const struct tri_linear *linear, const struct tri_kernels *kernels,
                        int64_t n, const void *x, const float *bias, void *y,
                        enum tri_dtype y_dtype)
{
    tri_mesh_progress(linear->mesh);
    const struct tri_matmul args = {
        .m = n,
        .n = linear->out,
        .k = linear->in,
        .a = x,
        .b = linear->weight,
        .c = y,
        .lda = linear->in,
        .ldb = linear->in,
        .ldc = linear->out,
        .ab_dtype = linear->dtype,
        .c_dtype = y_dtype,
        .b_transposed = true,
        .bias = bias,
    };
    kernels->matmul(kernels, &args);
}

void tri_linear_input_gradient(const struct tri_linear *linear, const struct tri_kernels *kernels,
                               int64_t n, const void *dy, void *dx)
{
    tri_mesh_progress(linear->mesh);
    const struct tri_matmul args = {
        .m = n,
        .n = linear->in,
        .k = linear->out,
        .a = dy,
        .b = linear->weight,
        .c = dx,
        .lda = linear->out,
        .ldb = linear->in,
        .ldc = linear->in,
        .ab_dtype = linear->dtype,
        .c_dtype = linear->dtype,
    };
    kernels->matmul(kernels, &args);
}

void tri_linear_weight_gradient(const struct tri_linear *linear, const struct tri_kernels *kernels,
                                int64_t n, const void *dy, const void *x, struct tri_cuts cuts)
{
    if (!tri_span_is_trained(linear->rows)) {
        return;
    }
    tri_mesh_progress(linear->mesh);
    const struct tri_matmul args = {
        .m = linear->out,
        .n = linear->in,
        .k = n,
        .a = dy,
        .b = x,
        .c = linear->gradient,
        .lda = linear->out,
        .ldb = linear->in,
        .ldc = linear->in,
        .ab_dtype = linear->dtype,
        .c_dtype = linear->gradient_dtype,
        .a_transposed = true,
        .accumulate = !linear->first,
        .fixed = linear->fixed,
        .cuts = cuts.cut,
        .parts = cuts.parts,
    };
    kernels->matmul(kernels, &args);
}
