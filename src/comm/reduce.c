/* The local sum: the parts that the ranks sent, added in rank order. The order is fixed, so the
 * bits are the same on every rank and in every run, whatever the network did. Blocks keep the
 * accumulator in the first-level cache, so that each source is read once from memory and the result
 * written once. */
#include "comm/internal.h"

#include <string.h>

enum { BLOCK = 1024 };

static int64_t block_size(int64_t n, int64_t begin)
{
    return n - begin < BLOCK ? n - begin : BLOCK;
}

/* NaN wins: a maximum that guards against overflow must not lose it. */
#define FLOAT_MAX(a, b)   ((a) > (b) || (a) != (a) ? (a) : (b))
#define INTEGER_MAX(a, b) ((a) > (b) ? (a) : (b))

#define DEFINE_REDUCE(name, type, larger)                                                          \
    static void name(type *dst, const void *const *source, int sources, int64_t n,                 \
                     enum tri_reduction reduction)                                                 \
    {                                                                                              \
        type sum[BLOCK];                                                                           \
        for (int64_t begin = 0; begin < n; begin += BLOCK) {                                       \
            int64_t size = block_size(n, begin);                                                   \
            memcpy(sum, (const type *)source[0] + begin, (size_t)size * sizeof(type));             \
            for (int s = 1; s < sources; s++) {                                                    \
                const type *x = (const type *)source[s] + begin;                                   \
                if (reduction == TRI_REDUCE_SUM) {                                                 \
                    for (int64_t i = 0; i < size; i++) {                                           \
                        sum[i] += x[i];                                                            \
                    }                                                                              \
                } else {                                                                           \
                    for (int64_t i = 0; i < size; i++) {                                           \
                        sum[i] = larger(sum[i], x[i]);                                             \
                    }                                                                              \
                }                                                                                  \
            }                                                                                      \
            memcpy(dst + begin, sum, (size_t)size * sizeof(type));                                 \
        }                                                                                          \
    }

DEFINE_REDUCE(reduce_f32, float, FLOAT_MAX)
DEFINE_REDUCE(reduce_f64, double, FLOAT_MAX)
DEFINE_REDUCE(reduce_i32, int32_t, INTEGER_MAX)
DEFINE_REDUCE(reduce_i64, int64_t, INTEGER_MAX)

static void reduce_bf16(uint16_t *dst, const void *const *source, int sources, int64_t n,
                        enum tri_reduction reduction)
{
    float sum[BLOCK];
    for (int64_t begin = 0; begin < n; begin += BLOCK) {
        int64_t size = block_size(n, begin);
        const uint16_t *first = (const uint16_t *)source[0] + begin;
        for (int64_t i = 0; i < size; i++) {
            sum[i] = tri_bf16_to_f32(first[i]);
        }
        for (int s = 1; s < sources; s++) {
            const uint16_t *x = (const uint16_t *)source[s] + begin;
            if (reduction == TRI_REDUCE_SUM) {
                for (int64_t i = 0; i < size; i++) {
                    sum[i] += tri_bf16_to_f32(x[i]);
                }
            } else {
                for (int64_t i = 0; i < size; i++) {
                    sum[i] = FLOAT_MAX(sum[i], tri_bf16_to_f32(x[i]));
                }
            }
        }
        for (int64_t i = 0; i < size; i++) {
            dst[begin + i] = tri_f32_to_bf16(sum[i]);
        }
    }
}

void tri_reduce(void *dst, const void *const *source, int sources, int64_t n, enum tri_dtype dtype,
                enum tri_reduction reduction)
{
    switch (dtype) {
    case TRI_F32:
        reduce_f32(dst, source, sources, n, reduction);
        return;
    case TRI_BF16:
        reduce_bf16(dst, source, sources, n, reduction);
        return;
    case TRI_F64:
        reduce_f64(dst, source, sources, n, reduction);
        return;
    case TRI_I32:
        reduce_i32(dst, source, sources, n, reduction);
        return;
    case TRI_I64:
        reduce_i64(dst, source, sources, n, reduction);
        return;
    case TRI_U8:
    case TRI_DTYPE_COUNT:
        break;
    }
    tri_panic(TRI_FAILED, "no reduction of %s", tri_dtype_name(dtype));
}
