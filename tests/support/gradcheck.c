#include "support/gradcheck.h"

#include "base/memory.h"
#include "base/random.h"

#include <math.h>

double tri_gradcheck_worst(tri_gradcheck_forward forward, void *context, double *values,
                           const double *gradient, int64_t n, double step)
{
    double scale = 1.0;
    double worst = 0.0;
    for (int64_t i = 0; i < n; i++) {
        scale = fmax(scale, fabs(gradient[i]));
    }
    for (int64_t i = 0; i < n; i++) {
        double kept = values[i];
        values[i] = kept + step;
        double above = forward(context);
        values[i] = kept - step;
        double below = forward(context);
        values[i] = kept;
        double difference = fabs((above - below) / (2.0 * step) - gradient[i]);
        if (isnan(difference)) {
            return difference;
        }
        worst = fmax(worst, difference / scale);
    }
    return worst;
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

double tri_gradcheck_adjoint(tri_gradcheck_linear apply, tri_gradcheck_linear transpose,
                             void *context, int64_t cols, int64_t rows, uint64_t seed)
{
    double *x = tri_alloc(TRI_MEMORY_OTHER, sizeof(*x) * (size_t)(2 * cols + 2 * rows));
    double *back = x + cols;
    double *y = back + cols;
    double *ahead = y + rows;
    tri_gradcheck_fill(x, cols, seed);
    tri_gradcheck_fill(y, rows, seed + 1);
    apply(context, x, ahead);
    transpose(context, y, back);
    double difference = fabs(dot(ahead, y, rows) - dot(x, back, cols));
    double size = sqrt(dot(ahead, ahead, rows) * dot(y, y, rows)) +
                  sqrt(dot(x, x, cols) * dot(back, back, cols));
    tri_free(x);
    return size > 0.0 ? difference / size : difference;
}

void tri_gradcheck_fill(double *values, int64_t n, uint64_t seed)
{
    uint64_t stream = tri_random_stream("gradcheck");
    for (int64_t i = 0; i < n; i++) {
        values[i] = 2.0 * tri_random_uniform(seed, stream, (uint64_t)i) - 1.0;
    }
}
