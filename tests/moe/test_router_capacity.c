/* Queues of limited length against their definition, and that nothing depends on how rows are
 * spread over calls. */
#include "moe/fixture.h"

#include "base/memory.h"
#include "base/random.h"
#include "moe/strategies.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

enum { ROWS = 3, SEQ = 16, TOKENS = ROWS * SEQ, EXPERTS = 8 };

static int64_t capacity(const struct tri_router_kind *router, int64_t k, int64_t experts,
                        double factor, int64_t least, int64_t tokens)
{
    struct tri_config config;
    fixture_config(&config);
    config.moe.router = router;
    config.moe.top_k = k;
    config.moe.num_experts = experts;
    config.moe.capacity_factor = factor;
    config.moe.eval_capacity_factor = 2 * factor;
    config.moe.min_capacity = least;
    return tri_router_capacity(&config, true, tokens);
}

static void test_capacity(void **state)
{
    (void)state;
    assert_int_equal(capacity(&tri_router_top_k, 2, 8, 0, 4, 64), 0);
    assert_int_equal(capacity(&tri_router_top_k, 2, 8, 1, 0, 64), 16);
    assert_int_equal(capacity(&tri_router_top_k, 2, 8, 1.25, 0, 64), 20);
    assert_int_equal(capacity(&tri_router_top_k, 2, 8, 1.01, 0, 64), 17);
    assert_int_equal(capacity(&tri_router_top_k, 1, 8, 1, 20, 64), 20);
    assert_int_equal(capacity(&tri_router_top_k, 2, 8, 9, 0, 64), 64);
    assert_int_equal(capacity(&tri_router_top_k, 1, 8, 1, 100, 64), 64);
    assert_int_equal(capacity(&tri_router_top_k, 1, 8, 0.01, 0, 64), 1);
    assert_int_equal(capacity(&tri_router_top_k, 3, 10, 1.1, 0, 100), 33);
    assert_int_equal(capacity(&tri_router_top_k, 1, 8, 1.2, 0, 200), 30);
    /* 25 x 1.2 in f32 is 30 and a bit, which DeepSpeed rounds up */
    assert_int_equal(capacity(&tri_router_deepspeed_topk, 1, 8, 1.2, 0, 200), 31);
    assert_int_equal(capacity(&tri_router_deepspeed_topk, 1, 10, 1.5, 0, 300), 45);
    struct tri_config config;
    fixture_config(&config);
    config.moe.capacity_factor = 1;
    config.moe.eval_capacity_factor = 2;
    assert_int_equal(tri_router_capacity(&config, false, 64), 32);
}

/* Whether route a of an expert comes before b. */
static bool goes_before(const struct fixture *f, const float *uniform, int64_t a, int64_t b)
{
    const int64_t k = f->config.moe.top_k;
    float score_a = 0;
    float score_b = 0;
    if (f->config.moe.drop_policy == TRI_DROP_PROBABILITY) {
        score_a = f->routes.probs[a / k * EXPERTS + f->routes.chosen[a]];
        score_b = f->routes.probs[b / k * EXPERTS + f->routes.chosen[b]];
    } else if (f->config.moe.drop_policy == TRI_DROP_RANDOM) {
        score_a = uniform[a / k * EXPERTS + f->routes.chosen[a]];
        score_b = uniform[b / k * EXPERTS + f->routes.chosen[b]];
    }
    return score_a > score_b || (score_a >= score_b && a < b);
}

/* Routes of one window by the definition. */
static void check_window(const struct fixture *f, const float *uniform, int64_t first, int64_t n)
{
    for (int64_t r = first; r < first + n; r++) {
        int64_t better = 0;
        for (int64_t i = first; i < first + n; i++) {
            if (f->routes.chosen[i] == f->routes.chosen[r] && i != r) {
                better += goes_before(f, uniform, i, r);
            }
        }
        bool kept = f->routes.capacity == 0 || better < f->routes.capacity;
        assert_int_equal(f->routes.expert[r], kept ? f->routes.chosen[r] : -1);
        assert_true(kept ? f->routes.weight[r] > 0 : f->routes.weight[r] <= 0);
    }
}

static void check_conserved(const struct fixture *f)
{
    const int64_t k = f->config.moe.top_k;
    int64_t load = 0;
    int64_t dropped = 0;
    for (int64_t e = 0; e < EXPERTS; e++) {
        load += f->routes.load[e];
    }
    for (int64_t r = 0; r < TOKENS * k; r++) {
        dropped += f->routes.expert[r] < 0;
    }
    assert_int_equal(load, TOKENS * k);
    assert_int_equal(f->routes.dropped, dropped);
}

