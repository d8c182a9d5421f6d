/* Products of bf16 by instructions of their own, compiled for both kinds: AVX-512's dot of pairs, and
 * AMX's tiles. Both read words of two bf16 that follow each other in k: A in rows, B in panels
 * [words, NR]; an odd k ends in a word whose second half is zero. */
#include "kernel/x86/product_tile.h"

/* Steps of k packed at a time; AMX takes 32 at once, so rows and panels end in zeros up to that. */
enum { STEPS = 2 * BLOCK_DEPTH, AMX_WORDS = 16 };

static const uint16_t *at_bf16(const void *data, int64_t index)
{
    return (const uint16_t *)data + index;
}

static __m128i load_half(const uint16_t *from, int64_t n)
{
    uint16_t values[4] = {0};
    memcpy(values, from, n < 4 ? sizeof(uint16_t) * (size_t)n : sizeof(values));
    return _mm_loadl_epi64((const __m128i *)(const void *)values);
}

/* Words [word, word + 4) of 4 rows, turned: to[i] gets the i-th word of each. n counts the steps of k
 * left in the rows, rows those that exist. */
static void turn_rows(const uint16_t *from, int64_t ld, int64_t rows, int64_t n, __m128 *to)
{
    for (int64_t i = 0; i < 4; i++) {
        to[i] = _mm_setzero_ps();
        if (i < rows && n >= 8) {
            to[i] = _mm_loadu_ps((const float *)(const void *)(from + i * ld));
        } else if (i < rows) {
            uint16_t values[8] = {0};
            memcpy(values, from + i * ld, sizeof(uint16_t) * (size_t)n);
            to[i] = _mm_loadu_ps((const float *)(const void *)values);
        }
    }
    _MM_TRANSPOSE4_PS(to[0], to[1], to[2], to[3]);
}

/* 4 words, each of one column and of rows k, k + 1 (missing: zeros): from points at row k. */
static __m128i pair_rows(const uint16_t *from, int64_t ld, int64_t cols, int64_t steps)
{
    __m128i even = steps > 0 ? load_half(from, cols) : _mm_setzero_si128();
    __m128i odd = steps > 1 ? load_half(from + ld, cols) : _mm_setzero_si128();
    return _mm_unpacklo_epi16(even, odd);
}

static void pack_a(const struct tri_matmul *p, struct tri_product_tile t, int64_t k, int64_t steps,
                   float *a)
{
    int64_t words = (steps + 2 * AMX_WORDS - 1) / (2 * AMX_WORDS) * AMX_WORDS;
    for (int64_t i = 0; !p->a_transposed && i < t.rows; i++) {
        float *row = a + i * BLOCK_STRIDE;
        memset(row + steps / 2, 0, (size_t)(words - steps / 2) * 4);
        memcpy(row, at_bf16(p->a, (t.row + i) * p->lda + k), (size_t)steps * 2);
    }
    for (int64_t w = 0; p->a_transposed && w < words; w += 4) {
        for (int64_t i = 0; i < t.rows; i += 4) {
            __m128 x[4];
            for (int64_t l = 0; l < 4; l++) {
                int64_t step = 2 * (w + l);
                const uint16_t *from = at_bf16(p->a, (k + step) * p->lda + t.row + i);
                x[l] = _mm_castsi128_ps(pair_rows(from, p->lda, t.rows - i, steps - step));
            }
            _MM_TRANSPOSE4_PS(x[0], x[1], x[2], x[3]);
            for (int64_t r = 0; r < 4 && i + r < t.rows; r++) {
                _mm_storeu_ps(a + (i + r) * BLOCK_STRIDE + w, x[r]);
            }
        }
    }
}

static void pack_b(const struct tri_matmul *p, struct tri_product_tile t, int64_t k, int64_t steps,
                   float *b)
{
    int64_t words = (steps + 2 * AMX_WORDS - 1) / (2 * AMX_WORDS) * AMX_WORDS;
    int64_t cols = (t.cols + NR - 1) / NR * NR;
    for (int64_t j = 0; j < cols; j += 4) {
        float *to = b + j / NR * NR * BLOCK_DEPTH + j % NR;
        int64_t left = t.cols - j < 0 ? 0 : vec_smaller(t.cols - j, 4);
        for (int64_t w = 0; p->b_transposed && w < words; w += 4) {
            __m128 x[4];
            const uint16_t *from = at_bf16(p->b, (t.col + j) * p->ldb + k + 2 * w);
            int64_t n = steps - 2 * w;
            turn_rows(from, p->ldb, left, n < 0 ? 0 : n, x);
            for (int64_t l = 0; l < 4; l++) {
                _mm_storeu_ps(to + (w + l) * NR, x[l]);
            }
        }
        for (int64_t w = 0; !p->b_transposed && w < words; w++) {
            const uint16_t *from = at_bf16(p->b, (k + 2 * w) * p->ldb + t.col + j);
            __m128i x = pair_rows(from, p->ldb, left, steps - 2 * w);
            _mm_storeu_si128((__m128i *)(void *)(to + w * NR), x);
        }
    }
}

