/* Adding f32 terms to fixed-point sums, for the instruction set that the source is compiled for. */
#ifndef TRIDENT_KERNEL_X86_FIXED_H
#define TRIDENT_KERNEL_X86_FIXED_H

#include "kernel/x86/vec.h"

typedef int64_t vec_i64 __attribute__((vector_size(VEC_BYTES)));

/* Whole units of x: rounded to nearest, ties to even. x is below 2^11. */
VEC_INLINE void fixed_units(vec_f32 x, int64_t units[VEC])
{
    vec_f32 scaled = x * (float)((int64_t)1 << TRI_FIXED_BITS);
#if defined(__AVX512F__)
    __m512i low = _mm512_cvtps_epi64(_mm512_castps512_ps256((__m512)scaled));
    __m512i high = _mm512_cvtps_epi64(_mm512_extractf32x8_ps((__m512)scaled, 1));
    memcpy(units, &low, sizeof(low));
    memcpy(units + VEC / 2, &high, sizeof(high));
#else
    for (int i = 0; i < VEC; i++) {
        units[i] = _mm_cvtsd_si64(_mm_set_sd((double)scaled[i]));
    }
#endif
}

/* sums[at .. at + count) += x; lanes of x beyond count are zeros. What is too large, or no number,
 * is left out and noted in bad. */
VEC_INLINE void fixed_add_at(int64_t *sums, int64_t at, int64_t count, vec_f32 x, float limit,
                             vec_i32 *bad)
{
    vec_f32 size = (vec_f32)((vec_i32)x & 0x7fffffff);
    vec_i32 fits = size < vec_set(limit);
    *bad |= ~fits;
    int64_t units[VEC];
    fixed_units((vec_f32)((vec_i32)x & fits), units);
    if (count == VEC) {
        for (int half = 0; half < 2; half++) {
            vec_i64 term;
            vec_i64 sum;
            memcpy(&term, units + half * (VEC / 2), sizeof(term));
            memcpy(&sum, sums + at + half * (VEC / 2), sizeof(sum));
            sum += term;
            memcpy(sums + at + half * (VEC / 2), &sum, sizeof(sum));
        }
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        sums[at + i] += units[i];
    }
}

VEC_INLINE void fixed_report(struct tri_fixed *fixed, vec_i32 bad)
{
    int32_t any = 0;
    for (int i = 0; i < VEC; i++) {
        any |= bad[i];
    }
    if (any) {
        __atomic_store_n(&fixed->refused, 1, __ATOMIC_RELAXED);
    }
}

#endif
