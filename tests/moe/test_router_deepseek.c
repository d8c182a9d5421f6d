/* DeepSeek-V3's routing against files that transformers' router wrote (tools/interop), and its
 * choices and gaps by the definition. */
#include "moe/fixture.h"

#include "base/memory.h"
#include "base/random.h"
#include "support/golden.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

static const char *const files[] = {
    "plain", "biased", "scaled", "groups", "groups_8", "groups_tight", "groups_all", "large",
};

static struct tri_config config_of(const struct tri_safetensors *file)
{
    struct tri_config config;
    fixture_config(&config);
    struct tri_config_moe *moe = &config.moe;
    moe->num_experts = golden_extent(file, "logits", 1);
    moe->top_k = (int64_t)golden_number(file, "top_k");
    moe->groups = (int64_t)golden_number(file, "groups");
    moe->groups_top = (int64_t)golden_number(file, "groups_top");
    moe->normalize_top_k = golden_number(file, "normalize") > 0;
    moe->routed_scaling = golden_number(file, "scaling");
    moe->score = TRI_SCORE_SIGMOID;
    return config;
}

static void assert_near(const float *found, const float *expected, int64_t n, double tolerance,
                        const char *file, const char *what)
{
    for (int64_t i = 0; i < n; i++) {
        if (!(fabs((double)found[i] - (double)expected[i]) <= tolerance)) {
            fail_msg("%s: %s[%lld] is %.9g, transformers' is %.9g", file, what, (long long)i,
                     (double)found[i], (double)expected[i]);
        }
    }
}

/* Both put each token's choices where their experts are; transformers' are in no order. Fills dense
 * [tokens, experts] with upstream in the places of ours. */
static void check_choices(const struct fixture *f, const struct tri_safetensors *file,
                          const char *name, float *dweight)
{
    const int64_t experts = f->config.moe.num_experts;
    const int64_t k = f->config.moe.top_k;
    const int64_t routes = f->call.seq * k;
    int64_t *indices = golden_read_i64(file, "indices", routes);
    float *weights = golden_read_f32(file, "weights", routes);
    float *upstream = golden_read_f32(file, "upstream", routes);
    float *scores = golden_read_f32(file, "scores", f->call.seq * experts);
    assert_near(f->routes.probs, scores, f->call.seq * experts, 1e-6, name, "scores");
    for (int64_t r = 0; r < routes; r++) {
        int64_t at = r / k * k;
        while (at < (r / k + 1) * k && indices[at] != f->routes.chosen[r]) {
            at++;
        }
        if (at == (r / k + 1) * k) {
            fail_msg("%s: token %lld: expert %d is not transformers' choice", name,
                     (long long)(r / k), f->routes.chosen[r]);
        }
        assert_near(f->routes.weight + r, weights + at, 1, 1e-6, name, "weights");
        dweight[r] = upstream[at];
        assert_true(f->routes.gap[r / k] > 0.9e-4F);
    }
    tri_free(scores);
    tri_free(upstream);
    tri_free(weights);
    tri_free(indices);
}

static void check_gradient(struct fixture *f, const struct tri_safetensors *file,
                           const char *tensor, const char *name, const float *dweight)
{
    const int64_t cells = f->call.seq * f->config.moe.num_experts;
    float *expected = golden_read_f32(file, tensor, cells);
    float *dlogits = tri_alloc(TRI_MEMORY_OTHER, (size_t)cells * sizeof(*dlogits));
    tri_router_backward(f->router, &f->call, &f->routes, NULL, (struct tri_range){0, f->call.seq},
                        dweight, dlogits);
    assert_near(dlogits, expected, cells, 1e-5, name, tensor);
    /* that of the balance loss is small: a mean over all tokens */
    double scale = 0;
    double worst = 0;
    for (int64_t i = 0; i < cells; i++) {
        scale = fmax(scale, fabs((double)expected[i]));
        worst = fmax(worst, fabs((double)expected[i] - (double)dlogits[i]));
    }
    assert_true(scale > 0 && worst <= 1e-4 * scale);
    tri_free(dlogits);
    tri_free(expected);
}

