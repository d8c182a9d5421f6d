/* A dense router: the information loss's values where they are known, its gradient and that of the
 * weights against finite differences, and which experts work in sparse use. */
#include "moe/fixture.h"

#include "base/random.h"
#include "moe/strategies.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

enum { ROWS = 3, SEQ = 16, TOKENS = ROWS * SEQ, EXPERTS = 8 };

struct terms {
    double weights, information, z;
};

static void begin(struct fixture *f, enum tri_window window, const struct terms *terms)
{
    struct tri_config config;
    fixture_config(&config);
    config.moe.router = &tri_router_dense;
    config.moe.aux_window = window;
    config.moe.mutual_information = terms->information;
    config.moe.z_loss = terms->z;
    fixture_begin(f, &config, NULL, 3, ROWS, SEQ);
}

/* ---- values ---------------------------------------------------------------------------------- */

static const enum tri_window windows[] = {TRI_WINDOW_SEQUENCE, TRI_WINDOW_STEP, TRI_WINDOW_RANK};

/* Each token's own expert is `sure` logits above the others. */
static double information_of(enum tri_window window, float sure, int (*own)(int64_t token))
{
    const struct terms none = {0};
    struct fixture f;
    begin(&f, window, &none);
    for (int64_t i = 0; i < TOKENS * EXPERTS; i++) {
        f.logits[i] = i % EXPERTS == own(i / EXPERTS) ? sure : 0;
    }
    (void)fixture_forward(&f);
    double loss = f.routes.information_loss;
    fixture_end(&f);
    return loss;
}

static int in_turn(int64_t token)
{
    return (int)(token % EXPERTS);
}

static int always_fifth(int64_t token)
{
    (void)token;
    return 5;
}

static void test_known_values(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_close(information_of(windows[i], 0, in_turn), 0, 1e-12);
        assert_close(information_of(windows[i], 200, in_turn), -log(EXPERTS), 1e-12);
        assert_close(information_of(windows[i], 200, always_fifth), 0, 1e-12);
    }
}

/* By the definition, of one window. */
static double definition(const float *probs, int64_t tokens)
{
    double loss = 0;
    for (int64_t e = 0; e < EXPERTS; e++) {
        double mean = 0;
        for (int64_t t = 0; t < tokens; t++) {
            double p = (double)probs[t * EXPERTS + e];
            mean += p / (double)tokens;
            loss -= p * log(p) / (double)tokens;
        }
        loss += mean * log(mean);
    }
    return loss;
}

static void test_definition(void **state)
{
    (void)state;
    const struct terms none = {0};
    for (int i = 0; i < 3; i++) {
        struct fixture f;
        begin(&f, windows[i], &none);
        assert_close(fixture_forward(&f), 0, 0);
        double expected = 0;
        for (int64_t row = 0; row < ROWS && windows[i] == TRI_WINDOW_SEQUENCE; row++) {
            expected += definition(f.routes.probs + row * SEQ * EXPERTS, SEQ) / ROWS;
        }
        if (windows[i] != TRI_WINDOW_SEQUENCE) {
            expected = definition(f.routes.probs, TOKENS);
        }
        assert_close(f.routes.information_loss, expected, 1e-12);
        assert_true(expected < -0.1 && expected > -log(EXPERTS));
        fixture_end(&f);
    }
}

/* ---- gradients ------------------------------------------------------------------------------- */

static double value(struct fixture *f, const struct terms *terms, const float *dweight)
{
    (void)fixture_forward(f);
    double sum = terms->information * f->routes.information_loss + terms->z * f->routes.z_loss;
    for (int64_t i = 0; i < TOKENS * EXPERTS; i++) {
        sum += (double)dweight[i] * (double)f->routes.weight[i];
    }
    return sum;
}

