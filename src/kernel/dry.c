/* The table of a run that only counts: nothing is read or written, and who listens is told. */
#include "kernel/note.h"
#include "kernel/own.h"
#include "kernel/x86/attention.h"

/* Functions ignore their parameters, and C17 has no definitions with unnamed ones. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

const char *tri_task_name(enum tri_task work)
{
    static const char *const names[TRI_TASK_COUNT] = {"product_forward",
                                                      "product_input",
                                                      "product_weight",
                                                      "attention_forward",
                                                      "attention_backward",
                                                      "norm",
                                                      "rope",
                                                      "gated",
                                                      "gelu",
                                                      "embedding",
                                                      "loss",
                                                      "rows",
                                                      "elements",
                                                      "copy",
                                                      "squares",
                                                      "adamw",
                                                      "loop",
                                                      "router"};
    return names[work];
}

void tri_kernels_listen(struct tri_kernels *dry, const struct tri_kernel_listener *listener)
{
    TRI_REQUIRE(dry->dry);
    dry->own->listener = listener;
}

static void tell(const struct tri_kernels *self, enum tri_task work, enum tri_dtype dtype,
                 double calls, double flops, double bytes)
{
    const struct tri_kernel_listener *listener = self->own->listener;
    if (listener && (bytes > 0.0 || flops > 0.0)) {
        const struct tri_kernel_note note = {work, dtype, calls, flops, bytes, 0.0, 0.0};
        listener->work(listener->state, &note);
    }
}

void tri_kernels_tell(const struct tri_kernels *kernels, enum tri_task work, enum tri_dtype dtype,
                      double bytes)
{
    if (kernels->dry) {
        tell(kernels, work, dtype, 1.0, 0.0, bytes);
    } else if (kernels->own && kernels->own->notes) {
        tri_timed_end(kernels);
        tell(kernels->own->notes, work, dtype, 1.0, 0.0, bytes);
    }
}

void tri_kernels_tell_head(const struct tri_kernels *kernels, bool begins)
{
    if (kernels->dry && kernels->own->listener) {
        kernels->own->listener->head(kernels->own->listener->state, begins);
    }
}

/* `passes` times n rows of `width` elements. */
static void tell_rows(const struct tri_kernels *self, enum tri_task work, enum tri_dtype dtype,
                      double passes, int64_t n, int64_t width)
{
    tell(self, work, dtype, 1.0, 0.0,
         passes * (double)n * (double)width * (double)tri_dtype_size(dtype));
}

static void tell_view(const struct tri_kernels *self, const struct tri_rms_args *args,
                      double passes)
{
    const struct tri_rows *x = &args->x;
    tell_rows(self, TRI_TASK_NORM, args->dt, passes, x->outer * x->inner, x->width);
}

static void matmul_grouped(const struct tri_kernels *self, const struct tri_matmul *products,
                           int64_t count)
{
    double flops = 0.0;
    double bytes = 0.0;
    enum tri_task work = TRI_TASK_PRODUCT_INPUT;
    for (int64_t i = 0; i < count; i++) {
        const struct tri_matmul *p = &products[i];
        double m = (double)p->m;
        double n = (double)p->n;
        double k = (double)p->k;
        double results = m * n * (double)tri_dtype_size(p->c_dtype);
        flops += 2.0 * m * n * k;
        /* Gradients of weights come from memory also where nothing is added to them: a line is
         * read before it is written. Other results were in a cache, or nearly. */
        bytes += (m * k + k * n) * (double)tri_dtype_size(p->ab_dtype) +
                 (p->a_transposed ? 2.0 : 1.0) * results;
        work = p->a_transposed   ? TRI_TASK_PRODUCT_WEIGHT
               : p->b_transposed ? TRI_TASK_PRODUCT_FORWARD
                                 : TRI_TASK_PRODUCT_INPUT;
    }
    if (count > 0) {
        tell(self, work, products->ab_dtype, (double)count, flops, bytes);
    }
}

static void matmul(const struct tri_kernels *self, const struct tri_matmul *product)
{
    matmul_grouped(self, product, 1);
}

