/* The way back against finite differences of the way forward, each term alone so that a coefficient
 * that is one per cent off shows. */
#include "moe/fixture.h"

#include "base/memory.h"
#include "base/random.h"
#include "moe/strategies.h"
#include "support/own_strategies.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

enum { ROWS = 2, SEQ = 9, TOKENS = ROWS * SEQ, EXPERTS_MAX = 8 };

/* Which terms the scalar under test has. */
struct terms {
    double weights, aux, z;
};

struct variant {
    const char *name;
    const struct tri_router_kind *router;
    int64_t k;
    bool normalize;
    double capacity;
    enum tri_drop_policy policy;
    enum tri_aux_scope scope;
    enum tri_window window;
};

static const struct variant variants[] = {
    {"plain", &tri_router_top_k, 2, false, 0, TRI_DROP_POSITION, TRI_AUX_LAYER,
     TRI_WINDOW_SEQUENCE},
    {"normalized", &tri_router_top_k, 3, true, 0, TRI_DROP_POSITION, TRI_AUX_LAYER,
     TRI_WINDOW_RANK},
    {"all experts", &tri_router_top_k, 8, true, 0, TRI_DROP_POSITION, TRI_AUX_LAYER,
     TRI_WINDOW_SEQUENCE},
    {"dropping", &tri_router_top_k, 3, true, 0.7, TRI_DROP_PROBABILITY, TRI_AUX_LAYER,
     TRI_WINDOW_STEP},
    {"random", &tri_router_top_k, 2, false, 0.7, TRI_DROP_RANDOM, TRI_AUX_LAYER,
     TRI_WINDOW_SEQUENCE},
    {"model", &tri_router_top_k, 2, true, 0, TRI_DROP_POSITION, TRI_AUX_MODEL, TRI_WINDOW_SEQUENCE},
    {"model step", &tri_router_top_k, 2, true, 0, TRI_DROP_POSITION, TRI_AUX_MODEL,
     TRI_WINDOW_STEP},
    {"balanced", &tri_router_balanced, 2, true, 0, TRI_DROP_POSITION, TRI_AUX_LAYER,
     TRI_WINDOW_SEQUENCE},
    {"top1", &tri_router_deepspeed_top1, 1, false, 0.8, TRI_DROP_POSITION, TRI_AUX_LAYER,
     TRI_WINDOW_RANK},
    {"top2", &tri_router_deepspeed_top2, 2, false, 0.8, TRI_DROP_POSITION, TRI_AUX_LAYER,
     TRI_WINDOW_RANK},
    {"topk", &tri_router_deepspeed_topk, 3, false, 0.8, TRI_DROP_PROBABILITY, TRI_AUX_LAYER,
     TRI_WINDOW_SEQUENCE},
    {"sparsemixer", &tri_router_sparsemixer, 2, false, 0, TRI_DROP_POSITION, TRI_AUX_LAYER,
     TRI_WINDOW_STEP},
    {"sigmoid", &tri_router_top_k, 2, true, 0, TRI_DROP_POSITION, TRI_AUX_LAYER,
     TRI_WINDOW_SEQUENCE},
    {"sigmoid plain", &tri_router_top_k, 3, false, 0, TRI_DROP_POSITION, TRI_AUX_LAYER,
     TRI_WINDOW_STEP},
    {"sigmoid groups", &tri_router_top_k, 2, true, 0.7, TRI_DROP_PROBABILITY, TRI_AUX_LAYER,
     TRI_WINDOW_SEQUENCE},
    {"sigmoid model", &tri_router_top_k, 2, true, 0, TRI_DROP_POSITION, TRI_AUX_MODEL,
     TRI_WINDOW_SEQUENCE},
    {"softmax groups", &tri_router_top_k, 3, true, 0, TRI_DROP_POSITION, TRI_AUX_LAYER,
     TRI_WINDOW_RANK},
    {"own hash", &own_router_hash, 3, false, 0.8, TRI_DROP_POSITION, TRI_AUX_LAYER,
     TRI_WINDOW_SEQUENCE},
};

/* Those of them that do not score and weigh as by default. */
static const struct scoring {
    const char *name;
    enum tri_score score;
    int64_t groups, groups_top;
    double scaling;
} scorings[] = {
    {"sigmoid", TRI_SCORE_SIGMOID, 1, 1, 1},
    {"sigmoid plain", TRI_SCORE_SIGMOID, 1, 1, 2.5},
    {"sigmoid groups", TRI_SCORE_SIGMOID, 4, 2, 1.8},
    {"sigmoid model", TRI_SCORE_SIGMOID, 2, 1, 1},
    {"softmax groups", TRI_SCORE_SOFTMAX, 4, 2, 0.7},
};

