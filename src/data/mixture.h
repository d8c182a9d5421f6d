/* Several sets by weight: which of them a sample is of, and the how manieth of it, a function of
 * the weights alone. Of each 2^16 samples in a row every set has the same number, as near to its
 * weight as whole numbers allow but 1 at least, and they are spread evenly: the next sample is of
 * the set that lags most behind its share. */
#ifndef TRIDENT_DATA_MIXTURE_H
#define TRIDENT_DATA_MIXTURE_H

#include <stdint.h>

enum { TRI_MIXTURE_PERIOD = 1 << 16, TRI_MIXTURE_SETS = 64 };

struct tri_mixture;

/* count: 1 to TRI_MIXTURE_SETS; weights are above 0. */
struct tri_mixture *tri_mixture_create(int count, const double *weights);
void tri_mixture_destroy(struct tri_mixture *mixture);

/* The set of a sample of the mixture; *own <- its number among the samples of that set. */
int tri_mixture_pick(const struct tri_mixture *mixture, int64_t sample, int64_t *own);
/* Samples of a set in each period. */
int64_t tri_mixture_quota(const struct tri_mixture *mixture, int set);
/* Samples of a set among the first `samples` of the mixture. */
int64_t tri_mixture_taken(const struct tri_mixture *mixture, int set, int64_t samples);

#endif
