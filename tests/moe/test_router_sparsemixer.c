/* The router sparsemixer: what is drawn, how often, by what it is keyed; and over many draws the
 * gradient of a small network's expected loss. */
#include "moe/fixture.h"

#include "base/memory.h"
#include "moe/strategies.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include <string.h>

static void begin_router(struct fixture *f, enum tri_sparsemixer_form form, double range, int64_t k,
                         int64_t first_row, int64_t rows, int64_t seq)
{
    struct tri_config config;
    fixture_config(&config);
    config.moe.router = &tri_router_sparsemixer;
    config.moe.top_k = k;
    config.moe.sparsemixer_form = form;
    config.moe.mask_range = range;
    fixture_begin(f, &config, NULL, first_row, rows, seq);
}

/* Every token has the logits of the first one. */
static void begin_same(struct fixture *f, enum tri_sparsemixer_form form, int64_t k, int64_t tokens)
{
    begin_router(f, form, 1.0, k, 0, 1, tokens);
    for (int64_t t = 1; t < tokens; t++) {
        memcpy(f->logits + t * 8, f->logits, 8 * sizeof(float));
    }
    (void)fixture_forward(f);
}

/* Probability of (first, second): drawn without replacement from the softmax of z / by. */
static double pair_probability(const float *z, int64_t first, int64_t second, double by)
{
    double all = 0;
    for (int64_t e = 0; e < 8; e++) {
        all += exp((double)z[e] / by);
    }
    double p = exp((double)z[first] / by);
    return p / all * exp((double)z[second] / by) / (all - p);
}

/* Chi-squared of all pairs: 55 degrees of freedom, 99.9 % of which are below 93.2. */
static void test_frequencies(void **state)
{
    (void)state;
    enum { TOKENS = 40000 };
    for (int form = 0; form < 3; form++) {
        struct fixture f;
        int64_t count[64] = {0};
        double chi = 0;
        begin_same(&f, (enum tri_sparsemixer_form)form, 2, TOKENS);
        double by = form == TRI_SPARSEMIXER_CORRECTED ? 2 : 1;
        for (int64_t t = 0; t < TOKENS; t++) {
            count[f.routes.chosen[2 * t] * 8 + f.routes.chosen[2 * t + 1]]++;
            assert_true(f.routes.expert[2 * t] == f.routes.chosen[2 * t]);
        }
        for (int64_t pair = 0; pair < 64; pair++) {
            double expected = pair / 8 == pair % 8
                                  ? 0
                                  : TOKENS * pair_probability(f.logits, pair / 8, pair % 8, by);
            double off = (double)count[pair] - expected;
            assert_true(pair / 8 != pair % 8 || count[pair] == 0);
            chi += expected > 0 ? off * off / expected : 0;
        }
        assert_true(chi < 93.2 && chi > 25);
        assert_int_equal(f.routes.dropped, 0);
        fixture_end(&f);
    }
}

/* Weights are p or p / 3, the former as often as B says and always of the largest. */
static void test_rate(void **state)
{
    (void)state;
    enum { TOKENS = 40000 };
    static const double rate[] = {0.25, 0.25, 0.625};
    for (int form = 0; form < 3; form++) {
        struct fixture f;
        int64_t others = 0;
        int64_t full = 0;
        begin_same(&f, (enum tri_sparsemixer_form)form, 1, TOKENS);
        double by = form == TRI_SPARSEMIXER_CORRECTED ? 2 : 1;
        double all = 0;
        int32_t largest = 0;
        for (int32_t e = 0; e < 8; e++) {
            all += exp((double)f.logits[e] / by);
            largest = f.logits[e] > f.logits[largest] ? e : largest;
        }
        for (int64_t t = 0; t < TOKENS; t++) {
            int32_t chosen = f.routes.chosen[t];
            double p = exp((double)f.logits[chosen] / by) / all;
            double weight = (double)f.routes.weight[t];
            bool whole = fabs(weight - p) < 1e-6;
            double third = form == TRI_SPARSEMIXER_RELEASED ? 0.3333 : 1.0 / 3;
            double back = form == TRI_SPARSEMIXER_RELEASED    ? weight
                          : form == TRI_SPARSEMIXER_CORRECTED ? 2 * p
                                                              : p;
            assert_true(whole || fabs(weight - third * p) < 1e-7);
            assert_close(f.routes.back[t], back, 1e-6);
            assert_true(whole || chosen != largest);
            others += chosen != largest;
            full += chosen != largest && whole;
        }
        double spread = sqrt((double)others * rate[form] * (1 - rate[form]));
        assert_true(others > 10000);
        assert_close(full, rate[form] * (double)others, 3.5 * spread);
        fixture_end(&f);
    }
}

