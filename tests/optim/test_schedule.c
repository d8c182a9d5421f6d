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

static void test_falling(void **state)
{
    (void)state;
    struct tri_config_train t = train(TRI_LR_COSINE);
    assert_near(tri_learning_rate(&t, 55), 5.5e-4);
    assert_near(tri_learning_rate(&t, 40), 1e-4 + 9e-4 * 0.75);
    assert_near(tri_learning_rate(&t, 100), 1e-4);
    assert_near(tri_learning_rate(&t, 1000), 1e-4);
    t = train(TRI_LR_LINEAR);
    assert_near(tri_learning_rate(&t, 55), 5.5e-4);
    assert_near(tri_learning_rate(&t, 28), 1e-3 - 9e-4 * 0.2);
    assert_near(tri_learning_rate(&t, 100), 1e-4);
}

static void test_stable_then_falling(void **state)
{
    (void)state;
    struct tri_config_train t = train(TRI_LR_WSD);
    assert_near(tri_learning_rate(&t, 50), 1e-3);
    assert_near(tri_learning_rate(&t, 80), 1e-3);
    assert_near(tri_learning_rate(&t, 90), 5.5e-4);
    assert_near(tri_learning_rate(&t, 100), 1e-4);
    t = train(TRI_LR_CONSTANT);
    assert_near(tri_learning_rate(&t, 99), 1e-3);
}

static void test_no_steps_to_fall_in(void **state)
{
    (void)state;
    struct tri_config_train t = train(TRI_LR_COSINE);
    t.warmup_steps = t.steps = 1;
    assert_near(tri_learning_rate(&t, 0), 1e-3);
    assert_near(tri_learning_rate(&t, 1), 1e-3);
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
        cmocka_unit_test(test_no_steps_to_fall_in),
        cmocka_unit_test(test_clip),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
