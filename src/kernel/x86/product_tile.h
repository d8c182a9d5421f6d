/* What the product kernels share: the scratch of one tile and the way of its sums, from bias or old
 * result through the blocks of k to the result. An element of A or B is here a word of 4 bytes: one
 * f32, or two bf16 that follow each other in k. */
#ifndef TRIDENT_KERNEL_X86_PRODUCT_TILE_H
#define TRIDENT_KERNEL_X86_PRODUCT_TILE_H

#include "kernel/x86/block.h"
#include "kernel/x86/fixed.h"
#include "kernel/x86/product.h"

#include <assert.h>

enum {
    ROWS = TRI_PRODUCT_ROWS,
    COLS = TRI_PRODUCT_COLS,
    A_SIZE = ROWS * BLOCK_STRIDE,
    B_SIZE = COLS * BLOCK_DEPTH,
    C_SIZE = ROWS * COLS,
    TILE_SCRATCH = (A_SIZE + B_SIZE + C_SIZE) * 4
};
static_assert(ROWS % MR == 0 && COLS % NR == 0, "tiles are whole register blocks");

struct panels {
    float *a; /* rows of BLOCK_STRIDE words; f32 stored transposed: groups of [BLOCK_DEPTH, MR] */
    float *b; /* panels of [BLOCK_DEPTH, NR] words */
    float *c; /* panels of [ROWS, NR] sums */
};

VEC_INLINE struct panels tile_panels(void *scratch)
{
    struct panels s = {.a = scratch};
    s.b = s.a + A_SIZE;
    s.c = s.b + B_SIZE;
    return s;
}

/* Rows of the result between memory and a panel of sums. */
VEC_INLINE void tile_copy_rows(const struct tri_matmul *p, struct tri_product_tile t, int64_t col,
                               float *sums, bool store, enum tri_dtype dt)
{
    for (int64_t i = 0; i < t.rows; i++) {
        int64_t at = (t.row + i) * p->ldc + t.col + col;
        for (int64_t j = 0; j < NR && col + j < t.cols; j += VEC) {
            int64_t n = vec_smaller(VEC, t.cols - col - j);
            if (store) {
                vec_store(p->c, at + j, n, dt, vec_load(sums, i * NR + j, VEC, TRI_F32));
            } else {
                vec_store(sums, i * NR + j, VEC, TRI_F32, vec_load(p->c, at + j, n, dt));
            }
        }
    }
}

/* The sums of one panel, each as one term, to a fixed-point result. */
VEC_INLINE void tile_add_fixed(const struct tri_matmul *p, struct tri_product_tile t, int64_t col,
                               const float *sums)
{
    vec_i32 bad = {0};
    for (int64_t i = 0; i < t.rows; i++) {
        int64_t at = (t.row + i) * p->ldc + t.col + col;
        for (int64_t j = 0; j < NR && col + j < t.cols; j += VEC) {
            int64_t n = vec_smaller(VEC, t.cols - col - j);
            fixed_add_at(p->c, at + j, n, vec_load(sums, i * NR + j, n, TRI_F32), p->fixed->limit,
                         &bad);
        }
    }
    fixed_report(p->fixed, bad);
}

/* A stored transposed. */
static const struct block_layout turned = {1, MR, BLOCK_DEPTH *MR};

/* Multiplies rows of A by one panel of B. */
VEC_INLINE void tile_multiply(const struct tri_matmul *p, struct block block, int64_t rows)
{
    if (p->a_transposed) {
        block_multiply_rows(block, turned, rows);
    } else {
        block_multiply_rows(block, block_rows, rows);
    }
}

/* Adds `words` words of k to the panel of columns that begins `col` columns into the tile. A whole
 * panel of an f32 result is its own place of sums. */
VEC_INLINE void tile_add_panel(const struct tri_matmul *p, struct tri_product_tile t,
                               struct panels s, int64_t words, bool first, bool last, int64_t col)
{
    float start[NR] = {0};
    bool whole = p->c_dtype == TRI_F32 && t.cols - col >= NR;
    struct block block = {.a = s.a, .b = s.b + col * BLOCK_DEPTH, .depth = words};
    block.c = whole ? (float *)p->c + t.row * p->ldc + t.col + col : s.c + col * ROWS;
    block.c_row = whole ? p->ldc : NR;
    block.start = block.c;
    block.start_row = block.c_row;
    if (first && (!p->accumulate || p->c_dtype == TRI_I64)) {
        if (p->bias) {
            memcpy(start, (const float *)p->bias + t.col + col,
                   (size_t)vec_smaller(NR, t.cols - col) * sizeof(float));
        }
        block.start = start;
        block.start_row = 0;
    } else if (first && !whole) {
        tile_copy_rows(p, t, col, block.c, false, p->c_dtype);
    }
    tile_multiply(p, block, t.rows);
    if (last && p->c_dtype == TRI_I64) {
        tile_add_fixed(p, t, col, block.c);
    } else if (!whole && last) {
        tile_copy_rows(p, t, col, block.c, true, p->c_dtype);
    }
}

#endif
