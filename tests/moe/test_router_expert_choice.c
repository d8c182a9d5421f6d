/* Expert choice by its definition, and its gradient against finite differences. */
#include "moe/fixture.h"

#include "base/random.h"
#include "moe/router_kind.h"
#include "moe/strategies.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

enum { ROWS = 3, SEQ = 21, TOKENS = ROWS * SEQ, EXPERTS = 8, CELLS = TOKENS * EXPERTS };

static void begin(struct fixture *f, int64_t k, double capacity)
{
    struct tri_config config;
    fixture_config(&config);
    config.moe.router = &tri_router_expert_choice;
    config.moe.top_k = k;
    config.moe.capacity_factor = capacity;
    config.moe.min_capacity = 4; /* of queues: not for this router */
    fixture_begin(f, &config, NULL, 2, ROWS, SEQ);
    for (int64_t i = 0; i < SEQ * EXPERTS; i++) {
        f->logits[i] = roundf(f->logits[i] / 3); /* the first row is full of ties */
    }
}

/* Tokens of the row that expert e would take before token t. */
static int64_t better(const struct fixture *f, int64_t row, int64_t t, int64_t e)
{
    const float *probs = f->routes.probs + row * SEQ * EXPERTS;
    int64_t count = 0;
    for (int64_t i = 0; i < SEQ; i++) {
        float own = probs[t * EXPERTS + e];
        float other = probs[i * EXPERTS + e];
        count += other > own || (other == own && i < t);
    }
    return count;
}

static void check_taken(const struct fixture *f, int64_t taken)
{
    assert_int_equal(f->routes.capacity, taken);
    assert_int_equal(f->routes.dropped, 0);
    assert_close(f->routes.aux_loss, 0, 0);
    for (int64_t e = 0; e < EXPERTS; e++) {
        assert_int_equal(f->routes.load[e], ROWS * taken);
    }
    for (int64_t i = 0; i < CELLS; i++) {
        int64_t e = i % EXPERTS;
        bool takes = better(f, i / EXPERTS / SEQ, i / EXPERTS % SEQ, e) < taken;
        assert_int_equal(f->routes.expert[i], takes ? e : -1);
        assert_int_equal(f->routes.chosen[i], takes ? e : -1);
        assert_close(f->routes.weight[i], takes ? f->routes.probs[i] : 0, 0);
    }
}

static void test_definition(void **state)
{
    (void)state;
    static const struct {
        int64_t k;
        double capacity;
        int64_t taken;
    } cases[] = {
        {1, 0, 3}, {2, 0, 6}, {2, 1.5, 8}, {3, 0.5, 4}, {8, 0, 21}, {8, 2, 21}, {1, 0.1, 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct fixture f;
        begin(&f, cases[i].k, cases[i].capacity);
        (void)fixture_forward(&f);
        check_taken(&f, cases[i].taken);
        fixture_end(&f);
    }
}

static void test_evaluation(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, 2, 1);
    f.config.moe.eval_capacity_factor = 2;
    f.call.training = false;
    (void)fixture_forward(&f);
    check_taken(&f, 11);
    fixture_end(&f);
}

/* A row of one token, as in decoding: every expert takes it. */
static void test_one_token(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, 2, 0);
    f.call.rows = TOKENS;
    f.call.seq = 1;
    (void)fixture_forward(&f);
    for (int64_t i = 0; i < CELLS; i++) {
        assert_int_equal(f.routes.expert[i], i % EXPERTS);
    }
    fixture_end(&f);
}

static void test_imposed(void **state)
{
    (void)state;
    static int32_t imposed[CELLS];
    struct fixture f;
    begin(&f, 2, 0);
    for (int64_t i = 0; i < CELLS; i++) {
        imposed[i] = i % 5 == 0 ? (int32_t)(i % EXPERTS) : -1;
    }
    f.call.imposed_drops = imposed;
    (void)fixture_forward(&f);
    assert_memory_equal(f.routes.expert, imposed, sizeof(imposed));
    for (int64_t i = 0; i < CELLS; i++) {
        assert_close(f.routes.weight[i], i % 5 == 0 ? f.routes.probs[i] : 0, 0);
    }
    fixture_end(&f);
}

/* The gap is the least distance from a bound that the other side of it sets. */
static void test_gap(void **state)
{
    (void)state;
    struct fixture f;
    begin(&f, 2, 0);
    (void)fixture_forward(&f);
    for (int64_t t = 0; t < TOKENS; t++) {
        const float *row = f.routes.probs + t / SEQ * SEQ * EXPERTS;
        float expected = INFINITY;
        for (int64_t e = 0; e < EXPERTS; e++) {
            bool taken = f.routes.expert[t * EXPERTS + e] >= 0;
            for (int64_t i = 0; i < SEQ; i++) {
                bool other = f.routes.expert[(t / SEQ * SEQ + i) * EXPERTS + e] >= 0;
                if (other != taken) {
                    float own = f.routes.probs[t * EXPERTS + e];
                    float bound = row[i * EXPERTS + e];
                    expected = fminf(expected, taken ? own - bound : bound - own);
                }
            }
        }
        assert_close(f.routes.gap[t], expected, 0);
    }
    assert_true(f.routes.gap_in_probs);
    fixture_end(&f);
}

