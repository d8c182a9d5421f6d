#include "kernel/ref/ref.h"

#include <math.h>

void tri_ref_adamw(const struct tri_adamw *step, float *master, float *m, float *v,
                   const void *gradient, enum tri_dtype gradient_dtype, void *weights,
                   enum tri_dtype weight_dtype, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        double g = ref_get(gradient, i, gradient_dtype) * step->gradient_scale;
        double mean = step->beta1 * (double)m[i] + (1.0 - step->beta1) * g;
        double square = step->beta2 * (double)v[i] + (1.0 - step->beta2) * g * g;
        double direction =
            mean / step->correction1 / (sqrt(square / step->correction2) + step->epsilon);
        double decay = step->weight_decay * (double)master[i];
        m[i] = (float)mean;
        v[i] = (float)square;
        master[i] = (float)((double)master[i] - step->learning_rate * (direction + decay));
        if (weights) {
            ref_set(weights, i, weight_dtype, (double)master[i]);
        }
    }
}
