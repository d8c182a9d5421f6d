#include "kernel/x86/vec_math.h"

/* y = value(x) and dy/dx at x, of the one-argument part: silu for swiglu, else the gelu. */
struct curve {
    vec_f32 value, slope;
};

VEC_INLINE struct curve silu(vec_f32 x)
{
    vec_f32 s = vec_sigmoid(x);
    return (struct curve){.value = x * s, .slope = s * (1.0f + x * (1.0f - s))};
}

/* (1 + tanh(u)) / 2 = sigmoid(2u). Beyond +-12 that is 0 or 1, and x^3 could overflow. */
VEC_INLINE struct curve gelu_tanh(vec_f32 x)
{
    const float outer = 2.0f * 0.79788456080286535588f;
    vec_f32 near = vec_min(vec_set(12.0f), vec_max(vec_set(-12.0f), x));
    vec_f32 squared = near * near;
    vec_f32 s = vec_sigmoid(outer * near * (1.0f + 0.044715f * squared));
    vec_f32 inner = outer * (1.0f + 3.0f * 0.044715f * squared);
    return (struct curve){.value = x * s, .slope = s + near * s * (1.0f - s) * inner};
}

VEC_INLINE struct curve gelu_erf(vec_f32 x)
{
    vec_f32 density = vec_exp(-0.5f * x * x);
    vec_f32 below = vec_normal(x, density);
    return (struct curve){.value = x * below,
                          .slope = below + 0.39894228040143267794f * x * density};
}

VEC_INLINE struct curve curve_at(enum tri_activation kind, vec_f32 x)
{
    switch (kind) {
    case TRI_ACTIVATION_GELU_TANH:
        return gelu_tanh(x);
    case TRI_ACTIVATION_GELU_ERF:
        return gelu_erf(x);
    case TRI_ACTIVATION_SWIGLU:
    default:
        return silu(x);
    }
}

VEC_INLINE void forward_at(enum tri_activation kind, const void *in, int64_t gate, int64_t up,
                           void *out, int64_t to, int64_t count, enum tri_dtype dt)
{
    vec_f32 y = curve_at(kind, vec_load(in, gate, count, dt)).value;
    if (kind == TRI_ACTIVATION_SWIGLU) {
        y *= vec_load(in, up, count, dt);
    }
    vec_store(out, to, count, dt, y);
}

VEC_INLINE void backward_at(enum tri_activation kind, const void *in, int64_t gate, int64_t up,
                            const void *dout, int64_t from, void *din, int64_t count,
                            enum tri_dtype dt)
{
    struct curve curve = curve_at(kind, vec_load(in, gate, count, dt));
    vec_f32 d = vec_load(dout, from, count, dt);
    if (kind == TRI_ACTIVATION_SWIGLU) {
        vec_f32 times = vec_load(in, up, count, dt);
        vec_store(din, up, count, dt, d * curve.value);
        d *= times;
    }
    vec_store(din, gate, count, dt, d * curve.slope);
}

/* One row. Gelu has no rows: any stretch of elements will do. */
VEC_INLINE void forward_kind(enum tri_activation kind, const void *in, void *out, int64_t gate,
                             int64_t to, int64_t width, enum tri_dtype dt)
{
    VEC_SWEEP(0, width,
              forward_at(kind, in, gate + at, gate + width + at, out, to + at, count, dt));
}

VEC_INLINE void backward_kind(enum tri_activation kind, const void *in, const void *dout, void *din,
                              int64_t gate, int64_t from, int64_t width, enum tri_dtype dt)
{
    VEC_SWEEP(0, width,
              backward_at(kind, in, gate + at, gate + width + at, dout, from + at, din, count, dt));
}

/* The kind becomes a constant, once a row. */
VEC_INLINE void forward_row(enum tri_activation kind, const void *in, void *out, int64_t gate,
                            int64_t to, int64_t width, enum tri_dtype dt)
{
    if (kind == TRI_ACTIVATION_SWIGLU) {
        forward_kind(TRI_ACTIVATION_SWIGLU, in, out, gate, to, width, dt);
    } else if (kind == TRI_ACTIVATION_GELU_TANH) {
        forward_kind(TRI_ACTIVATION_GELU_TANH, in, out, gate, to, width, dt);
    } else {
        forward_kind(TRI_ACTIVATION_GELU_ERF, in, out, gate, to, width, dt);
    }
}

VEC_INLINE void backward_row(enum tri_activation kind, const void *in, const void *dout, void *din,
                             int64_t gate, int64_t from, int64_t width, enum tri_dtype dt)
{
    if (kind == TRI_ACTIVATION_SWIGLU) {
        backward_kind(TRI_ACTIVATION_SWIGLU, in, dout, din, gate, from, width, dt);
    } else if (kind == TRI_ACTIVATION_GELU_TANH) {
        backward_kind(TRI_ACTIVATION_GELU_TANH, in, dout, din, gate, from, width, dt);
    } else {
        backward_kind(TRI_ACTIVATION_GELU_ERF, in, dout, din, gate, from, width, dt);
    }
}

static void activation_forward(const struct tri_kernels *self, const struct tri_activation_args *a)
{
    bool gated = a->kind == TRI_ACTIVATION_SWIGLU;
    int64_t stretch = gated && a->width > 0 ? a->width : VEC_CHUNK;
    int64_t all = a->n * a->width;
#pragma omp parallel for num_threads(self->threads) schedule(static) if (all > VEC_FORK)
    for (int64_t to = 0; to < all; to += stretch) {
        int64_t gate = gated ? 2 * to : to;
        int64_t length = vec_smaller(stretch, all - to);
        if (vec_is_bf16(a->dt)) {
            forward_row(a->kind, a->in, a->out, gate, to, length, TRI_BF16);
        } else {
            forward_row(a->kind, a->in, a->out, gate, to, length, TRI_F32);
        }
    }
}

static void activation_backward(const struct tri_kernels *self, const struct tri_activation_args *a)
{
    bool gated = a->kind == TRI_ACTIVATION_SWIGLU;
    int64_t stretch = gated && a->width > 0 ? a->width : VEC_CHUNK;
    int64_t all = a->n * a->width;
#pragma omp parallel for num_threads(self->threads) schedule(static) if (all > VEC_FORK)
    for (int64_t from = 0; from < all; from += stretch) {
        int64_t gate = gated ? 2 * from : from;
        int64_t length = vec_smaller(stretch, all - from);
        if (vec_is_bf16(a->dt)) {
            backward_row(a->kind, a->in, a->dout, a->din, gate, from, length, TRI_BF16);
        } else {
            backward_row(a->kind, a->in, a->dout, a->din, gate, from, length, TRI_F32);
        }
    }
}

void VEC_NAME(tri_vec_fill_activation)(struct tri_kernels *table)
{
    table->activation_forward = activation_forward;
    table->activation_backward = activation_backward;
}
