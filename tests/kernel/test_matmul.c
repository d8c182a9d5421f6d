/* Products: every kernel that the machine can run against the reference, and what callers rely on:
 * a row's bits depend on nothing but the row and B. */
#include "kernel/pair.h"
#include "kernel/x86/onednn.h"
#include "kernel/x86/product.h"
#include "kernel/x86/x86.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

/* Stands for oneDNN among our own kernels. */
static const struct tri_product_isa onednn = {.name = "onednn"};
static const struct tri_product_isa *const kernels[] = {&tri_product_x86_64, &tri_product_avx2,
                                                        &tri_product_avx512, &onednn};
static const enum tri_isa isas[] = {TRI_ISA_X86_64, TRI_ISA_AVX2, TRI_ISA_AVX512, TRI_ISA_COUNT};
enum { KERNELS = sizeof(kernels) / sizeof(*kernels) };

static int threads = 2;

static bool can_run(int kernel, enum tri_dtype dt)
{
    if (kernels[kernel] == &onednn) {
        return pair_mixed(1) && (dt == TRI_F32 || __builtin_cpu_supports("avx512bw"));
    }
    return tri_x86_can_run(isas[kernel]);
}

static void run(const struct tri_product_isa *isa, const struct tri_matmul *products, int64_t count)
{
    if (isa == &onednn) {
        tri_onednn_run(pair_mixed(threads), products, count);
    } else {
        tri_product_run(pair_kernels(TRI_ISA_X86_64, threads), isa, products, count);
    }
}

/* The operands of one product, with gaps between rows. */
struct operands {
    struct pair a, b, c, bias;
    struct tri_matmul fast, ref;
};

enum variant { A_TRANSPOSED = 1, B_TRANSPOSED = 2, ACCUMULATE = 4, BIAS = 8, ALL_VARIANTS = 16 };

static struct operands operands_create(int64_t m, int64_t n, int64_t k, unsigned variant,
                                       enum tri_dtype ab, enum tri_dtype c)
{
    bool a_transposed = variant & A_TRANSPOSED, b_transposed = variant & B_TRANSPOSED;
    struct operands o = {.fast = {.m = m,
                                  .n = n,
                                  .k = k,
                                  .lda = (a_transposed ? m : k) + 3,
                                  .ldb = (b_transposed ? k : n) + 1,
                                  .ldc = n + 2,
                                  .ab_dtype = ab,
                                  .c_dtype = c,
                                  .a_transposed = a_transposed,
                                  .b_transposed = b_transposed,
                                  .accumulate = variant & ACCUMULATE}};
    o.a = pair_create(ab, (a_transposed ? k : m) * o.fast.lda, 1.0);
    o.b = pair_create(ab, (b_transposed ? n : k) * o.fast.ldb, 1.0);
    o.c = pair_create(c, m * o.fast.ldc, 2.0);
    o.bias = pair_create(TRI_F32, n, 2.0);
    o.ref = o.fast;
    o.fast.a = o.a.fast;
    o.fast.b = o.b.fast;
    o.fast.c = o.c.fast;
    o.ref.a = o.a.ref;
    o.ref.b = o.b.ref;
    o.ref.c = o.c.ref;
    if ((variant & BIAS) && !(variant & ACCUMULATE)) {
        o.fast.bias = o.bias.fast;
        o.ref.bias = o.bias.ref;
    }
    return o;
}

static void operands_end(struct operands *o)
{
    double error = 3e-6 * (1.0 + sqrt((double)o->fast.k));
    pair_end(&o->c, "c", 2, error);
    pair_end(&o->a, "a", 0, 0);
    pair_end(&o->b, "b", 0, 0);
    pair_end(&o->bias, "bias", 0, 0);
}

/* Calls check for each kernel and each supported combination of dtypes. */
static void each_kernel(void (*check)(const struct tri_product_isa *, enum tri_dtype,
                                      enum tri_dtype))
{
    int checked = 0;
    for (int i = 0; i < KERNELS; i++) {
        if (can_run(i, TRI_F32)) {
            check(kernels[i], TRI_F32, TRI_F32);
        }
        if (can_run(i, TRI_BF16)) {
            print_message("%s\n", kernels[i]->name);
            check(kernels[i], TRI_BF16, TRI_BF16);
            check(kernels[i], TRI_BF16, TRI_F32);
            checked++;
        }
    }
    assert_true(checked > 0);
}

