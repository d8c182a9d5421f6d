#include "kernel/x86/product.h"

#include "kernel/x86/block.h"

#include <assert.h>

enum {
    DEPTH = TRI_PRODUCT_DEPTH,
    ROWS = TRI_PRODUCT_ROWS,
    COLS = TRI_PRODUCT_COLS,
    A_SIZE = ROWS * BLOCK_STRIDE,
    B_SIZE = COLS * DEPTH,
    C_SIZE = ROWS * COLS
};
static_assert(ROWS % MR == 0 && COLS % NR == 0 && (int)DEPTH == (int)BLOCK_DEPTH,
              "tiles are whole register blocks");

/* A stored transposed: groups of [DEPTH, MR]. */
static const struct block_layout turned = {1, MR, DEPTH *MR};

struct panels {
    float *a; /* rows of BLOCK_STRIDE; when A is stored transposed: blocks of [DEPTH, MR] */
    float *b; /* blocks of [DEPTH, NR] */
    float *c; /* blocks of [ROWS, NR] */
};

VEC_INLINE void pack_a(const struct tri_matmul *p, struct tri_product_tile t, int64_t k,
                       int64_t depth, float *a, enum tri_dtype dt)
{
    if (!p->a_transposed) {
        for (int64_t i = 0; i < t.rows; i++) {
            block_convert(a + i * BLOCK_STRIDE, p->a, (t.row + i) * p->lda + k, depth, dt);
        }
        return;
    }
    float row[ROWS + VEC];
    memset(row + t.rows, 0, MR * sizeof(float));
    for (int64_t l = 0; l < depth; l++) {
        block_convert(row, p->a, (k + l) * p->lda + t.row, t.rows, dt);
        for (int64_t i = 0; i < t.rows; i += MR) {
            memcpy(a + i * DEPTH + l * MR, row + i, MR * sizeof(float));
        }
    }
}

VEC_INLINE void pack_b(const struct tri_matmul *p, struct tri_product_tile t, int64_t k,
                       int64_t depth, float *b, enum tri_dtype dt)
{
    for (int64_t j = 0; p->b_transposed && j < t.cols; j += NR) {
        int64_t cols = t.cols - j < NR ? t.cols - j : NR;
        block_pack_turned(p->b, (t.col + j) * p->ldb + k, p->ldb, cols, depth, b + j * DEPTH, dt);
    }
    for (int64_t l = 0; !p->b_transposed && l < depth; l++) {
        int64_t at = (k + l) * p->ldb + t.col;
        for (int64_t j = 0; j < t.cols; j += VEC) {
            int64_t n = t.cols - j < VEC ? t.cols - j : VEC;
            vec_store(b, j / NR * NR * DEPTH + l * NR + j % NR, VEC, TRI_F32,
                      vec_load(p->b, at + j, n, dt));
        }
    }
}

/* Rows of the result between memory and a block's scratch. */
VEC_INLINE void copy_rows(const struct tri_matmul *p, struct tri_product_tile t, int64_t col,
                          float *scratch, bool store, enum tri_dtype dt)
{
    for (int64_t i = 0; i < t.rows; i++) {
        int64_t at = (t.row + i) * p->ldc + t.col + col;
        for (int64_t j = 0; j < NR && col + j < t.cols; j += VEC) {
            int64_t n = vec_smaller(VEC, t.cols - col - j);
            if (store) {
                vec_store(p->c, at + j, n, dt, vec_load(scratch, i * NR + j, VEC, TRI_F32));
            } else {
                vec_store(scratch, i * NR + j, VEC, TRI_F32, vec_load(p->c, at + j, n, dt));
            }
        }
    }
}

/* Adds depth steps to the block of columns that begins `col` columns into the tile. A whole block of
 * an f32 result is its own scratch. */
VEC_INLINE void add_block(const struct tri_matmul *p, struct tri_product_tile t, struct panels s,
                          int64_t k, int64_t depth, int64_t col)
{
    float start[NR] = {0};
    bool first = k == 0, whole = p->c_dtype == TRI_F32 && t.cols - col >= NR;
    struct block block = {.a = s.a, .b = s.b + col * DEPTH, .depth = depth};
    block.c = whole ? (float *)p->c + t.row * p->ldc + t.col + col : s.c + col * ROWS;
    block.c_row = whole ? p->ldc : NR;
    block.start = block.c;
    block.start_row = block.c_row;
    if (first && !p->accumulate) {
        if (p->bias) {
            memcpy(start, (const float *)p->bias + t.col + col,
                   (size_t)vec_smaller(NR, t.cols - col) * sizeof(float));
        }
        block.start = start;
        block.start_row = 0;
    } else if (first && !whole) {
        copy_rows(p, t, col, block.c, false, p->c_dtype);
    }
    if (p->a_transposed) {
        block_multiply_rows(block, turned, t.rows);
    } else {
        block_multiply_rows(block, block_rows, t.rows);
    }
    if (!whole && k + depth == p->k) {
        copy_rows(p, t, col, block.c, true, p->c_dtype);
    }
}

static void compute(const struct tri_matmul *product, struct tri_product_tile tile, void *scratch)
{
    const struct tri_matmul *p = product;
    struct panels s = {.a = scratch};
    s.b = s.a + A_SIZE;
    s.c = s.b + B_SIZE;
    int64_t k = 0;
    do {
        int64_t depth = vec_smaller(p->k - k, DEPTH);
        if (p->ab_dtype == TRI_BF16) {
            pack_a(p, tile, k, depth, s.a, TRI_BF16);
            pack_b(p, tile, k, depth, s.b, TRI_BF16);
        } else {
            pack_a(p, tile, k, depth, s.a, TRI_F32);
            pack_b(p, tile, k, depth, s.b, TRI_F32);
        }
        for (int64_t j = 0; j < tile.cols; j += NR) {
            add_block(p, tile, s, k, depth, j);
        }
        k += depth;
    } while (k < p->k);
}

const struct tri_product_isa VEC_NAME(tri_product) = {
    .rows = MR,
    .cols = NR,
    .scratch = (A_SIZE + B_SIZE + C_SIZE) * sizeof(float),
    .compute = compute,
};
