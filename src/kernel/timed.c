/* A table around another: each call is made, timed and told, as the dry kind tells it. */
#include "base/clock.h"
#include "base/memory.h"
#include "kernel/own.h"

/* Before a call, what the clocks show; behind it, what it took. */
static void start(const struct tri_kernels *self)
{
    self->own->seconds = tri_clock_now();
    self->own->busy = tri_clock_busy();
}

void tri_timed_end(const struct tri_kernels *self)
{
    self->own->busy = tri_clock_busy() - self->own->busy;
    self->own->seconds = tri_clock_now() - self->own->seconds;
}

static void book(void *state, const struct tri_kernel_note *note)
{
    struct tri_kernels_own *own = state;
    struct tri_kernel_note timed = *note;
    timed.seconds = own->seconds;
    timed.busy = own->busy;
    own->listener->work(own->listener->state, &timed);
}

void tri_kernels_start(const struct tri_kernels *kernels)
{
    if (kernels->own && kernels->own->notes) {
        start(kernels);
    }
}

static void ignore_head(void *state, bool begins)
{
    (void)state;
    (void)begins;
}

#define TIMED(function, arguments)                                                                 \
    static void function(const struct tri_kernels *self, const struct arguments *args)             \
    {                                                                                              \
        start(self);                                                                               \
        self->own->inner->function(self->own->inner, args);                                        \
        tri_timed_end(self);                                                                       \
        self->own->notes->function(self->own->notes, args);                                        \
    }

TIMED(matmul, tri_matmul)
TIMED(norm_forward, tri_norm_args)
TIMED(norm_backward, tri_norm_args)
TIMED(rms_squares, tri_rms_args)
TIMED(rms_apply, tri_rms_args)
TIMED(rms_dots, tri_rms_args)
TIMED(rms_backward, tri_rms_args)
TIMED(rope, tri_rope_args)
TIMED(attention_forward, tri_attention)
TIMED(attention_backward, tri_attention)
TIMED(activation_forward, tri_activation_args)
TIMED(activation_backward, tri_activation_args)
TIMED(embedding_forward, tri_embedding_args)
TIMED(embedding_backward, tri_embedding_args)
TIMED(cross_entropy_max, tri_cross_entropy_args)
TIMED(cross_entropy_sum, tri_cross_entropy_args)
TIMED(cross_entropy_backward, tri_cross_entropy_args)
TIMED(gather_rows, tri_gather_args)
TIMED(combine_rows, tri_combine_args)
TIMED(combine_rows_backward, tri_combine_args)
TIMED(scale_rows_add, tri_scale_args)
TIMED(row_dots, tri_dots_args)
TIMED(add, tri_add_args)
TIMED(add_bias, tri_bias_args)
TIMED(bias_backward, tri_bias_args)
TIMED(zero, tri_zero_args)
TIMED(copy, tri_copy_args)
TIMED(cast, tri_cast_args)
TIMED(fixed_add, tri_fixed_add_args)
TIMED(fixed_get, tri_fixed_get_args)
TIMED(fixed_squares, tri_fixed_get_args)
TIMED(adamw, tri_adamw)
TIMED(loop, tri_loop_args)

static void matmul_grouped(const struct tri_kernels *self, const struct tri_matmul *products,
                           int64_t count)
{
    start(self);
    self->own->inner->matmul_grouped(self->own->inner, products, count);
    tri_timed_end(self);
    self->own->notes->matmul_grouped(self->own->notes, products, count);
}

static double sum_squares(const struct tri_kernels *self, const struct tri_squares_args *args)
{
    start(self);
    double sum = self->own->inner->sum_squares(self->own->inner, args);
    tri_timed_end(self);
    (void)self->own->notes->sum_squares(self->own->notes, args);
    return sum;
}

struct tri_kernels *tri_kernels_create_timed(const struct tri_kernels *kernels,
                                             const struct tri_kernel_listener *listener)
{
    struct tri_kernels *timed = tri_alloc(TRI_MEMORY_KERNELS, sizeof(*timed));
    struct tri_kernels_own *own = tri_alloc(TRI_MEMORY_KERNELS, sizeof(*own));
    *timed = *kernels;
    timed->own = own;
    own->runtime = kernels->own->runtime;
    own->inner = kernels;
    own->listener = listener;
    own->notes = tri_kernels_create(TRI_KERNELS_DRY, NULL, kernels->threads);
    own->book = (struct tri_kernel_listener){book, ignore_head, own};
    tri_kernels_listen(own->notes, &own->book);
    timed->matmul = matmul;
    timed->matmul_grouped = matmul_grouped;
    timed->norm_forward = norm_forward;
    timed->norm_backward = norm_backward;
    timed->rms_squares = rms_squares;
    timed->rms_apply = rms_apply;
    timed->rms_dots = rms_dots;
    timed->rms_backward = rms_backward;
    timed->rope = rope;
    timed->attention_forward = attention_forward;
    timed->attention_backward = attention_backward;
    timed->activation_forward = activation_forward;
    timed->activation_backward = activation_backward;
    timed->embedding_forward = embedding_forward;
    timed->embedding_backward = embedding_backward;
    timed->cross_entropy_max = cross_entropy_max;
    timed->cross_entropy_sum = cross_entropy_sum;
    timed->cross_entropy_backward = cross_entropy_backward;
    timed->gather_rows = gather_rows;
    timed->combine_rows = combine_rows;
    timed->combine_rows_backward = combine_rows_backward;
    timed->scale_rows_add = scale_rows_add;
    timed->row_dots = row_dots;
    timed->add = add;
    timed->add_bias = add_bias;
    timed->bias_backward = bias_backward;
    timed->zero = zero;
    timed->copy = copy;
    timed->cast = cast;
    timed->fixed_add = fixed_add;
    timed->fixed_get = fixed_get;
    timed->fixed_squares = fixed_squares;
    timed->sum_squares = sum_squares;
    timed->adamw = adamw;
    timed->loop = loop;
    return timed;
}