static const struct scoring *scoring_of(const struct variant *v)
{
    static const struct scoring plain = {"", TRI_SCORE_SOFTMAX, 1, 1, 1};
    for (size_t i = 0; i < sizeof(scorings) / sizeof(scorings[0]); i++) {
        if (strcmp(scorings[i].name, v->name) == 0) {
            return &scorings[i];
        }
    }
    return &plain;
}

static void begin(struct fixture *f, const struct variant *v, const struct terms *terms)
{
    struct tri_config config;
    fixture_config(&config);
    config.moe.router = v->router;
    config.moe.top_k = v->k;
    config.moe.normalize_top_k = v->normalize;
    config.moe.capacity_factor = v->capacity;
    config.moe.drop_policy = v->policy;
    config.moe.aux_scope = v->scope;
    config.moe.aux_window = v->window;
    config.moe.aux_loss = terms->aux;
    config.moe.z_loss = terms->z;
    const struct scoring *scoring = scoring_of(v);
    config.moe.score = scoring->score;
    config.moe.groups = scoring->groups;
    config.moe.groups_top = scoring->groups_top;
    config.moe.routed_scaling = scoring->scaling;
    fixture_begin(f, &config, NULL, 3, ROWS, SEQ);
    f->call.global_tokens = 3 * (int64_t)TOKENS; /* the micro-batch is a third of the batch */
}

static double value(struct fixture *f, const struct terms *terms, const float *dweight)
{
    double sum = terms->aux * fixture_forward(f) + terms->z * f->routes.z_loss;
    for (int64_t r = 0; r < TOKENS * f->config.moe.top_k; r++) {
        sum += (double)dweight[r] * (double)f->routes.weight[r];
    }
    return sum;
}

/* Routes must be the same on both sides of a derivative. */
static bool same_routes(const struct fixture *f, const int32_t *chosen, const int32_t *expert)
{
    size_t bytes = (size_t)(TOKENS * f->config.moe.top_k) * sizeof(int32_t);
    return memcmp(chosen, f->routes.chosen, bytes) == 0 &&
           memcmp(expert, f->routes.expert, bytes) == 0;
}

static void check(const struct variant *v, const struct terms *terms)
{
    const float step = 1.0F / 64;
    struct fixture f;
    float dweight[TOKENS * EXPERTS_MAX] = {0};
    float dlogits[TOKENS * EXPERTS_MAX] = {0};
    int32_t chosen[TOKENS * EXPERTS_MAX];
    int32_t expert[TOKENS * EXPERTS_MAX];
    begin(&f, v, terms);
    for (int64_t r = 0; r < TOKENS * v->k; r++) {
        dweight[r] = (float)(terms->weights * tri_random_normal(1, 2, (uint64_t)r));
    }
    (void)value(&f, terms, dweight);
    size_t bytes = (size_t)(TOKENS * v->k) * sizeof(int32_t);
    memcpy(chosen, f.routes.chosen, bytes);
    memcpy(expert, f.routes.expert, bytes);
    assert_true(v->capacity == 0 || f.routes.dropped > 0);
    tri_router_backward(f.router, &f.call, &f.routes, &f.model, (struct tri_range){0, TOKENS},
                        dweight, dlogits);
    double scale = 0;
    for (int64_t i = 0; i < TOKENS * 8; i++) {
        scale = fmax(scale, fabs((double)dlogits[i]));
    }
    assert_true(scale > 0);
    int compared = 0;
    for (int64_t i = 0; i < TOKENS * 8; i++) {
        float kept = f.logits[i];
        f.logits[i] = kept + step;
        double width = (double)f.logits[i];
        double difference = value(&f, terms, dweight);
        bool same = same_routes(&f, chosen, expert);
        f.logits[i] = kept - step;
        width -= (double)f.logits[i];
        difference -= value(&f, terms, dweight);
        same = same && same_routes(&f, chosen, expert);
        f.logits[i] = kept;
        compared += same;
        double error = fabs(difference / width - (double)dlogits[i]);
        if (same && !(error < 1e-3 * scale + 1e-7)) {
            fail_msg("%s: logit %lld: %g by differences, %g", v->name, (long long)i,
                     difference / width, (double)dlogits[i]);
        }
    }
    assert_in_range(compared, TOKENS * 8 * 3 / 4, TOKENS * 8);
    fixture_end(&f);
}

