#include "kernel/ref/ref.h"

#include <math.h>

void tri_ref_fixed_add(const struct tri_kernels *self, const struct tri_fixed_add_args *a)
{
    for (int64_t i = 0; i < a->n; i++) {
        double term = (double)(float)ref_get(a->x, i, a->dt);
        if (fabs(term) < (double)a->fixed->limit) {
            a->sums[i] += (int64_t)rint(ldexp(term, TRI_FIXED_BITS));
        } else {
            a->fixed->refused = 1;
        }
    }
}

void tri_ref_fixed_get(const struct tri_kernels *self, const struct tri_fixed_get_args *a)
{
    for (int64_t i = 0; i < a->n; i++) {
        int64_t units;
        memcpy(&units, a->sums + i, sizeof(units));
        float value = ldexpf((float)units, -TRI_FIXED_BITS);
        memcpy(a->y + i, &value, sizeof(value));
    }
}

void tri_ref_fixed_squares(const struct tri_kernels *self, const struct tri_fixed_get_args *a)
{
    enum { MOST = 4096 };
    for (int64_t i = 0; i < a->n; i++) {
        float value;
        const struct tri_fixed_get_args one = {.sums = a->sums + i, .n = 1, .y = &value};
        tri_ref_fixed_get(self, &one);
        tri_exact_add(a->exact, (double)value * (double)value);
        if (i % MOST == MOST - 1) {
            tri_exact_carry(a->exact);
        }
    }
    tri_exact_carry(a->exact);
}
