/* A cluster's file, what its rates make of calls, and fits. */
#include "plan/cluster.h"
#include "plan/fit.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static const char path[] = TEST_TMP "/plan_cluster.yaml";

static void write_text(const char *text)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
}

static void expect_close(double found, double expected)
{
    if (!(fabs(found - expected) <= 1e-12 * (1.0 + fabs(expected)))) {
        fail_msg("found %.17g, expected %.17g", found, expected);
    }
}

static const char good[] =
    "name: a machine\n"
    "ranks_per_host: 4\n"
    "memory_per_rank: 1e9\n"
    "links:\n"
    "  inside: {any: {message: 1e-6, bytes: 1e10}, all_to_all: {bytes: 2e10}}\n"
    "  between: {all_to_all: {message: 1e-5}, any: {bytes: 1e9, from: 1e6, large: 5e8}, hidden: "
    "0.5}\n"
    "kernels:\n"
    "  f32: {product_weight: {flops: 3e11}, any: {bytes: 2e10}, products: {call: 1e-6, flops: "
    "1e11}}\n"
    "  reproducible_f32: {any: {bytes: 3e9}}\n";

static void test_read(void **state)
{
    (void)state;
    struct tri_cluster c;
    struct tri_error error;
    write_text(good);
    assert_int_equal(tri_cluster_read(path, &c, &error), TRI_OK);
    assert_string_equal(c.name, "a machine");
    assert_int_equal(c.ranks_per_host, 4);
    assert_int_equal(c.memory, 1000000000);
    /* what is named wins over its family, and that over any, in whatever order */
    const struct tri_rate *rates = c.rate[TRI_CLUSTER_F32];
    expect_close(rates[TRI_TASK_PRODUCT_WEIGHT].flops, 3e11);
    expect_close(rates[TRI_TASK_PRODUCT_WEIGHT].call, 0.0);
    expect_close(rates[TRI_TASK_PRODUCT_INPUT].flops, 1e11);
    expect_close(rates[TRI_TASK_PRODUCT_INPUT].bytes, 0.0);
    expect_close(rates[TRI_TASK_NORM].bytes, 2e10);
    expect_close(c.link[TRI_LINK_INSIDE][TRI_OP_ALL_TO_ALL].message, 0.0);
    expect_close(c.link[TRI_LINK_INSIDE][TRI_OP_ALL_REDUCE].bytes, 1e10);
    expect_close(c.link[TRI_LINK_BETWEEN][TRI_OP_ALL_TO_ALL].message, 1e-5);
    expect_close(c.hidden[TRI_LINK_BETWEEN], 0.5);
    expect_close(c.link[TRI_LINK_BETWEEN][TRI_OP_SEND].from, 1e6);
    expect_close(c.link[TRI_LINK_BETWEEN][TRI_OP_SEND].large, 5e8);
    assert_false(c.has_kernels[TRI_CLUSTER_BF16]);
    assert_true(c.has_kernels[TRI_CLUSTER_REPRODUCIBLE]);
    expect_close(c.rate[TRI_CLUSTER_REPRODUCIBLE][TRI_TASK_NORM].bytes, 3e9);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"ranks_per_host: 0\n", ":1: key 'ranks_per_host': found '0', expected a number from 1 up"},
        {"ranks_per_host: 1.5\n", "expected an integer"},
        {"ranks_per_hosts: 1\n", ":1: unknown key 'ranks_per_hosts' in a cluster; did you mean "
                                 "'ranks_per_host'?"},
        {"ranks_per_host: 1\n", "key 'kernels.f32' is missing"},
        {"ranks_per_host: 1\nkernels: {f32: {products: {flops: 1}}}\n",
         ":2: kernels.f32 has no rate for attention_forward, nor for any"},
        {"ranks_per_host: 1\nkernels: {f32: {any: {flop: 1}}}\n",
         ":2: unknown key 'flop' in kernels.f32.any; did you mean 'flops'?"},
        {"ranks_per_host: 1\nkernels: {f32: {any: {flops: -1}}}\n",
         ":2: key 'kernels.f32.any.flops': found '-1', expected a number from 0 up"},
        {"ranks_per_host: 1\nkernels: {f32: {any: {call: 1e308}}}\n",
         ":2: key 'kernels.f32.any.call': found '1e308', expected 0, or a number from 1e-60 to "
         "1e60"},
        {"ranks_per_host: 1\nlinks: {inside: {any: {bytes: 1e-300}}}\n",
         "expected 0, or a number from 1e-60 to 1e60"},
        {"ranks_per_host: 1\nkernels: {f32: {any: {flops: nan}}}\n",
         "found 'nan', expected a number from 0 up"},
        {"ranks_per_host: 1\nkernels: {f32: {any: 3}}\n",
         ":2: key 'kernels.f32.any': found '3', expected a section"},
        {"ranks_per_host: 2\nkernels: {f32: {any: {bytes: 1}}}\n", "key 'links.inside' is missing"},
        {"ranks_per_host: 1\nlinks: {inside: {hidden: 2}}\n", "expected a number from 0 to 1"},
        {"ranks_per_host: 1\nlinks: {inside: {all_reduce: {bytes: 1}}}\n",
         ":2: links.inside has no rate for all_gather, nor for any"},
        {"ranks_per_host: 2\nlinks:\n  inside: {any: {bytes: 1, from: 2}}\n",
         ":3: key 'links.inside.any': found from without large, expected both or none"},
        {"ranks_per_host: 2\nlinks:\n  inside: {any: {large: 2}}\n", "found large without from"},
        {"ranks_per_host: 1\nsums: star\n", ":2: key 'sums': found 'star', expected ring or pairs"},
        {"3\n", "found '3', expected a section"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct tri_cluster c;
        struct tri_error error;
        write_text(cases[i].text);
        assert_int_equal(tri_cluster_read(path, &c, &error), TRI_BAD_INPUT);
        if (!strstr(error.message, cases[i].says) || !strstr(error.message, path)) {
            fail_msg("'%s' does not say '%s'", error.message, cases[i].says);
        }
    }
}

