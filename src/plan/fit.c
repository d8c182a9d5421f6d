/* Least squares without negative costs: of so few unknowns every subset is tried, the others being
 * 0, and the best one without a negative is the answer. */
#include "plan/fit.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

struct normal {
    double a[TRI_FIT_UNKNOWNS][TRI_FIT_UNKNOWNS], b[TRI_FIT_UNKNOWNS];
};

/* Of the unknowns in `subset` (bits), the others being 0. False: there is no such answer. */
static bool solve(struct normal n, unsigned subset, double x[TRI_FIT_UNKNOWNS])
{
    memset(x, 0, TRI_FIT_UNKNOWNS * sizeof(*x));
    for (int i = 0; i < TRI_FIT_UNKNOWNS; i++) {
        if (!(subset >> i & 1U)) {
            continue;
        }
        if (!(n.a[i][i] > 1e-9)) { /* it is a multiple of those before */
            return false;
        }
        for (int j = i + 1; j < TRI_FIT_UNKNOWNS; j++) {
            double factor = subset >> j & 1U ? n.a[j][i] / n.a[i][i] : 0.0;
            for (int k = i; k < TRI_FIT_UNKNOWNS; k++) {
                n.a[j][k] -= factor * n.a[i][k];
            }
            n.b[j] -= factor * n.b[i];
        }
    }
    for (int i = TRI_FIT_UNKNOWNS - 1; i >= 0; i--) {
        double rest = n.b[i];
        for (int j = i + 1; j < TRI_FIT_UNKNOWNS; j++) {
            rest -= subset >> j & 1U ? n.a[i][j] * x[j] : 0.0;
        }
        x[i] = subset >> i & 1U ? rest / n.a[i][i] : 0.0;
        if (!(x[i] >= 0.0)) {
            return false;
        }
    }
    return true;
}

static double error_of(const struct tri_sample *samples, int count, const double *costs)
{
    double sum = 0.0;
    double weights = 0.0;
    for (int s = 0; s < count; s++) {
        double seconds = 0.0;
        for (int i = 0; i < TRI_FIT_UNKNOWNS; i++) {
            seconds += costs[i] * samples[s].amount[i];
        }
        double relative = seconds / samples[s].seconds - 1.0;
        sum += samples[s].weight * relative * relative;
        weights += samples[s].weight;
    }
    return weights > 0.0 ? sqrt(sum / weights) : 0.0;
}

double tri_fit(const struct tri_sample *samples, int count, double costs[TRI_FIT_UNKNOWNS])
{
    /* Amounts differ by many orders of magnitude: each is measured by its largest. */
    double unit[TRI_FIT_UNKNOWNS] = {0};
    struct normal normal = {0};
    for (int s = 0; s < count; s++) {
        for (int i = 0; i < TRI_FIT_UNKNOWNS; i++) {
            double amount = samples[s].amount[i] / samples[s].seconds;
            unit[i] = amount > unit[i] ? amount : unit[i];
        }
    }
    for (int s = 0; s < count; s++) {
        for (int i = 0; i < TRI_FIT_UNKNOWNS; i++) {
            double left = unit[i] > 0.0 ? samples[s].amount[i] / samples[s].seconds / unit[i] : 0.0;
            normal.b[i] += samples[s].weight * left;
            for (int j = 0; j < TRI_FIT_UNKNOWNS; j++) {
                double right =
                    unit[j] > 0.0 ? samples[s].amount[j] / samples[s].seconds / unit[j] : 0.0;
                normal.a[i][j] += samples[s].weight * left * right;
            }
        }
    }
    double best = (double)INFINITY;
    memset(costs, 0, TRI_FIT_UNKNOWNS * sizeof(*costs));
    for (unsigned subset = 1; subset < 1U << TRI_FIT_UNKNOWNS; subset++) {
        double x[TRI_FIT_UNKNOWNS];
        if (!solve(normal, subset, x)) {
            continue;
        }
        for (int i = 0; i < TRI_FIT_UNKNOWNS; i++) {
            x[i] = unit[i] > 0.0 ? x[i] / unit[i] : 0.0;
        }
        double error = error_of(samples, count, x);
        if (error < best) {
            best = error;
            memcpy(costs, x, sizeof(x));
        }
    }
    return best;
}

/* A knee must bring more than what is left without it by chance. */
#define WORTH_A_KNEE 0.8

static double fit_with_knee(const struct tri_sample *samples, int count, double knee,
                            struct tri_bent_costs *costs)
{
    struct tri_sample bent[TRI_BENT_MOST];
    double found[TRI_FIT_UNKNOWNS];
    for (int s = 0; s < count; s++) {
        double bytes = samples[s].amount[1];
        bent[s] = samples[s];
        bent[s].amount[1] = knee > 0.0 && bytes > knee ? knee : bytes;
        bent[s].amount[2] = bytes - bent[s].amount[1];
    }
    double error = tri_fit(bent, count, found);
    *costs = (struct tri_bent_costs){found[0], found[1], found[2], knee};
    return error;
}

double tri_fit_bent(const struct tri_sample *samples, int count, struct tri_bent_costs *costs)
{
    double best = fit_with_knee(samples, count, 0.0, costs);
    double least = WORTH_A_KNEE * best;
    costs->beyond = costs->byte;
    for (int s = 1; s + 1 < count; s++) {
        struct tri_bent_costs other;
        double error = fit_with_knee(samples, count, samples[s].amount[1], &other);
        if (error < least && other.beyond > 0.0) {
            best = least = error;
            *costs = other;
        }
    }
    return best;
}