/* Probability of an expert among those that are left, by the paper's mask. */
static double masked_softmax(const float *z, const int32_t *taken, int64_t before, double range,
                             int64_t expert)
{
    double best = (double)-INFINITY;
    double sum = 0;
    double p = 0;
    double left[8];
    for (int64_t e = 0; e < 8; e++) {
        bool is_taken = before > 0 && taken[0] == e;
        left[e] = (double)(is_taken ? -INFINITY : z[e]);
        best = fmax(best, left[e]);
    }
    for (int64_t e = 0; e < 8; e++) {
        bool kept = best - left[e] <= range * (fabs((double)z[e]) + fabs(best));
        double term = kept ? exp(left[e] - best) : 0;
        sum += term;
        p = e == expert ? term : p;
    }
    return p / sum;
}

/* Without training the choice is that of top-k, and weighs by the masked softmax. */
static void test_inference(void **state)
{
    (void)state;
    for (int i = 0; i < 5; i++) {
        struct fixture f;
        struct fixture best;
        struct tri_config config;
        double range = i * 0.1;
        begin_router(&f, TRI_SPARSEMIXER_PAPER, range, 2, 0, 4, 30);
        f.call.training = false;
        (void)fixture_forward(&f);
        fixture_config(&config);
        fixture_begin(&best, &config, NULL, 0, 4, 30);
        (void)fixture_forward(&best);
        assert_memory_equal(f.routes.chosen, best.routes.chosen, 2 * 120 * sizeof(int32_t));
        for (int64_t r = 0; r < 2 * 120; r++) {
            const float *z = f.logits + r / 2 * 8;
            const int32_t *chosen = f.routes.chosen + r / 2 * 2;
            assert_close(f.routes.weight[r], masked_softmax(z, chosen, r % 2, range, chosen[r % 2]),
                         1e-6);
            assert_true(i > 0 || f.routes.weight[r] == 1);
        }
        fixture_end(&best);
        fixture_end(&f);
    }
}

/* Draws go by a row's place in the global batch, whoever takes it, and by step, layer and seed. */
static void test_keys(void **state)
{
    (void)state;
    enum { SEQ = 50 };
    struct fixture all;
    begin_router(&all, TRI_SPARSEMIXER_PAPER, 1.0, 2, 0, 5, SEQ);
    (void)fixture_forward(&all);
    for (int64_t row = 0; row < 5; row++) {
        struct fixture one;
        begin_router(&one, TRI_SPARSEMIXER_PAPER, 1.0, 2, row, 1, SEQ);
        (void)fixture_forward(&one);
        size_t n = 2 * (size_t)SEQ;
        assert_memory_equal(one.routes.chosen, all.routes.chosen + row * 2 * SEQ,
                            n * sizeof(int32_t));
        assert_memory_equal(one.routes.weight, all.routes.weight + row * 2 * SEQ,
                            n * sizeof(float));
        for (int what = 0; what < 3; what++) {
            struct tri_router_call call = one.call;
            call.step += what == 0;
            call.layer += what == 1;
            call.seed += what == 2;
            tri_router_forward(one.router, &call, &one.routes, NULL);
            assert_memory_not_equal(one.routes.chosen, all.routes.chosen + row * 2 * SEQ,
                                    n * sizeof(int32_t));
        }
        fixture_end(&one);
    }
    fixture_end(&all);
}

/* Tokens whose weights differ by more than so much, or that go to other experts. */
static int64_t count_apart(const struct fixture *f, const struct fixture *g, double most)
{
    int64_t count = 0;
    for (int64_t t = 0; t < f->call.rows * f->call.seq; t++) {
        bool apart = false;
        for (int64_t r = 2 * t; r < 2 * t + 2; r++) {
            double off = fabs((double)f->routes.weight[r] - (double)g->routes.weight[r]);
            apart = apart || off > most || f->routes.chosen[r] != g->routes.chosen[r];
        }
        count += apart;
    }
    return count;
}

/* Imposed: what is compared is another's, what weighs is one's own; B is the same. Three experts
 * are just inside of the mask's bound, and outside when the best logit grows by a thousandth. */