static void test_queues(void **state)
{
    (void)state;
    static const double factors[] = {0, 0.3, 0.8, 1.2, 8};
    float uniform[TOKENS * EXPERTS];
    for (int64_t i = 0; i < TOKENS * EXPERTS; i++) {
        uniform[i] = (float)tri_random_uniform(8, 8, (uint64_t)i / 2); /* with ties */
    }
    for (int i = 0; i < 5 * 3 * 3; i++) {
        struct tri_config config;
        struct fixture f;
        fixture_config(&config);
        config.moe.top_k = 3;
        config.moe.capacity_factor = factors[i % 5];
        config.moe.drop_policy = (enum tri_drop_policy)(i / 5 % 3);
        config.moe.capacity_window = (enum tri_window)(i / 15);
        fixture_begin(&f, &config, NULL, 0, ROWS, SEQ);
        f.call.uniform = uniform;
        fixture_forward(&f);
        bool by_row = config.moe.capacity_window == TRI_WINDOW_SEQUENCE;
        int64_t n = (by_row ? SEQ : TOKENS) * 3;
        for (int64_t first = 0; first < TOKENS * 3; first += n) {
            check_window(&f, uniform, first, n);
        }
        check_conserved(&f);
        fixture_end(&f);
    }
}

static void test_one_expert_for_all(void **state)
{
    (void)state;
    struct tri_config config;
    struct fixture f;
    fixture_config(&config);
    config.moe.top_k = 1;
    config.moe.capacity_factor = 1;
    config.moe.capacity_window = TRI_WINDOW_RANK;
    fixture_begin(&f, &config, NULL, 0, ROWS, SEQ);
    for (int64_t t = 0; t < TOKENS; t++) {
        f.logits[t * EXPERTS + 5] = 20;
    }
    fixture_forward(&f);
    assert_int_equal(f.routes.capacity, TOKENS / EXPERTS);
    assert_int_equal(f.routes.load[5], TOKENS);
    assert_int_equal(f.routes.dropped, TOKENS - TOKENS / EXPERTS);
    for (int32_t t = 0; t < TOKENS; t++) {
        assert_int_equal(f.routes.expert[t], t < TOKENS / EXPERTS ? 5 : -1);
    }
    fixture_end(&f);
}

/* First choices fill DeepSpeed's top-2 queues before any second one. */
static void test_second_choices_wait(void **state)
{
    (void)state;
    struct tri_config config;
    struct fixture f;
    fixture_config(&config);
    config.moe.router = &tri_router_deepspeed_top2;
    config.moe.capacity_factor = 1;
    config.moe.capacity_window = TRI_WINDOW_RANK;
    fixture_begin(&f, &config, NULL, 0, 1, 4); /* capacity 1 */
    memset(f.logits, 0, 32 * sizeof(float));
    f.logits[0] = 2; /* token 0: 0 then 1 */
    f.logits[1] = 1;
    f.logits[8 + 1] = 2; /* token 1: 1 then 0 */
    f.logits[8] = 1;
    f.logits[16 + 2] = 2; /* token 2: 2 then 3 */
    f.logits[16 + 3] = 1;
    f.logits[24 + 2] = 2; /* token 3: 2 then 4 */
    f.logits[24 + 4] = 1;
    fixture_forward(&f);
    static const int32_t expert[8] = {0, -1, 1, -1, 2, 3, -1, 4};
    assert_memory_equal(f.routes.expert, expert, sizeof(expert));
    assert_close(f.routes.weight[0], 1, 1e-6); /* renormalised over what was kept */
    assert_close(f.routes.weight[7], 1, 1e-6);
    fixture_end(&f);
}

/* Drawn afresh at each step, the same for the same step. */
static void test_random_selection(void **state)
{
    (void)state;
    int32_t before[TOKENS];
    struct tri_config config;
    struct fixture f;
    fixture_config(&config);
    config.moe.router = &tri_router_deepspeed_top1;
    config.moe.top_k = 1;
    config.moe.deepspeed_rts = true;
    config.moe.capacity_factor = 0.5;
    fixture_begin(&f, &config, NULL, 0, ROWS, SEQ);
    fixture_forward(&f);
    memcpy(before, f.routes.expert, sizeof(before));
    f.call.step = 6;
    fixture_forward(&f);
    assert_memory_not_equal(before, f.routes.expert, sizeof(before));
    f.call.step = 5;
    fixture_forward(&f);
    assert_memory_equal(before, f.routes.expert, sizeof(before));
    fixture_end(&f);
}

