/* What attention's forward and backward share: which keys a query sees, and packing heads. */
#ifndef TRIDENT_KERNEL_X86_ATTENTION_TILE_H
#define TRIDENT_KERNEL_X86_ATTENTION_TILE_H

#include "kernel/x86/attention.h"
#include "kernel/x86/block.h"
#include "kernel/x86/vec_math.h"

#include <math.h>

enum { KEYS = TRI_ATTENTION_KEYS };

static inline int64_t tile_round_up(int64_t n, int64_t step)
{
    return (n + step - 1) / step * step;
}

/* The query heads [first, end) that read a KV head. */
static inline int64_t tile_first_head(const struct tri_attention *a, int64_t kv)
{
    int64_t head = (kv + a->first_kv) * a->group - a->first_head;
    return head > 0 ? head : 0;
}
static inline int64_t tile_end_head(const struct tri_attention *a, int64_t kv)
{
    return vec_smaller((kv + a->first_kv + 1) * a->group - a->first_head, a->heads);
}

/* The last key that query i of a sequence sees, and the first; row is its row of q. */
static inline int64_t tile_last_key(const struct tri_attention *a, int64_t i)
{
    return vec_smaller(a->q_offset + i, a->k_len - 1);
}
static inline int64_t tile_first_key(const struct tri_attention *a, int64_t row)
{
    return a->first_key ? a->first_key[row] : 0;
}

/* The smallest first key of rows [row, row + rows), down to a multiple of KEYS. */
static inline int64_t tile_begin_keys(const struct tri_attention *a, int64_t row, int64_t rows)
{
    int64_t first = tile_first_key(a, row);
    for (int64_t r = 1; r < rows; r++) {
        first = vec_smaller(first, tile_first_key(a, row + r));
    }
    return first > 0 ? first / KEYS * KEYS : 0;
}

/* A rows of BLOCK_DEPTH columns at most; a longer head continues rows_capacity rows further. */
VEC_INLINE void tile_pack_rows(float *to, int64_t rows_capacity, const void *from, int64_t at,
                               int64_t ld, int64_t rows, int64_t dim, float scale,
                               enum tri_dtype dt)
{
    for (int64_t c = 0; c < dim; c += BLOCK_DEPTH, to += rows_capacity * BLOCK_STRIDE) {
        int64_t n = vec_smaller(dim - c, BLOCK_DEPTH);
        for (int64_t r = 0; r < rows; r++) {
            for (int64_t j = 0; j < n; j += VEC) {
                vec_f32 x = vec_load(from, at + r * ld + c + j, vec_smaller(n - j, VEC), dt);
                vec_store(to, r * BLOCK_STRIDE + j, VEC, TRI_F32, x * scale);
            }
        }
    }
}

/* Rows as B panels [rows, NR] of their columns, panel_rows apart, missing columns zero. */
VEC_INLINE void tile_pack_panels(float *to, int64_t panel_rows, const void *from, int64_t at,
                                 int64_t ld, int64_t rows, int64_t dim, float scale,
                                 enum tri_dtype dt)
{
    for (int64_t c = 0; c < dim; c += NR, to += panel_rows * NR) {
        for (int64_t r = 0; r < rows; r++) {
            for (int64_t j = 0; j < NR; j += VEC) {
                vec_f32 x = vec_set(0.0f);
                if (c + j < dim) {
                    int64_t n = vec_smaller(dim - c - j, VEC);
                    x = vec_load(from, at + r * ld + c + j, n, dt) * scale;
                }
                vec_store(to, r * NR + j, VEC, TRI_F32, x);
            }
        }
    }
}

/* Rows turned: panels [dim, NR] of NR rows each. */
VEC_INLINE void tile_pack_turned(float *to, const void *from, int64_t at, int64_t ld, int64_t rows,
                                 int64_t dim, enum tri_dtype dt)
{
    for (int64_t r = 0; r < rows; r += NR, to += dim * NR) {
        block_pack_turned(from, at + r * ld, ld, vec_smaller(rows - r, NR), dim, to, dt);
    }
}

/* scores[rows, keys] = a[rows, dim] times turned panels: as tile_pack_rows and _turned leave
 * them. */
VEC_INLINE void tile_scores(float *scores, const float *a, int64_t rows_capacity, int64_t rows,
                            const float *turned, int64_t keys, int64_t dim)
{
    static const float zeros[NR];
    for (int64_t p = 0; p < keys; p += NR, turned += dim * NR) {
        for (int64_t c = 0; c < dim; c += BLOCK_DEPTH) {
            struct block block = {
                .a = a + c / BLOCK_DEPTH * rows_capacity * BLOCK_STRIDE,
                .b = turned + c * NR,
                .start = c ? scores + p : zeros,
                .start_row = c ? BLOCK_STRIDE : 0,
                .c = scores + p,
                .c_row = BLOCK_STRIDE,
                .depth = vec_smaller(dim - c, BLOCK_DEPTH),
            };
            block_multiply_rows(block, block_rows, rows);
        }
    }
}

/* sums[rows, width] += weights[rows, depth] times panels of panel_rows rows, from row `from` on. */
VEC_INLINE void tile_add(float *sums, int64_t width, const float *weights,
                         const struct block_layout layout, int64_t rows, int64_t depth,
                         const float *panels, int64_t panel_rows, int64_t from)
{
    for (int64_t c = 0; c < width; c += NR) {
        struct block block = {
            .a = weights,
            .b = panels + c * panel_rows + from * NR,
            .start = sums + c,
            .start_row = width,
            .c = sums + c,
            .c_row = width,
            .depth = depth,
        };
        block_multiply_rows(block, layout, rows);
    }
}

/* Lane j is key + j. */
VEC_INLINE vec_i32 tile_key_numbers(int64_t key)
{
    int32_t lanes[VEC];
    for (int j = 0; j < VEC; j++) {
        lanes[j] = (int32_t)key + j;
    }
    vec_i32 numbers;
    memcpy(&numbers, lanes, sizeof(numbers));
    return numbers;
}

#endif