static void test_imposed(void **state)
{
    (void)state;
    enum { TOKENS = 400 };
    struct fixture f;
    struct fixture other;
    begin_router(&f, TRI_SPARSEMIXER_PAPER, 0.5, 2, 0, 4, TOKENS / 4);
    begin_router(&other, TRI_SPARSEMIXER_PAPER, 0.5, 2, 0, 4, TOKENS / 4);
    for (int64_t i = 0; i < 8 * TOKENS; i++) {
        int64_t e = (i + i / 8) % 8;
        f.logits[i] = e == 0 ? 3 : e < 4 ? 1 : -1;
        other.logits[i] = e == 0 ? 3.003F : f.logits[i];
    }
    (void)fixture_forward(&f);
    (void)fixture_forward(&other);
    assert_int_equal(count_apart(&f, &other, 0.01), TOKENS); /* the best one alone is drawn first */
    int32_t *chosen = tri_alloc(TRI_MEMORY_OTHER, 2 * TOKENS * sizeof(*chosen));
    memcpy(chosen, f.routes.chosen, 2 * TOKENS * sizeof(*chosen));
    other.call.imposed_logits = f.logits;
    (void)fixture_forward(&other); /* by the same masks, of shares that differ a little */
    assert_in_range(count_apart(&f, &other, 0.01), 0, 4);
    other.call.imposed = chosen;
    (void)fixture_forward(&other);
    assert_memory_equal(other.routes.chosen, chosen, 2 * TOKENS * sizeof(*chosen));
    assert_int_equal(count_apart(&f, &other, 0.01), 0);
    assert_true(count_apart(&f, &other, 1e-5) > TOKENS / 2);
    tri_free(chosen);
    fixture_end(&other);
    fixture_end(&f);
}

/* ---- the expected loss of a small network ---------------------------------------------------- */

/* Logits W x, experts' outputs of three numbers, a loss that is a cubic of the output but linear
 * along the two likeliest experts, whose step is Euler's. One token, drawn again and again. */
enum { INPUTS = 3, OUTPUTS = 3, NET = 4, SAMPLES = 20000 };

static const double net_x[INPUTS] = {0.8, -0.5, 0.3};
static const double net_w[NET][INPUTS] = {
    {0.9, -0.6, 0.2}, {0.7, -0.3, 0.4}, {-0.4, 0.5, 0.1}, {-0.2, -0.4, -0.7}};
static const double net_e[NET][OUTPUTS] = {
    {1.1, -0.4, 0}, {-0.7, 0.9, 0}, {0.3, 0.8, 1.4}, {-0.6, 0.2, -1.7}};

static double net_loss(const double *y, double *dy)
{
    double u = y[2];
    if (dy) {
        dy[0] = 0.6;
        dy[1] = -0.9;
        dy[2] = 0.4 + 1.8 * u - 1.5 * u * u;
    }
    return 0.6 * y[0] - 0.9 * y[1] + 0.4 * u + 0.9 * u * u - 0.5 * u * u * u;
}

static void net_softmax(double w[NET][INPUTS], int64_t taken, double by, double *p)
{
    double sum = 0;
    for (int e = 0; e < NET; e++) {
        double z = 0;
        for (int i = 0; i < INPUTS; i++) {
            z += w[e][i] * net_x[i];
        }
        p[e] = e == taken ? 0 : exp(z / by);
        sum += p[e];
    }
    for (int e = 0; e < NET; e++) {
        p[e] /= sum;
    }
}

/* The loss of two outputs (the second may be none). */
static double net_of(int64_t a, double wa, int64_t b, double wb)
{
    double y[OUTPUTS];
    for (int i = 0; i < OUTPUTS; i++) {
        y[i] = wa * net_e[a][i] + (b >= 0 ? wb * net_e[b][i] : 0);
    }
    return net_loss(y, NULL);
}

/* One draw: the expected loss with weights that are held at those of `at`; of v2* they move too. */
static double net_expected_one(double w[NET][INPUTS], double at[NET][INPUTS], bool corrected)
{
    double p[NET];
    double held[NET];
    double sum = 0;
    net_softmax(w, -1, corrected ? 2 : 1, p);
    net_softmax(at, -1, corrected ? 2 : 1, held);
    for (int i = 0; i < NET; i++) {
        sum += p[i] * net_of(i, corrected ? p[i] : held[i], -1, 0);
    }
    return sum;
}

/* Scale of a draw that Heun's method takes: mean over B of what the other one sees. */
static double net_given(int64_t scaled, double w, bool largest, int64_t whole, double v)
{
    double at_one = net_of(whole, v, scaled, w) - net_of(scaled, w, -1, 0);
    double at_third = net_of(whole, v, scaled, w / 3) - net_of(scaled, w / 3, -1, 0);
    return largest ? at_one : 0.25 * at_one + 0.75 * at_third;
}

