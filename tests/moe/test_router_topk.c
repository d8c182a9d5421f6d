/* Which experts are chosen, and with what weights. */
#include "moe/fixture.h"

#include "base/memory.h"
#include "moe/strategies.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

/* Choices of one token by the definition: the best not yet taken, ties to the lower expert. */
static void choose_slowly(const float *score, int64_t experts, int64_t k, int32_t *chosen)
{
    for (int64_t j = 0; j < k; j++) {
        int64_t best = -1;
        for (int64_t e = 0; e < experts; e++) {
            bool taken = false;
            for (int64_t i = 0; i < j; i++) {
                taken = taken || chosen[i] == e;
            }
            if (!taken && (best < 0 || score[e] > score[best])) {
                best = e;
            }
        }
        chosen[j] = (int32_t)best;
    }
}

static void check_token(const struct fixture *f, int64_t t)
{
    const int64_t experts = f->config.moe.num_experts;
    const int64_t k = f->config.moe.top_k;
    const float *logits = f->call.logits + t * experts;
    const int32_t *chosen = f->routes.chosen + t * k;
    int32_t expected[128] = {0};
    double sum = 0;
    double share = 0;
    choose_slowly(logits, experts, k < experts ? k + 1 : k, expected);
    assert_memory_equal(chosen, expected, (size_t)k * sizeof(*chosen));
    for (int64_t e = 0; e < experts; e++) {
        sum += exp((double)logits[e]);
    }
    assert_close(f->routes.lse[t], log(sum), 1e-6);
    for (int64_t e = 0; e < experts; e++) {
        assert_close(f->routes.probs[t * experts + e], exp((double)logits[e]) / sum, 2e-7);
    }
    for (int64_t j = 0; j < k; j++) {
        share += exp((double)logits[chosen[j]]) / sum;
    }
    for (int64_t j = 0; j < k; j++) {
        double prob = exp((double)logits[chosen[j]]) / sum;
        double weight = f->config.moe.normalize_top_k ? prob / share : prob;
        assert_close(f->routes.weight[t * k + j], weight, 2e-7);
        assert_int_equal(f->routes.expert[t * k + j], chosen[j]);
    }
    if (k == experts) {
        assert_true(isinf(f->routes.gap[t]) && f->routes.gap[t] > 0);
    } else {
        double gap = (double)logits[expected[k - 1]] - (double)logits[expected[k]];
        assert_close(f->routes.gap[t], gap, 1e-6);
    }
}

static void test_choices(void **state)
{
    (void)state;
    static const int64_t shapes[][2] = {{1, 1},  {2, 1},  {8, 2},   {8, 8},
                                        {16, 4}, {65, 8}, {100, 99}};
    for (size_t i = 0; i < 2 * sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct tri_config config;
        struct fixture f;
        fixture_config(&config);
        config.moe.num_experts = shapes[i / 2][0];
        config.moe.top_k = shapes[i / 2][1];
        config.moe.normalize_top_k = i % 2 == 1;
        fixture_begin(&f, &config, NULL, 0, 3, 10);
        for (int64_t n = 0; n < 10 * config.moe.num_experts; n++) {
            f.logits[n] = roundf(f.logits[n]); /* row 0 is full of ties */
        }
        fixture_forward(&f);
        for (int64_t t = 0; t < 30; t++) {
            check_token(&f, t);
        }
        fixture_end(&f);
    }
}