/* Of a forward that was made. */
static void check_differences(struct fixture *f, const struct terms *terms, const float *dweight)
{
    static float dlogits[TOKENS * EXPERTS];
    const float step = 1.0F / 64;
    double scale = 0;
    tri_router_backward(f->router, &f->call, &f->routes, NULL, (struct tri_range){0, TOKENS},
                        dweight, dlogits);
    for (int64_t i = 0; i < TOKENS * EXPERTS; i++) {
        scale = fmax(scale, fabs((double)dlogits[i]));
    }
    assert_true(scale > 0);
    for (int64_t i = 0; i < TOKENS * EXPERTS; i++) {
        float kept = f->logits[i];
        f->logits[i] = kept + step;
        double width = (double)f->logits[i];
        double difference = value(f, terms, dweight);
        f->logits[i] = kept - step;
        width -= (double)f->logits[i];
        difference -= value(f, terms, dweight);
        f->logits[i] = kept;
        assert_close(difference / width, dlogits[i], 1e-3 * scale);
    }
}

static void check_gradient(enum tri_window window, struct terms terms)
{
    static float dweight[TOKENS * EXPERTS];
    struct fixture f;
    begin(&f, window, &terms);
    f.call.global_tokens = 2 * (int64_t)TOKENS; /* the micro-batch is half of the batch */
    for (int64_t i = 0; i < TOKENS * EXPERTS; i++) {
        dweight[i] = (float)(terms.weights * tri_random_normal(1, 2, (uint64_t)i));
    }
    (void)value(&f, &terms, dweight);
    check_differences(&f, &terms, dweight);
    fixture_end(&f);
}

static void test_gradients(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        check_gradient(windows[i], (struct terms){.weights = 1});
        check_gradient(windows[i], (struct terms){.information = 0.7});
        check_gradient(windows[i], (struct terms){.z = 0.3});
        check_gradient(windows[i], (struct terms){.weights = 0.1, .information = 0.7, .z = 0.3});
    }
}

static void test_own_tokens_only(void **state)
{
    (void)state;
    static float whole[TOKENS * EXPERTS], part[TOKENS * EXPERTS];
    const float none[TOKENS * EXPERTS] = {0};
    const struct terms terms = {.information = 0.7, .z = 0.3};
    struct fixture f;
    begin(&f, TRI_WINDOW_SEQUENCE, &terms);
    (void)fixture_forward(&f);
    tri_router_backward(f.router, &f.call, &f.routes, NULL, (struct tri_range){0, TOKENS}, none,
                        whole);
    memset(part, 0xff, sizeof(part));
    tri_router_backward(f.router, &f.call, &f.routes, NULL, (struct tri_range){4, 21}, none, part);
    assert_memory_equal(part + 4 * EXPERTS, whole + 4 * EXPERTS, 17 * EXPERTS * sizeof(float));
    for (int64_t i = 0; i < TOKENS * EXPERTS; i++) {
        assert_true((i >= 4 * EXPERTS && i < 21 * EXPERTS) || part[i] == 0);
    }
    fixture_end(&f);
}

/* Far from every other probability the slope is finite, and one of 0 has none. */
static void test_extreme_logits(void **state)
{
    (void)state;
    static float dlogits[TOKENS * EXPERTS];
    const float none[TOKENS * EXPERTS] = {0};
    const struct terms terms = {.information = 1};
    struct fixture f;
    begin(&f, TRI_WINDOW_SEQUENCE, &terms);
    for (int64_t i = 0; i < TOKENS * EXPERTS; i++) {
        f.logits[i] *= i % 3 == 0 ? 90 : 1;
    }
    (void)fixture_forward(&f);
    tri_router_backward(f.router, &f.call, &f.routes, NULL, (struct tri_range){0, TOKENS}, none,
                        dlogits);
    for (int64_t i = 0; i < TOKENS * EXPERTS; i++) {
        assert_true(isfinite(dlogits[i]));
    }
    assert_true(isfinite(f.routes.information_loss));
    fixture_end(&f);
}

/* ---- sparse use ------------------------------------------------------------------------------ */

