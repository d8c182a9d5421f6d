/* What the reproducible mode stands on: in our own tables an element's bits depend on nothing but
 * the operands that it is made of. Each operation is done whole, then piece by piece (some rows,
 * some columns, one head, a stretch of elements), the piece copied to other strides and an odd
 * address, with another number of threads. */
#include "kernel/matrix.h"
#include "kernel/pair.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

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
    fast = pair_threads(fast, 3);
    fast->matmul(fast, &whole);
    for (int i = 0; i < BLOCKS; i++) {
        struct block s = blocks[i];
        struct matrix pa = at_ ? matrix_piece(&a, 0, K, s.row, s.rows, 1)
                               : matrix_piece(&a, s.row, s.rows, 0, K, 4);
        struct matrix pb = bt ? matrix_piece(&b, s.col, s.cols, 0, K, 2)
                              : matrix_piece(&b, 0, K, s.col, s.cols, 0);
        struct matrix pc = matrix_create(s.rows, s.cols, i, result);
        struct tri_matmul part = product_of(&pa, at_, &pb, bt, &pc);
        fast = pair_threads(fast, i % 2 + 1);
        fast->matmul_grouped(fast, &part, 1);
        matrix_assert(&pc, &c, s.row, s.col, "product");
        MATRIX_END(&pa, &pb, &pc);
    }
    MATRIX_END(&a, &b, &c);
}