static void test_imposed(void **state)
{
    (void)state;
    static const int32_t imposed[] = {7, 0, 3, 5, 1, 2};
    struct tri_config config;
    struct fixture f;
    fixture_config(&config);
    config.moe.normalize_top_k = true;
    fixture_begin(&f, &config, NULL, 0, 1, 3);
    f.call.imposed = imposed;
    fixture_forward(&f);
    assert_memory_equal(f.routes.chosen, imposed, sizeof(imposed));
    for (int64_t t = 0; t < 3; t++) {
        const float *logits = f.logits + t * 8;
        double a = exp((double)logits[imposed[2 * t]]);
        double b = exp((double)logits[imposed[2 * t + 1]]);
        assert_close(f.routes.weight[2 * t], a / (a + b), 2e-7);
        assert_close(f.routes.weight[2 * t + 1], b / (a + b), 2e-7);
        float best = -INFINITY;
        for (int32_t e = 0; e < 8; e++) {
            if (e != imposed[2 * t] && e != imposed[2 * t + 1]) {
                best = fmaxf(best, logits[e]);
            }
        }
        float worst = fminf(logits[imposed[2 * t]], logits[imposed[2 * t + 1]]);
        assert_close(f.routes.gap[t], worst - best, 1e-6);
    }
    fixture_end(&f);
}

static void test_balanced(void **state)
{
    (void)state;
    struct tri_config config;
    struct fixture f;
    fixture_config(&config);
    config.moe.router = &tri_router_balanced;
    config.moe.top_k = 3;
    fixture_begin(&f, &config, NULL, 5, 2, 8);
    fixture_forward(&f);
    for (int64_t t = 0; t < 16; t++) {
        for (int64_t j = 0; j < 3; j++) {
            int64_t expert = ((5 * 8 + t) * 3 + j) % 8;
            assert_int_equal(f.routes.chosen[t * 3 + j], expert);
            assert_close(f.routes.weight[t * 3 + j], f.routes.probs[t * 8 + expert], 0);
        }
    }
    for (int64_t e = 0; e < 8; e++) {
        assert_int_equal(f.routes.load[e], 6);
    }
    fixture_end(&f);
}

/* Two experts a logit apart, noise of deviation 0.5 on each: the worse one wins with probability
 * Phi(-1 / (0.5 sqrt 2)) = 0.0786. */
static void test_noise(void **state)
{
    (void)state;
    struct tri_config config;
    struct fixture f;
    fixture_config(&config);
    config.moe.num_experts = 2;
    config.moe.top_k = 1;
    config.moe.noise = 0.5;
    fixture_begin(&f, &config, NULL, 0, 4, 1000);
    for (int64_t t = 0; t < 4000; t++) {
        f.logits[2 * t] = 1;
        f.logits[2 * t + 1] = 0;
    }
    fixture_forward(&f);
    assert_in_range(f.routes.load[1], 255, 375);
    for (int64_t t = 0; t < 4000; t++) {
        int32_t e = f.routes.chosen[t];
        assert_close(f.routes.weight[t], e == 0 ? 0.731058579 : 0.268941421, 1e-6);
        assert_true(f.routes.gap[t] >= 0);
    }
    int32_t *before = tri_alloc(TRI_MEMORY_OTHER, 4000 * sizeof(*before));
    memcpy(before, f.routes.chosen, 4000 * sizeof(*before));
    f.call.layer = 1;
    fixture_forward(&f);
    assert_memory_not_equal(before, f.routes.chosen, 4000 * sizeof(*before));
    f.call.layer = 0;
    f.call.step = 6;
    fixture_forward(&f);
    assert_memory_not_equal(before, f.routes.chosen, 4000 * sizeof(*before));
    f.call.training = false;
    fixture_forward(&f);
    assert_int_equal(f.routes.load[0], 4000);
    tri_free(before);
    fixture_end(&f);
}

/* A bias of zero must not change which noise wins. */
static void test_noise_with_bias(void **state)
{
    (void)state;
    static const float zero[8] = {0};
    struct tri_config config;
    struct fixture f;
    fixture_config(&config);
    config.moe.noise = 1;
    fixture_begin(&f, &config, NULL, 0, 2, 50);
    fixture_forward(&f);
    int32_t before[200];
    memcpy(before, f.routes.chosen, sizeof(before));
    f.call.bias = zero;
    fixture_forward(&f);
    assert_memory_equal(before, f.routes.chosen, sizeof(before));
    fixture_end(&f);
}

