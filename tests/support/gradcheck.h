/* Two ways to hold a derivative against the function it belongs to. Both work in double and know
 * nothing of what they check: the caller's context holds the function's arguments. */
#ifndef TRIDENT_TESTS_SUPPORT_GRADCHECK_H
#define TRIDENT_TESTS_SUPPORT_GRADCHECK_H

#include <stdint.h>

/* A scalar of the numbers under test, computed afresh from the context at each call. */
typedef double (*tri_gradcheck_forward)(void *context);

/* The largest difference between gradient[i] and the central difference of forward in values[i]
 * with steps of `step`, over all i < n, relative to max(1, largest |gradient|); NaN when one is.
 * values (read by forward through the context) are as before on return. 1e-5 suits `step` in
 * double, 1e-7 the result. */
double tri_gradcheck_worst(tri_gradcheck_forward forward, void *context, double *values,
                           const double *gradient, int64_t n, double step);

/* y[rows] = A x[cols], x[cols] = A^T y[rows]: overwrite their output. */
typedef void (*tri_gradcheck_linear)(void *context, const double *in, double *out);

/* |<A x, y> - <x, A^T y>| relative to |A x| |y| + |x| |A^T y|, for random x and y drawn from
 * seed. */
double tri_gradcheck_adjoint(tri_gradcheck_linear apply, tri_gradcheck_linear transpose,
                             void *context, int64_t cols, int64_t rows, uint64_t seed);

/* n numbers uniform in (-1, 1), the same for the same seed. */
void tri_gradcheck_fill(double *values, int64_t n, uint64_t seed);

#endif
