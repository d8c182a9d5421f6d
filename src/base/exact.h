/* Sums of doubles that are exact until they are read: the order of the terms, and who adds which of
 * them before sums are merged, change no bit. A sum is one long fixed-point number over the whole
 * range of a double, in bins of 32 bits; a bin has 64, so that carries can wait. */
#ifndef TRIDENT_BASE_EXACT_H
#define TRIDENT_BASE_EXACT_H

#include <stdint.h>

enum {
    TRI_EXACT_BINS = 66,                 /* bin i counts 2^(32 i - 1074) */
    TRI_EXACT_WORDS = TRI_EXACT_BINS + 1 /* the last: terms that were not finite */
};

/* All zero is the empty sum. Sums are merged by adding them word by word, as integers. */
struct tri_exact {
    int64_t word[TRI_EXACT_WORDS];
};

/* At most 2^30 terms between two calls of tri_exact_carry. */
void tri_exact_add(struct tri_exact *sum, double term);
/* The squares of n numbers; counts as n terms. */
void tri_exact_add_squares(struct tri_exact *sum, const float *x, int64_t n);
/* Brings every bin but the last below 2^32: then 2^30 sums can be merged. The value stays. */
void tri_exact_carry(struct tri_exact *sum);
/* sum += other. Carries both. */
void tri_exact_merge(struct tri_exact *sum, struct tri_exact *other);
/* The sum, rounded once, to nearest, ties to even; NaN when a term was not finite. */
double tri_exact_get(const struct tri_exact *sum);

#endif