static void check_shapes(const struct tri_product_isa *isa, enum tri_dtype ab, enum tri_dtype c)
{
    static const int64_t rows[] = {0, 1, 3, 16, 17, 100, 250};
    static const int64_t others[][2] = {{0, 5},   {1, 1},   {5, 3},   {33, 30},
                                        {64, 16}, {37, 19}, {4, 600}, {31, 0}};
    unsigned variant = 0;
    for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
        for (size_t j = 0; j < sizeof(others) / sizeof(*others); j++) {
            for (int more = 0; more < 2; more++) {
                struct operands o = operands_create(rows[i], others[j][0], others[j][1],
                                                    variant % ALL_VARIANTS, ab, c);
                run(isa, &o.fast, 1);
                tri_kernels_ref()->matmul(tri_kernels_ref(), &o.ref);
                operands_end(&o);
                variant += 7; /* odd: passes through all variants */
            }
        }
    }
}

static void test_shapes(void **state)
{
    (void)state;
    each_kernel(check_shapes);
}

/* Larger than one tile in each direction. */
static void check_tiles(const struct tri_product_isa *isa, enum tri_dtype ab, enum tri_dtype c)
{
    for (unsigned variant = 0; variant < ALL_VARIANTS; variant += 5) {
        struct operands wide = operands_create(17, 1030, 6, variant, ab, c);
        struct operands tall = operands_create(1100, 35, 5, variant, ab, c);
        run(isa, &wide.fast, 1);
        run(isa, &tall.fast, 1);
        tri_kernels_ref()->matmul(tri_kernels_ref(), &wide.ref);
        tri_kernels_ref()->matmul(tri_kernels_ref(), &tall.ref);
        operands_end(&wide);
        operands_end(&tall);
    }
}

static void test_tiles(void **state)
{
    (void)state;
    each_kernel(check_tiles);
}

/* More rows than oneDNN is given at once where C is bf16: for any number of threads up to four. */
static void check_wide(const struct tri_product_isa *isa, enum tri_dtype ab, enum tri_dtype c)
{
    if (isa != &onednn || c != TRI_BF16) {
        return;
    }
    for (unsigned variant = 0; variant < ALL_VARIANTS; variant += 3) {
        struct operands o = operands_create(500, 8200, 5, variant, ab, c);
        run(isa, &o.fast, 1);
        tri_kernels_ref()->matmul(tri_kernels_ref(), &o.ref);
        operands_end(&o);
    }
}

static void test_wide(void **state)
{
    (void)state;
    each_kernel(check_wide);
}

/* A row's bits: in a product of 250 rows, in products of fewer, on one thread and on three. */
static void check_rows(const struct tri_product_isa *isa, enum tri_dtype ab, enum tri_dtype c)
{
    static const int64_t rows[] = {1, 3, 15, 16, 17, 100, 249};
    static const unsigned variants[] = {0, B_TRANSPOSED, BIAS, BIAS | B_TRANSPOSED};
    if (isa == &onednn) {
        return; /* makes no such promise */
    }
    for (size_t v = 0; v < sizeof(variants) / sizeof(*variants); v++) {
        struct operands o = operands_create(250, 100, 530, variants[v], ab, c);
        size_t row_bytes = (size_t)o.fast.ldc * tri_dtype_size(c);
        o.ref = o.fast;
        o.ref.c = o.c.ref;
        threads = 1;
        run(isa, &o.ref, 1);
        threads = 3;
        for (size_t i = 0; i < sizeof(rows) / sizeof(*rows); i++) {
            int64_t first = 250 - rows[i];
            o.fast.m = rows[i];
            o.fast.a = (char *)o.a.fast + (size_t)(first * o.fast.lda) * tri_dtype_size(ab);
            o.fast.c = (char *)o.c.fast + (size_t)first * row_bytes;
            run(isa, &o.fast, 1);
            assert_memory_equal(o.fast.c, (char *)o.c.ref + (size_t)first * row_bytes,
                                (size_t)rows[i] * row_bytes);
        }
        threads = 2;
        o.fast.k = 0;
        memcpy(o.c.fast, o.c.ref, row_bytes * 250);
        operands_end(&o);
    }
}

static void test_rows(void **state)
{
    (void)state;
    each_kernel(check_rows);
}

/* Unequal and empty products in one call have the bits that they have one by one (our own
 * kernels). */
