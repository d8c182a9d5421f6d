/* Cross-entropy: the fast tables against the reference, in the extremes too. */
#include "kernel/pair.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { FIRST = 100, MOST = 40 };

/* Writes special logits before they are used. */
typedef void (*prepare)(struct pair *logits);

static void slice(const struct tri_kernels *fast, enum tri_dtype dt, int64_t n, int64_t cols,
                  double size, prepare special)
{
    const struct tri_kernels *ref = tri_kernels_ref();
    int64_t ld = cols + 3;
    int32_t targets[MOST];
    for (int32_t i = 0; i < MOST; i++) {
        targets[i] = FIRST - 2 + i * 11 % (int32_t)(cols + 5); /* some outside, on both sides */
        targets[i] = i % 7 == 6 ? -1 : targets[i];             /* some that do not count */
    }
    struct pair logits = pair_create(TRI_F32, n * ld, size);
    struct pair maxima = pair_create(TRI_F32, n, 1.0);
    struct pair sums = pair_create(TRI_F32, n, 1.0);
    struct pair picked = pair_create(TRI_F32, n, 1.0);
    struct pair d = pair_create(dt, n * ld, 1.0);
    if (special) {
        special(&logits);
    }
    fast->cross_entropy_max(fast, &(struct tri_cross_entropy_args){.logits = logits.fast,
                                                                   .ld = ld,
                                                                   .cols = cols,
                                                                   .maxima = maxima.fast,
                                                                   .n = n,
                                                                   .dt = TRI_F32});
    ref->cross_entropy_max(ref, &(struct tri_cross_entropy_args){.logits = logits.ref,
                                                                 .ld = ld,
                                                                 .cols = cols,
                                                                 .maxima = maxima.ref,
                                                                 .n = n,
                                                                 .dt = TRI_F32});
    fast->cross_entropy_sum(fast, &(struct tri_cross_entropy_args){.logits = logits.fast,
                                                                   .ld = ld,
                                                                   .cols = cols,
                                                                   .maxima = maxima.fast,
                                                                   .targets = targets,
                                                                   .first_col = FIRST,
                                                                   .sums = sums.fast,
                                                                   .picked = picked.fast,
                                                                   .n = n,
                                                                   .dt = TRI_F32});
    ref->cross_entropy_sum(ref, &(struct tri_cross_entropy_args){.logits = logits.ref,
                                                                 .ld = ld,
                                                                 .cols = cols,
                                                                 .maxima = maxima.ref,
                                                                 .targets = targets,
                                                                 .first_col = FIRST,
                                                                 .sums = sums.ref,
                                                                 .picked = picked.ref,
                                                                 .n = n,
                                                                 .dt = TRI_F32});
    fast->cross_entropy_backward(fast, &(struct tri_cross_entropy_args){.logits = logits.fast,
                                                                        .ld = ld,
                                                                        .cols = cols,
                                                                        .maxima = maxima.fast,
                                                                        .sums = sums.fast,
                                                                        .targets = targets,
                                                                        .first_col = FIRST,
                                                                        .scale = 0.25,
                                                                        .d = d.fast,
                                                                        .ld_d = ld,
                                                                        .n = n,
                                                                        .dt = dt});
    ref->cross_entropy_backward(ref, &(struct tri_cross_entropy_args){.logits = logits.ref,
                                                                      .ld = ld,
                                                                      .cols = cols,
                                                                      .maxima = maxima.ref,
                                                                      .sums = sums.ref,
                                                                      .targets = targets,
                                                                      .first_col = FIRST,
                                                                      .scale = 0.25,
                                                                      .d = d.ref,
                                                                      .ld_d = ld,
                                                                      .n = n,
                                                                      .dt = dt});
    pair_end(&d, "d", 8 + size, 1e-7);
    pair_end(&picked, "picked", 1, 0);
    pair_end(&sums, "sums", 8 + size, 0);
    pair_end(&maxima, "maxima", 0, 0);
    pair_end(&logits, "logits", 0, 0);
}

static void check_random(const struct tri_kernels *fast, enum tri_dtype dt)
{
    static const int64_t columns[] = {0, 1, 6, 64, 333, 1000};
    for (int i = 0; i < 6; i++) {
        slice(fast, dt, 0, columns[i], 1.0, NULL);
        slice(fast, dt, 1, columns[i], 4.0, NULL);
        slice(fast, dt, MOST, columns[i], 20.0, NULL);
    }
    slice(fast, dt, 3, 333, 1e30, NULL);
}

/* A target that does not count gets a gradient of 0, whatever its logits are; the same target on
 * another rank's columns gets one. */
