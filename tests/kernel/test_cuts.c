/* What the reproducible mode stands on: in our own tables an element's bits depend on nothing but
 * the operands that it is made of. Each operation is done whole, then piece by piece (some rows,
 * some columns, one head, a stretch of elements), the piece copied to other strides and an odd
 * address, with another number of threads. */
#include "kernel/pair.h"

#include "base/memory.h"
#include "base/random.h"
#include "kernel/ref/ref.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

/* A matrix with its own stride, one element past an aligned address. */
struct matrix {
    enum tri_dtype dt;
    int64_t rows, cols, ld;
    char *block, *data;
};

static struct matrix matrix_create(int64_t rows, int64_t cols, int64_t gap, enum tri_dtype dt)
{
    struct matrix m = {.dt = dt, .rows = rows, .cols = cols, .ld = cols + gap};
    m.block = tri_alloc(TRI_MEMORY_OTHER, (size_t)(rows * m.ld + 1) * tri_dtype_size(dt));
    m.data = m.block + tri_dtype_size(dt);
    return m;
}

static struct matrix matrix_draw(int64_t rows, int64_t cols, int64_t gap, enum tri_dtype dt)
{
    static uint64_t seed;
    seed++;
    struct matrix m = matrix_create(rows, cols, gap, dt);
    for (int64_t i = 0; i < rows * m.ld; i++) {
        ref_set(m.data, i, dt, 2.0 * tri_random_uniform(seed, 0, (uint64_t)i) - 1.0);
    }
    return m;
}

static void *at(const struct matrix *m, int64_t row, int64_t col)
{
    return m->data + (size_t)(row * m->ld + col) * tri_dtype_size(m->dt);
}

/* Rows [row, row + rows) and columns [col, col + cols) of m, in a matrix of their own. */
static struct matrix piece(const struct matrix *m, int64_t row, int64_t rows, int64_t col,
                           int64_t cols, int64_t gap)
{
    struct matrix p = matrix_create(rows, cols, gap, m->dt);
    for (int64_t i = 0; i < rows; i++) {
        memcpy(at(&p, i, 0), at(m, row + i, col), (size_t)cols * tri_dtype_size(m->dt));
    }
    return p;
}

static void assert_piece(const struct matrix *p, const struct matrix *m, int64_t row, int64_t col,
                         const char *what)
{
    for (int64_t i = 0; i < p->rows; i++) {
        if (memcmp(at(p, i, 0), at(m, row + i, col), (size_t)p->cols * tri_dtype_size(m->dt)) !=
            0) {
            fail_msg("%s: other bits in row %lld of the piece at (%lld, %lld)", what, (long long)i,
                     (long long)row, (long long)col);
        }
    }
}

static void end(struct matrix *const *matrices, int count)
{
    for (int i = 0; i < count; i++) {
        tri_free(matrices[i]->block);
    }
}
#define END(...)                                                                                   \
    end((struct matrix *const[]){__VA_ARGS__},                                                     \
        (int)(sizeof((struct matrix *const[]){__VA_ARGS__}) / sizeof(struct matrix *)))

/* ---- products -------------------------------------------------------------------------------- */

enum { M = 61, N = 530, K = 300 };

struct block {
    int64_t row, rows, col, cols;
};
static const struct block blocks[] = {
    {0, M, 0, N}, {7, 1, 0, N}, {3, 29, 5, 33}, {0, M, 265, 265}, {48, 13, 511, 19}, {60, 1, 1, 1},
};
enum { BLOCKS = sizeof(blocks) / sizeof(*blocks) };

static struct tri_fixed fixed = {.limit = 1024.0F};