static void check_file(const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof(path), "deepseek_router/%s.safetensors", name);
    struct tri_safetensors *file = golden_open(path);
    const int64_t tokens = golden_extent(file, "logits", 0);
    struct tri_config config = config_of(file);
    const int64_t routes = tokens * config.moe.top_k;
    struct fixture f;
    fixture_begin(&f, &config, NULL, 0, 1, tokens);
    float *logits = golden_read_f32(file, "logits", tokens * config.moe.num_experts);
    float *bias = golden_read_f32(file, "bias", config.moe.num_experts);
    float *balance = golden_read_f32(file, "balance", 1);
    float *dweight = tri_alloc(TRI_MEMORY_OTHER, (size_t)routes * sizeof(*dweight));
    f.call.logits = logits;
    f.call.bias = bias;
    assert_close(fixture_forward(&f), balance[0], 1e-6);
    check_choices(&f, file, name, dweight);
    check_gradient(&f, file, "grad_weights", name, dweight);
    f.config.moe.aux_loss = 1;
    memset(dweight, 0, (size_t)routes * sizeof(*dweight));
    check_gradient(&f, file, "grad_balance", name, dweight);
    tri_free(dweight);
    tri_free(balance);
    tri_free(bias);
    tri_free(logits);
    fixture_end(&f);
    tri_safetensors_close(file);
}

static void test_files(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        check_file(files[i]);
    }
}

/* ---- by the definition ----------------------------------------------------------------------- */

enum { EXPERTS = 24, SEQ = 60 };

/* Of n scores the place of the largest that is not taken, the first of equals; -1: none is left. */
static int64_t best_of(const double *score, const bool *taken, int64_t n)
{
    int64_t best = -1;
    for (int64_t i = 0; i < n; i++) {
        if (!taken[i] && (best < 0 || score[i] > score[best])) {
            best = i;
        }
    }
    return best;
}

/* chosen [k] <- as the report says it, from biased scores; returns the gap: no score moving by half
 * of it changes the choice. */
static double choose_slowly(const struct tri_config_moe *moe, const double *score, int32_t *chosen)
{
    const int64_t size = moe->num_experts / moe->groups;
    double sum[EXPERTS];
    bool open[EXPERTS] = {false};
    bool taken[EXPERTS] = {false};
    double between = (double)INFINITY;
    double within = (double)INFINITY;
    for (int64_t g = 0; g < moe->groups; g++) {
        bool used[EXPERTS] = {false};
        int64_t first = best_of(score + g * size, used, size);
        used[first] = true;
        sum[g] = score[g * size + first] + score[g * size + best_of(score + g * size, used, size)];
    }
    for (int64_t i = 0; i < moe->groups_top; i++) {
        int64_t g = best_of(sum, open, moe->groups);
        open[g] = true;
        between = sum[g];
    }
    int64_t closed = best_of(sum, open, moe->groups);
    between = closed < 0 ? (double)INFINITY : (between - sum[closed]) / 2;
    for (int64_t e = 0; e < moe->num_experts; e++) {
        taken[e] = !open[e / size];
    }
    for (int64_t j = 0; j < moe->top_k; j++) {
        chosen[j] = (int32_t)best_of(score, taken, moe->num_experts);
        taken[chosen[j]] = true;
    }
    int64_t refused = best_of(score, taken, moe->num_experts);
    if (refused >= 0) {
        within = score[chosen[moe->top_k - 1]] - score[refused];
    }
    return fmin(between, within);
}

struct shape {
    enum tri_score score;
    int64_t groups, top, k;
    bool biased;
};

