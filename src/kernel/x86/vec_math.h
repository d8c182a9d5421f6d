/* Functions of a vector. Polynomials fitted by Chebyshev interpolation of the exact function in 40
 * digits; the errors stated are of the whole function in f32. */
#ifndef TRIDENT_KERNEL_X86_VEC_MATH_H
#define TRIDENT_KERNEL_X86_VEC_MATH_H

#include "kernel/x86/vec.h"

/* p * 2^n for integral n, |n| <= 128. */
VEC_INLINE vec_f32 vec_scale(vec_f32 p, vec_f32 n)
{
#if defined(__AVX512F__)
    return (vec_f32)_mm512_scalef_ps(p, n);
#else
    vec_i32 whole = __builtin_convertvector(n, vec_i32);
    vec_i32 half = whole >> 1;
    vec_f32 first = (vec_f32)((half + 127) << 23);
    vec_f32 second = (vec_f32)((whole - half + 127) << 23);
    return p * first * second;
#endif
}

/* exp(x), relative error below 2e-7; 0 below -87.33, where the result would be subnormal
 * (processors are slow to make those), inf at and above 88.73, NaN at NaN. x = n ln2 + r with |r|
 * <= ln2 / 2, exp(r) from a polynomial. */
VEC_INLINE vec_f32 vec_exp(vec_f32 x)
{
    const vec_f32 magic = vec_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer */
    const vec_f32 lowest = vec_set(-87.33f);
    vec_f32 bounded = vec_min(vec_set(89.0f), vec_max(lowest, x));
    vec_f32 n = vec_fma(bounded, vec_set(1.44269504088896341f), magic) - magic;
    vec_f32 r = vec_fma(n, vec_set(-0.693359375f), bounded);
    r = vec_fma(n, vec_set(2.12194440e-4f), r);
    vec_f32 p = vec_set(1.9890980911e-4f);
    p = vec_fma(p, r, vec_set(1.3933641603e-3f));
    p = vec_fma(p, r, vec_set(8.3333104849e-3f));
    p = vec_fma(p, r, vec_set(4.1666466743e-2f));
    p = vec_fma(p, r, vec_set(1.6666667163e-1f));
    p = vec_fma(p, r, vec_set(0.5f));
    p = vec_fma(p * r, r, r) + 1.0f;
    return vec_select(x < lowest, vec_set(0.0f), vec_scale(p, n));
}

/* 1 / (1 + exp(-x)) */
VEC_INLINE vec_f32 vec_sigmoid(vec_f32 x)
{
    return 1.0f / (1.0f + vec_exp(-x));
}

/* The upper tail of the normal distribution at |x|, given density = exp(-x^2 / 2):
 * erfc(z) / 2 with z = |x| / sqrt(2) and erfc(z) = exp(-z^2) t q(t), t = 1 / (1 + 0.35 z).
 * Absolute error below 1e-7. */
VEC_INLINE vec_f32 vec_normal_tail(vec_f32 x, vec_f32 density)
{
    vec_f32 size = (vec_f32)((vec_i32)x & 0x7fffffff);
    vec_f32 t = 1.0f / vec_fma(size, vec_set(0.35f * 0.70710678118654752f), vec_set(1.0f));
    vec_f32 q = vec_set(0.03748224488321132f);
    q = vec_fma(q, t, vec_set(-0.15420886004406414f));
    q = vec_fma(q, t, vec_set(0.17106190489757414f));
    q = vec_fma(q, t, vec_set(-0.014858444871480761f));
    q = vec_fma(q, t, vec_set(0.07726273481670862f));
    q = vec_fma(q, t, vec_set(0.1507353006078217f));
    q = vec_fma(q, t, vec_set(0.14976755713072368f));
    q = vec_fma(q, t, vec_set(0.18815935634065423f));
    q = vec_fma(q, t, vec_set(0.19711348366060488f));
    q = vec_fma(q, t, vec_set(0.19748472750937535f));
    return 0.5f * density * t * q;
}

/* The normal distribution's value at x. */
VEC_INLINE vec_f32 vec_normal(vec_f32 x, vec_f32 density)
{
    vec_f32 tail = vec_normal_tail(x, density);
    return vec_select(x >= 0.0f, 1.0f - tail, tail);
}

#endif