static void check_ignored(const struct tri_kernels *fast, enum tri_dtype dt)
{
    enum { COLS = 333, LD = 335, ROWS = 4 };
    static const int32_t targets[ROWS] = {-1, 7, -100, 3};
    const struct tri_kernels *tables[] = {fast, tri_kernels_ref()};
    for (int side = 0; side < 2; side++) {
        struct pair logits = pair_create(TRI_F32, (int64_t)ROWS * LD, 4.0);
        struct pair stats = pair_create(TRI_F32, ROWS, 0.0);
        struct pair d = pair_create(dt, (int64_t)ROWS * LD, 1.0);
        pair_set(&logits, 5, (double)NAN);
        tables[side]->cross_entropy_max(tables[side],
                                        &(struct tri_cross_entropy_args){.logits = logits.ref,
                                                                         .ld = LD,
                                                                         .cols = COLS,
                                                                         .maxima = stats.ref,
                                                                         .n = ROWS,
                                                                         .dt = TRI_F32});
        tables[side]->cross_entropy_sum(
            tables[side], &(struct tri_cross_entropy_args){.logits = logits.ref,
                                                           .ld = LD,
                                                           .cols = COLS,
                                                           .maxima = stats.ref,
                                                           .targets = targets,
                                                           .first_col = FIRST,
                                                           .sums = stats.fast,
                                                           .picked = d.fast,
                                                           .n = dt == TRI_F32 ? ROWS : 0,
                                                           .dt = TRI_F32});
        for (int i = 0; i < ROWS; i++) {
            ((float *)stats.fast)[i] = 300.0F;
        }
        tables[side]->cross_entropy_backward(tables[side],
                                             &(struct tri_cross_entropy_args){.logits = logits.ref,
                                                                              .ld = LD,
                                                                              .cols = COLS,
                                                                              .maxima = stats.ref,
                                                                              .sums = stats.fast,
                                                                              .targets = targets,
                                                                              .first_col = FIRST,
                                                                              .scale = 0.25,
                                                                              .d = d.ref,
                                                                              .ld_d = LD,
                                                                              .n = ROWS,
                                                                              .dt = dt});
        for (int64_t i = 0; i < (int64_t)ROWS * LD; i++) {
            bool counts = targets[i / LD] >= 0 && i % LD < COLS;
            assert_true(counts ? pair_get(&d, i) > 0.0 : pair_get(&d, i) == 0.0);
        }
        pair_end(&logits, "logits", 0, (double)INFINITY);
        pair_end(&stats, "stats", 0, (double)INFINITY);
        pair_end(&d, "d", 0, (double)INFINITY);
    }
}

static void some_infinite(struct pair *logits)
{
    for (int64_t i = 0; i < logits->count; i += 3) {
        pair_set(logits, i, -(double)INFINITY);
    }
}

static void far_apart(struct pair *logits)
{
    for (int64_t i = 0; i < logits->count; i++) {
        pair_set(logits, i, -(double)i * 0.37); /* through the subnormals down to 0 */
    }
}

static void one_nan(struct pair *logits)
{
    pair_set(logits, 5, (double)NAN);
}

static void check_special(const struct tri_kernels *fast, enum tri_dtype dt)
{
    slice(fast, dt, 3, 70, 2.0, some_infinite);
    slice(fast, dt, 1, 700, 1.0, far_apart);
    slice(fast, dt, 2, 37, 1.0, one_nan);
    slice(fast, dt, 2, 6, 1.0, one_nan);
}

/* exp through cross_entropy_sum of one column: relative error below 2e-7 where normal. */
static void check_exp(const struct tri_kernels *fast, enum tri_dtype dt)
{
    enum { POINTS = 3000 };
    if (dt == TRI_BF16) {
        return;
    }
    static const int32_t targets[POINTS];
    struct pair x = pair_create(TRI_F32, POINTS, 87.3);
    struct pair sums = pair_create(TRI_F32, POINTS, 1.0);
    struct pair picked = pair_create(TRI_F32, POINTS, 1.0);
    struct pair zero = pair_create(TRI_F32, POINTS, 0.0);
    fast->cross_entropy_sum(fast, &(struct tri_cross_entropy_args){.logits = x.fast,
                                                                   .ld = 1,
                                                                   .cols = 1,
                                                                   .maxima = zero.fast,
                                                                   .targets = targets,
                                                                   .first_col = 1,
                                                                   .sums = sums.fast,
                                                                   .picked = picked.fast,
                                                                   .n = POINTS,
                                                                   .dt = TRI_F32});
    for (int64_t i = 0; i < POINTS; i++) {
        double want = exp(pair_get(&x, i));
        assert_true(fabs((double)((float *)sums.fast)[i] - want) <= 2e-7 * want);
    }
    pair_end(&x, "x", 0, 0);
    pair_end(&zero, "zero", 0, 0);
    pair_end(&sums, "sums", 0, (double)INFINITY);
    pair_end(&picked, "picked", 0, (double)INFINITY);
}

static void test_random(void **state)
{
    (void)state;
    pair_each_table(check_random);
}

static void test_ignored(void **state)
{
    (void)state;
    pair_each_table(check_ignored);
}

static void test_special(void **state)
{
    (void)state;
    pair_each_table(check_special);
}

static void test_exp(void **state)
{
    (void)state;
    pair_each_table(check_exp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_random),
        cmocka_unit_test(test_ignored),
        cmocka_unit_test(test_special),
        cmocka_unit_test(test_exp),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
