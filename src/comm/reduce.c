/* The local sum: the parts that the ranks sent, added in one binary tree over the ranks,
 *
 *     ((0 + 1) + (2 + 3)) + ((4 + 5) + 6)          7 ranks: halves at the largest power of two
 *
 * The tree is fixed, so the bits are the same on every rank and in every run, whatever the network
 * did; and where ranks hold the sums of complete subtrees of a finer tree, the bits are the finer
 * tree's. Blocks keep the sums in the first-level cache. */
#include "comm/internal.h"

#include <string.h>

enum { BLOCK = 1024 };

static int64_t block_size(int64_t n, int64_t begin)
{
    return n - begin < BLOCK ? n - begin : BLOCK;
}

/* The sources of the tree's left branch, of 2 or more: the largest power of two below. */
static int left_branch(int sources)
{
    int half = 1;
    while (2 * half < sources) {
        half *= 2;
    }
    return half;
}

/* NaN wins: a maximum that guards against overflow must not lose it. */
#define FLOAT_MAX(a, b)   ((a) > (b) || (a) != (a) ? (a) : (b))
#define INTEGER_MAX(a, b) ((a) > (b) ? (a) : (b))

/* to_sum turns an element of a source into one of the sums, to_result back. */
#define DEFINE_REDUCE(name, type, sum_type, to_sum, to_result, larger)                             \
    static void name##_branch(sum_type *sum, const void *const *source, int sources,               \
                              int64_t begin, int64_t size, enum tri_reduction reduction)           \
    {                                                                                              \
        if (sources == 1) {                                                                        \
            const type *x = (const type *)source[0] + begin;                                       \
            for (int64_t i = 0; i < size; i++) {                                                   \
                sum[i] = to_sum(x[i]);                                                             \
            }                                                                                      \
            return;                                                                                \
        }                                                                                          \
        int left = left_branch(sources);                                                           \
        sum_type right[BLOCK];                                                                     \
        name##_branch(sum, source, left, begin, size, reduction);                                  \
        name##_branch(right, source + left, sources - left, begin, size, reduction);               \
        for (int64_t i = 0; i < size; i++) {                                                       \
            sum[i] = reduction == TRI_REDUCE_SUM ? sum[i] + right[i] : larger(sum[i], right[i]);   \
        }                                                                                          \
    }                                                                                              \
                                                                                                   \
    static void name(type *dst, const void *const *source, int sources, int64_t n,                 \
                     enum tri_reduction reduction)                                                 \
    {                                                                                              \
        sum_type sum[BLOCK];                                                                       \
        for (int64_t begin = 0; begin < n; begin += BLOCK) {                                       \
            int64_t size = block_size(n, begin);                                                   \
            name##_branch(sum, source, sources, begin, size, reduction);                           \
            for (int64_t i = 0; i < size; i++) {                                                   \
                dst[begin + i] = to_result(sum[i]);                                                \
            }                                                                                      \
        }                                                                                          \
    }
#define SAME(x) (x)

DEFINE_REDUCE(reduce_f32, float, float, SAME, SAME, FLOAT_MAX)
DEFINE_REDUCE(reduce_f64, double, double, SAME, SAME, FLOAT_MAX)
DEFINE_REDUCE(reduce_i32, int32_t, int32_t, SAME, SAME, INTEGER_MAX)
DEFINE_REDUCE(reduce_i64, int64_t, int64_t, SAME, SAME, INTEGER_MAX)
DEFINE_REDUCE(reduce_bf16, uint16_t, float, tri_bf16_to_f32, tri_f32_to_bf16, FLOAT_MAX)

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
