/* Vectors for the files vec_*.c, each compiled once per instruction set: VEC floats at a time, with
 * the compiler's vector types, so that the order of every sum is written down here and not left to
 * the optimiser. A row is cut from its first element on, whatever its address, and its last,
 * partial vector goes through the same arithmetic with zeros beyond its end: an element's result
 * depends on nothing but its row.
 *
 * dt arguments are constants where these functions are used (TRI_F32 or TRI_BF16): all inline. */
#ifndef TRIDENT_KERNEL_X86_VEC_H
#define TRIDENT_KERNEL_X86_VEC_H

#include "base/status.h"
#include "kernel/kernel.h"

#include <immintrin.h>
#include <omp.h>

#if defined(__AVX512F__)
enum { VEC = 16 };
#define VEC_BYTES    64
#define VEC_OP(name) _mm512_##name
#elif defined(__AVX2__)
enum { VEC = 8 };
#define VEC_BYTES    32
#define VEC_OP(name) _mm256_##name
#else
enum { VEC = 4 };
#define VEC_BYTES    16
#define VEC_OP(name) _mm_##name
#endif

#define VEC_INLINE static inline __attribute__((always_inline))

#define VEC_PASTE_(name, isa) name##_##isa
#define VEC_PASTE(name, isa)  VEC_PASTE_(name, isa)
/* The symbol of this instruction set. */
#define VEC_NAME(name) VEC_PASTE(name, TRI_VEC_ISA)

typedef float vec_f32 __attribute__((vector_size(VEC_BYTES)));
typedef int32_t vec_i32 __attribute__((vector_size(VEC_BYTES)));
typedef uint32_t vec_u32 __attribute__((vector_size(VEC_BYTES)));
typedef double vec_f64 __attribute__((vector_size(VEC_BYTES)));
typedef uint16_t vec_u16 __attribute__((vector_size(VEC_BYTES / 2)));
typedef float vec_half __attribute__((vector_size(VEC_BYTES / 2)));

/* Work below this many elements stays on one thread: a fork costs about as much. */
enum { VEC_FORK = 1 << 15 };
/* Elements that one thread takes at a time where there are no rows. */
enum { VEC_CHUNK = 1 << 12 };

/* Runs `call` for elements [begin, end) a vector at a time; it sees `at`, its first element,
 * `count`, VEC but for the last, and `lane` 0..3, which of four independent sums to add to. */
#define VEC_SWEEP(begin, end, call)                                                                \
    do {                                                                                           \
        const int64_t vec_end_ = (end);                                                            \
        int64_t vec_at_ = (begin);                                                                 \
        for (; vec_at_ + 4 * VEC <= vec_end_; vec_at_ += 4 * VEC) {                                \
            VEC_STEP_(vec_at_, VEC, 0, call);                                                      \
            VEC_STEP_(vec_at_ + VEC, VEC, 1, call);                                                \
            VEC_STEP_(vec_at_ + 2 * VEC, VEC, 2, call);                                            \
            VEC_STEP_(vec_at_ + 3 * VEC, VEC, 3, call);                                            \
        }                                                                                          \
        for (; vec_at_ + VEC <= vec_end_; vec_at_ += VEC) {                                        \
            VEC_STEP_(vec_at_, VEC, 0, call);                                                      \
        }                                                                                          \
        if (vec_at_ < vec_end_) {                                                                  \
            VEC_STEP_(vec_at_, vec_end_ - vec_at_, 1, call);                                       \
        }                                                                                          \
    } while (0)
#define VEC_STEP_(at_value, count_value, lane_value, call)                                         \
    do {                                                                                           \
        enum { lane = lane_value };                                                                \
        const int64_t at = at_value;                                                               \
        const int64_t count = count_value;                                                         \
        call;                                                                                      \
    } while (0)

/* Which of the two dtypes a fast table takes; anything else is the caller's bug. */
VEC_INLINE bool vec_is_bf16(enum tri_dtype dt)
{
    TRI_ASSERT(dt == TRI_F32 || dt == TRI_BF16);
    return dt == TRI_BF16;
}

