#include "kernel/ref/ref.h"

#include <math.h>

void tri_ref_fixed_add(const void *x, int64_t *sums, int64_t n, struct tri_fixed *fixed,
                       enum tri_dtype dt)
{
    for (int64_t i = 0; i < n; i++) {
        double term = (double)(float)ref_get(x, i, dt);
        if (fabs(term) < (double)fixed->limit) {
            sums[i] += (int64_t)rint(ldexp(term, TRI_FIXED_BITS));
        } else {
            fixed->refused = 1;
        }
    }
}

void tri_ref_fixed_get(const int64_t *sums, float *y, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        int64_t units;
        memcpy(&units, sums + i, sizeof(units));
        float value = ldexpf((float)units, -TRI_FIXED_BITS);
        memcpy(y + i, &value, sizeof(value));
    }
}

void tri_ref_fixed_squares(const int64_t *sums, struct tri_exact *sum, int64_t n)
{
    enum { MOST = 4096 };
    for (int64_t i = 0; i < n; i++) {
        float value;
        tri_ref_fixed_get(sums + i, &value, 1);
        tri_exact_add(sum, (double)value * (double)value);
        if (i % MOST == MOST - 1) {
            tri_exact_carry(sum);
        }
    }
    tri_exact_carry(sum);
}