static struct tri_matmul product_of(const struct matrix *a, bool a_transposed,
                                    const struct matrix *b, bool b_transposed,
                                    const struct matrix *c)
{
    return (struct tri_matmul){
        .m = c->rows,
        .n = c->cols,
        .k = a_transposed ? a->rows : a->cols,
        .a = a->data,
        .b = b->data,
        .c = c->data,
        .lda = a->ld,
        .ldb = b->ld,
        .ldc = c->ld,
        .ab_dtype = a->dt,
        .c_dtype = c->dt,
        .a_transposed = a_transposed,
        .b_transposed = b_transposed,
        .fixed = c->dt == TRI_I64 ? &fixed : NULL,
    };
}

static void check_product(const struct tri_kernels *fast, enum tri_dtype dt, enum tri_dtype result,
                          unsigned variant)
{
    bool at_ = variant & 1U, bt = variant & 2U;
    struct matrix a = at_ ? matrix_draw(K, M, 3, dt) : matrix_draw(M, K, 2, dt);
    struct matrix b = bt ? matrix_draw(N, K, 1, dt) : matrix_draw(K, N, 5, dt);
    struct matrix c = matrix_create(M, N, 7, result);
    struct tri_matmul whole = product_of(&a, at_, &b, bt, &c);
    tri_kernels_set_threads(3);
    fast->matmul(&whole);
    for (int i = 0; i < BLOCKS; i++) {
        struct block s = blocks[i];
        struct matrix pa =
            at_ ? piece(&a, 0, K, s.row, s.rows, 1) : piece(&a, s.row, s.rows, 0, K, 4);
        struct matrix pb =
            bt ? piece(&b, s.col, s.cols, 0, K, 2) : piece(&b, 0, K, s.col, s.cols, 0);
        struct matrix pc = matrix_create(s.rows, s.cols, i, result);
        struct tri_matmul part = product_of(&pa, at_, &pb, bt, &pc);
        tri_kernels_set_threads(i % 2 + 1);
        fast->matmul_grouped(&part, 1);
        assert_piece(&pc, &c, s.row, s.col, "product");
        END(&pa, &pb, &pc);
    }
    tri_kernels_set_threads(2);
    END(&a, &b, &c);
}

static void check_products(const struct tri_kernels *fast, enum tri_dtype dt)
{
    for (unsigned variant = 0; variant < 4; variant++) {
        check_product(fast, dt, TRI_F32, variant);
        check_product(fast, dt, dt, variant);
        check_product(fast, dt, TRI_I64, variant);
    }
}

/* Cut k: one call with all parts, and one call for each part, in another order. */
static void check_parts(const struct tri_kernels *fast, enum tri_dtype dt)
{
    static const int64_t cuts[] = {0, 1, 1, 130, 257, K};
    enum { PARTS = sizeof(cuts) / sizeof(*cuts) - 1 };
    struct matrix a = matrix_draw(K, M, 0, dt), b = matrix_draw(K, N, 0, dt);
    struct matrix together = matrix_create(M, N, 0, TRI_I64),
                  apart = matrix_create(M, N, 3, TRI_I64);
    struct tri_matmul all = product_of(&a, true, &b, false, &together);
    all.cuts = cuts;
    all.parts = PARTS;
    fast->matmul(&all);
    for (int i = PARTS - 1; i >= 0; i--) {
        struct matrix pa = piece(&a, cuts[i], cuts[i + 1] - cuts[i], 0, M, 1);
        struct matrix pb = piece(&b, cuts[i], cuts[i + 1] - cuts[i], 0, N, 2);
        struct tri_matmul one = product_of(&pa, true, &pb, false, &apart);
        fast->matmul(&one);
        END(&pa, &pb);
    }
    assert_piece(&apart, &together, 0, 0, "parts");
    END(&a, &b, &together, &apart);
}

/* ---- attention ------------------------------------------------------------------------------- */

enum { BATCH = 2, SEQ = 147, KV = 3, GROUP = 2, HEADS = KV * GROUP, DIM = 20 };

struct attention {
    struct matrix q, k, v, out, lse, dout, dq, dk, dv;
};