static void check_grouped(const struct tri_product_isa *isa, enum tri_dtype ab, enum tri_dtype c)
{
    enum { COUNT = 7 };
    static const int64_t tokens[COUNT] = {0, 17, 1, 0, 200, 5, 0};
    for (int gradient = 0; gradient < 2; gradient++) {
        struct operands o[COUNT];
        struct tri_matmul group[COUNT];
        for (int i = 0; i < COUNT; i++) {
            o[i] = gradient ? operands_create(70, 90, tokens[i], A_TRANSPOSED | ACCUMULATE, ab, c)
                            : operands_create(tokens[i], 90, 70, B_TRANSPOSED, ab, c);
            group[i] = o[i].fast;
            if (isa == &onednn) {
                tri_kernels_ref()->matmul(tri_kernels_ref(), &o[i].ref);
                continue;
            }
            o[i].ref.a = o[i].fast.a;
            run(isa, &o[i].ref, 1);
        }
        run(isa, group, COUNT);
        for (int i = 0; i < COUNT; i++) {
            if (isa == &onednn) {
                operands_end(&o[i]); /* near the reference: it promises no more */
                continue;
            }
            pair_end(&o[i].c, "c", 0, 0);
            pair_end(&o[i].a, "a", 0, 0);
            pair_end(&o[i].b, "b", 0, 0);
            pair_end(&o[i].bias, "bias", 0, 0);
        }
        run(isa, group, 0);
    }
}

static void test_grouped(void **state)
{
    (void)state;
    each_kernel(check_grouped);
}

/* A group that is made in several calls has the bits of one call, if each says what the group is.
 * oneDNN's products of these sizes have other bits when threads deal them out otherwise. */
static void check_split(const struct tri_product_isa *isa, enum tri_dtype ab, enum tri_dtype c)
{
    enum { COUNT = 3, M = 40, N = 1024, K = 4096 };
    if (isa != &onednn || ab != TRI_F32) {
        return;
    }
    struct operands o[COUNT];
    struct tri_matmul group[COUNT];
    for (int i = 0; i < COUNT; i++) {
        o[i] = operands_create(M, N, K, B_TRANSPOSED, ab, c);
        o[i].fast.lda = o[i].fast.ldb = K;
        group[i] = o[i].fast;
        group[i].c = o[i].c.ref;
    }
    threads = 2;
    run(isa, group, COUNT);
    for (int i = 0; i < COUNT; i++) {
        o[i].fast.group = COUNT;
        o[i].fast.group_work = (double)COUNT * M * N * K;
        group[i] = o[i].fast;
    }
    run(isa, group, 1);
    run(isa, group + 1, COUNT - 1);
    for (int i = 0; i < COUNT; i++) {
        assert_memory_equal(o[i].c.fast, o[i].c.ref, (size_t)(M * o[i].fast.ldc) * sizeof(float));
        operands_end(&o[i]);
    }
}

static void test_split(void **state)
{
    (void)state;
    each_kernel(check_split);
}

/* A number that is not finite stays in its row. */
static void check_not_finite(const struct tri_product_isa *isa, enum tri_dtype ab, enum tri_dtype c)
{
    struct operands o = operands_create(50, 40, 30, B_TRANSPOSED, ab, c);
    pair_set(&o.a, 20 * o.fast.lda + 29, (double)NAN);
    pair_set(&o.a, 21 * o.fast.lda, (double)INFINITY);
    run(isa, &o.fast, 1);
    tri_kernels_ref()->matmul(tri_kernels_ref(), &o.ref);
    assert_true(isnan(pair_get(&o.c, 20 * o.fast.ldc)));
    assert_true(isinf(pair_get(&o.c, 21 * o.fast.ldc)));
    operands_end(&o);
}

static void test_not_finite(void **state)
{
    (void)state;
    each_kernel(check_not_finite);
}

/* The tables reach the kernels. */
static void check_table(const struct tri_kernels *fast, enum tri_dtype dt)
{
    enum { COUNT = 3 };
    static const int64_t tokens[COUNT] = {60, 1, 17};
    for (unsigned variant = 0; variant < ALL_VARIANTS; variant++) {
        struct operands o[COUNT];
        struct tri_matmul group[COUNT];
        enum tri_dtype c = variant & ACCUMULATE ? TRI_F32 : dt;
        for (int i = 0; i < COUNT; i++) {
            o[i] = operands_create(variant & A_TRANSPOSED ? 60 : tokens[i], 50,
                                   variant & A_TRANSPOSED ? tokens[i] : 40, variant, dt, c);
            group[i] = o[i].fast;
            tri_kernels_ref()->matmul(tri_kernels_ref(), &o[i].ref);
        }
        fast->matmul(fast, &group[0]);
        fast->matmul_grouped(fast, &group[1], COUNT - 1);
        fast->matmul_grouped(fast, group, 0);
        for (int i = 0; i < COUNT; i++) {
            operands_end(&o[i]);
        }
    }
}

