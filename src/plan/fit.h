/* Costs from measurements. */
#ifndef TRIDENT_PLAN_FIT_H
#define TRIDENT_PLAN_FIT_H

enum { TRI_FIT_UNKNOWNS = 3 };

/* `seconds` were measured for so much of each cost. weight: how much it matters, against others. */
struct tri_sample {
    double seconds, amount[TRI_FIT_UNKNOWNS], weight;
};

/* Costs of messages and bytes that bend: bytes of a call beyond `knee` have a cost of their own. */
struct tri_bent_costs {
    double message, byte, beyond; /* seconds each */
    double knee;                  /* 0: beyond is byte */
};

/* The costs, 0 or more a unit of each amount, whose sums come nearest to what was measured: least
 * squares of relative errors, weighted. Returns the root of their weighted mean. */
double tri_fit(const struct tri_sample *samples, int count, double costs[TRI_FIT_UNKNOWNS]);

enum { TRI_BENT_MOST = 16 };

/* The same of samples, TRI_BENT_MOST at most, whose amounts are messages and bytes, in the order of
 * their bytes: with the knee, of those between the first and the last one's bytes, that leaves the
 * smallest error, or without one where that is hardly worse. */
double tri_fit_bent(const struct tri_sample *samples, int count, struct tri_bent_costs *costs);

#endif