static void attend(const struct tri_kernels *fast, struct attention *t, const int32_t *first_key)
{
    struct tri_attention a = {
        .batch = t->q.rows / SEQ,
        .q_len = SEQ,
        .k_len = SEQ,
        .heads = t->q.cols / DIM,
        .kv_heads = t->k.cols / DIM,
        .dim = DIM,
        .group = GROUP,
        .scale = 0.3,
        .first_key = first_key,
        .q = t->q.data,
        .k = t->k.data,
        .v = t->v.data,
        .ld_q = t->q.ld,
        .ld_k = t->k.ld,
        .ld_v = t->v.ld,
        .out = t->out.data,
        .ld_out = t->out.ld,
        .lse = t->lse.data,
        .dout = t->dout.data,
        .ld_dout = t->dout.ld,
        .dq = t->dq.data,
        .dk = t->dk.data,
        .dv = t->dv.data,
        .ld_dq = t->dq.ld,
        .ld_dk = t->dk.ld,
        .ld_dv = t->dv.ld,
    };
    fast->attention_forward(&a, t->q.dt);
    fast->attention_backward(&a, t->q.dt);
}

static void attention_end(struct attention *t)
{
    END(&t->q, &t->k, &t->v, &t->out, &t->lse, &t->dout, &t->dq, &t->dk, &t->dv);
}

static void check_attention(const struct tri_kernels *fast, enum tri_dtype dt)
{
    enum { ROWS = BATCH * SEQ, WIDE = HEADS * DIM, NARROW = KV * DIM, ONE = GROUP * DIM };
    int32_t first_key[ROWS];
    for (int i = 0; i < ROWS; i++) {
        first_key[i] = i % SEQ < 133 ? 0 : 131; /* a second document */
    }
    struct attention w = {
        matrix_draw(ROWS, WIDE, 3, dt),         matrix_draw(ROWS, NARROW, 1, dt),
        matrix_draw(ROWS, NARROW, 0, dt),       matrix_create(ROWS, WIDE, 2, dt),
        matrix_create(ROWS, HEADS, 0, TRI_F32), matrix_draw(ROWS, WIDE, 1, dt),
        matrix_create(ROWS, WIDE, 0, dt),       matrix_create(ROWS, NARROW, 4, dt),
        matrix_create(ROWS, NARROW, 2, dt)};
    tri_kernels_set_threads(3);
    attend(fast, &w, first_key);
    for (int64_t i = 0; i < BATCH * KV; i++) {
        int64_t row = i / KV * SEQ, kv = i % KV * DIM, q = i % KV * ONE;
        struct attention p = {
            piece(&w.q, row, SEQ, q, ONE, i),      piece(&w.k, row, SEQ, kv, DIM, 0),
            piece(&w.v, row, SEQ, kv, DIM, 2),     matrix_create(SEQ, ONE, 0, dt),
            matrix_create(SEQ, GROUP, 0, TRI_F32), piece(&w.dout, row, SEQ, q, ONE, 1),
            matrix_create(SEQ, ONE, 1, dt),        matrix_create(SEQ, DIM, 3, dt),
            matrix_create(SEQ, DIM, 0, dt)};
        tri_kernels_set_threads(1);
        attend(fast, &p, first_key + row);
        assert_piece(&p.out, &w.out, row, q, "attention out");
        assert_piece(&p.lse, &w.lse, row, i % KV * GROUP, "attention lse");
        assert_piece(&p.dq, &w.dq, row, q, "attention dq");
        assert_piece(&p.dk, &w.dk, row, kv, "attention dk");
        assert_piece(&p.dv, &w.dv, row, kv, "attention dv");
        attention_end(&p);
    }
    tri_kernels_set_threads(2);
    attention_end(&w);
}

/* ---- rows ------------------------------------------------------------------------------------ */

enum { TOKENS = 300, WIDTH = 333 };

static const struct block stretches[] = {
    {0, 1, 0, 0}, {1, 8, 0, 0}, {9, 290, 0, 0}, {299, 1, 0, 0}};
enum { STRETCHES = sizeof(stretches) / sizeof(*stretches) };