static void test_tables(void **state)
{
    (void)state;
    pair_each_product_table(check_table);
}

/* What runs with oneDNN differs from our own of the same set in its products only. */
static void test_mixed(void **state)
{
    (void)state;
    const struct tri_kernels *mixed = pair_mixed(1);
    if (!mixed) {
        return; /* the processor has no AVX2 */
    }
    struct tri_kernels *reproducible = tri_kernels_create(TRI_KERNELS_REPRODUCIBLE, NULL, 1);
    struct tri_kernels own = *reproducible;
    const size_t from = offsetof(struct tri_kernels, matmul);
    assert_ptr_not_equal(mixed->matmul, own.matmul);
    assert_ptr_not_equal(mixed->matmul_grouped, own.matmul_grouped);
    own.matmul = mixed->matmul;
    own.matmul_grouped = mixed->matmul_grouped;
    assert_memory_equal((const char *)mixed + from, (const char *)&own + from, sizeof(own) - from);
    tri_kernels_destroy(reproducible);
}

/* What oneDNN's wrapper cannot compute it refuses, and does not take for something else. */
static void test_refused(void **state)
{
    (void)state;
    const struct tri_kernels *onednn_kernels = pair_mixed(1);
    static const enum tri_dtype dtypes[][2] = {
        {TRI_F32, TRI_I64}, {TRI_BF16, TRI_I64}, {TRI_F64, TRI_F64}, {TRI_F32, TRI_BF16}};
    for (size_t i = 0; onednn_kernels && i < sizeof(dtypes) / sizeof(*dtypes); i++) {
        double a[4] = {0}, b[4] = {0}, c[4] = {0};
        const struct tri_matmul product = {.m = 2,
                                           .n = 2,
                                           .k = 2,
                                           .a = a,
                                           .b = b,
                                           .c = c,
                                           .lda = 2,
                                           .ldb = 2,
                                           .ldc = 2,
                                           .ab_dtype = dtypes[i][0],
                                           .c_dtype = dtypes[i][1]};
        int status = 0;
        pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            (void)freopen("/dev/null", "w", stderr);
            tri_onednn_run(onednn_kernels, &product, 1);
            _exit(0);
        }
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) != 0);
    }
}

/* The reference itself, by numbers worked out by hand. */
static void test_reference(void **state)
{
    (void)state;
    const double a[] = {1, 2, 3, 4, 5, 6}, b[] = {7, 8, 9, 10, 11, 12}, bias[] = {1, -1};
    const double forward[] = {59, 63, 140, 153}, turned[] = {90, 99, 117, 129};
    double c[4] = {1, 1, 1, 1};
    struct tri_matmul p = {.m = 2,
                           .n = 2,
                           .k = 3,
                           .a = a,
                           .b = b,
                           .c = c,
                           .lda = 3,
                           .ldb = 2,
                           .ldc = 2,
                           .ab_dtype = TRI_F64,
                           .c_dtype = TRI_F64,
                           .bias = bias};
    tri_kernels_ref()->matmul(tri_kernels_ref(), &p);
    assert_memory_equal(c, forward, sizeof(c)); /* [1 2 3; 4 5 6] [7 8; 9 10; 11 12] + bias */
    p.a_transposed = p.accumulate = true;
    p.lda = 2;
    p.bias = NULL;
    c[0] = c[1] = c[2] = c[3] = 1;
    tri_kernels_ref()->matmul(tri_kernels_ref(), &p);
    assert_memory_equal(c, turned, sizeof(c)); /* [1 3 5; 2 4 6] [7 8; 9 10; 11 12] + 1 */
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),  cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_tiles),      cmocka_unit_test(test_rows),
        cmocka_unit_test(test_grouped),    cmocka_unit_test(test_split),
        cmocka_unit_test(test_not_finite), cmocka_unit_test(test_tables),
        cmocka_unit_test(test_wide),       cmocka_unit_test(test_mixed),
        cmocka_unit_test(test_refused),
    };
    return pair_run(tests, sizeof(tests) / sizeof(*tests), argc, argv);
}