/* Two draws: each one's expected part beside the other, whose weight is scaled by chance. */
static double net_expected_two(double w[NET][INPUTS], double at[NET][INPUTS])
{
    double p[NET];
    double held[NET];
    double q[NET];
    double q_held[NET];
    double sum = 0;
    net_softmax(w, -1, 1, p);
    net_softmax(at, -1, 1, held);
    for (int i = 0; i < NET; i++) {
        net_softmax(w, i, 1, q);
        net_softmax(at, i, 1, q_held);
        for (int j = 0; j < NET; j++) {
            if (j != i) {
                bool next = j == (i == 0 ? 1 : 0);
                sum += p[i] * q_held[j] * net_given(j, q_held[j], next, i, held[i]);
                sum += held[i] * q[j] * net_given(i, held[i], i == 0, j, q_held[j]);
            }
        }
    }
    return sum;
}

static double net_expected(double w[NET][INPUTS], double at[NET][INPUTS], int64_t k, bool corrected)
{
    return k == 1 ? net_expected_one(w, at, corrected) : net_expected_two(w, at);
}

/* d loss / d weight of each route of the samples, as the schedule would say. */
static void net_dweight(const struct fixture *f, float *dweight)
{
    int64_t k = f->config.moe.top_k;
    for (int64_t t = 0; t < SAMPLES; t++) {
        double y[OUTPUTS] = {0};
        double dy[OUTPUTS];
        for (int64_t r = t * k; r < (t + 1) * k; r++) {
            for (int i = 0; i < OUTPUTS; i++) {
                y[i] += (double)f->routes.weight[r] * net_e[f->routes.chosen[r]][i];
            }
        }
        (void)net_loss(y, dy);
        for (int64_t r = t * k; r < (t + 1) * k; r++) {
            dweight[r] = 0;
            for (int i = 0; i < OUTPUTS; i++) {
                dweight[r] += (float)(dy[i] * net_e[f->routes.chosen[r]][i]);
            }
        }
    }
}

static void check_network(enum tri_sparsemixer_form form, int64_t k)
{
    struct tri_config config;
    struct fixture f;
    double w[NET][INPUTS];
    double at[NET][INPUTS];
    memcpy(w, net_w, sizeof(w));
    memcpy(at, net_w, sizeof(at));
    fixture_config(&config);
    config.moe.router = &tri_router_sparsemixer;
    config.moe.num_experts = NET;
    config.moe.top_k = k;
    config.moe.sparsemixer_form = form;
    config.moe.mask_range = 1;
    fixture_begin(&f, &config, NULL, 0, 1, SAMPLES);
    for (int64_t i = 0; i < SAMPLES * NET; i++) {
        const double *row = net_w[i % NET];
        f.logits[i] = (float)(row[0] * net_x[0] + row[1] * net_x[1] + row[2] * net_x[2]);
    }
    (void)fixture_forward(&f);
    float *dweight = tri_alloc(TRI_MEMORY_OTHER, (size_t)(SAMPLES * k) * sizeof(float));
    float *dlogits = tri_alloc(TRI_MEMORY_OTHER, (size_t)(SAMPLES * NET) * sizeof(float));
    net_dweight(&f, dweight);
    tri_router_backward(f.router, &f.call, &f.routes, NULL, (struct tri_range){0, SAMPLES}, dweight,
                        dlogits);
    double norm = 0;
    double widest = 0; /* standard error */
    for (int e = 0; e < NET; e++) {
        for (int i = 0; i < INPUTS; i++) {
            const double step = 1e-5;
            double sum = 0;
            double squares = 0;
            for (int64_t t = 0; t < SAMPLES; t++) {
                double sample = (double)dlogits[t * NET + e] * net_x[i];
                sum += sample / SAMPLES;
                squares += sample * sample / SAMPLES;
            }
            double error = sqrt((squares - sum * sum) / SAMPLES);
            w[e][i] = net_w[e][i] + step;
            double up = net_expected(w, at, k, form == TRI_SPARSEMIXER_CORRECTED);
            w[e][i] = net_w[e][i] - step;
            double down = net_expected(w, at, k, form == TRI_SPARSEMIXER_CORRECTED);
            w[e][i] = net_w[e][i];
            assert_close(sum, (up - down) / (2 * step), 4 * error);
            norm = hypot(norm, sum);
            widest = fmax(widest, error);
        }
    }
    assert_true(widest < 0.03 * norm); /* or a wrong gradient would not show */
    tri_free(dweight);
    tri_free(dlogits);
    fixture_end(&f);
}

static void test_network(void **state)
{
    (void)state;
    check_network(TRI_SPARSEMIXER_PAPER, 1);
    check_network(TRI_SPARSEMIXER_PAPER, 2);
    check_network(TRI_SPARSEMIXER_RELEASED, 1);
    check_network(TRI_SPARSEMIXER_CORRECTED, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_frequencies), cmocka_unit_test(test_rate),
        cmocka_unit_test(test_inference),   cmocka_unit_test(test_keys),
        cmocka_unit_test(test_imposed),     cmocka_unit_test(test_network),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
