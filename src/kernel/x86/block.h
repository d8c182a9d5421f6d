/* The one multiplication that products and attention are made of, for the instruction set that the
 * source is compiled for: a few rows of A, read element by element, times a panel of B, NR columns
 * wide, summed in registers. Operands are f32; who packs them converts. */
#ifndef TRIDENT_KERNEL_X86_BLOCK_H
#define TRIDENT_KERNEL_X86_BLOCK_H

#include "kernel/x86/vec.h"

/* The register block: MR rows by NV vectors of sums. */
#if defined(__AVX512F__)
enum { MR = 12, NV = 2 };
#elif defined(__AVX2__)
enum { MR = 6, NV = 2 };
#else
enum { MR = 4, NV = 2 };
#endif
enum {
    NR = NV * VEC,
    BLOCK_DEPTH = 256,              /* steps that one row of packed A holds */
    BLOCK_STRIDE = BLOCK_DEPTH + 16 /* not a power of two: rows would share cache sets */
};

/* c[rows, NR] = start + a[rows, depth] b[depth, NR]. start's rows are start_row apart (0: one row
 * for all); start may be c. */
struct block {
    const float *a, *b, *start;
    float *c;
    int64_t start_row, c_row, depth;
};

/* How A lies: element (i, l) of a group of MR rows is at i * row + l * step, the next group `group`
 * further. Always a constant. */
struct block_layout {
    int64_t row, step, group;
};
static const struct block_layout block_rows = {BLOCK_STRIDE, 1, MR *BLOCK_STRIDE};

/* Calls for the lines of c while the sums are taken: they are needed at the end, and in a large
 * result they come from far. */
VEC_INLINE void block_prefetch(struct block s, const int rows)
{
    for (int i = 0; i < rows; i++) {
        for (int v = 0; v < NR; v += 16) {
            __builtin_prefetch(s.c + i * s.c_row + v, 1);
        }
    }
}

VEC_INLINE void block_finish(struct block s, const int rows, vec_f32 sum[MR][NV])
{
    for (int i = 0; i < rows; i++) {
        for (int v = 0; v < NV; v++) {
            vec_f32 start = vec_load(s.start, i * s.start_row + v * VEC, VEC, TRI_F32);
            vec_store(s.c, i * s.c_row + v * VEC, VEC, TRI_F32, start + sum[i][v]);
        }
    }
}

VEC_INLINE void block_multiply(struct block s, const struct block_layout a, const int rows)
{
    vec_f32 sum[MR][NV];
    for (int i = 0; i < rows; i++) {
        sum[i][0] = sum[i][1] = vec_set(0.0f);
    }
    block_prefetch(s, rows);
    for (int64_t l = 0; l < s.depth; l++) {
        vec_f32 y0 = vec_load(s.b, l * NR, VEC, TRI_F32);
        vec_f32 y1 = vec_load(s.b, l * NR + VEC, VEC, TRI_F32);
        for (int i = 0; i < rows; i++) {
            vec_f32 x = vec_set(s.a[i * a.row + l * a.step]);
            sum[i][0] = vec_fma(x, y0, sum[i][0]);
            sum[i][1] = vec_fma(x, y1, sum[i][1]);
        }
    }
    block_finish(s, rows, sum);
}

VEC_INLINE void block_skip(struct block *s, int64_t in_a, int64_t rows)
{
    s->a += in_a;
    s->c += rows * s->c_row;
    s->start += rows * s->start_row;
}

VEC_INLINE void block_multiply_rows(struct block s, const struct block_layout a, int64_t rows)
{
    for (; rows >= MR; rows -= MR, block_skip(&s, a.group, MR)) {
        block_multiply(s, a, MR);
    }
    for (; rows >= 8; rows -= 8, block_skip(&s, 8 * a.row, 8)) {
        block_multiply(s, a, MR < 8 ? MR : 8);
    }
    for (; rows >= 4; rows -= 4, block_skip(&s, 4 * a.row, 4)) {
        block_multiply(s, a, 4);
    }
    for (; rows >= 2; rows -= 2, block_skip(&s, 2 * a.row, 2)) {
        block_multiply(s, a, 2);
    }
    if (rows) {
        block_multiply(s, a, 1);
    }
}

/* to[0, n) = from[at, at + n) in f32. */
VEC_INLINE void block_convert(float *to, const void *from, int64_t at, int64_t n, enum tri_dtype dt)
{
    int64_t j = 0;
    for (; j + VEC <= n; j += VEC) {
        vec_store(to, j, VEC, TRI_F32, vec_load(from, at + j, VEC, dt));
    }
    if (j < n) {
        vec_store(to, j, n - j, TRI_F32, vec_load(from, at + j, n - j, dt));
    }
}

VEC_INLINE __m128 block_load4(const void *p, int64_t at, enum tri_dtype dt)
{
    if (dt == TRI_BF16) {
        __m128i x = _mm_loadl_epi64((const __m128i *)(const void *)((const uint16_t *)p + at));
        return _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), x));
    }
    return _mm_loadu_ps((const float *)p + at);
}

VEC_INLINE float block_load1(const void *p, int64_t at, enum tri_dtype dt)
{
    return dt == TRI_BF16 ? tri_bf16_to_f32(((const uint16_t *)p)[at]) : ((const float *)p)[at];
}

/* A panel [depth, NR] of B from cols <= NR rows of depth elements, ld apart, the first at `first`;
 * missing columns are zeros. */
VEC_INLINE void block_pack_turned(const void *from, int64_t first, int64_t ld, int64_t cols,
                                  int64_t depth, float *b, enum tri_dtype dt)
{
    int64_t j = 0;
    for (; j + 4 <= cols; j += 4) {
        int64_t at = first + j * ld, l = 0;
        for (; l + 4 <= depth; l += 4) {
            __m128 x0 = block_load4(from, at + l, dt), x1 = block_load4(from, at + l + ld, dt);
            __m128 x2 = block_load4(from, at + l + 2 * ld, dt);
            __m128 x3 = block_load4(from, at + l + 3 * ld, dt);
            _MM_TRANSPOSE4_PS(x0, x1, x2, x3);
            _mm_storeu_ps(b + l * NR + j, x0);
            _mm_storeu_ps(b + (l + 1) * NR + j, x1);
            _mm_storeu_ps(b + (l + 2) * NR + j, x2);
            _mm_storeu_ps(b + (l + 3) * NR + j, x3);
        }
        for (; l < depth; l++) {
            for (int64_t i = 0; i < 4; i++) {
                b[l * NR + j + i] = block_load1(from, at + i * ld + l, dt);
            }
        }
    }
    for (; j < NR; j++) {
        for (int64_t l = 0; l < depth; l++) {
            b[l * NR + j] = j < cols ? block_load1(from, first + j * ld + l, dt) : 0.0f;
        }
    }
}

#endif