static const struct shape shapes[] = {
    {TRI_SCORE_SIGMOID, 1, 1, 3, false},  {TRI_SCORE_SIGMOID, 1, 1, 24, true},
    {TRI_SCORE_SIGMOID, 4, 2, 3, true},   {TRI_SCORE_SIGMOID, 12, 3, 6, true},
    {TRI_SCORE_SIGMOID, 8, 8, 5, true},   {TRI_SCORE_SIGMOID, 6, 1, 4, false},
    {TRI_SCORE_SOFTMAX, 4, 2, 3, false},  {TRI_SCORE_SOFTMAX, 6, 3, 5, true},
    {TRI_SCORE_SOFTMAX, 12, 2, 4, false},
};

static void begin(struct fixture *f, const struct shape *shape)
{
    struct tri_config config;
    fixture_config(&config);
    config.moe.num_experts = EXPERTS;
    config.moe.score = shape->score;
    config.moe.groups = shape->groups;
    config.moe.groups_top = shape->top;
    config.moe.top_k = shape->k;
    config.moe.normalize_top_k = true;
    fixture_begin(f, &config, NULL, 0, 1, SEQ);
    for (int64_t i = 0; i < SEQ / 2 * EXPERTS; i++) {
        f->logits[i] = roundf(f->logits[i]); /* the first half is full of ties */
    }
}

static void check_shape(const struct shape *shape)
{
    float bias[EXPERTS];
    struct fixture f;
    begin(&f, shape);
    for (int64_t e = 0; e < EXPERTS; e++) {
        bias[e] = 0.25F * (float)(e % 5) - 0.5F; /* exact, and so are sums of it */
    }
    f.call.bias = shape->biased ? bias : NULL;
    (void)fixture_forward(&f);
    for (int64_t t = 0; t < SEQ; t++) {
        double score[EXPERTS];
        int32_t expected[EXPERTS];
        for (int64_t e = 0; e < EXPERTS; e++) {
            float prob = f.routes.probs[t * EXPERTS + e];
            if (shape->score == TRI_SCORE_SIGMOID) {
                assert_close(prob, 1 / (1 + exp(-(double)f.logits[t * EXPERTS + e])), 1e-7);
            }
            score[e] = (double)(shape->biased ? prob + bias[e] : prob);
        }
        double gap = choose_slowly(&f.config.moe, score, expected);
        const int32_t *chosen = f.routes.chosen + t * shape->k;
        if (gap > 1e-6 || shape->groups == shape->top) { /* sums in f32 may tie otherwise */
            assert_memory_equal(chosen, expected, (size_t)shape->k * sizeof(*chosen));
        }
        assert_true(isinf(gap) ? isinf(f.routes.gap[t])
                               : fabs((double)f.routes.gap[t] - gap) <= 1e-6);
        assert_true(f.routes.gap_in_probs);
    }
    fixture_end(&f);
}

static void test_shapes(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        check_shape(&shapes[i]);
    }
}

/* No move of all scores by less than half the gap changes a choice. */
static void test_gap_is_safe(void **state)
{
    (void)state;
    struct fixture f;
    int32_t chosen[SEQ * 6];
    float gap[SEQ];
    float bias[EXPERTS] = {0};
    begin(&f, &shapes[3]);
    f.call.bias = bias;
    (void)fixture_forward(&f);
    memcpy(chosen, f.routes.chosen, sizeof(chosen));
    memcpy(gap, f.routes.gap, sizeof(gap));
    int kept = 0;
    for (int64_t round = 0; round < 400; round++) {
        double most = 0.002 * (double)(1 + round % 20);
        for (int64_t e = 0; e < EXPERTS; e++) {
            double u = tri_random_uniform(1, 2, (uint64_t)(round * EXPERTS + e));
            bias[e] = (float)(u < 0.5 ? most : -most);
        }
        (void)fixture_forward(&f);
        for (int64_t t = SEQ / 2; t < SEQ; t++) {
            if ((double)gap[t] > 2 * most + 1e-6) {
                bool found[EXPERTS] = {false};
                for (int64_t j = 0; j < 6; j++) {
                    found[chosen[t * 6 + j]] = true;
                }
                for (int64_t j = 0; j < 6; j++) {
                    assert_true(found[f.routes.chosen[t * 6 + j]]);
                }
                kept++;
            }
        }
    }
    assert_true(kept > 1000);
    fixture_end(&f);
}

