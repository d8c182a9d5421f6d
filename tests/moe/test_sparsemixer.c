/* SparseMixer-v2: the arithmetic of a draw, in double, against what it is for by GRIN's appendix A,
 * and against values of the authors' code. */
#include "moe/fixture.h"
#include "moe/sparsemixer.h"
#include "moe/sparsemixer_released.h"

#include "base/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

enum { EXPERTS_MAX = 8, DRAWS_MAX = 2 };

/* ---- all draws and all B --------------------------------------------------------------------- */

/* A scalar network: expert e puts out e_e, the loss is a cubic of the output. */
struct network {
    struct tri_sparsemixer mixer;
    float logits[EXPERTS_MAX];
    double out[EXPERTS_MAX];
    double cubic[4];
};

static double value(const struct network *n, double y)
{
    return n->cubic[0] + y * (n->cubic[1] + y * (n->cubic[2] + y * n->cubic[3]));
}

static double slope(const struct network *n, double y)
{
    return n->cubic[1] + y * (2 * n->cubic[2] + y * 3 * n->cubic[3]);
}

static struct tri_sparse_draw begin_draw(const struct network *n, const int32_t *taken,
                                         int64_t before, int64_t chosen)
{
    struct tri_sparse_draw draw = {.mixer = &n->mixer,
                                   .logits = n->logits,
                                   .deciding = n->logits,
                                   .taken = taken,
                                   .before = before};
    tri_sparse_draw_begin(&draw);
    tri_sparse_draw_take(&draw, chosen);
    return draw;
}

/* One way that a token's draws and their B may fall. */
struct fall {
    int32_t chosen[DRAWS_MAX];
    bool full[DRAWS_MAX];
};

/* The router's gradient there (the largest expert is no exception), and how likely it is. */
static double fall_gradient(const struct network *n, const struct fall *f, int64_t k,
                            double *dlogits)
{
    struct tri_sparse_draw draw[DRAWS_MAX];
    double likely = 1;
    double y = 0;
    for (int64_t j = 0; j < k; j++) {
        double rate = tri_sparsemixer_rate(&n->mixer);
        draw[j] = begin_draw(n, f->chosen, j, f->chosen[j]);
        likely *= draw[j].share * (f->full[j] ? rate : 1 - rate);
        y += tri_sparsemixer_scale(&n->mixer, false, f->full[j]) * draw[j].share *
             n->out[f->chosen[j]];
    }
    for (int64_t e = 0; e < n->mixer.experts; e++) {
        dlogits[e] = 0;
        for (int64_t j = 0; j < k; j++) {
            dlogits[e] += slope(n, y) * n->out[f->chosen[j]] * tri_sparse_draw_slope(&draw[j], e);
        }
    }
    return likely;
}

static void expect_all_falls(const struct network *n, int64_t k, double *expected)
{
    const int64_t experts = n->mixer.experts;
    int64_t ways = k == 1 ? 2 * experts : 4 * experts * experts;
    memset(expected, 0, (size_t)experts * sizeof(*expected));
    for (int64_t w = 0; w < ways; w++) {
        int64_t pair = w / (k == 1 ? 2 : 4);
        const struct fall f = {{(int32_t)(pair % experts), (int32_t)(pair / experts)},
                               {w % 2 == 1, w / 2 % 2 == 1}};
        double dlogits[EXPERTS_MAX] = {0};
        if (k == 2 && f.chosen[0] == f.chosen[1]) {
            continue;
        }
        double likely = fall_gradient(n, &f, k, dlogits);
        for (int64_t e = 0; e < experts; e++) {
            expected[e] += likely * dlogits[e];
        }
    }
}

/* Softmax of what is left, by itself. */
static void softmax_left(const struct network *n, int64_t taken, double *p)
{
    double by = n->mixer.form == TRI_SPARSEMIXER_CORRECTED ? 2 : 1;
    double sum = 0;
    for (int64_t e = 0; e < n->mixer.experts; e++) {
        p[e] = e == taken ? 0 : exp((double)n->logits[e] / by);
        sum += p[e];
    }
    for (int64_t e = 0; e < n->mixer.experts; e++) {
        p[e] /= sum;
    }
}

/* d p_i / d logit e */
static double softmax_slope(const struct network *n, const double *p, int64_t i, int64_t e)
{
    double by = n->mixer.form == TRI_SPARSEMIXER_CORRECTED ? 2 : 1;
    return p[i] * ((i == e ? 1 : 0) - p[e]) / by;
}

/* What draw i brings beside an output y of the other draw: f(p e + y) - f(y), and with v2* what the
 * weight itself does, p e f'. */
static double brings(const struct network *n, double p, int64_t i, double y)
{
    double h = p * n->out[i];
    double all = value(n, h + y) - value(n, y);
    return n->mixer.form == TRI_SPARSEMIXER_CORRECTED ? all + h * slope(n, h + y) : all;
}

static double mean_scaled(const struct network *n, double p, int64_t i, double q, int64_t other)
{
    double rate = tri_sparsemixer_rate(&n->mixer);
    double h = p * n->out[i];
    return rate * brings(n, q, other, h) + (1 - rate) * brings(n, q, other, h / 3);
}

