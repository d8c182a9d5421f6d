/* The values of the balance and z losses: by their definition, and against transformers. */
#include "moe/fixture.h"
#include "moe/strategies.h"
#include "support/golden.h"

#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* E sum_e (count_e / (T k)) mean_t p_te of tokens [first, first + n), all in double. */
static double loss_by_definition(const struct fixture *f, int64_t first, int64_t n)
{
    const int64_t experts = f->config.moe.num_experts;
    const int64_t k = f->config.moe.top_k;
    double loss = 0;
    for (int64_t e = 0; e < experts; e++) {
        double count = 0;
        double mean = 0;
        for (int64_t t = first; t < first + n; t++) {
            const float *logits = f->logits + t * experts;
            double sum = 0;
            for (int64_t i = 0; i < experts; i++) {
                sum += exp((double)logits[i]);
            }
            mean += exp((double)logits[e]) / sum / (double)n;
            for (int64_t j = 0; j < k; j++) {
                count += f->routes.chosen[t * k + j] == e ? 1 : 0;
            }
        }
        loss += (double)experts * count / (double)(n * k) * mean;
    }
    return loss;
}

static void test_layer_loss(void **state)
{
    (void)state;
    for (int window = 0; window < 3; window++) {
        struct tri_config config;
        struct fixture f;
        fixture_config(&config);
        config.moe.aux_window = (enum tri_window)window;
        config.moe.capacity_factor = 0.5; /* which must not matter */
        fixture_begin(&f, &config, NULL, 0, 3, 11);
        f.call.global_tokens = 2 * 33;
        double found = fixture_forward(&f);
        double expected = loss_by_definition(&f, 0, 33);
        if (window == TRI_WINDOW_SEQUENCE) {
            expected = (loss_by_definition(&f, 0, 11) + loss_by_definition(&f, 11, 11) +
                        loss_by_definition(&f, 22, 11)) /
                       3;
        }
        assert_close(found, expected / 2, 1e-6);
        double squares = 0;
        for (int64_t t = 0; t < 33; t++) {
            double sum = 0;
            for (int64_t e = 0; e < 8; e++) {
                sum += exp((double)f.logits[t * 8 + e]);
            }
            squares += log(sum) * log(sum);
        }
        assert_close(f.routes.z_loss, squares / 66, 1e-6);
        fixture_end(&f);
    }
}

static void test_one_at_balance(void **state)
{
    (void)state;
    struct tri_config config;
    struct fixture f;
    fixture_config(&config);
    config.moe.router = &tri_router_balanced;
    fixture_begin(&f, &config, NULL, 0, 4, 8);
    assert_close(fixture_forward(&f), 1, 1e-6); /* whatever the probabilities */
    fixture_end(&f);
    config.moe.router = &tri_router_top_k;
    config.moe.top_k = 1;
    fixture_begin(&f, &config, NULL, 0, 4, 8);
    for (int64_t t = 0; t < 32; t++) {
        f.logits[t * 8 + 3] = 40;
    }
    assert_close(fixture_forward(&f), 8, 1e-6); /* and E at the worst */
    fixture_end(&f);
}

/* A replica without rows still takes part, and adds nothing. */
static void test_no_rows(void **state)
{
    (void)state;
    for (int i = 0; i < 6; i++) {
        struct tri_config config;
        struct fixture f;
        fixture_config(&config);
        config.moe.aux_window = (enum tri_window)(i % 3);
        config.moe.capacity_window = (enum tri_window)(i % 3);
        config.moe.capacity_factor = 1;
        config.moe.aux_scope = (enum tri_aux_scope)(i / 3);
        config.moe.aux_loss = 0.1;
        fixture_begin(&f, &config, NULL, 0, 0, 8);
        f.call.global_tokens = 16;
        assert_close(fixture_forward(&f), 0, 0);
        assert_close(f.routes.z_loss, 0, 0);
        assert_int_equal(f.routes.dropped, 0);
        float none;
        tri_router_backward(f.router, &f.call, &f.routes, &f.model, (struct tri_range){0, 0}, &none,
                            &none);
        fixture_end(&f);
    }
}

/* aux_loss of a whole model, from the router logits that transformers computed. */
static void check_golden(const char *family, int64_t top_k, int64_t layers, const int64_t *layer)
{
    char path[256];
    char name[64];
    (void)snprintf(path, sizeof(path), "%s/reference.safetensors", family);
    struct tri_safetensors *file = golden_open(path);
    (void)snprintf(name, sizeof(name), "router_logits.%lld", (long long)layer[0]);
    const int64_t rows = golden_extent(file, name, 0);
    const int64_t seq = golden_extent(file, name, 1);
    struct tri_config config;
    struct fixture f;
    fixture_config(&config);
    config.moe.num_experts = golden_extent(file, name, 2);
    config.moe.top_k = top_k;
    config.moe.aux_scope = TRI_AUX_MODEL;
    config.moe.aux_window = TRI_WINDOW_STEP;
    config.model.num_layers = layers;
    fixture_begin(&f, &config, NULL, 0, rows, seq);
    tri_aux_model_begin(&f.config, rows, f.model_block, &f.model);
    assert_int_equal(f.model.layers, layers);
    for (int64_t i = 0; i < layers; i++) {
        (void)snprintf(name, sizeof(name), "router_logits.%lld", (long long)layer[i]);
        float *logits = golden_read_f32(file, name, rows * seq * config.moe.num_experts);
        f.call.logits = logits;
        f.call.layer = layer[i];
        tri_router_forward(f.router, &f.call, &f.routes, &f.model);
        assert_close(f.routes.aux_loss, 0, 0);
        tri_free(logits);
    }
    double found = tri_aux_model_finish(f.router, &f.model, TRI_PHASE_FORWARD, rows * seq);
    float *aux_loss = golden_read_f32(file, "aux_loss", 1);
    assert_close(found, aux_loss[0], 2e-6 * (double)aux_loss[0]);
    tri_free(aux_loss);
    fixture_end(&f);
    tri_safetensors_close(file);
}

static void test_transformers(void **state)
{
    (void)state;
    check_golden("mixtral", 2, 2, (const int64_t[]){0, 1});
    check_golden("qwen2_moe", 3, 1, (const int64_t[]){1});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_layer_loss),
        cmocka_unit_test(test_one_at_balance),
        cmocka_unit_test(test_no_rows),
        cmocka_unit_test(test_transformers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