/* Noise is on the logits, inside the sigmoid: a bias of 0 changes nothing, and without groups it is
 * the choice that noisy logits make. */
static void test_noise(void **state)
{
    (void)state;
    static const float zero[EXPERTS] = {0};
    struct fixture f;
    struct fixture plain;
    begin(&f, &shapes[0]);
    begin(&plain, &(struct shape){TRI_SCORE_SOFTMAX, 1, 1, 3, false});
    f.config.moe.noise = plain.config.moe.noise = 0.5;
    (void)fixture_forward(&plain);
    for (int i = 0; i < 2; i++) {
        f.call.bias = i ? zero : NULL;
        (void)fixture_forward(&f);
        assert_memory_equal(f.routes.chosen, plain.routes.chosen, SEQ * 3 * sizeof(int32_t));
    }
    fixture_end(&plain);
    fixture_end(&f);
}

/* What saturates or is not finite: distinct experts, and weights that are numbers where the scores
 * are. */
static void test_extremes(void **state)
{
    (void)state;
    static const float values[] = {1000, -1000, 88, -88.5F, 0, -200};
    for (size_t i = 0; i < 2 * sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct shape *shape = &shapes[i / 2];
        struct fixture f;
        begin(&f, shape);
        float dweight[SEQ * EXPERTS] = {1, -1};
        float dlogits[SEQ * EXPERTS];
        for (int64_t n = 0; n < SEQ * EXPERTS; n++) {
            f.logits[n] = i % 2 ? NAN : n < EXPERTS ? -1000 : values[n * 7 % 6];
        }
        f.config.moe.aux_loss = 1;
        (void)fixture_forward(&f);
        tri_router_backward(f.router, &f.call, &f.routes, NULL, (struct tri_range){0, SEQ}, dweight,
                            dlogits);
        for (int64_t t = 0; t < SEQ; t++) {
            bool found[EXPERTS] = {false};
            for (int64_t j = 0; j < shape->k; j++) {
                int32_t e = f.routes.chosen[t * shape->k + j];
                assert_in_range(e, 0, EXPERTS - 1);
                assert_false(found[e]);
                found[e] = true;
                assert_true(i % 2 || isfinite(f.routes.weight[t * shape->k + j]));
            }
        }
        for (int64_t n = 0; i % 2 == 0 && n < SEQ * EXPERTS; n++) {
            assert_true(isfinite(dlogits[n]));
        }
        fixture_end(&f);
    }
}

/* The update of the biases knows nothing of the score: with sigmoids and groups it balances too. */
static void test_bias_balances(void **state)
{
    (void)state;
    float bias[EXPERTS] = {0};
    struct fixture f;
    begin(&f, &shapes[2]);
    int64_t most = 0;
    for (int64_t t = 0; t < SEQ; t++) {
        f.logits[t * EXPERTS] += 2;
    }
    f.call.bias = bias;
    (void)fixture_forward(&f);
    assert_true(f.routes.load[0] > 3 * SEQ * 3 / EXPERTS);
    for (int step = 0; step < 400; step++) {
        tri_router_update_bias(bias, f.routes.load, EXPERTS, 0.002);
        (void)fixture_forward(&f);
    }
    for (int64_t e = 0; e < EXPERTS; e++) {
        most = f.routes.load[e] > most ? f.routes.load[e] : most;
    }
    assert_true(most < 2 * SEQ * 3 / EXPERTS);
    fixture_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_files),       cmocka_unit_test(test_shapes),
        cmocka_unit_test(test_gap_is_safe), cmocka_unit_test(test_noise),
        cmocka_unit_test(test_extremes),    cmocka_unit_test(test_bias_balances),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
