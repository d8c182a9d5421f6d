/* Learning rates at the corners of each schedule, and the clip factor. */
#include "optim/optim.h"

#include <math.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#define assert_near(found, expected) assert_true(fabs((found) - (expected)) <= 1e-15)

static struct tri_config_train train(enum tri_lr_schedule schedule)
{
    return (struct tri_config_train){.steps = 100,
                                     .learning_rate = 1e-3,
                                     .min_learning_rate = 1e-4,
                                     .warmup_steps = 10,
                                     .decay_steps = 20,
                                     .schedule = schedule};
}

static void test_warm_up(void **state)
{
    (void)state;
    for (int schedule = TRI_LR_COSINE; schedule <= TRI_LR_CONSTANT; schedule++) {
        struct tri_config_train t = train((enum tri_lr_schedule)schedule);
        assert_near(tri_learning_rate(&t, 0), 1e-4);
        assert_near(tri_learning_rate(&t, 4), 5e-4);
        assert_near(tri_learning_rate(&t, 9), 1e-3);
        assert_near(tri_learning_rate(&t, 10), 1e-3);
        t.warmup_steps = 0;
        assert_near(tri_learning_rate(&t, 0), 1e-3);
    }
}

/* step `at` of the falling part, which has peak at `from` and the lowest rate at `to`. */
static double closed_form(const struct tri_config_train *t, int64_t from, int64_t to, int64_t at)
{
    double done = (double)(at - from) / (double)(to - from);
    double drop = t->learning_rate - t->min_learning_rate;
    double share = t->schedule == TRI_LR_COSINE ? pow(cos(acos(-1.0) * done / 2), 2) : 1 - done;
    return t->min_learning_rate + drop * share;
}

static void test_falling(void **state)
{
    (void)state;
    static const enum tri_lr_schedule falling[] = {TRI_LR_COSINE, TRI_LR_LINEAR};
    for (int i = 0; i < 2; i++) {
        struct tri_config_train t = train(falling[i]);
        for (int64_t step = 10; step < 100; step++) {
            assert_near(tri_learning_rate(&t, step), closed_form(&t, 10, 99, step));
        }
        assert_near(tri_learning_rate(&t, 99), 1e-4);
        assert_near(tri_learning_rate(&t, 1000), 1e-4);
        assert_true(tri_learning_rate(&t, 98) > 1e-4);
        t.warmup_steps = 0;
        for (int64_t step = 0; step < 100; step++) {
            assert_near(tri_learning_rate(&t, step), closed_form(&t, 0, 99, step));
        }
    }
}

static void test_stable_then_falling(void **state)
{
    (void)state;
    struct tri_config_train t = train(TRI_LR_WSD);
    for (int64_t step = 10; step < 80; step++) {
        assert_near(tri_learning_rate(&t, step), 1e-3);
    }
    for (int64_t step = 80; step < 100; step++) {
        assert_near(tri_learning_rate(&t, step), closed_form(&t, 79, 99, step));
        assert_true(tri_learning_rate(&t, step) < 1e-3);
    }
    assert_near(tri_learning_rate(&t, 99), 1e-4);
    t.decay_steps = 1;
    assert_near(tri_learning_rate(&t, 98), 1e-3);
    assert_near(tri_learning_rate(&t, 99), 1e-4);
    t.decay_steps = 90;
    assert_near(tri_learning_rate(&t, 9), 1e-3);
    assert_near(tri_learning_rate(&t, 10), closed_form(&t, 9, 99, 10));
    t = train(TRI_LR_CONSTANT);
    assert_near(tri_learning_rate(&t, 99), 1e-3);
}

/* Few steps: the peak comes first, the lowest rate last; one step has the peak alone. */
static void test_few_steps_to_fall_in(void **state)
{
    (void)state;
    for (int schedule = TRI_LR_COSINE; schedule <= TRI_LR_WSD; schedule++) {
        struct tri_config_train t = train((enum tri_lr_schedule)schedule);
        t.decay_steps = 1;
        t.steps = 11; /* one after the warm-up */
        assert_near(tri_learning_rate(&t, 9), 1e-3);
        assert_near(tri_learning_rate(&t, 10), 1e-4);
        t.steps = 10; /* none */
        assert_near(tri_learning_rate(&t, 9), 1e-3);
        t.warmup_steps = 0;
        t.steps = 2;
        assert_near(tri_learning_rate(&t, 0), 1e-3);
        assert_near(tri_learning_rate(&t, 1), 1e-4);
        t.decay_steps = 2;
        assert_near(tri_learning_rate(&t, 0), 1e-3);
        assert_near(tri_learning_rate(&t, 1), 1e-4);
        t.steps = t.decay_steps = 1;
        assert_near(tri_learning_rate(&t, 0), 1e-3);
    }
}

static void test_clip(void **state)
{
    (void)state;
    assert_near(tri_clip_factor(0.5, 1.0), 1.0);
    assert_near(tri_clip_factor(4.0, 1.0), 1.0 / 4.000001);
    assert_near(tri_clip_factor(4.0, 0.0), 1.0);
    assert_near(tri_clip_factor(0.0, 1.0), 1.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_warm_up),
        cmocka_unit_test(test_falling),
        cmocka_unit_test(test_stable_then_falling),
        cmocka_unit_test(test_few_steps_to_fall_in),
        cmocka_unit_test(test_clip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