static void test_bias_chooses_only(void **state)
{
    (void)state;
    static const float bias[8] = {0.3F, -0.2F, 0, 0, 0.1F, 0, -0.5F, 0.05F};
    struct tri_config config;
    struct fixture f;
    fixture_config(&config);
    fixture_begin(&f, &config, NULL, 0, 1, 40);
    f.call.bias = bias;
    fixture_forward(&f);
    for (int64_t t = 0; t < 40; t++) {
        float score[8];
        int32_t expected[3];
        for (int64_t e = 0; e < 8; e++) {
            score[e] = f.routes.probs[t * 8 + e] + bias[e];
        }
        choose_slowly(score, 8, 3, expected);
        assert_memory_equal(f.routes.chosen + t * 2, expected, 2 * sizeof(int32_t));
        assert_close(f.routes.gap[t], score[expected[1]] - score[expected[2]], 1e-7);
        for (int64_t j = 0; j < 2; j++) {
            float prob = f.routes.probs[t * 8 + expected[j]];
            assert_close(f.routes.weight[t * 2 + j], prob, 0);
        }
    }
    fixture_end(&f);
}

static int64_t largest(const int64_t *load)
{
    int64_t most = 0;
    for (int64_t e = 0; e < 8; e++) {
        most = load[e] > most ? load[e] : most;
    }
    return most;
}

static void test_bias_balances(void **state)
{
    (void)state;
    float bias[8] = {0};
    struct tri_config config;
    struct fixture f;
    fixture_config(&config);
    fixture_begin(&f, &config, NULL, 0, 4, 50);
    for (int64_t t = 0; t < 200; t++) {
        f.logits[t * 8] += 2; /* expert 0 is everybody's darling */
        f.logits[t * 8 + 1] -= 1;
    }
    f.call.bias = bias;
    fixture_forward(&f);
    int64_t before = largest(f.routes.load);
    for (int step = 0; step < 120; step++) {
        tri_router_update_bias(bias, f.routes.load, 8, 0.005);
        fixture_forward(&f);
    }
    assert_true(before > 120); /* the mean is 50 */
    assert_in_range(largest(f.routes.load), 50, 60);
    fixture_end(&f);
}

static void test_bias_update(void **state)
{
    (void)state;
    float bias[4] = {0, 1, 2, 3};
    const int64_t load[4] = {1, 3, 3, 5};
    tri_router_update_bias(bias, load, 4, 0.5);
    assert_close(bias[0], 0.5, 0);
    assert_close(bias[1], 1, 0);
    assert_close(bias[2], 2, 0);
    assert_close(bias[3], 2.5, 0);
}

/* A run that diverged must reach the guard that skips its step, not crash here. */
static void test_not_finite(void **state)
{
    (void)state;
    static const struct tri_router_kind *const kinds[] = {
        &tri_router_top_k, &tri_router_deepspeed_top2, &tri_router_deepspeed_topk};
    for (int i = 0; i < 6; i++) {
        struct tri_config config;
        struct fixture f;
        fixture_config(&config);
        config.moe.router = kinds[i / 2];
        config.moe.capacity_factor = 0.5;
        config.moe.drop_policy = TRI_DROP_PROBABILITY;
        fixture_begin(&f, &config, NULL, 0, 1, 20);
        for (int64_t n = 0; n < 160; n++) {
            f.logits[n] = i % 2 == 0 ? NAN : n % 3 == 0 ? -INFINITY : INFINITY;
        }
        fixture_forward(&f);
        for (int64_t t = 0; t < 20; t++) {
            const int32_t *chosen = f.routes.chosen + 2 * t;
            assert_in_range(chosen[0], 0, 7);
            assert_in_range(chosen[1], 0, 7);
            assert_int_not_equal(chosen[0], chosen[1]);
            assert_true(isnan(f.routes.probs[t * 8]));
        }
        fixture_end(&f);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choices),         cmocka_unit_test(test_imposed),
        cmocka_unit_test(test_balanced),        cmocka_unit_test(test_noise),
        cmocka_unit_test(test_noise_with_bias), cmocka_unit_test(test_bias_chooses_only),
        cmocka_unit_test(test_bias_balances),   cmocka_unit_test(test_bias_update),
        cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
