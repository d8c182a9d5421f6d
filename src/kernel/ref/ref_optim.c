#include "kernel/ref/ref.h"

#include <math.h>

void tri_ref_adamw(const struct tri_kernels *self, const struct tri_adamw *a)
{
    for (int64_t i = 0; i < a->n; i++) {
        double g = ref_get(a->gradient, i, a->gradient_dtype) * a->gradient_scale;
        double mean = a->beta1 * (double)a->m[i] + (1.0 - a->beta1) * g;
        double square = a->beta2 * (double)a->v[i] + (1.0 - a->beta2) * g * g;
        double direction = mean / a->correction1 / (sqrt(square / a->correction2) + a->epsilon);
        double decay = a->weight_decay * (double)a->master[i];
        a->m[i] = (float)mean;
        a->v[i] = (float)square;
        a->master[i] = (float)((double)a->master[i] - a->learning_rate * (direction + decay));
        if (a->weights) {
            ref_set(a->weights, i, a->weight_dtype, (double)a->master[i]);
        }
    }
}
