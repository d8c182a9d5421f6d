#include "kernel/ref/ref.h"

#include <math.h>

static const double sqrt_half = 0.70710678118654752440;
static const double sqrt_2_over_pi = 0.79788456080286535588;
static const double gelu_cubic = 0.044715;

static double sigmoid(double x)
{
    return 1.0 / (1.0 + exp(-x));
}

/* f(x) of the one-argument part: silu for swiglu, else the gelu. */
static double value(enum tri_activation kind, double x)
{
    switch (kind) {
    case TRI_ACTIVATION_GELU_TANH:
        return 0.5 * x * (1.0 + tanh(sqrt_2_over_pi * (x + gelu_cubic * x * x * x)));
    case TRI_ACTIVATION_GELU_ERF:
        return 0.5 * x * erfc(-x * sqrt_half);
    case TRI_ACTIVATION_SWIGLU:
    default:
        return x * sigmoid(x);
    }
}

static double slope(enum tri_activation kind, double x)
{
    switch (kind) {
    case TRI_ACTIVATION_GELU_TANH: {
        double t = tanh(sqrt_2_over_pi * (x + gelu_cubic * x * x * x));
        double inner = sqrt_2_over_pi * (1.0 + 3.0 * gelu_cubic * x * x);
        return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * inner;
    }
    case TRI_ACTIVATION_GELU_ERF:
        return 0.5 * erfc(-x * sqrt_half) + 0.5 * sqrt_2_over_pi * x * exp(-0.5 * x * x);
    case TRI_ACTIVATION_SWIGLU:
    default:
        return sigmoid(x) * (1.0 + x * sigmoid(-x));
    }
}

void tri_ref_activation_forward(const struct tri_kernels *self, const struct tri_activation_args *a)
{
    bool gated = a->kind == TRI_ACTIVATION_SWIGLU;
    for (int64_t i = 0; i < a->n; i++) {
        for (int64_t j = 0; j < a->width; j++) {
            int64_t gate = gated ? 2 * i * a->width + j : i * a->width + j;
            double up = gated ? ref_get(a->in, gate + a->width, a->dt) : 1.0;
            ref_set(a->out, i * a->width + j, a->dt,
                    value(a->kind, ref_get(a->in, gate, a->dt)) * up);
        }
    }
}

void tri_ref_activation_backward(const struct tri_kernels *self,
                                 const struct tri_activation_args *a)
{
    bool gated = a->kind == TRI_ACTIVATION_SWIGLU;
    for (int64_t i = 0; i < a->n; i++) {
        for (int64_t j = 0; j < a->width; j++) {
            int64_t gate = gated ? 2 * i * a->width + j : i * a->width + j;
            double up = gated ? ref_get(a->in, gate + a->width, a->dt) : 1.0;
            double x = ref_get(a->in, gate, a->dt);
            double d = ref_get(a->dout, i * a->width + j, a->dt);
            ref_set(a->din, gate, a->dt, d * up * slope(a->kind, x));
            if (gated) {
                ref_set(a->din, gate + a->width, a->dt, d * value(a->kind, x));
            }
        }
    }
}