static void check_all(struct terms terms)
{
    for (size_t i = 0; i < sizeof(variants) / sizeof(variants[0]); i++) {
        /* the tests' own has no loss, sigmoids have no z-loss; the gradient of drawn weights is no
         * derivative of them */
        bool lossless = variants[i].router == &own_router_hash;
        bool drawn = variants[i].router == &tri_router_sparsemixer;
        bool sigmoid = scoring_of(&variants[i])->score == TRI_SCORE_SIGMOID;
        struct terms some = {terms.weights, terms.aux, sigmoid ? 0 : terms.z};
        bool has = !lossless && (some.aux > 0 || some.z > 0);
        if (some.weights > 0 ? !drawn : has) {
            check(&variants[i], &some);
        }
    }
}

/* Terms alone; every variant's weights depend on the logits. */
static void test_weights(void **state)
{
    (void)state;
    check_all((struct terms){.weights = 1});
}

static void test_balance_loss(void **state)
{
    (void)state;
    check_all((struct terms){.aux = 0.7});
}

static void test_z_loss(void **state)
{
    (void)state;
    check_all((struct terms){.z = 0.3});
}

static void test_together(void **state)
{
    (void)state;
    check_all((struct terms){.weights = 0.1, .aux = 0.7, .z = 0.3});
}

/* Two layers share one statistic: the loss's slope in a layer depends on the other's choices. */
static double value_of_two(struct fixture *f, float *logits[2], struct tri_routes *second,
                           struct tri_aux_model *model, void *block)
{
    tri_aux_model_begin(&f->config, ROWS, block, model);
    f->call.logits = logits[0];
    tri_router_forward(f->router, &f->call, &f->routes, model);
    f->call.logits = logits[1];
    tri_router_forward(f->router, &f->call, second, model);
    return tri_aux_model_finish(f->router, model, TRI_PHASE_FORWARD, f->call.global_tokens);
}

static void test_two_layers(void **state)
{
    (void)state;
    const struct terms terms = {.aux = 0.7};
    const float none[TOKENS * EXPERTS_MAX] = {0};
    struct fixture f;
    struct fixture other;
    begin(&f, &variants[5], &terms);
    begin(&other, &variants[5], &terms);
    f.config.model.num_layers = 2;
    for (int64_t i = 0; i < TOKENS * 8; i++) {
        other.logits[i] = (float)tri_random_normal(4, 4, (uint64_t)i);
    }
    float *logits[2] = {f.logits, other.logits};
    struct tri_aux_model model;
    float dlogits[TOKENS * 8];
    (void)value_of_two(&f, logits, &other.routes, &model, f.model_block);
    tri_router_backward(f.router, &f.call, &other.routes, &model, (struct tri_range){0, TOKENS},
                        none, dlogits);
    double scale = 0;
    for (int64_t i = 0; i < TOKENS * 8; i++) {
        scale = fmax(scale, fabs((double)dlogits[i]));
    }
    for (int64_t i = 0; i < TOKENS * 8; i++) {
        if (other.routes.gap[i / 8] < 0.05F) {
            continue;
        }
        float kept = other.logits[i];
        other.logits[i] = kept + 0.0156F;
        double width = (double)other.logits[i];
        double difference = value_of_two(&f, logits, &other.routes, &model, f.model_block);
        other.logits[i] = kept - 0.0156F;
        width -= (double)other.logits[i];
        difference -= value_of_two(&f, logits, &other.routes, &model, f.model_block);
        other.logits[i] = kept;
        assert_close(terms.aux * difference / width, dlogits[i], 1e-3 * scale);
    }
    fixture_end(&other);
    fixture_end(&f);
}

static void test_own_tokens_only(void **state)
{
    (void)state;
    const struct terms terms = {.weights = 1, .aux = 0.7, .z = 0.3};
    struct fixture f;
    float dweight[TOKENS * 2];
    float whole[TOKENS * 8];
    float part[TOKENS * 8];
    for (int64_t r = 0; r < TOKENS * 2; r++) {
        dweight[r] = (float)tri_random_normal(1, 2, (uint64_t)r);
    }
    begin(&f, &variants[0], &terms);
    (void)fixture_forward(&f);
    tri_router_backward(f.router, &f.call, &f.routes, NULL, (struct tri_range){0, TOKENS}, dweight,
                        whole);
    memset(part, 0xff, sizeof(part));
    tri_router_backward(f.router, &f.call, &f.routes, NULL, (struct tri_range){4, 11}, dweight,
                        part);
    assert_memory_equal(part + 4 * 8, whole + 4 * 8, 7 * 8 * sizeof(float));
    for (int64_t i = 0; i < TOKENS * 8; i++) {
        assert_true((i >= 4 * 8 && i < 11 * 8) || part[i] == 0);
    }
    fixture_end(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights),    cmocka_unit_test(test_balance_loss),
        cmocka_unit_test(test_z_loss),     cmocka_unit_test(test_together),
        cmocka_unit_test(test_two_layers), cmocka_unit_test(test_own_tokens_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
