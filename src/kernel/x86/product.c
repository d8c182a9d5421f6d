#include "kernel/x86/product.h"

#include "kernel/x86/vec.h"

#include <assert.h>

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
    DEPTH = TRI_PRODUCT_DEPTH,
    A_STRIDE = DEPTH + 16, /* not a power of two: rows would share cache sets */
    ROWS = TRI_PRODUCT_ROWS,
    COLS = TRI_PRODUCT_COLS,
    A_SIZE = ROWS * A_STRIDE,
    B_SIZE = COLS * DEPTH,
    C_SIZE = ROWS * COLS
};
static_assert(ROWS % MR == 0 && COLS % NR == 0, "tiles are whole register blocks");

struct panels {
    float *a; /* rows of A_STRIDE; when A is stored transposed: blocks of [DEPTH, MR] */
    float *b; /* blocks of [DEPTH, NR] */
    float *c; /* blocks of [ROWS, NR] */
};

VEC_INLINE void convert_row(float *to, const void *from, int64_t at, int64_t n, enum tri_dtype dt)
{
    int64_t j = 0;
    for (; j + VEC <= n; j += VEC) {
        vec_store(to, j, VEC, TRI_F32, vec_load(from, at + j, VEC, dt));
    }
    if (j < n) {
        vec_store(to, j, n - j, TRI_F32, vec_load(from, at + j, n - j, dt));
    }
}

VEC_INLINE void pack_a(const struct tri_matmul *p, struct tri_product_tile t, int64_t k,
                       int64_t depth, float *a, enum tri_dtype dt)
{
    if (!p->a_transposed) {
        for (int64_t i = 0; i < t.rows; i++) {
            convert_row(a + i * A_STRIDE, p->a, (t.row + i) * p->lda + k, depth, dt);
        }
        return;
    }
    float row[ROWS + VEC];
    memset(row + t.rows, 0, MR * sizeof(float));
    for (int64_t l = 0; l < depth; l++) {
        convert_row(row, p->a, (k + l) * p->lda + t.row, t.rows, dt);
        for (int64_t i = 0; i < t.rows; i += MR) {
            memcpy(a + i * DEPTH + l * MR, row + i, MR * sizeof(float));
        }
    }
}

VEC_INLINE __m128 load4(const void *p, int64_t at, enum tri_dtype dt)
{
    if (dt == TRI_BF16) {
        __m128i x = _mm_loadl_epi64((const __m128i *)(const void *)((const uint16_t *)p + at));
        return _mm_castsi128_ps(_mm_unpacklo_epi16(_mm_setzero_si128(), x));
    }
    return _mm_loadu_ps((const float *)p + at);
}

VEC_INLINE float load1(const void *p, int64_t at, enum tri_dtype dt)
{
    return dt == TRI_BF16 ? tri_bf16_to_f32(((const uint16_t *)p)[at]) : ((const float *)p)[at];
}

/* One block of B stored [n, k]: columns col .. col + cols (at most NR) turned into rows. */
VEC_INLINE void pack_b_turned(const struct tri_matmul *p, int64_t col, int64_t cols, int64_t k,
                              int64_t depth, float *b, enum tri_dtype dt)
{
    int64_t j = 0;
    for (; j + 4 <= cols; j += 4) {
        int64_t at = (col + j) * p->ldb + k, l = 0;
        for (; l + 4 <= depth; l += 4) {
            __m128 x0 = load4(p->b, at + l, dt), x1 = load4(p->b, at + l + p->ldb, dt);
            __m128 x2 = load4(p->b, at + l + 2 * p->ldb, dt);
            __m128 x3 = load4(p->b, at + l + 3 * p->ldb, dt);
            _MM_TRANSPOSE4_PS(x0, x1, x2, x3);
            _mm_storeu_ps(b + l * NR + j, x0);
            _mm_storeu_ps(b + (l + 1) * NR + j, x1);
            _mm_storeu_ps(b + (l + 2) * NR + j, x2);
            _mm_storeu_ps(b + (l + 3) * NR + j, x3);
        }
        for (; l < depth; l++) {
            for (int64_t i = 0; i < 4; i++) {
                b[l * NR + j + i] = load1(p->b, at + i * p->ldb + l, dt);
            }
        }
    }
    for (; j < NR; j++) {
        for (int64_t l = 0; l < depth; l++) {
            b[l * NR + j] = j < cols ? load1(p->b, (col + j) * p->ldb + k + l, dt) : 0.0f;
        }
    }
}

VEC_INLINE void pack_b(const struct tri_matmul *p, struct tri_product_tile t, int64_t k,
                       int64_t depth, float *b, enum tri_dtype dt)
{
    for (int64_t j = 0; p->b_transposed && j < t.cols; j += NR) {
        int64_t cols = t.cols - j < NR ? t.cols - j : NR;
        pack_b_turned(p, t.col + j, cols, k, depth, b + j * DEPTH, dt);
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

/* Sums of the register block: c[rows, NR] = start + a[rows, depth] b[depth, NR], where a's element
 * (i, l) is at i * row + l * step and start's rows are start_row apart (0: one row for all). */
struct block {
    const float *a, *b, *start;
    float *c;
    int64_t row, step, start_row, c_row, depth;
};

VEC_INLINE void multiply(struct block s, const int rows)
{
    vec_f32 sum[MR][NV];
    for (int i = 0; i < rows; i++) {
        for (int v = 0; v < NV; v++) {
            sum[i][v] = vec_load(s.start, i * s.start_row + v * VEC, VEC, TRI_F32);
        }
    }
    for (int64_t l = 0; l < s.depth; l++) {
        vec_f32 y0 = vec_load(s.b, l * NR, VEC, TRI_F32);
        vec_f32 y1 = vec_load(s.b, l * NR + VEC, VEC, TRI_F32);
        for (int i = 0; i < rows; i++) {
            vec_f32 x = vec_set(s.a[i * s.row + l * s.step]);
            sum[i][0] = vec_fma(x, y0, sum[i][0]);
            sum[i][1] = vec_fma(x, y1, sum[i][1]);
        }
    }
    for (int i = 0; i < rows; i++) {
        for (int v = 0; v < NV; v++) {
            vec_store(s.c, i * s.c_row + v * VEC, VEC, TRI_F32, sum[i][v]);
        }
    }
}

VEC_INLINE void skip_rows(struct block *s, int64_t rows)
{
    s->a += rows * s->row;
    s->c += rows * s->c_row;
    s->start += rows * s->start_row;
}

/* All rows of one block of columns. turned: A is stored transposed. */
VEC_INLINE void multiply_rows(struct block s, int64_t rows, bool turned)
{
    s.row = turned ? 1 : A_STRIDE;
    s.step = turned ? MR : 1;
    for (; rows >= MR; rows -= MR) {
        multiply(s, MR);
        skip_rows(&s, MR);
        s.a += turned ? (DEPTH - 1) * MR : 0;
    }
    for (; rows >= 8; rows -= 8, skip_rows(&s, 8)) {
        multiply(s, MR < 8 ? MR : 8);
    }
    for (; rows >= 4; rows -= 4, skip_rows(&s, 4)) {
        multiply(s, 4);
    }
    for (; rows >= 2; rows -= 2, skip_rows(&s, 2)) {
        multiply(s, 2);
    }
    if (rows) {
        multiply(s, 1);
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
        multiply_rows(block, t.rows, true);
    } else {
        multiply_rows(block, t.rows, false);
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
