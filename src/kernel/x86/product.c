/* Products in f32 arithmetic, of f32 or of bf16 converted while it is packed. */
#include "kernel/x86/product_tile.h"

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
            memcpy(a + i * BLOCK_DEPTH + l * MR, row + i, MR * sizeof(float));
        }
    }
}

VEC_INLINE void pack_b(const struct tri_matmul *p, struct tri_product_tile t, int64_t k,
                       int64_t depth, float *b, enum tri_dtype dt)
{
    for (int64_t j = 0; p->b_transposed && j < t.cols; j += NR) {
        int64_t cols = t.cols - j < NR ? t.cols - j : NR;
        block_pack_turned(p->b, (t.col + j) * p->ldb + k, p->ldb, cols, depth, b + j * BLOCK_DEPTH,
                          dt);
    }
    for (int64_t l = 0; !p->b_transposed && l < depth; l++) {
        int64_t at = (k + l) * p->ldb + t.col;
        for (int64_t j = 0; j < t.cols; j += VEC) {
            int64_t n = t.cols - j < VEC ? t.cols - j : VEC;
            vec_store(b, j / NR * NR * BLOCK_DEPTH + l * NR + j % NR, VEC, TRI_F32,
                      vec_load(p->b, at + j, n, dt));
        }
    }
}

/* Steps [begin, end) of k, from the start of a chain of sums to its end. */
static void compute_part(const struct tri_matmul *p, struct tri_product_tile tile, struct panels s,
                         int64_t begin, int64_t end)
{
    int64_t k = begin;
    do {
        int64_t depth = vec_smaller(end - k, BLOCK_DEPTH);
        if (p->ab_dtype == TRI_BF16) {
            pack_a(p, tile, k, depth, s.a, TRI_BF16);
            pack_b(p, tile, k, depth, s.b, TRI_BF16);
        } else {
            pack_a(p, tile, k, depth, s.a, TRI_F32);
            pack_b(p, tile, k, depth, s.b, TRI_F32);
        }
        for (int64_t j = 0; j < tile.cols; j += NR) {
            tile_add_panel(p, tile, s, depth, k == begin, k + depth == end, j);
        }
        k += depth;
    } while (k < end);
}

static void compute(const struct tri_matmul *product, struct tri_product_tile tile, void *scratch)
{
    struct panels s = tile_panels(scratch);
    if (!product->cuts) {
        compute_part(product, tile, s, 0, product->k);
        return;
    }
    for (int64_t i = 0; i < product->parts; i++) {
        if (product->cuts[i] < product->cuts[i + 1]) {
            compute_part(product, tile, s, product->cuts[i], product->cuts[i + 1]);
        }
    }
}

#define NAME_(isa) #isa
#define NAME(isa)  NAME_(isa)

const struct tri_product_isa VEC_NAME(tri_product) = {
    .name = NAME(TRI_VEC_ISA),
    .rows = MR,
    .cols = NR,
    .scratch = TILE_SCRATCH,
    .compute = compute,
};