/* How many experts of a token have a larger probability, or the same and come first. */
static int rank_of(const float *probs, int64_t e)
{
    int rank = 0;
    for (int64_t j = 0; j < EXPERTS; j++) {
        rank += probs[j] > probs[e] || (probs[j] == probs[e] && j < e);
    }
    return rank;
}

/* Of a token, counted by the definition. */
static int above(const float *probs, double epsilon)
{
    int count = 0;
    for (int64_t e = 0; e < EXPERTS; e++) {
        count += (double)probs[e] * EXPERTS > epsilon;
    }
    return count > 0 ? count : 1;
}

/* Experts of a token of the window that has tokens [begin, end). */
static int expected_count(const struct tri_active *active, const float *probs, int64_t token,
                          int64_t begin, int64_t end)
{
    if (active->kind == TRI_ACTIVE_TOP) {
        return (int)active->n;
    }
    if (active->kind == TRI_ACTIVE_THRESHOLD) {
        return above(probs + token * EXPERTS, active->epsilon);
    }
    int sum = 0;
    for (int64_t t = begin; t < end; t++) {
        sum += above(probs + t * EXPERTS, active->epsilon);
    }
    return (int)floor((double)sum / (double)(end - begin) + 0.5);
}

static void check_active(enum tri_window window, struct tri_active active)
{
    static float probs[TOKENS * EXPERTS];
    const struct terms none = {0};
    int64_t load[EXPERTS] = {0};
    struct fixture f;
    begin(&f, window, &none);
    f.call.training = false;
    f.logits[3] = f.logits[5] = f.logits[6]; /* ties go to the lower */
    (void)fixture_forward(&f);
    assert_false(f.routes.sparse);
    for (int64_t e = 0; e < EXPERTS; e++) {
        assert_int_equal(f.routes.load[e], TOKENS);
    }
    memcpy(probs, f.routes.weight, sizeof(probs));
    f.call.active = &active;
    (void)fixture_forward(&f);
    assert_true(f.routes.sparse);
    for (int64_t t = 0; t < TOKENS; t++) {
        bool rows = window == TRI_WINDOW_SEQUENCE;
        int64_t begin_row = rows ? t / SEQ * SEQ : 0;
        int count =
            expected_count(&active, probs, t, begin_row, rows ? begin_row + SEQ : (int64_t)TOKENS);
        for (int64_t e = 0; e < EXPERTS; e++) {
            bool works = rank_of(probs + t * EXPERTS, e) < count;
            float weight = f.routes.weight[t * EXPERTS + e];
            assert_true(weight == (works ? probs[t * EXPERTS + e] : 0));
            load[e] += works;
        }
    }
    assert_memory_equal(load, f.routes.load, sizeof(load));
    fixture_end(&f);
}

static void test_active(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        for (int64_t n = 1; n <= EXPERTS; n++) {
            check_active(windows[i], (struct tri_active){TRI_ACTIVE_TOP, n, 0});
        }
        for (double epsilon = 0; epsilon < 9; epsilon += 0.48) {
            check_active(windows[i], (struct tri_active){TRI_ACTIVE_THRESHOLD, 0, epsilon});
            check_active(windows[i], (struct tri_active){TRI_ACTIVE_AVERAGE, 0, epsilon});
        }
    }
}

/* ---- sharpening ------------------------------------------------------------------------------ */

enum { SHARP = 4, KEPT = 3 };

static void begin_sharp(struct fixture *f, const struct terms *terms, uint64_t step)
{
    struct tri_config config;
    fixture_config(&config);
    config.moe.router = &tri_router_dense;
    config.moe.sharpen_step = SHARP;
    config.moe.top_k = KEPT;
    config.moe.mutual_information = terms->information;
    config.moe.z_loss = terms->z;
    fixture_begin(f, &config, NULL, 3, ROWS, SEQ);
    f->call.step = step;
    f->logits[3] = f->logits[5] = f->logits[6]; /* ties go to the lower */
}