VEC_INLINE void dot_multiply(struct block s, const int rows)
{
    vec_f32 sum[MR][NV];
    for (int i = 0; i < rows; i++) {
        sum[i][0] = sum[i][1] = vec_set(0.0f);
    }
    block_prefetch(s, rows);
    for (int64_t l = 0; l < s.depth; l++) {
        __m512bh y0 = (__m512bh)_mm512_loadu_si512(s.b + l * NR);
        __m512bh y1 = (__m512bh)_mm512_loadu_si512(s.b + l * NR + VEC);
        for (int i = 0; i < rows; i++) {
            int32_t pair;
            memcpy(&pair, s.a + i * BLOCK_STRIDE + l, sizeof(pair));
            __m512bh x = (__m512bh)_mm512_set1_epi32(pair);
            sum[i][0] = (vec_f32)_mm512_dpbf16_ps((__m512)sum[i][0], x, y0);
            sum[i][1] = (vec_f32)_mm512_dpbf16_ps((__m512)sum[i][1], x, y1);
        }
    }
    block_finish(s, rows, sum);
}

VEC_INLINE void dot_multiply_rows(const struct tri_matmul *p, struct block s, int64_t rows)
{
    (void)p;
    for (; rows >= MR; rows -= MR, block_skip(&s, MR * BLOCK_STRIDE, MR)) {
        dot_multiply(s, MR);
    }
    for (; rows >= 4; rows -= 4, block_skip(&s, 4 * BLOCK_STRIDE, 4)) {
        dot_multiply(s, 4);
    }
    for (; rows > 0; rows--, block_skip(&s, BLOCK_STRIDE, 1)) {
        dot_multiply(s, 1);
    }
}

VEC_INLINE void compute_with(const struct tri_matmul *p, struct tri_product_tile t, void *scratch,
                             tile_multiply multiply)
{
    struct panels s = tile_panels(scratch);
    int64_t k = 0;
    do {
        int64_t steps = vec_smaller(p->k - k, STEPS);
        pack_a(p, t, k, steps, s.a);
        pack_b(p, t, k, steps, s.b);
        for (int64_t j = 0; j < t.cols; j += NR) {
            tile_add_panel(p, t, s, (steps + 1) / 2, k == 0, k + steps == p->k, j, multiply);
        }
        k += steps;
    } while (k < p->k);
}

static void dot_compute(const struct tri_matmul *product, struct tri_product_tile tile,
                        void *scratch)
{
    compute_with(product, tile, scratch, dot_multiply_rows);
}

const struct tri_product_isa tri_product_avx512_bf16 = {
    .name = "avx512-bf16",
    .rows = MR,
    .cols = NR,
    .scratch = TILE_SCRATCH,
    .compute = dot_compute,
};

/* What _tile_loadconfig reads: eight tiles of 16 rows of 64 bytes. */
struct amx_config {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
};

/* 32 rows, with tiles 0 to 3 as sums, 4 and 5 of A, 6 and 7 of B. */
static void amx_multiply_32(struct block s)
{
    const float *start = s.start + 16 * s.start_row, *a = s.a + 16 * BLOCK_STRIDE;
    float *c = s.c + 16 * s.c_row;
    _tile_loadd(0, s.start, s.start_row * 4);
    _tile_loadd(1, s.start + 16, s.start_row * 4);
    _tile_loadd(2, start, s.start_row * 4);
    _tile_loadd(3, start + 16, s.start_row * 4);
    for (int64_t w = 0; w < s.depth; w += AMX_WORDS) {
        _tile_loadd(4, s.a + w, BLOCK_STRIDE * 4);
        _tile_loadd(6, s.b + w * NR, NR * 4);
        _tile_loadd(7, s.b + w * NR + 16, NR * 4);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
        _tile_loadd(5, a + w, BLOCK_STRIDE * 4);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, s.c, s.c_row * 4);
    _tile_stored(1, s.c + 16, s.c_row * 4);
    _tile_stored(2, c, s.c_row * 4);
    _tile_stored(3, c + 16, s.c_row * 4);
}

/* At most 16 rows, through a copy of their sums. */
static void amx_multiply_16(struct block s, int64_t rows)
{
    float sums[16 * NR] = {0};
    for (int64_t i = 0; i < rows; i++) {
        memcpy(sums + i * NR, s.start + i * s.start_row, NR * sizeof(float));
    }
    _tile_loadd(0, sums, NR * 4);
    _tile_loadd(1, sums + 16, NR * 4);
    for (int64_t w = 0; w < s.depth; w += AMX_WORDS) {
        _tile_loadd(4, s.a + w, BLOCK_STRIDE * 4);
        _tile_loadd(6, s.b + w * NR, NR * 4);
        _tile_loadd(7, s.b + w * NR + 16, NR * 4);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
    }
    _tile_stored(0, sums, NR * 4);
    _tile_stored(1, sums + 16, NR * 4);
    for (int64_t i = 0; i < rows; i++) {
        memcpy(s.c + i * s.c_row, sums + i * NR, NR * sizeof(float));
    }
}

VEC_INLINE void amx_multiply_rows(const struct tri_matmul *p, struct block s, int64_t rows)
{
    (void)p;
    for (; rows >= 32; rows -= 32, block_skip(&s, 32 * BLOCK_STRIDE, 32)) {
        amx_multiply_32(s);
    }
    for (; rows > 0; rows -= 16, block_skip(&s, 16 * BLOCK_STRIDE, 16)) {
        amx_multiply_16(s, vec_smaller(rows, 16));
    }
}

static void amx_compute(const struct tri_matmul *product, struct tri_product_tile tile,
                        void *scratch)
{
    struct amx_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = 16;
    }
    _tile_loadconfig(&config);
    compute_with(product, tile, scratch, amx_multiply_rows);
    _tile_release();
}

const struct tri_product_isa tri_product_amx = {
    .name = "amx",
    .rows = 32,
    .cols = NR,
    .scratch = TILE_SCRATCH,
    .compute = amx_compute,
};
