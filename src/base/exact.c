#include "base/exact.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { BIN_BITS = 32, MANTISSA_BITS = 52, LOWEST = -1074 };
static const uint64_t bin_mask = UINT32_MAX;

void tri_exact_add(struct tri_exact *sum, double term)
{
    uint64_t bits;
    memcpy(&bits, &term, sizeof(bits));
    uint64_t mantissa = bits & ((UINT64_C(1) << MANTISSA_BITS) - 1);
    int exponent = (int)(bits >> MANTISSA_BITS & 0x7ff);
    if (exponent == 0x7ff) {
        sum->word[TRI_EXACT_BINS]++;
        return;
    }
    if (exponent > 0) {
        mantissa |= UINT64_C(1) << MANTISSA_BITS;
        exponent--;
    }
    int shift = exponent % BIN_BITS;
    uint64_t low = (mantissa & bin_mask) << shift;
    uint64_t high = (mantissa >> BIN_BITS) << shift;
    const int64_t part[3] = {(int64_t)(low & bin_mask),
                             (int64_t)((low >> BIN_BITS) + (high & bin_mask)),
                             (int64_t)(high >> BIN_BITS)};
    int64_t *bin = sum->word + exponent / BIN_BITS;
    for (int i = 0; i < 3; i++) {
        /* Beyond the top bin the parts are 0. */
        if (part[i] != 0) {
            bin[i] += bits >> 63 ? -part[i] : part[i];
        }
    }
}

/* A square is an integer below 2^48 times a power of two that the exponent gives: integers of the
 * same exponent are added first, up to 2^15 of them in 64 bits. */
static void add_squares(struct tri_exact *sum, const float *x, int64_t n)
{
    enum { EXPONENTS = 256, FRACTION_BITS = 23, SMALLEST = -149 };
    uint64_t squares[EXPONENTS] = {0};
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof(bits));
        uint32_t exponent = bits >> FRACTION_BITS & 0xff;
        uint64_t mantissa = bits & ((UINT32_C(1) << FRACTION_BITS) - 1);
        mantissa |= (uint64_t)(exponent > 0) << FRACTION_BITS;
        squares[exponent] += mantissa * mantissa;
    }
    if (squares[EXPONENTS - 1] > 0) {
        tri_exact_add(sum, (double)NAN);
    }
    for (int e = 0; e < EXPONENTS - 1; e++) {
        int power = 2 * (SMALLEST + (e > 0 ? e - 1 : 0));
        if (squares[e] > 0) {
            tri_exact_add(sum, ldexp((double)(squares[e] >> BIN_BITS), power + BIN_BITS));
            tri_exact_add(sum, ldexp((double)(squares[e] & bin_mask), power));
        }
    }
}

void tri_exact_add_squares(struct tri_exact *sum, const float *x, int64_t n)
{
    const int64_t most = 1 << 15;
    for (int64_t at = 0; at < n; at += most) {
        add_squares(sum, x + at, n - at < most ? n - at : most);
    }
}

void tri_exact_carry(struct tri_exact *sum)
{
    for (int i = 0; i + 1 < TRI_EXACT_BINS; i++) {
        int64_t rest = (int64_t)((uint64_t)sum->word[i] & bin_mask);
        sum->word[i + 1] += (sum->word[i] - rest) / (INT64_C(1) << BIN_BITS);
        sum->word[i] = rest;
    }
}

void tri_exact_merge(struct tri_exact *sum, struct tri_exact *other)
{
    tri_exact_carry(sum);
    tri_exact_carry(other);
    for (int i = 0; i < TRI_EXACT_WORDS; i++) {
        sum->word[i] += other->word[i];
    }
}

/* The bin's bits from `at` on, of a carried sum that is not negative. */
static uint64_t bit_at(const struct tri_exact *sum, int at)
{
    return (uint64_t)sum->word[at / BIN_BITS] >> at % BIN_BITS & 1;
}

double tri_exact_get(const struct tri_exact *sum)
{
    if (sum->word[TRI_EXACT_BINS] != 0) {
        return (double)NAN;
    }
    struct tri_exact size = *sum;
    tri_exact_carry(&size);
    int64_t top = size.word[TRI_EXACT_BINS - 1];
    bool negative = top < 0;
    if (negative) {
        for (int i = 0; i < TRI_EXACT_BINS; i++) {
            size.word[i] = -size.word[i];
        }
        tri_exact_carry(&size);
        top = size.word[TRI_EXACT_BINS - 1];
    }
    /* The top bin may hold more than its 32 bits; what it holds beyond a double's range is inf. */
    if (top >> BIN_BITS) {
        return negative ? -(double)INFINITY : (double)INFINITY;
    }
    int last = TRI_EXACT_BINS * BIN_BITS - 1;
    while (last >= 0 && !bit_at(&size, last)) {
        last--;
    }
    /* 64 leading bits, the lowest set when any below is: the conversion then rounds as it
     * should. */
    int lowest = last < 64 ? 0 : last - 63;
    uint64_t leading = 0;
    for (int at = last; at >= lowest; at--) {
        leading = leading << 1 | bit_at(&size, at);
    }
    for (int at = 0; at < lowest; at++) {
        leading |= bit_at(&size, at);
    }
    double value = ldexp((double)leading, lowest + LOWEST);
    return negative ? -value : value;
}