static void check_norms(const struct tri_kernels *fast, enum tri_dtype dt)
{
    struct matrix x = matrix_draw(TOKENS, WIDTH, 0, dt), add = matrix_draw(TOKENS, WIDTH, 0, dt);
    struct matrix sum = matrix_create(TOKENS, WIDTH, 0, dt),
                  y = matrix_create(TOKENS, WIDTH, 0, dt);
    struct matrix w = matrix_draw(1, WIDTH, 0, TRI_F32),
                  stats = matrix_create(TOKENS, 2, 0, TRI_F32);
    struct matrix dx = matrix_draw(TOKENS, WIDTH, 0, dt), dw = matrix_create(2, WIDTH, 0, TRI_F32);
    for (int rms = 0; rms < 2; rms++) {
        struct matrix before = piece(&dx, 0, TOKENS, 0, WIDTH, 0);
        const void *bias = rms ? NULL : w.data;
        void *dbias = rms ? NULL : at(&dw, 1, 0);
        tri_kernels_set_threads(3);
        fast->norm_forward(rms, x.data, add.data, sum.data, w.data, bias, 1e-5, y.data, stats.data,
                           TOKENS, WIDTH, dt);
        fast->norm_backward(rms, y.data, sum.data, w.data, stats.data, dx.data, dw.data, dbias,
                            TOKENS, WIDTH, dt);
        tri_kernels_set_threads(1);
        for (int i = 0; i < STRETCHES; i++) {
            int64_t row = stretches[i].row, n = stretches[i].rows;
            struct matrix px = piece(&x, row, n, 0, WIDTH, 0);
            struct matrix padd = piece(&add, row, n, 0, WIDTH, 0);
            struct matrix psum = matrix_create(n, WIDTH, 0, dt),
                          py = matrix_create(n, WIDTH, 0, dt);
            struct matrix pstats = matrix_create(n, 2, 0, TRI_F32);
            struct matrix pdx = piece(&before, row, n, 0, WIDTH, 0);
            fast->norm_forward(rms, px.data, padd.data, psum.data, w.data, bias, 1e-5, py.data,
                               pstats.data, n, WIDTH, dt);
            fast->norm_backward(rms, py.data, psum.data, w.data, pstats.data, pdx.data, dw.data,
                                dbias, n, WIDTH, dt);
            assert_piece(&psum, &sum, row, 0, "norm's sum");
            assert_piece(&py, &y, row, 0, "norm");
            assert_piece(&pstats, &stats, row, 0, "norm's statistics");
            assert_piece(&pdx, &dx, row, 0, "norm's backward");
            END(&px, &padd, &psum, &py, &pstats, &pdx);
        }
        END(&before);
    }
    tri_kernels_set_threads(2);
    END(&x, &add, &sum, &y, &w, &stats, &dx, &dw);
}

static struct tri_rows rows_of(const struct matrix *m)
{
    return (struct tri_rows){m->data, m->rows, 1, m->cols, m->ld, m->cols};
}