static void norm_forward(const struct tri_kernels *self, const struct tri_norm_args *args)
{
    tell_rows(self, TRI_TASK_NORM, args->dt, args->add ? 4.0 : 2.0, args->n, args->width);
}

static void norm_backward(const struct tri_kernels *self, const struct tri_norm_args *args)
{
    tell_rows(self, TRI_TASK_NORM, args->dt, 4.0, args->n, args->width);
}

static void rms_squares(const struct tri_kernels *self, const struct tri_rms_args *args)
{
    tell_view(self, args, 1.0);
}

static void rms_apply(const struct tri_kernels *self, const struct tri_rms_args *args)
{
    tell_view(self, args, 2.0);
}

static void rms_dots(const struct tri_kernels *self, const struct tri_rms_args *args)
{
    tell_view(self, args, 2.0);
}

static void rms_backward(const struct tri_kernels *self, const struct tri_rms_args *args)
{
    tell_view(self, args, 3.0);
}

static void rope(const struct tri_kernels *self, const struct tri_rope_args *args)
{
    tell_rows(self, TRI_TASK_ROPE, args->dt, 2.0, args->x.outer * args->x.inner, args->x.width);
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

/* Pairs of a query and a key that it sees: first_key is left out, which a plan does not know. */
static void tell_attention(const struct tri_kernels *self, const struct tri_attention *args,
                           enum tri_task work, double passes)
{
    double q = (double)args->q_len;
    double pairs = q * (double)(args->q_offset + 1) + q * (q - 1.0) / 2.0;
    double heads = (double)(args->batch * args->heads);
    double kv = (double)(args->batch * args->k_len * args->kv_heads * args->dim);
    double width = (double)tri_dtype_size(args->dt);
    tell(self, work, args->dt, 1.0, 2.0 * passes * pairs * heads * (double)args->dim,
         width * (2.0 * q * heads * (double)args->dim + 2.0 * kv));
}

int64_t tri_kernels_dry_scratch(const struct tri_kernels *kernels)
{
    return kernels->own->most;
}

static void attention_forward(const struct tri_kernels *self, const struct tri_attention *args)
{
    tell_attention(self, args, TRI_TASK_ATTENTION_FORWARD, 2.0);
    count_scratch(self, args, false);
}

static void attention_backward(const struct tri_kernels *self, const struct tri_attention *args)
{
    tell_attention(self, args, TRI_TASK_ATTENTION_BACKWARD, 5.0);
    count_scratch(self, args, true);
}

static void activation_forward(const struct tri_kernels *self,
                               const struct tri_activation_args *args)
{
    bool gated = args->kind == TRI_ACTIVATION_SWIGLU;
    tell_rows(self, gated ? TRI_TASK_GATED : TRI_TASK_GELU, args->dt, gated ? 3.0 : 2.0, args->n,
              args->width);
}

static void activation_backward(const struct tri_kernels *self,
                                const struct tri_activation_args *args)
{
    bool gated = args->kind == TRI_ACTIVATION_SWIGLU;
    tell_rows(self, gated ? TRI_TASK_GATED : TRI_TASK_GELU, args->dt, gated ? 5.0 : 3.0, args->n,
              args->width);
}

static void embedding_forward(const struct tri_kernels *self, const struct tri_embedding_args *args)
{
    tell_rows(self, TRI_TASK_EMBEDDING, args->dt, 2.0, args->n, args->width);
}

static void embedding_backward(const struct tri_kernels *self,
                               const struct tri_embedding_args *args)
{
    tell_rows(self, TRI_TASK_EMBEDDING, args->dt, 3.0, args->n, args->width);
}

static void cross_entropy_max(const struct tri_kernels *self,
                              const struct tri_cross_entropy_args *args)
{
    tell_rows(self, TRI_TASK_LOSS, TRI_F32, 1.0, args->n, args->cols);
}

static void cross_entropy_sum(const struct tri_kernels *self,
                              const struct tri_cross_entropy_args *args)
{
    tell_rows(self, TRI_TASK_LOSS, TRI_F32, 1.0, args->n, args->cols);
}

static void cross_entropy_backward(const struct tri_kernels *self,
                                   const struct tri_cross_entropy_args *args)
{
    tell_rows(self, TRI_TASK_LOSS, TRI_F32, 2.0, args->n, args->cols);
}

static void gather_rows(const struct tri_kernels *self, const struct tri_gather_args *args)
{
    tell_rows(self, TRI_TASK_ROWS, args->dt, 2.0, args->n, args->width);
}

static void combine_rows(const struct tri_kernels *self, const struct tri_combine_args *args)
{
    double passes = (double)args->k + (args->add ? 2.0 : 1.0);
    tell_rows(self, TRI_TASK_ROWS, args->dt, passes, args->n, args->width);
}

static void combine_rows_backward(const struct tri_kernels *self,
                                  const struct tri_combine_args *args)
{
    tell_rows(self, TRI_TASK_ROWS, args->dt, 2.0 * (double)args->k + 1.0, args->n, args->width);
}

static void scale_rows_add(const struct tri_kernels *self, const struct tri_scale_args *args)
{
    tell_rows(self, TRI_TASK_ELEMENTS, args->dt, 3.0, args->n, args->width);
}

static void row_dots(const struct tri_kernels *self, const struct tri_dots_args *args)
{
    tell_rows(self, TRI_TASK_ELEMENTS, args->dt, 2.0, args->n, args->width);
}

static void add(const struct tri_kernels *self, const struct tri_add_args *args)
{
    tell_rows(self, TRI_TASK_ELEMENTS, args->dt, 3.0, args->n, 1);
}

static void add_bias(const struct tri_kernels *self, const struct tri_bias_args *args)
{
    tell_rows(self, TRI_TASK_ELEMENTS, args->dt, 2.0, args->n, args->width);
}

static void bias_backward(const struct tri_kernels *self, const struct tri_bias_args *args)
{
    tell_rows(self, TRI_TASK_ELEMENTS, args->dt, 1.0, args->n, args->width);
}

static void zero(const struct tri_kernels *self, const struct tri_zero_args *args)
{
    tell(self, TRI_TASK_COPY, TRI_F32, 1.0, 0.0, (double)args->bytes);
}

static void copy(const struct tri_kernels *self, const struct tri_copy_args *args)
{
    tell(self, TRI_TASK_COPY, TRI_F32, 1.0, 0.0, 2.0 * (double)args->bytes);
}

static void cast(const struct tri_kernels *self, const struct tri_cast_args *args)
{
    tell(self, TRI_TASK_ELEMENTS, TRI_F32, 1.0, 0.0,
         (double)args->n * (double)(tri_dtype_size(args->from) + tri_dtype_size(args->to)));
}

static void fixed_add(const struct tri_kernels *self, const struct tri_fixed_add_args *args)
{
    size_t bytes = tri_dtype_size(args->dt) + 2 * sizeof(*args->sums);
    tell(self, TRI_TASK_ELEMENTS, args->dt, 1.0, 0.0, (double)args->n * (double)bytes);
}

static void fixed_get(const struct tri_kernels *self, const struct tri_fixed_get_args *args)
{
    size_t bytes = sizeof(*args->sums) + sizeof(*args->y);
    tell(self, TRI_TASK_ELEMENTS, TRI_F32, 1.0, 0.0, (double)args->n * (double)bytes);
}

static void fixed_squares(const struct tri_kernels *self, const struct tri_fixed_get_args *args)
{
    tell_rows(self, TRI_TASK_SQUARES, TRI_I64, 1.0, args->n, 1);
}

static double sum_squares(const struct tri_kernels *self, const struct tri_squares_args *args)
{
    tell_rows(self, TRI_TASK_SQUARES, args->dt, 1.0, args->n, 1);
    return 0.0;
}

static void adamw(const struct tri_kernels *self, const struct tri_adamw *args)
{
    size_t weight = args->weights ? tri_dtype_size(args->weight_dtype) : 0;
    size_t bytes = 6 * sizeof(float) + tri_dtype_size(args->gradient_dtype) + weight;
    tell(self, TRI_TASK_ADAMW, TRI_F32, 1.0, 0.0, (double)args->n * (double)bytes);
}

static void loop(const struct tri_kernels *self, const struct tri_loop_args *args)
{
    tell(self, TRI_TASK_LOOP, TRI_F32, 1.0, 0.0, (double)args->n * sizeof(float));
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