/* bf16 bits into the upper halves of their lanes. The conversions between widths are intrinsics: of
 * __builtin_convertvector gcc 12 makes many shuffles. */
VEC_INLINE vec_f32 vec_from_bf16(vec_u16 bits)
{
#if defined(__AVX512F__)
    __m512i words = _mm512_castsi256_si512((__m256i)bits);
    /* word 2i + 1 is word i, in one shuffle */
    __m512i spread = _mm512_slli_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15), 16);
    return (vec_f32)_mm512_maskz_permutexvar_epi16(0xaaaaaaaau, spread, words);
#elif defined(__AVX2__)
    return (vec_f32)_mm256_slli_epi32(_mm256_cvtepu16_epi32((__m128i)bits), 16);
#else
    int64_t packed;
    memcpy(&packed, &bits, sizeof(packed));
    return (vec_f32)_mm_unpacklo_epi16(_mm_setzero_si128(), _mm_cvtsi64_si128(packed));
#endif
}

/* As tri_f32_to_bf16. */
VEC_INLINE vec_u16 vec_to_bf16(vec_f32 value)
{
#if defined(__AVX512F__)
    __m512i bits = (__m512i)value;
    __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    __m512i up = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
    __m512i quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x400000));
    __mmask16 number = _mm512_cmp_ps_mask((__m512)value, (__m512)value, _CMP_ORD_Q);
    __m512i rounded = _mm512_mask_add_epi32(quiet, number, bits, up);
    __m512i upper = _mm512_setr_epi32(0x30001, 0x70005, 0xb0009, 0xf000d, 0x130011, 0x170015,
                                      0x1b0019, 0x1f001d, 0, 0, 0, 0, 0, 0, 0, 0);
    __m512i words = _mm512_permutexvar_epi16(upper, rounded); /* word i is word 2i + 1 */
    return (vec_u16)_mm512_castsi512_si256(words);
#else
    vec_i32 bits = (vec_i32)value;
    vec_i32 rounded = (vec_i32)((vec_u32)bits + 0x7fffu + ((vec_u32)bits >> 16 & 1u));
    vec_i32 number = (bits & 0x7fffffff) <= 0x7f800000;
    vec_i32 kept = (number & rounded) | (~number & (bits | 0x400000));
#if defined(__AVX2__)
    __m256i halves = (__m256i)((vec_u32)kept >> 16);
    return (vec_u16)_mm_packus_epi32(_mm256_castsi256_si128(halves),
                                     _mm256_extracti128_si256(halves, 1));
#else
    __m128i halves = (__m128i)(kept >> 16); /* signed, so that the saturating pack keeps them */
    int64_t packed = _mm_cvtsi128_si64(_mm_packs_epi32(halves, halves));
    vec_u16 result;
    memcpy(&result, &packed, sizeof(result));
    return result;
#endif
#endif
}

VEC_INLINE vec_f32 vec_load(const void *data, int64_t at, int64_t count, enum tri_dtype dt)
{
    if (dt == TRI_BF16) {
        vec_u16 bits = {0};
        memcpy(&bits, (const uint16_t *)data + at,
               count == VEC ? sizeof(bits) : sizeof(uint16_t) * (size_t)count);
        return vec_from_bf16(bits);
    }
    vec_f32 value = {0};
    memcpy(&value, (const float *)data + at,
           count == VEC ? sizeof(value) : sizeof(float) * (size_t)count);
    return value;
}

VEC_INLINE void vec_store(void *data, int64_t at, int64_t count, enum tri_dtype dt, vec_f32 value)
{
    if (dt == TRI_BF16) {
        vec_u16 bits = vec_to_bf16(value);
        memcpy((uint16_t *)data + at, &bits,
               count == VEC ? sizeof(bits) : sizeof(uint16_t) * (size_t)count);
    } else {
        memcpy((float *)data + at, &value,
               count == VEC ? sizeof(value) : sizeof(float) * (size_t)count);
    }
}

