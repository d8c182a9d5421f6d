#include "optim/optim.h"

#include <math.h>

double tri_clip_factor(double norm, double clip)
{
    double factor = clip > 0.0 ? clip / (norm + 1e-6) : 1.0;
    return factor < 1.0 ? factor : 1.0;
}

/* The step after which the rate falls, to its lowest at the last one. */
static int64_t last_at_peak(const struct tri_config_train *train)
{
    int64_t last = train->steps - 1;
    int64_t step = train->schedule == TRI_LR_WSD ? last - train->decay_steps : train->warmup_steps;
    if (step >= last) {
        step = last - 1; /* a warm-up ends at the peak */
    }
    return step > 0 ? step : 0;
}

double tri_learning_rate(const struct tri_config_train *train, int64_t step)
{
    const double pi = 3.14159265358979323846;
    double peak = train->learning_rate;
    double low = train->min_learning_rate;
    if (step < train->warmup_steps) {
        return peak * (double)(step + 1) / (double)train->warmup_steps;
    }
    int64_t begin = last_at_peak(train);
    double span = (double)(train->steps - 1 - begin);
    double done = span > 0.0 ? (double)(step - begin) / span : 0.0;
    done = done < 0.0 ? 0.0 : done > 1.0 ? 1.0 : done;
    switch (train->schedule) {
    case TRI_LR_COSINE:
        return low + (peak - low) * 0.5 * (1.0 + cos(pi * done));
    case TRI_LR_LINEAR:
    case TRI_LR_WSD:
        return peak + (low - peak) * done;
    case TRI_LR_CONSTANT:
        break;
    }
    return peak;
}