/* What a token's experts weigh in training is what they weigh in sparse use, and nothing else of a
 * router changes; before the step, and without training, all weigh. */
static void test_sharp_weights(void **state)
{
    (void)state;
    static float sparse[TOKENS * EXPERTS];
    const struct tri_active active = {TRI_ACTIVE_TOP, KEPT, 0};
    const struct terms none = {0};
    int64_t load[EXPERTS];
    for (uint64_t step = SHARP - 2; step <= SHARP; step++) {
        struct fixture f;
        begin_sharp(&f, &none, step);
        (void)fixture_forward(&f);
        bool sharp = step + 1 >= SHARP;
        double information = f.routes.information_loss;
        assert_false(f.routes.sparse);
        memcpy(load, f.routes.load, sizeof(load));
        memcpy(sparse, f.routes.weight, sizeof(sparse));
        f.call.training = false;
        f.call.active = sharp ? &active : NULL;
        tri_routes_place(&f.config, ROWS, SEQ, f.routes_block, &f.routes);
        (void)fixture_forward(&f);
        assert_memory_equal(sparse, f.routes.weight, sizeof(sparse));
        assert_memory_equal(load, f.routes.load, sizeof(load));
        assert_true((sparse[0] + sparse[1] + sparse[2] + sparse[3] + sparse[4] + sparse[5] +
                         sparse[6] + sparse[7] <
                     0.999F) == sharp);
        assert_close(f.routes.information_loss, information, 0);
        fixture_end(&f);
    }
}

/* Those that were chosen, as the logits move. */
static void check_sharp_gradient(struct terms terms)
{
    static float dweight[TOKENS * EXPERTS];
    static int32_t chosen[TOKENS * KEPT];
    struct fixture f;
    begin_sharp(&f, &terms, SHARP);
    for (int64_t i = 0; i < TOKENS * EXPERTS; i++) {
        dweight[i] = (float)(terms.weights * tri_random_normal(1, 2, (uint64_t)i));
    }
    (void)value(&f, &terms, dweight);
    memcpy(chosen, f.routes.chosen, sizeof(chosen));
    f.call.imposed = chosen;
    (void)value(&f, &terms, dweight);
    check_differences(&f, &terms, dweight);
    fixture_end(&f);
}

static void test_sharp_gradients(void **state)
{
    (void)state;
    check_sharp_gradient((struct terms){.weights = 1});
    check_sharp_gradient((struct terms){.information = 0.7});
    check_sharp_gradient((struct terms){.weights = 0.1, .information = 0.7, .z = 0.3});
}

/* What is said of an expert that has no weight changes nothing. */
static void test_sharp_heeds_no_others(void **state)
{
    (void)state;
    static float dweight[2][TOKENS * EXPERTS], dlogits[2][TOKENS * EXPERTS];
    const struct terms terms = {.information = 0.7};
    struct fixture f;
    begin_sharp(&f, &terms, SHARP);
    (void)fixture_forward(&f);
    for (int64_t i = 0; i < TOKENS * EXPERTS; i++) {
        dweight[0][i] = dweight[1][i] = (float)tri_random_normal(1, 2, (uint64_t)i);
        dweight[1][i] += f.routes.weight[i] != 0 ? 0 : 5;
    }
    for (int i = 0; i < 2; i++) {
        tri_router_backward(f.router, &f.call, &f.routes, NULL, (struct tri_range){0, TOKENS},
                            dweight[i], dlogits[i]);
    }
    assert_memory_equal(dlogits[0], dlogits[1], sizeof(dlogits[0]));
    fixture_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sharp_weights),
        cmocka_unit_test(test_sharp_gradients),
        cmocka_unit_test(test_sharp_heeds_no_others),
        cmocka_unit_test(test_known_values),
        cmocka_unit_test(test_definition),
        cmocka_unit_test(test_gradients),
        cmocka_unit_test(test_own_tokens_only),
        cmocka_unit_test(test_extreme_logits),
        cmocka_unit_test(test_active),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