static void expect_exact(const struct network *n, int64_t k, double *exact)
{
    const int64_t experts = n->mixer.experts;
    double p[EXPERTS_MAX];
    double q[EXPERTS_MAX];
    softmax_left(n, -1, p);
    memset(exact, 0, (size_t)experts * sizeof(*exact));
    for (int64_t i = 0; i < experts; i++) {
        double first = k == 1 ? brings(n, p[i], i, 0) : 0;
        softmax_left(n, i, q);
        for (int64_t j = 0; k == 2 && j < experts; j++) {
            if (j == i) {
                continue;
            }
            first += q[j] * mean_scaled(n, q[j], j, p[i], i);
            for (int64_t e = 0; e < experts; e++) {
                exact[e] += p[i] * mean_scaled(n, p[i], i, q[j], j) * softmax_slope(n, q, j, e);
            }
        }
        for (int64_t e = 0; e < experts; e++) {
            exact[e] += first * softmax_slope(n, p, i, e);
        }
    }
}

/* Heun's third order is exact for cubics: over all draws and B equation 8 is the gradient of the
 * expected loss by the probabilities of the draws (and, of v2*, by the weights too). */
static void test_expectation(void **state)
{
    (void)state;
    static const enum tri_sparsemixer_form forms[] = {TRI_SPARSEMIXER_PAPER,
                                                      TRI_SPARSEMIXER_CORRECTED};
    for (int i = 0; i < 200; i++) {
        struct network n = {.mixer = {forms[i % 2], 1.0, 2 + i % 5}};
        double expected[EXPERTS_MAX];
        double exact[EXPERTS_MAX];
        for (int j = 0; j < EXPERTS_MAX; j++) {
            uint64_t at = (uint64_t)i * EXPERTS_MAX + (uint64_t)j;
            n.logits[j] = (float)tri_random_normal(21, 1, at);
            n.out[j] = tri_random_normal(21, 2, at);
            n.cubic[j % 4] = tri_random_normal(21, 3, at);
        }
        int64_t k = 1 + i / 2 % 2;
        expect_all_falls(&n, k, expected);
        expect_exact(&n, k, exact);
        double size = 1;
        for (int64_t e = 0; e < n.mixer.experts; e++) {
            size = fmax(size, fabs(exact[e]));
        }
        for (int64_t e = 0; e < n.mixer.experts; e++) {
            assert_close(expected[e], exact[e], 1e-14 * size);
        }
    }
}

/* Values that were computed apart, by a few lines of Python. */
static void test_recorded(void **state)
{
    (void)state;
    const struct network n = {{TRI_SPARSEMIXER_PAPER, 1.0, 3},
                              {0.3F, -0.2F, 0.5F},
                              {0.7, -1.1, 0.4},
                              {0.2, 0.5, 1.3, -0.8}};
    static const double recorded[] = {0.0278952992, -0.0316348861, 0.0037395869};
    double expected[EXPERTS_MAX];
    expect_all_falls(&n, 1, expected);
    for (int e = 0; e < 3; e++) {
        assert_close(expected[e], recorded[e], 2e-9);
    }
}

/* Whatever is drawn, masked and imposed, the gradient of the logits sums to nothing. */
static void test_sum_of_slopes(void **state)
{
    (void)state;
    int masked = 0;
    for (int i = 0; i < 600; i++) {
        struct network n = {.mixer = {(enum tri_sparsemixer_form)(i % 3), i % 7 * 0.15, 8}};
        int32_t chosen[DRAWS_MAX];
        for (int j = 0; j < EXPERTS_MAX; j++) {
            n.logits[j] = (float)tri_random_normal(22, 1, (uint64_t)i * EXPERTS_MAX + (uint64_t)j);
        }
        for (int64_t j = 0; j < DRAWS_MAX; j++) {
            double gap;
            struct tri_sparse_draw draw = begin_draw(&n, chosen, j, 0);
            double u = tri_random_uniform(22, 2, (uint64_t)i * DRAWS_MAX + (uint64_t)j);
            chosen[j] = (int32_t)tri_sparse_draw_choose(&draw, u, &gap);
            tri_sparse_draw_take(&draw, chosen[j]);
            double sum = 0;
            for (int64_t e = 0; e < 8; e++) {
                double by = tri_sparse_draw_slope(&draw, e);
                sum += by;
                masked += by == 0;
            }
            assert_close(sum, 0, 1e-15);
            assert_true(draw.share > 0 && gap >= 0);
        }
        assert_int_not_equal(chosen[0], chosen[1]);
    }
    assert_true(masked > 1000);
}

static void test_released(void **state)
{
    (void)state;
    int small = 0;
    for (size_t i = 0; i < sizeof(released) / sizeof(released[0]); i++) {
        struct network n = {.mixer = {TRI_SPARSEMIXER_RELEASED, released[i].eps, RELEASED_EXPERTS}};
        double dscores[RELEASED_EXPERTS] = {0};
        memcpy(n.logits, released[i].scores, sizeof(released[i].scores));
        for (int64_t j = 0; j < RELEASED_DRAWS; j++) {
            struct tri_sparse_draw draw =
                begin_draw(&n, released[i].drawn, j, released[i].drawn[j]);
            double scale =
                tri_sparsemixer_scale(&n.mixer, draw.chosen == draw.largest, released[i].full[j]);
            assert_close(scale * draw.share, released[i].weight[j], 1e-15);
            /* what multiplies the expert's output multiplies its gradient */
            assert_close(tri_sparsemixer_back(&n.mixer, scale) * draw.share, released[i].weight[j],
                         1e-15);
            small += scale < 1;
            for (int64_t e = 0; e < RELEASED_EXPERTS; e++) {
                dscores[e] += released[i].slope[j] * tri_sparse_draw_slope(&draw, e);
            }
        }
        for (int64_t e = 0; e < RELEASED_EXPERTS; e++) {
            assert_close(dscores[e], released[i].dscores[e], 1e-14);
        }
    }
    assert_true(small > 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_expectation),
        cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_sum_of_slopes),
        cmocka_unit_test(test_released),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