/* q/k norm and rotation of one head among others, and of some rows. */
static void check_heads(const struct tri_kernels *fast, enum tri_dtype dt)
{
    enum { HEAD = 36, INNER = 3 };
    struct matrix x = matrix_draw(TOKENS, INNER * HEAD, 5, dt);
    struct matrix y = matrix_create(TOKENS, INNER * HEAD, 0, dt);
    struct matrix dy = matrix_draw(TOKENS, INNER * HEAD, 1, dt);
    struct matrix w = matrix_draw(1, HEAD, 0, TRI_F32), dw = matrix_create(1, HEAD, 0, TRI_F32);
    struct matrix squares = matrix_create(TOKENS, INNER, 0, TRI_F32);
    struct matrix dots = matrix_create(TOKENS, INNER, 0, TRI_F32);
    struct matrix table = matrix_draw(TOKENS, HEAD, 0, TRI_F32);
    int32_t positions[TOKENS];
    for (int i = 0; i < TOKENS; i++) {
        positions[i] = TOKENS - 1 - i;
    }
    struct matrix dy_before = piece(&dy, 0, TOKENS, 0, INNER * HEAD, 0);
    struct tri_rows vx = {x.data, TOKENS, INNER, HEAD, x.ld, HEAD};
    struct tri_rows vy = {y.data, TOKENS, INNER, HEAD, y.ld, HEAD};
    struct tri_rows vdy = {dy.data, TOKENS, INNER, HEAD, dy.ld, HEAD};
    tri_kernels_set_threads(3);
    fast->rms_squares(vx, squares.data, dt);
    fast->rms_apply(vx, squares.data, w.data, vy, dt);
    fast->rope(vy, table.data, positions, false, dt);
    fast->rms_dots(vdy, vx, w.data, dots.data, dt);
    fast->rms_backward(vdy, vx, squares.data, w.data, dots.data, HEAD, dw.data, dt);
    tri_kernels_set_threads(1);
    for (int i = 0; i < STRETCHES * INNER; i++) {
        int64_t row = stretches[i / INNER].row, n = stretches[i / INNER].rows, head = i % INNER;
        struct matrix px = piece(&x, row, n, head * HEAD, HEAD, i);
        struct matrix py = matrix_create(n, HEAD, 2, dt);
        struct matrix pdy = piece(&dy_before, row, n, head * HEAD, HEAD, 3);
        struct matrix psquares = matrix_create(n, 1, 0, TRI_F32),
                      pdots = matrix_create(n, 1, 0, TRI_F32);
        fast->rms_squares(rows_of(&px), psquares.data, dt);
        fast->rms_apply(rows_of(&px), psquares.data, w.data, rows_of(&py), dt);
        fast->rope(rows_of(&py), table.data, positions + row, false, dt);
        fast->rms_dots(rows_of(&pdy), rows_of(&px), w.data, pdots.data, dt);
        fast->rms_backward(rows_of(&pdy), rows_of(&px), psquares.data, w.data, pdots.data, HEAD,
                           dw.data, dt);
        assert_piece(&psquares, &squares, row, head, "squares");
        assert_piece(&py, &y, row, head * HEAD, "q/k norm and rope");
        assert_piece(&pdots, &dots, row, head, "dots");
        assert_piece(&pdy, &dy, row, head * HEAD, "q/k norm's backward");
        END(&px, &py, &pdy, &psquares, &pdots);
    }
    tri_kernels_set_threads(2);
    END(&x, &y, &dy, &w, &dw, &squares, &dots, &table, &dy_before);
}

/* Some columns of an activation, gate and up apart. */
static void check_activation(const struct tri_kernels *fast, enum tri_dtype dt)
{
    static const enum tri_activation kinds[] = {TRI_ACTIVATION_SWIGLU, TRI_ACTIVATION_GELU_TANH,
                                                TRI_ACTIVATION_GELU_ERF};
    static const struct block cuts[] = {
        {0, 0, 0, 83}, {0, 0, 83, 84}, {0, 0, 167, 166}, {0, 0, 5, 1}};
    for (int kind = 0; kind < 3; kind++) {
        int64_t halves = kind == 0 ? 2 : 1;
        struct matrix in = matrix_draw(TOKENS, halves * WIDTH, 0, dt);
        struct matrix out = matrix_create(TOKENS, WIDTH, 0, dt),
                      dout = matrix_draw(TOKENS, WIDTH, 0, dt);
        struct matrix din = matrix_create(TOKENS, halves * WIDTH, 0, dt);
        tri_kernels_set_threads(3);
        fast->activation_forward(kinds[kind], in.data, out.data, TOKENS, WIDTH, dt);
        fast->activation_backward(kinds[kind], in.data, dout.data, din.data, TOKENS, WIDTH, dt);
        tri_kernels_set_threads(1);
        for (int i = 0; i < 4; i++) {
            int64_t col = cuts[i].col, n = cuts[i].cols;
            struct matrix pin = matrix_create(TOKENS, halves * n, 0, dt);
            for (int64_t row = 0; row < TOKENS; row++) {
                for (int64_t h = 0; h < halves; h++) {
                    memcpy(at(&pin, row, h * n), at(&in, row, h * WIDTH + col),
                           (size_t)n * tri_dtype_size(dt));
                }
            }
            struct matrix pout = matrix_create(TOKENS, n, 0, dt);
            struct matrix pdout = piece(&dout, 0, TOKENS, col, n, 0);
            struct matrix pdin = matrix_create(TOKENS, halves * n, 0, dt);
            fast->activation_forward(kinds[kind], pin.data, pout.data, TOKENS, n, dt);
            fast->activation_backward(kinds[kind], pin.data, pdout.data, pdin.data, TOKENS, n, dt);
            assert_piece(&pout, &out, 0, col, "activation");
            for (int64_t h = 0; h < halves; h++) {
                struct matrix half = piece(&pdin, 0, TOKENS, h * n, n, 0);
                assert_piece(&half, &din, 0, h * WIDTH + col, "activation's backward");
                END(&half);
            }
            END(&pin, &pout, &pdout, &pdin);
        }
        tri_kernels_set_threads(2);
        END(&in, &out, &dout, &din);
    }
}