/* What is written reads back, to the digits that are written. */
static void test_again(void **state)
{
    (void)state;
    struct tri_cluster c;
    struct tri_cluster again;
    struct tri_error error;
    write_text(good);
    assert_int_equal(tri_cluster_read(path, &c, &error), TRI_OK);
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    tri_cluster_print(&c, "a note\nand another\n", file);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(tri_cluster_read(path, &again, &error), TRI_OK);
    assert_memory_equal(c.rate, again.rate, sizeof(c.rate));
    assert_memory_equal(c.link, again.link, sizeof(c.link));
    assert_memory_equal(c.hidden, again.hidden, sizeof(c.hidden));
}

/* What each collective sends over which link, of 8 ranks on two hosts of 4, 1 second a message or 1
 * byte a second. */
static void test_traffic(void **state)
{
    (void)state;
    struct tri_cluster messages = {.ranks_per_host = 4};
    struct tri_cluster bytes = {.ranks_per_host = 4};
    for (int link = 0; link < TRI_LINK_COUNT; link++) {
        for (int op = 0; op < TRI_OP_COUNT; op++) {
            messages.link[link][op].message = 1.0;
            bytes.link[link][op].bytes = 1.0;
        }
    }
    static const struct {
        struct tri_traffic traffic;
        double inside, between, sent; /* messages; bytes of the host's link */
    } cases[] = {
        /* 2 x 7 messages of an eighth: 3 of 7 stay; the host's four ranks send at once */
        {{TRI_OP_ALL_REDUCE, 8, 4, 4, 800.0, {0.0, 0.0}, false, {0.0, 0.0}, 0.0},
         6.0,
         8.0,
         4.0 * 800.0},
        {{TRI_OP_REDUCE_SCATTER, 8, 4, 4, 800.0, {0.0, 0.0}, false, {0.0, 0.0}, 0.0},
         3.0,
         4.0,
         4.0 * 400.0},
        {{TRI_OP_ALL_GATHER, 8, 4, 4, 100.0, {0.0, 0.0}, false, {0.0, 0.0}, 0.0},
         3.0,
         4.0,
         4.0 * 400.0},
        {{TRI_OP_ALL_TO_ALL, 8, 4, 4, 700.0, {300.0, 400.0}, false, {0.0, 0.0}, 0.0},
         3.0,
         4.0,
         4.0 * 400.0},
        /* to one rank elsewhere, and one here */
        {{TRI_OP_ALL_TO_ALL, 8, 4, 4, 300.0, {100.0, 200.0}, false, {2.0, 3.0}, 0.0},
         1.0,
         1.0,
         4.0 * 200.0},
        /* inside a host nothing goes between */
        {{TRI_OP_ALL_REDUCE, 4, 4, 4, 800.0, {0.0, 0.0}, false, {0.0, 0.0}, 0.0}, 6.0, 0.0, 0.0},
        /* one rank a host, as ranks of equal place are */
        {{TRI_OP_ALL_GATHER, 2, 1, 4, 100.0, {0.0, 0.0}, false, {0.0, 0.0}, 0.0},
         0.0,
         1.0,
         4.0 * 100.0},
        {{TRI_OP_ALL_REDUCE, 8, 4, 4, 8.0, {0.0, 0.0}, true, {0.0, 0.0}, 0.0},
         3.0 * 3.0 / 7.0,
         3.0 * 4.0 / 7.0,
         4.0 * 4.0 * 8.0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct tri_transfer m = tri_cluster_transfer(&messages, &cases[i].traffic);
        struct tri_transfer b = tri_cluster_transfer(&bytes, &cases[i].traffic);
        expect_close(m.seconds[TRI_LINK_INSIDE], cases[i].inside);
        expect_close(m.seconds[TRI_LINK_BETWEEN], cases[i].between);
        expect_close(b.seconds[TRI_LINK_BETWEEN], cases[i].sent);
    }
    /* A ring crosses a host's border once: 2 x 7/8 of the bytes. */
    bytes.ring = true;
    struct tri_transfer ring = tri_cluster_transfer(&bytes, &cases[0].traffic);
    expect_close(ring.seconds[TRI_LINK_BETWEEN], 2.0 * 7.0 / 8.0 * 800.0);
}

/* Of the bytes of a call those beyond a number go at another rate; each call begins anew. */
static void test_large(void **state)
{
    (void)state;
    struct tri_cluster cluster = {.ranks_per_host = 4};
    struct tri_traffic traffic = {TRI_OP_ALL_GATHER, 4,     4,          4,  100.0,
                                  {0.0, 0.0},        false, {0.0, 0.0}, 0.0};
    cluster.link[TRI_LINK_INSIDE][TRI_OP_ALL_GATHER] = (struct tri_link_rate){0.0, 2.0, 240.0, 1.0};
    expect_close(tri_cluster_transfer(&cluster, &traffic).seconds[TRI_LINK_INSIDE],
                 240.0 / 2.0 + 60.0);
    traffic.bytes = 80.0;
    expect_close(tri_cluster_transfer(&cluster, &traffic).seconds[TRI_LINK_INSIDE], 240.0 / 2.0);
    /* between hosts some may have been used up before */
    traffic.spent = 100.0;
    expect_close(tri_cluster_transfer(&cluster, &traffic).seconds[TRI_LINK_INSIDE], 240.0 / 2.0);
    cluster.link[TRI_LINK_BETWEEN][TRI_OP_ALL_GATHER] =
        cluster.link[TRI_LINK_INSIDE][TRI_OP_ALL_GATHER];
    traffic.local = traffic.neighbours = 1;
    expect_close(tri_cluster_transfer(&cluster, &traffic).seconds[TRI_LINK_BETWEEN],
                 140.0 / 2.0 + 100.0);
}

static void test_fit_bent(void **state)
{
    (void)state;
    struct tri_sample samples[8];
    struct tri_bent_costs costs;
    for (int bent = 0; bent < 2; bent++) {
        for (int i = 0; i < 8; i++) {
            double bytes = 64.0 * pow(8.0, (double)i);
            double beyond = bent && bytes > 32768.0 ? bytes - 32768.0 : 0.0;
            samples[i] = (struct tri_sample){
                .seconds = 6e-6 + 1e-10 * (bytes - beyond) + 4e-10 * beyond,
                .amount = {3.0, bytes},
                .weight = 1.0,
            };
        }
        assert_true(tri_fit_bent(samples, 8, &costs) < 1e-9);
        assert_true(fabs(costs.message / 2e-6 - 1.0) < 1e-6);
        assert_true(fabs(costs.byte / 1e-10 - 1.0) < 1e-6);
        assert_true(fabs(costs.beyond / (bent ? 4e-10 : 1e-10) - 1.0) < 1e-6);
        assert_true(costs.knee == (bent ? 32768.0 : 0.0));
    }
    /* What only scatters has no knee. */
    for (int i = 0; i < 8; i++) {
        samples[i].seconds = (i % 2 ? 1.1 : 0.9) * (6e-6 + 1e-10 * samples[i].amount[1]);
    }
    assert_true(tri_fit_bent(samples, 8, &costs) < 0.2 && costs.knee == 0.0);
}

static void test_fit(void **state)
{
    (void)state;
    const double truth[TRI_FIT_UNKNOWNS] = {2e-6, 1e-11, 3e-10};
    struct tri_sample samples[12];
    for (int i = 0; i < 12; i++) {
        double *amount = samples[i].amount;
        amount[0] = 1.0 + (double)(i % 3);
        amount[1] = 1e6 * (double)(1 + i * i);
        amount[2] = 1e5 * (double)(1 + (i * 7) % 12);
        samples[i].weight = 1.0 + (double)(i % 2);
        samples[i].seconds = truth[0] * amount[0] + truth[1] * amount[1] + truth[2] * amount[2];
    }
    double costs[TRI_FIT_UNKNOWNS];
    assert_true(tri_fit(samples, 12, costs) < 1e-9);
    for (int i = 0; i < TRI_FIT_UNKNOWNS; i++) {
        assert_true(fabs(costs[i] / truth[i] - 1.0) < 1e-6);
    }
    /* What matters less moves the fit less, and what does not matter not at all. */
    const double right = samples[5].seconds;
    double moved[2];
    for (int i = 0; i < 2; i++) {
        samples[5].seconds = 1.5 * right;
        samples[5].weight = i ? 1.0 : 1e-3;
        double error = tri_fit(samples, 12, costs);
        moved[i] = fabs(costs[1] / truth[1] - 1.0);
        assert_true(error > 0.0);
    }
    assert_true(moved[1] > 10.0 * moved[0]);
    samples[5].weight = 0.0;
    assert_true(tri_fit(samples, 12, costs) < 1e-9);
    samples[5].weight = 1.0;
    samples[5].seconds = right;
    /* no amount of one cost; and one whose best value would be negative */
    for (int i = 0; i < 12; i++) {
        samples[i].amount[0] = 0.0;
        samples[i].amount[2] = (double)(12 - i);
        samples[i].seconds = 1e-11 * samples[i].amount[1] - 1e-8 * samples[i].amount[2];
    }
    double error = tri_fit(samples, 12, costs);
    assert_true(error > 0.0 && error < 0.01);
    assert_true(costs[0] == 0.0 && costs[2] == 0.0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read),  cmocka_unit_test(test_refused),
        cmocka_unit_test(test_again), cmocka_unit_test(test_traffic),
        cmocka_unit_test(test_fit),   cmocka_unit_test(test_fit_bent),
        cmocka_unit_test(test_large),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
