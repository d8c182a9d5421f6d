/* Fixed-point sums: terms rounded by themselves, whatever the table; what does not fit is
 * refused. */
#include "kernel/pair.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static int64_t units(double x)
{
    return (int64_t)rint(ldexp(x, TRI_FIXED_BITS));
}

/* Bit for bit the sum of the squares of what fixed_get made of them, on any cut of the sums. */
static void check_squares(const struct tri_kernels *table, const int64_t *sums, const float *values,
                          int64_t n)
{
    struct tri_exact expected = {0}, whole = {0}, parts = {0};
    tri_exact_add(&expected, 0.1);
    tri_exact_add(&whole, 0.1);
    tri_exact_add(&parts, 0.1);
    for (int64_t i = 0; i < n; i++) {
        tri_exact_add(&expected, (double)values[i] * (double)values[i]);
    }
    table->fixed_squares(table,
                         &(struct tri_fixed_get_args){.sums = sums, .exact = &whole, .n = n});
    table->fixed_squares(
        table, &(struct tri_fixed_get_args){.sums = sums + 5, .exact = &parts, .n = n - 5});
    table->fixed_squares(table,
                         &(struct tri_fixed_get_args){.sums = sums, .exact = &parts, .n = 5});
    assert_true(tri_exact_get(&whole) == tri_exact_get(&expected));
    assert_true(tri_exact_get(&parts) == tri_exact_get(&expected));
}

static void check_add(const struct tri_kernels *fast, enum tri_dtype dt)
{
    enum { N = 9001 }; /* more than a piece of fixed_squares */
    const struct tri_kernels *const tables[2] = {fast, tri_kernels_ref()};
    struct pair x = pair_create(dt, N, 1e-6);
    pair_set(&x, 0, 2040.0);
    pair_set(&x, 1, -2040.0);
    pair_set(&x, 2, 0x1p-53); /* half a unit: to the even one */
    pair_set(&x, 3, 0x1.8p-52);
    pair_set(&x, 4, -0x1.8p-52);
    pair_set(&x, 5, 0x1p-60);
    for (int t = 0; t < 2; t++) {
        struct tri_fixed fixed = {.limit = 2048.0F};
        int64_t sums[N + 1] = {[N] = 99};
        float back[N];
        for (int i = 0; i < N; i++) {
            sums[i] = i;
        }
        tables[t]->fixed_add(tables[t],
                             &(struct tri_fixed_add_args){
                                 .x = x.fast, .sums = sums, .n = N, .fixed = &fixed, .dt = dt});
        assert_int_equal(fixed.refused, 0);
        assert_int_equal(sums[N], 99);
        for (int i = 0; i < N; i++) {
            assert_int_equal(sums[i], i + units(pair_get(&x, i)));
        }
        assert_int_equal(sums[2], 2);
        assert_int_equal(sums[3], 5);
        assert_int_equal(sums[4], 2);
        tables[t]->fixed_get(tables[t],
                             &(struct tri_fixed_get_args){.sums = sums, .y = back, .n = N});
        for (int i = 0; i < N; i++) {
            assert_true(back[i] == ldexpf((float)sums[i], -TRI_FIXED_BITS));
        }
        check_squares(tables[t], sums, back, N);
        float *same = (float *)(void *)sums;
        tables[t]->fixed_get(tables[t],
                             &(struct tri_fixed_get_args){.sums = sums, .y = same, .n = N});
        assert_memory_equal(same, back, sizeof(back));
    }
    pair_end(&x, "x", 0, 0);
}

static void test_add(void **state)
{
    (void)state;
    pair_each_table(check_add);
}

/* Left out, and noted, by every way of adding. */
static void check_refused(const struct tri_kernels *fast, enum tri_dtype dt)
{
    static const double large[] = {4.0, -4.0, 1e30, (double)INFINITY, (double)NAN};
    const struct tri_kernels *const tables[2] = {fast, tri_kernels_ref()};
    for (int i = 0; i < 10; i++) {
        const struct tri_kernels *table = tables[i % 2];
        struct pair a = pair_create(dt, 3, 1.0), b = pair_create(dt, 50, 1.0);
        pair_set(&a, 1, large[i / 2]);
        pair_set(&b, 7, 1.0);
        struct tri_fixed fixed = {.limit = 4.0F};
        int64_t sums[3] = {0}, c[150] = {0};
        table->fixed_add(table, &(struct tri_fixed_add_args){
                                    .x = a.fast, .sums = sums, .n = 3, .fixed = &fixed, .dt = dt});
        assert_int_equal(fixed.refused, 1);
        assert_int_equal(sums[0], units(pair_get(&a, 0)));
        assert_int_equal(sums[1], 0);
        fixed.refused = 0;
        table->matmul(table, &(struct tri_matmul){.m = 3,
                                                  .n = 50,
                                                  .k = 1,
                                                  .a = a.fast,
                                                  .b = b.fast,
                                                  .c = c,
                                                  .lda = 1,
                                                  .ldb = 50,
                                                  .ldc = 50,
                                                  .ab_dtype = dt,
                                                  .c_dtype = TRI_I64,
                                                  .fixed = &fixed});
        assert_int_equal(fixed.refused, 1);
        assert_int_equal(c[57], 0);
        assert_int_equal(c[107], units(pair_get(&a, 2)));
        pair_end(&a, "a", 0, 0);
        pair_end(&b, "b", 0, 0);
    }
}

static void test_refused(void **state)
{
    (void)state;
    pair_each_table(check_refused);
}

/* A cut product is near the one in double, and exact where every sum is. */
static void check_product(const struct tri_kernels *fast, enum tri_dtype dt)
{
    enum { M = 13, N = 45, K = 31 };
    static const int64_t cuts[] = {0, 4, 4, 20, K};
    struct tri_fixed fixed = {.limit = 64.0F};
    struct pair a = pair_create(dt, K * M, 1.0), b = pair_create(dt, K * N, 1.0);
    int64_t sums[2][M * N] = {{0}};
    for (int whole_numbers = 0; whole_numbers < 2; whole_numbers++) {
        memset(sums, 0, sizeof(sums));
        for (int i = 0; i < K * M && whole_numbers; i++) {
            pair_set(&a, i, rint(pair_get(&a, i) * 3.0));
        }
        for (int i = 0; i < K * N && whole_numbers; i++) {
            pair_set(&b, i, rint(pair_get(&b, i) * 3.0) / 8.0);
        }
        for (int side = 0; side < 2; side++) {
            const struct tri_matmul product = {.m = M,
                                               .n = N,
                                               .k = K,
                                               .a = a.fast,
                                               .b = b.fast,
                                               .c = sums[side],
                                               .lda = M,
                                               .ldb = N,
                                               .ldc = N,
                                               .ab_dtype = dt,
                                               .c_dtype = TRI_I64,
                                               .a_transposed = true,
                                               .fixed = &fixed,
                                               .cuts = cuts,
                                               .parts = 4};
            const struct tri_kernels *table = side ? tri_kernels_ref() : fast;
            table->matmul(table, &product);
        }
        for (int i = 0; i < M * N; i++) {
            double error = ldexp((double)(sums[0][i] - sums[1][i]), -TRI_FIXED_BITS);
            assert_true(fabs(error) <= (whole_numbers ? 0.0 : 1e-5));
        }
    }
    assert_int_equal(fixed.refused, 0);
    pair_end(&a, "a", 0, 0);
    pair_end(&b, "b", 0, 0);
}

static void test_product(void **state)
{
    (void)state;
    pair_each_product_table(check_product);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_add),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_product),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