static double value(struct fixture *f, const float *dweight)
{
    (void)fixture_forward(f);
    double sum = f->config.moe.z_loss * f->routes.z_loss;
    for (int64_t i = 0; i < CELLS; i++) {
        sum += (double)dweight[i] * (double)f->routes.weight[i];
    }
    return sum;
}

static void check_gradient(double weights, double z)
{
    const float step = 1.0F / 64;
    static float dweight[CELLS], dlogits[CELLS];
    static int32_t expert[CELLS];
    struct fixture f;
    begin(&f, 3, 0);
    f.config.moe.z_loss = z;
    f.call.global_tokens = 2 * (int64_t)TOKENS;
    for (int64_t i = 0; i < CELLS; i++) {
        dweight[i] = (float)(weights * tri_random_normal(1, 2, (uint64_t)i));
    }
    (void)value(&f, dweight);
    memcpy(expert, f.routes.expert, sizeof(expert));
    memset(dlogits, 0xff, sizeof(dlogits));
    tri_router_backward(f.router, &f.call, &f.routes, NULL, (struct tri_range){SEQ, TOKENS - 4},
                        dweight, dlogits);
    int compared = 0;
    for (int64_t i = 0; i < CELLS; i++) {
        if (i < SEQ * EXPERTS || i >= (TOKENS - 4) * EXPERTS) {
            assert_close(dlogits[i], 0, 0); /* not its own */
            continue;
        }
        float kept = f.logits[i];
        f.logits[i] = kept + step;
        double width = (double)f.logits[i];
        double difference = value(&f, dweight);
        bool same = memcmp(expert, f.routes.expert, sizeof(expert)) == 0;
        f.logits[i] = kept - step;
        width -= (double)f.logits[i];
        difference -= value(&f, dweight);
        same = same && memcmp(expert, f.routes.expert, sizeof(expert)) == 0;
        f.logits[i] = kept;
        compared += same;
        if (same) {
            assert_close(difference / width, dlogits[i], 1e-4 * (weights + z));
        }
    }
    assert_true(compared > (SEQ * 2 - 4) * EXPERTS / 2);
    fixture_end(&f);
}

static void test_gradient(void **state)
{
    (void)state;
    check_gradient(1, 0);
    check_gradient(0, 0.5);
    check_gradient(0.3, 0.5);
}

/* A run that diverged reaches the guard that skips its step. */
static void test_not_finite(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct fixture f;
        begin(&f, 2, 0);
        for (int64_t n = 0; n < CELLS; n++) {
            f.logits[n] = i ? NAN : n % 3 == 0 ? -INFINITY : INFINITY;
        }
        (void)fixture_forward(&f);
        int64_t taken = 0;
        for (int64_t n = 0; n < CELLS; n++) {
            taken += f.routes.expert[n] >= 0;
        }
        assert_int_equal(taken, ROWS * EXPERTS * 6);
        fixture_end(&f);
    }
}

/* What a plan goes by: as many tokens of each row for each expert, and the counts of any range of
 * places are those of the tokens in it. */
static void test_rehearsed(void **state)
{
    (void)state;
    static const double factors[] = {0, 0.7, 2};
    for (size_t i = 0; i < 3 * sizeof(factors) / sizeof(factors[0]); i++) {
        struct tri_config config;
        struct fixture f;
        fixture_config(&config);
        config.moe.router = &tri_router_expert_choice_rehearsed;
        config.moe.top_k = 1 + (int64_t)(i / 3) * 2;
        config.moe.capacity_factor = factors[i % 3];
        fixture_begin(&f, &config, NULL, 0, ROWS, SEQ);
        (void)fixture_forward(&f);
        for (int64_t e = 0; e < EXPERTS; e++) {
            for (int64_t first = 0; first < TOKENS; first += 4) {
                int64_t count = 0;
                for (int64_t t = first; t < TOKENS; t++) {
                    const struct tri_places places = {{first, t}, SEQ, f.routes.capacity};
                    assert_int_equal(
                        config.moe.router->ops->routes_by_place(&f.config.moe, &places, e), count);
                    count += f.routes.expert[t * EXPERTS + e] >= 0;
                }
                assert_true(first > 0 || count == ROWS * f.routes.capacity);
            }
        }
        fixture_end(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_definition), cmocka_unit_test(test_evaluation),
        cmocka_unit_test(test_one_token),  cmocka_unit_test(test_imposed),
        cmocka_unit_test(test_gap),        cmocka_unit_test(test_gradient),
        cmocka_unit_test(test_not_finite), cmocka_unit_test(test_rehearsed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