/* ---- loss and routes ------------------------------------------------------------------------- */

static void check_loss(const struct tri_kernels *fast, enum tri_dtype dt)
{
    struct matrix logits = matrix_draw(TOKENS, WIDTH, 4, TRI_F32);
    struct matrix maxima = matrix_create(TOKENS, 1, 0, TRI_F32);
    struct matrix sums = matrix_create(TOKENS, 1, 0, TRI_F32),
                  picked = matrix_create(TOKENS, 1, 0, TRI_F32);
    struct matrix d = matrix_create(TOKENS, WIDTH, 0, dt);
    int32_t targets[TOKENS];
    for (int i = 0; i < TOKENS; i++) {
        targets[i] = i * 7 % 500;
    }
    tri_kernels_set_threads(3);
    fast->cross_entropy_max(logits.data, logits.ld, WIDTH, maxima.data, TOKENS, TRI_F32);
    fast->cross_entropy_sum(logits.data, logits.ld, WIDTH, maxima.data, targets, 100, sums.data,
                            picked.data, TOKENS, TRI_F32);
    fast->cross_entropy_backward(logits.data, logits.ld, WIDTH, maxima.data, sums.data, targets,
                                 100, 0.25, d.data, d.ld, TOKENS, dt);
    tri_kernels_set_threads(1);
    for (int i = 0; i < STRETCHES; i++) {
        int64_t row = stretches[i].row, n = stretches[i].rows;
        struct matrix p = piece(&logits, row, n, 0, WIDTH, i);
        struct matrix pmaxima = matrix_create(n, 1, 0, TRI_F32);
        struct matrix psums = matrix_create(n, 1, 0, TRI_F32),
                      ppicked = matrix_create(n, 1, 0, TRI_F32);
        struct matrix pd = matrix_create(n, WIDTH, 3, dt);
        fast->cross_entropy_max(p.data, p.ld, WIDTH, pmaxima.data, n, TRI_F32);
        fast->cross_entropy_sum(p.data, p.ld, WIDTH, pmaxima.data, targets + row, 100, psums.data,
                                ppicked.data, n, TRI_F32);
        fast->cross_entropy_backward(p.data, p.ld, WIDTH, pmaxima.data, psums.data, targets + row,
                                     100, 0.25, pd.data, pd.ld, n, dt);
        assert_piece(&pmaxima, &maxima, row, 0, "maxima");
        assert_piece(&psums, &sums, row, 0, "sums of exponentials");
        assert_piece(&ppicked, &picked, row, 0, "picked logits");
        assert_piece(&pd, &d, row, 0, "loss's backward");
        END(&p, &pmaxima, &psums, &ppicked, &pd);
    }
    /* The gradient of a slice of the vocabulary. */
    struct matrix slice = piece(&logits, 0, TOKENS, 41, 100, 1),
                  pd = matrix_create(TOKENS, 100, 0, dt);
    fast->cross_entropy_backward(slice.data, slice.ld, 100, maxima.data, sums.data, targets, 141,
                                 0.25, pd.data, pd.ld, TOKENS, dt);
    assert_piece(&pd, &d, 0, 41, "loss's backward, a slice");
    tri_kernels_set_threads(2);
    END(&logits, &maxima, &sums, &picked, &d, &slice, &pd);
}