/* Second choices follow the sampled logits, first choices never do. */
static void test_second_sampling(void **state)
{
    (void)state;
    struct tri_config config;
    struct fixture f;
    fixture_config(&config);
    config.moe.router = &tri_router_deepspeed_top2;
    config.moe.num_experts = 3;
    config.moe.deepspeed_second_sampling = true;
    fixture_begin(&f, &config, NULL, 0, 2, 1000);
    for (int64_t t = 0; t < 2000; t++) {
        f.logits[t * 3] = 0;
        f.logits[t * 3 + 1] = 5;
        f.logits[t * 3 + 2] = 1;
    }
    fixture_forward(&f);
    assert_int_equal(f.routes.load[1], 2000);
    /* with Gumbel noise the winner is drawn by softmax: 1 / (1 + e) = 0.269 for expert 0 */
    assert_in_range(f.routes.load[0], 480, 600);
    fixture_end(&f);
}

/* Rows in one call, and the same rows in calls of one row. */
static void check_split(const struct tri_config *config)
{
    const int64_t k = config->moe.top_k;
    struct fixture whole;
    float dweight[TOKENS * EXPERTS];
    float dlogits[TOKENS * EXPERTS];
    float dlogits_row[SEQ * EXPERTS];
    double aux = 0;
    double z = 0;
    for (int64_t i = 0; i < TOKENS * k; i++) {
        dweight[i] = (float)tri_random_normal(2, 2, (uint64_t)i);
    }
    fixture_begin(&whole, config, NULL, 0, ROWS, SEQ);
    double expected = fixture_forward(&whole);
    tri_router_backward(whole.router, &whole.call, &whole.routes, &whole.model,
                        (struct tri_range){0, TOKENS}, dweight, dlogits);
    for (int64_t row = 0; row < ROWS; row++) {
        const size_t routes = (size_t)(SEQ * k) * sizeof(int32_t);
        const int64_t at = row * SEQ;
        struct fixture f;
        fixture_begin(&f, config, NULL, row, 1, SEQ);
        f.call.global_tokens = TOKENS;
        aux += fixture_forward(&f);
        z += f.routes.z_loss;
        assert_memory_equal(f.routes.chosen, whole.routes.chosen + at * k, routes);
        assert_memory_equal(f.routes.expert, whole.routes.expert + at * k, routes);
        assert_memory_equal(f.routes.weight, whole.routes.weight + at * k, routes);
        assert_int_equal(f.routes.capacity, whole.routes.capacity);
        tri_router_backward(f.router, &f.call, &f.routes, &f.model, (struct tri_range){0, SEQ},
                            dweight + at * k, dlogits_row);
        assert_memory_equal(dlogits_row, dlogits + at * EXPERTS, sizeof(dlogits_row));
        fixture_end(&f);
    }
    assert_close(aux, expected, 1e-14);
    assert_close(z, whole.routes.z_loss, 1e-12);
    fixture_end(&whole);
}

static void test_rows_apart(void **state)
{
    (void)state;
    for (int i = 0; i < 5 * 3 * 2; i++) {
        struct tri_config config;
        fixture_config(&config);
        struct tri_config_moe *moe = &config.moe;
        moe->router = (const struct tri_router_kind *)tri_strategies.routers[i % 5];
        moe->top_k = moe->router == &tri_router_deepspeed_top1 ? 1 : 2;
        moe->normalize_top_k = true;
        moe->drop_policy = (enum tri_drop_policy)(i / 5 % 3);
        moe->aux_scope = i / 15 == 0 ? TRI_AUX_LAYER : TRI_AUX_MODEL;
        moe->capacity_factor = 0.7;
        moe->noise = 0.4;
        moe->deepspeed_rts = true;
        moe->deepspeed_second_sampling = true;
        moe->aux_loss = 0.1;
        moe->z_loss = 0.01;
        check_split(&config);
    }
}

/* Scratch reaches its size in the first call. */
static void test_no_allocation(void **state)
{
    (void)state;
    struct tri_config config;
    struct fixture f;
    fixture_config(&config);
    config.moe.capacity_factor = 0.7;
    config.moe.drop_policy = TRI_DROP_PROBABILITY;
    config.moe.capacity_window = TRI_WINDOW_STEP;
    config.moe.aux_window = TRI_WINDOW_STEP;
    fixture_begin(&f, &config, NULL, 0, ROWS, SEQ);
    fixture_forward(&f);
    int64_t calls = tri_memory_get().calls;
    fixture_forward(&f);
    assert_int_equal(tri_memory_get().calls, calls);
    fixture_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_capacity),           cmocka_unit_test(test_queues),
        cmocka_unit_test(test_one_expert_for_all), cmocka_unit_test(test_second_choices_wait),
        cmocka_unit_test(test_random_selection),   cmocka_unit_test(test_second_sampling),
        cmocka_unit_test(test_rows_apart),         cmocka_unit_test(test_no_allocation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
