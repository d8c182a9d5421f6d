/* Sampling: which tokens can come, how often, and that a seed decides. */
#include "infer/decoder.h"

#include <math.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

enum { VOCAB = 6, DRAWS = 40000 };

/* Probabilities 0.4, 0.05, 0.3, 0.05, 0.15, 0.05. */
static void fill(float *logits)
{
    static const double p[VOCAB] = {0.4, 0.05, 0.3, 0.05, 0.15, 0.05};
    for (int i = 0; i < VOCAB; i++) {
        logits[i] = (float)(log(p[i]) + 3.0);
    }
}

/* Shares of DRAWS draws against expected ones (0: must not come at all). */
static void expect_shares(const struct tri_sampling *sampling, const double *expected)
{
    float logits[VOCAB];
    int32_t scratch[VOCAB];
    int64_t count[VOCAB] = {0};
    fill(logits);
    for (uint64_t i = 0; i < DRAWS; i++) {
        int32_t token = tri_sample(logits, VOCAB, sampling, i, scratch);
        assert_in_range(token, 0, VOCAB - 1);
        count[token]++;
    }
    for (int i = 0; i < VOCAB; i++) {
        double deviation = sqrt(expected[i] * (1.0 - expected[i]) / DRAWS);
        double share = (double)count[i] / DRAWS;
        if (fabs(share - expected[i]) > 4.0 * deviation) {
            fail_msg("token %d: %.4f, not %.4f", i, share, expected[i]);
        }
    }
}

static void test_temperature(void **state)
{
    (void)state;
    expect_shares(&(struct tri_sampling){0.0, 0, 1.0, 1}, (double[]){1, 0, 0, 0, 0, 0});
    expect_shares(&(struct tri_sampling){1.0, 0, 1.0, 1},
                  (double[]){0.4, 0.05, 0.3, 0.05, 0.15, 0.05});
    /* At half the temperature probabilities are squared. */
    const double sum = 0.16 + 0.09 + 0.0225 + 3 * 0.0025;
    expect_shares(
        &(struct tri_sampling){0.5, 0, 1.0, 2},
        (double[]){0.16 / sum, 0.0025 / sum, 0.09 / sum, 0.0025 / sum, 0.0225 / sum, 0.0025 / sum});
}

static void test_top_k(void **state)
{
    (void)state;
    expect_shares(&(struct tri_sampling){1.0, 1, 1.0, 1}, (double[]){1, 0, 0, 0, 0, 0});
    expect_shares(&(struct tri_sampling){1.0, 2, 1.0, 1},
                  (double[]){0.4 / 0.7, 0, 0.3 / 0.7, 0, 0, 0});
    /* Of three alike the lower id comes in. */
    expect_shares(&(struct tri_sampling){1.0, 4, 1.0, 1},
                  (double[]){0.4 / 0.9, 0.05 / 0.9, 0.3 / 0.9, 0, 0.15 / 0.9, 0});
    expect_shares(&(struct tri_sampling){1.0, 100, 1.0, 3},
                  (double[]){0.4, 0.05, 0.3, 0.05, 0.15, 0.05});
}

static void test_top_p(void **state)
{
    (void)state;
    expect_shares(&(struct tri_sampling){1.0, 0, 1e-9, 1}, (double[]){1, 0, 0, 0, 0, 0});
    expect_shares(&(struct tri_sampling){1.0, 0, 0.6, 1},
                  (double[]){0.4 / 0.7, 0, 0.3 / 0.7, 0, 0, 0});
    expect_shares(&(struct tri_sampling){1.0, 0, 0.8, 1},
                  (double[]){0.4 / 0.85, 0, 0.3 / 0.85, 0, 0.15 / 0.85, 0});
    /* Of what top_k left: 0.4 of 0.7 reaches 0.5. */
    expect_shares(&(struct tri_sampling){1.0, 2, 0.5, 1}, (double[]){1, 0, 0, 0, 0, 0});
}

static void test_seed(void **state)
{
    (void)state;
    float logits[VOCAB];
    int32_t scratch[VOCAB];
    struct tri_sampling one = {1.0, 0, 1.0, 1};
    struct tri_sampling two = {1.0, 0, 1.0, 2};
    int differ = 0;
    int move = 0;
    fill(logits);
    for (uint64_t i = 0; i < 100; i++) {
        int32_t token = tri_sample(logits, VOCAB, &one, i, scratch);
        assert_int_equal(token, tri_sample(logits, VOCAB, &one, i, scratch));
        differ += token != tri_sample(logits, VOCAB, &two, i, scratch);
        move += token != tri_sample(logits, VOCAB, &one, i + 1, scratch);
    }
    assert_true(differ > 20 && move > 20);
}

static void test_ties_and_extremes(void **state)
{
    (void)state;
    int32_t scratch[VOCAB];
    const float alike[VOCAB] = {0};
    const float far[VOCAB] = {-3e38F, 100.0F, -3e38F, 3e38F, 0.0F, -3e38F};
    assert_int_equal(tri_sample(alike, VOCAB, &(struct tri_sampling){0}, 0, scratch), 0);
    for (uint64_t i = 0; i < 20; i++) {
        assert_int_equal(tri_sample(far, VOCAB, &(struct tri_sampling){1.0, 0, 1.0, 1}, i, scratch),
                         3);
    }
    assert_int_equal(tri_sample(alike, 1, &(struct tri_sampling){1.0, 0, 1.0, 1}, 0, scratch), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_temperature),
        cmocka_unit_test(test_top_k),
        cmocka_unit_test(test_top_p),
        cmocka_unit_test(test_seed),
        cmocka_unit_test(test_ties_and_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