static void check_combine(const struct tri_kernels *fast, enum tri_dtype dt)
{
    enum { CHOICES = 2 };
    int32_t index[TOKENS * CHOICES];
    for (int i = 0; i < TOKENS * CHOICES; i++) {
        index[i] = i % 11 == 3 ? -1 : i * 7 % (TOKENS * CHOICES);
    }
    struct matrix rows = matrix_draw(TOKENS * CHOICES, WIDTH, 0, dt);
    struct matrix weight = matrix_draw(TOKENS, CHOICES, 0, TRI_F32);
    struct matrix add = matrix_draw(TOKENS, WIDTH, 0, dt), y = matrix_create(TOKENS, WIDTH, 0, dt);
    struct matrix drows = matrix_create(TOKENS * CHOICES, WIDTH, 0, dt);
    struct matrix dweight = matrix_create(TOKENS, CHOICES, 0, TRI_F32);
    struct matrix scaled = matrix_create(TOKENS, WIDTH, 0, dt),
                  dots = matrix_create(TOKENS, 1, 0, TRI_F32);
    tri_kernels_set_threads(3);
    fast->combine_rows(rows.data, index, weight.data, add.data, y.data, TOKENS, CHOICES, WIDTH, dt);
    fast->combine_rows_backward(add.data, rows.data, index, weight.data, drows.data, dweight.data,
                                TOKENS, CHOICES, WIDTH, dt);
    fast->scale_rows_add(y.data, dots.data, add.data, scaled.data, TOKENS, WIDTH, dt);
    fast->row_dots(y.data, add.data, dots.data, TOKENS, WIDTH, dt);
    tri_kernels_set_threads(1);
    for (int64_t t = 0; t < TOKENS; t += 23) {
        struct matrix pr = piece(&rows, 0, TOKENS * CHOICES, 0, WIDTH, 0);
        struct matrix padd = piece(&add, t, 1, 0, WIDTH, 0), py = matrix_create(1, WIDTH, 0, dt);
        struct matrix pdrows = piece(&drows, 0, TOKENS * CHOICES, 0, WIDTH, 0);
        struct matrix pdweight = matrix_create(1, CHOICES, 0, TRI_F32),
                      pdots = matrix_create(1, 1, 0, TRI_F32);
        fast->combine_rows(pr.data, index + t * CHOICES, at(&weight, t, 0), padd.data, py.data, 1,
                           CHOICES, WIDTH, dt);
        fast->combine_rows_backward(padd.data, pr.data, index + t * CHOICES, at(&weight, t, 0),
                                    pdrows.data, pdweight.data, 1, CHOICES, WIDTH, dt);
        fast->row_dots(py.data, padd.data, pdots.data, 1, WIDTH, dt);
        assert_piece(&py, &y, t, 0, "combine");
        assert_piece(&pdrows, &drows, 0, 0, "combine's backward");
        assert_piece(&pdweight, &dweight, t, 0, "gradients of weights");
        assert_piece(&pdots, &dots, t, 0, "row dots");
        END(&pr, &padd, &py, &pdrows, &pdweight, &pdots);
    }
    tri_kernels_set_threads(2);
    END(&rows, &weight, &add, &y, &drows, &dweight, &scaled, &dots);
}

/* ---- elements -------------------------------------------------------------------------------- */

