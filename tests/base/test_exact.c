/* Exact sums: any order and any grouping give the same bits, and these are the right ones. */
#include "base/exact.h"
#include "base/random.h"

#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

static double sum_of(const double *terms, int n)
{
    struct tri_exact sum = {0};
    for (int i = 0; i < n; i++) {
        tri_exact_add(&sum, terms[i]);
    }
    return tri_exact_get(&sum);
}

static void assert_bits(double got, double want)
{
    if (memcmp(&got, &want, sizeof(got)) != 0) {
        fail_msg("%a, expected %a", got, want);
    }
}

static void test_known(void **state)
{
    (void)state;
    assert_bits(sum_of(NULL, 0), 0.0);
    assert_bits(sum_of((const double[]){1e300, 1.0, -1e300}, 3), 1.0);
    assert_bits(sum_of((const double[]){0.1, 0.2, 0.3, -0.6}, 4), 0x1p-55);
    assert_bits(sum_of((const double[]){DBL_MAX, DBL_MAX, -DBL_MAX, -1.0}, 4), DBL_MAX);
    assert_bits(sum_of((const double[]){DBL_MAX, DBL_MAX}, 2), (double)INFINITY);
    assert_bits(sum_of((const double[]){-DBL_MAX, -DBL_MAX}, 2), -(double)INFINITY);
    assert_bits(sum_of((const double[]){DBL_TRUE_MIN, DBL_TRUE_MIN, -1.0, 1.0}, 4),
                2 * DBL_TRUE_MIN);
    assert_bits(sum_of((const double[]){-DBL_MIN, DBL_TRUE_MIN}, 2), DBL_TRUE_MIN - DBL_MIN);
    /* Ties go to even; anything below a tie decides it. */
    assert_bits(sum_of((const double[]){1.0, 0x1p-53}, 2), 1.0);
    assert_bits(sum_of((const double[]){1.0, 0x1p-52, 0x1p-53}, 3), 1.0 + 0x1p-51);
    assert_bits(sum_of((const double[]){1.0, 0x1p-53, DBL_TRUE_MIN}, 3), 1.0 + 0x1p-52);
    assert_bits(sum_of((const double[]){-1.0, -0x1p-53, -DBL_TRUE_MIN}, 3), -1.0 - 0x1p-52);
}

static void test_not_finite(void **state)
{
    (void)state;
    assert_true(isnan(sum_of((const double[]){1.0, (double)NAN, 2.0}, 3)));
    assert_true(isnan(sum_of((const double[]){(double)INFINITY, 2.0}, 2)));
}

/* Terms of all sizes and both signs, many of which nearly cancel. */
static double term(uint64_t seed, int i)
{
    double x = tri_random_uniform(seed, 0, (uint64_t)i) - 0.5;
    int exponent = (int)(tri_random_uniform(seed, 1, (uint64_t)(i / 2)) * 400.0) - 200;
    return ldexp(i % 2 ? x : -x + 1e-9, exponent);
}

/* What is left after the sum is taken away again is at most half a unit in its last place. */
static void test_nearest(void **state)
{
    (void)state;
    enum { TERMS = 33 };
    for (uint64_t seed = 0; seed < 2000; seed++) {
        double terms[TERMS + 1];
        for (int i = 0; i < TERMS; i++) {
            terms[i] = term(seed, i);
        }
        double sum = sum_of(terms, TERMS);
        terms[TERMS] = -sum;
        double rest = sum_of(terms, TERMS + 1);
        assert_true(fabs(rest) <= (nextafter(fabs(sum), DBL_MAX) - fabs(sum)) / 2);
    }
}

static void test_order(void **state)
{
    (void)state;
    enum { TERMS = 1000 };
    struct tri_exact forward = {0};
    struct tri_exact backward = {0};
    struct tri_exact parts[3] = {0};
    struct tri_exact words = {0};
    for (int i = 0; i < TERMS; i++) {
        tri_exact_add(&forward, term(7, i));
        tri_exact_add(&backward, term(7, TERMS - 1 - i));
        tri_exact_add(&parts[i * i % 3], term(7, i));
    }
    for (int p = 0; p < 3; p++) {
        for (int i = 0; i < TRI_EXACT_WORDS; i++) {
            words.word[i] += parts[p].word[i];
        }
    }
    tri_exact_merge(&parts[2], &parts[0]);
    tri_exact_merge(&parts[2], &parts[1]);
    double sum = tri_exact_get(&forward);
    assert_bits(tri_exact_get(&backward), sum);
    assert_bits(tri_exact_get(&parts[2]), sum);
    assert_bits(tri_exact_get(&words), sum);
    tri_exact_carry(&forward);
    assert_bits(tri_exact_get(&forward), sum);
}

/* Squares together, with numbers of every exponent, are the squares one by one. */
static void test_squares(void **state)
{
    (void)state;
    enum { TERMS = 70000 };
    static float x[TERMS];
    struct tri_exact together = {0};
    struct tri_exact apart = {0};
    for (int i = 0; i < TERMS; i++) {
        double exponent = tri_random_uniform(9, 1, (uint64_t)i) * 276.0 - 149.0;
        x[i] = (float)ldexp(tri_random_uniform(9, 0, (uint64_t)i) - 0.5, (int)exponent);
        x[i] = i % 3 ? x[i] : (float)(i % 7) * 0x1.fffffep+30F;
        tri_exact_add(&apart, (double)x[i] * (double)x[i]);
    }
    tri_exact_add_squares(&together, x, TERMS);
    assert_bits(tri_exact_get(&together), tri_exact_get(&apart));
    x[5] = -INFINITY;
    tri_exact_add_squares(&together, x, 6);
    assert_true(isnan(tri_exact_get(&together)));
    struct tri_exact none = {0};
    tri_exact_add_squares(&none, x, 0);
    assert_bits(tri_exact_get(&none), 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_known),   cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_nearest), cmocka_unit_test(test_order),
        cmocka_unit_test(test_squares),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