/* value as it reads back after a store. */
VEC_INLINE vec_f32 vec_rounded(vec_f32 value, enum tri_dtype dt)
{
    if (dt == TRI_BF16) {
        return vec_from_bf16(vec_to_bf16(value));
    }
    return value;
}

VEC_INLINE vec_f32 vec_select(vec_i32 mask, vec_f32 yes, vec_f32 no)
{
    return (vec_f32)((mask & (vec_i32)yes) | (~mask & (vec_i32)no));
}

/* value in the first count lanes, other beyond them. */
VEC_INLINE vec_f32 vec_first(vec_f32 value, int64_t count, float other)
{
    if (count == VEC) {
        return value;
    }
    vec_f32 result = value;
    for (int64_t i = count; i < VEC; i++) {
        result[i] = other;
    }
    return result;
}

VEC_INLINE vec_f32 vec_fma(vec_f32 a, vec_f32 b, vec_f32 c)
{
#if defined(__FMA__)
    return (vec_f32)VEC_OP(fmadd_ps)(a, b, c);
#else
    return a * b + c;
#endif
}

VEC_INLINE vec_f32 vec_sqrt(vec_f32 x)
{
    return (vec_f32)VEC_OP(sqrt_ps)(x);
}

/* A NaN in either gives b. */
VEC_INLINE vec_f32 vec_max(vec_f32 a, vec_f32 b)
{
    return (vec_f32)VEC_OP(max_ps)(a, b);
}

VEC_INLINE vec_f32 vec_min(vec_f32 a, vec_f32 b)
{
    return (vec_f32)VEC_OP(min_ps)(a, b);
}

VEC_INLINE vec_f32 vec_set(float x)
{
    return (vec_f32)VEC_OP(set1_ps)(x);
}

/* The sum of four accumulators' lanes, as one fixed tree. */
VEC_INLINE float vec_total(const vec_f32 *sum)
{
    vec_f32 all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
    float lanes[VEC];
    memcpy(lanes, &all, sizeof(lanes));
    for (int half = VEC / 2; half > 0; half /= 2) {
        for (int i = 0; i < half; i++) {
            lanes[i] += lanes[i + half];
        }
    }
    return lanes[0];
}

/* The columns of this thread, cut where cache lines begin. */
VEC_INLINE void vec_columns(int64_t width, int64_t *begin, int64_t *end)
{
    enum { LINE = 16 };
    int64_t lines = (width + LINE - 1) / LINE;
    int64_t thread = omp_get_thread_num();
    int64_t threads = omp_get_num_threads();
    int64_t last = lines * (thread + 1) / threads * LINE;
    *begin = lines * thread / threads * LINE;
    *end = last < width ? last : width;
}

/* Rows whose column sums are taken while they are in cache; a multiple of VEC_GROUP. */
VEC_INLINE int64_t vec_super_rows(void)
{
    return (int64_t)64 * omp_get_num_threads();
}
/* Rows added up before a column's sum is. */
enum { VEC_GROUP = 8 };

VEC_INLINE int64_t vec_smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* Each fills in its part of the table. */
void VEC_NAME(tri_vec_fill_norm)(struct tri_kernels *table);
void VEC_NAME(tri_vec_fill_qk)(struct tri_kernels *table);
void VEC_NAME(tri_vec_fill_activation)(struct tri_kernels *table);
void VEC_NAME(tri_vec_fill_rows)(struct tri_kernels *table);
void VEC_NAME(tri_vec_fill_loss)(struct tri_kernels *table);
void VEC_NAME(tri_vec_fill_elementwise)(struct tri_kernels *table);
void VEC_NAME(tri_vec_fill_fixed)(struct tri_kernels *table);
void VEC_NAME(tri_vec_fill_optim)(struct tri_kernels *table);
void VEC_NAME(tri_vec_fill_products)(struct tri_kernels *table);

#endif