enum { ELEMENTS = 70001 };

static void update(const struct tri_kernels *fast, struct matrix *const *t, int64_t first,
                   int64_t n, enum tri_dtype dt)
{
    const struct tri_adamw step = {.learning_rate = 1e-2,
                                   .beta1 = 0.9,
                                   .beta2 = 0.95,
                                   .epsilon = 1e-8,
                                   .weight_decay = 0.1,
                                   .correction1 = 0.19,
                                   .correction2 = 0.0975,
                                   .gradient_scale = 0.7};
    fast->fixed_add(at(t[3], 0, first), at(t[5], 0, first), n, &fixed, TRI_F32);
    fast->fixed_get(at(t[5], 0, first), at(t[6], 0, first), n);
    fast->adamw(&step, at(t[0], 0, first), at(t[1], 0, first), at(t[2], 0, first),
                at(t[6], 0, first), TRI_F32, at(t[4], 0, first), dt, n);
    fast->add(at(t[4], 0, first), at(t[4], 0, first), at(t[4], 0, first), n, dt);
    fast->cast(at(t[4], 0, first), dt, at(t[3], 0, first), TRI_F32, n);
}

static void check_elements(const struct tri_kernels *fast, enum tri_dtype dt)
{
    static const int64_t cuts[] = {0, 1, 18, 4096, 33333, ELEMENTS};
    struct matrix whole[7], parts[7];
    struct matrix *w[7], *p[7];
    for (int i = 0; i < 7; i++) {
        enum tri_dtype type = i == 4 ? dt : i == 5 ? TRI_I64 : TRI_F32;
        whole[i] = i == 5 ? matrix_create(1, ELEMENTS, 0, type) : matrix_draw(1, ELEMENTS, 0, type);
        for (int64_t j = 0; i == 2 && j < ELEMENTS; j++) {
            ((float *)(void *)whole[i].data)[j] = fabsf(((float *)(void *)whole[i].data)[j]);
        }
        parts[i] = piece(&whole[i], 0, 1, 0, ELEMENTS, 0);
        w[i] = &whole[i];
        p[i] = &parts[i];
    }
    tri_kernels_set_threads(3);
    update(fast, w, 0, ELEMENTS, dt);
    tri_kernels_set_threads(1);
    for (int i = 0; i < 5; i++) {
        update(fast, p, cuts[i], cuts[i + 1] - cuts[i], dt);
    }
    for (int i = 0; i < 7; i++) {
        assert_piece(&parts[i], &whole[i], 0, 0, "update");
        END(&whole[i], &parts[i]);
    }
    tri_kernels_set_threads(2);
}

/* ---------------------------------------------------------------------------------------------- */

static void run(void **state)
{
    const pair_check *check = *state;
    pair_each_table(*check);
    assert_int_equal(fixed.refused, 0);
}

/* The table that the reproducible mode runs on is one of those. */
static void test_table(void **state)
{
    (void)state;
    const struct tri_kernels *table = tri_kernels_reproducible();
    assert_true(strcmp(table->name, "ref") == 0 || strncmp(table->name, "avx", 3) == 0 ||
                strcmp(table->name, "x86-64") == 0);
}

int main(int argc, char **argv)
{
    static pair_check checks[] = {check_products, check_parts,   check_attention,
                                  check_norms,    check_heads,   check_activation,
                                  check_loss,     check_combine, check_elements};
    static const char *const names[] = {"products",   "parts", "attention", "norms",   "heads",
                                        "activation", "loss",  "combine",   "elements"};
    enum { CHECKS = sizeof(checks) / sizeof(*checks) };
    struct CMUnitTest tests[CHECKS + 1] = {cmocka_unit_test(test_table)};
    for (int i = 0; i < CHECKS; i++) {
        tests[1 + i] = (struct CMUnitTest){names[i], run, NULL, NULL, &checks[i]};
    }
    return pair_run(tests, CHECKS + 1, argc, argv);
}