static void check_products(const struct tri_kernels *fast, enum tri_dtype dt)
{
    for (unsigned variant = 0; variant < 4; variant++) {
        check_product(fast, dt, TRI_F32, variant);
        check_product(fast, dt, TRI_I64, variant);
        if (dt != TRI_F32) {
            check_product(fast, dt, dt, variant);
        }
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
    fast->matmul(fast, &all);
    for (int i = PARTS - 1; i >= 0; i--) {
        struct matrix pa = matrix_piece(&a, cuts[i], cuts[i + 1] - cuts[i], 0, M, 1);
        struct matrix pb = matrix_piece(&b, cuts[i], cuts[i + 1] - cuts[i], 0, N, 2);
        struct tri_matmul one = product_of(&pa, true, &pb, false, &apart);
        fast->matmul(fast, &one);
        MATRIX_END(&pa, &pb);
    }
    matrix_assert(&apart, &together, 0, 0, "parts");
    MATRIX_END(&a, &b, &together, &apart);
}

/* ---- attention ------------------------------------------------------------------------------- */

enum { BATCH = 2, SEQ = 147, KV = 3, GROUP = 2, HEADS = KV * GROUP, DIM = 20 };

struct attention {
    struct matrix q, k, v, out, lse, dout, dq, dk, dv;
};

static void attend(const struct tri_kernels *fast, struct attention *t, const int32_t *first_key)
{
    struct tri_attention a = {
        .dt = t->q.dt,
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
    fast->attention_forward(fast, &a);
    fast->attention_backward(fast, &a);
}

static void attention_end(struct attention *t)
{
    MATRIX_END(&t->q, &t->k, &t->v, &t->out, &t->lse, &t->dout, &t->dq, &t->dk, &t->dv);
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
    fast = pair_threads(fast, 3);
    attend(fast, &w, first_key);
    for (int64_t i = 0; i < BATCH * KV; i++) {
        int64_t row = i / KV * SEQ, kv = i % KV * DIM, q = i % KV * ONE;
        struct attention p = {matrix_piece(&w.q, row, SEQ, q, ONE, i),
                              matrix_piece(&w.k, row, SEQ, kv, DIM, 0),
                              matrix_piece(&w.v, row, SEQ, kv, DIM, 2),
                              matrix_create(SEQ, ONE, 0, dt),
                              matrix_create(SEQ, GROUP, 0, TRI_F32),
                              matrix_piece(&w.dout, row, SEQ, q, ONE, 1),
                              matrix_create(SEQ, ONE, 1, dt),
                              matrix_create(SEQ, DIM, 3, dt),
                              matrix_create(SEQ, DIM, 0, dt)};
        fast = pair_threads(fast, 1);
        attend(fast, &p, first_key + row);
        matrix_assert(&p.out, &w.out, row, q, "attention out");
        matrix_assert(&p.lse, &w.lse, row, i % KV * GROUP, "attention lse");
        matrix_assert(&p.dq, &w.dq, row, q, "attention dq");
        matrix_assert(&p.dk, &w.dk, row, kv, "attention dk");
        matrix_assert(&p.dv, &w.dv, row, kv, "attention dv");
        attention_end(&p);
    }
    attention_end(&w);
}

/* ---- elements -------------------------------------------------------------------------------- */

enum { ELEMENTS = 70001 };

static void update(const struct tri_kernels *fast, struct matrix *const *t, int64_t first,
                   int64_t n, enum tri_dtype dt)
{
    const struct tri_fixed_add_args add = {
        .x = matrix_at(t[3], 0, first),
        .sums = matrix_at(t[5], 0, first),
        .n = n,
        .fixed = &fixed,
        .dt = TRI_F32,
    };
    const struct tri_fixed_get_args get = {
        .sums = add.sums, .n = n, .y = matrix_at(t[6], 0, first)};
    const struct tri_adamw step = {
        .learning_rate = 1e-2,
        .beta1 = 0.9,
        .beta2 = 0.95,
        .epsilon = 1e-8,
        .weight_decay = 0.1,
        .correction1 = 0.19,
        .correction2 = 0.0975,
        .gradient_scale = 0.7,
        .master = matrix_at(t[0], 0, first),
        .m = matrix_at(t[1], 0, first),
        .v = matrix_at(t[2], 0, first),
        .gradient = get.y,
        .gradient_dtype = TRI_F32,
        .weights = matrix_at(t[4], 0, first),
        .weight_dtype = dt,
        .n = n,
    };
    const struct tri_add_args twice = {
        .left = step.weights, .right = step.weights, .y = step.weights, .n = n, .dt = dt};
    const struct tri_cast_args cast = {
        .src = step.weights, .from = dt, .dst = matrix_at(t[3], 0, first), .to = TRI_F32, .n = n};
    fast->fixed_add(fast, &add);
    fast->fixed_get(fast, &get);
    fast->adamw(fast, &step);
    fast->add(fast, &twice);
    fast->cast(fast, &cast);
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
        parts[i] = matrix_piece(&whole[i], 0, 1, 0, ELEMENTS, 0);
        w[i] = &whole[i];
        p[i] = &parts[i];
    }
    fast = pair_threads(fast, 3);
    update(fast, w, 0, ELEMENTS, dt);
    fast = pair_threads(fast, 1);
    for (int i = 0; i < 5; i++) {
        update(fast, p, cuts[i], cuts[i + 1] - cuts[i], dt);
    }
    for (int i = 0; i < 7; i++) {
        matrix_assert(&parts[i], &whole[i], 0, 0, "update");
        MATRIX_END(&whole[i], &parts[i]);
    }
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
    struct tri_kernels *kernels = tri_kernels_create(TRI_KERNELS_REPRODUCIBLE, NULL, 1);
    const struct tri_kernels *same = pair_threads(kernels, 1);
    assert_true(kernels->reproducible);
    assert_string_equal(kernels->name, same->name);
    assert_ptr_equal(kernels->matmul_grouped, same->matmul_grouped);
    tri_kernels_destroy(kernels);
}

int main(int argc, char **argv)
{
    static pair_check checks[] = {check_products, check_parts, check_attention, check_elements};
    static const char *const names[] = {"products", "parts", "attention", "elements"};
    enum { CHECKS = sizeof(checks) / sizeof(*checks) };
    struct CMUnitTest tests[CHECKS + 1] = {cmocka_unit_test(test_table)};
    for (int i = 0; i < CHECKS; i++) {
        tests[1 + i] = (struct CMUnitTest){names[i], run, NULL, NULL, &checks[i]};
    }
    return pair_run(tests, CHECKS + 1, argc, argv);
}
