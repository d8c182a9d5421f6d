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

void tri_ref_activation_forward(enum tri_activation kind, const void *in, void *out, int64_t n,
                                int64_t width, enum tri_dtype dt)
{
    bool gated = kind == TRI_ACTIVATION_SWIGLU;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < width; j++) {
            int64_t gate = gated ? 2 * i * width + j : i * width + j;
            double up = gated ? ref_get(in, gate + width, dt) : 1.0;
            ref_set(out, i * width + j, dt, value(kind, ref_get(in, gate, dt)) * up);
        }
    }
}

void tri_ref_activation_backward(enum tri_activation kind, const void *in, const void *dout,
                                 void *din, int64_t n, int64_t width, enum tri_dtype dt)
{
    bool gated = kind == TRI_ACTIVATION_SWIGLU;
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < width; j++) {
            int64_t gate = gated ? 2 * i * width + j : i * width + j;
            double up = gated ? ref_get(in, gate + width, dt) : 1.0;
            double x = ref_get(in, gate, dt);
            double d = ref_get(dout, i * width + j, dt);
            ref_set(din, gate, dt, d * up * slope(kind, x));
            if (gated) {
                ref_set(din, gate + width, dt, d * value(kind, x));
            }
        }
    }
}
