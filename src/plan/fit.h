/* Costs from measurements. */
#ifndef TRIDENT_PLAN_FIT_H
#define TRIDENT_PLAN_FIT_H

enum { TRI_FIT_UNKNOWNS = 3 };

/* `seconds` were measured for so much of each cost. weight: how much it matters, against others. */
struct tri_sample {
    double seconds, amount[TRI_FIT_UNKNOWNS], weight;
};

/* The costs, 0 or more a unit of each amount, whose sums come nearest to what was measured: least
 * squares of relative errors, weighted. Returns the root of their weighted mean. */
double tri_fit(const struct tri_sample *samples, int count, double costs[TRI_FIT_UNKNOWNS]);

#endif
