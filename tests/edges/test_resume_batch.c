/* A run whose batch changes goes on with the next sample: none is left out, none taken twice. With
 * a learning rate of 0 the weights stay, so the loss of a step tells which rows it read. */
#include "cli/cli.h"
#include "edges/state.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

enum { STEPS = 60, WINDOWS = 24 };

/* Large weights make some gradients too large for reproducible sums: those steps are skipped, and
 * their rows count as taken. No run here ends on one of them. */
#define STILL                                                                                      \
    "train", "c.yaml", "data.train=short/train_*.bin", "data.valid=", "train.learning_rate=0",     \
        "reproducible=true", "model.init_std=1", "train.max_skipped=1000", "checkpoint.every=0"

static double ones[STEPS]; /* the loss of each sample */

static int64_t losses_of(const char *run, double *losses)
{
    json_t *metrics = cli_metrics(run);
    int64_t count = (int64_t)json_array_size(metrics);
    cli_expect_each_step(metrics, count);
    for (int64_t i = 0; i < count; i++) {
        const json_t *line = json_array_get(metrics, (size_t)i);
        losses[i] = json_real_value(json_object_get(line, "cross_entropy"));
    }
    json_decref(metrics);
    return count;
}

/* Steps from `step` on, counted from 0, must have read `rows` samples each from `sample` on. */
static void expect_rows(const char *run, int64_t step, int64_t sample, int64_t rows)
{
    double losses[STEPS];
    int64_t count = losses_of(run, losses);
    assert_true(count > step);
    for (; step < count; step++) {
        double expected = 0;
        for (int64_t r = 0; r < rows; r++) {
            assert_true(sample < STEPS);
            expected += ones[sample++] / (double)rows;
        }
        if (!(fabs(losses[step] - expected) <= 1e-9 * expected)) {
            print_error("%s: step %lld: loss %.12g, expected %.12g\n", run, (long long)step,
                        losses[step], expected);
        }
        assert_true(fabs(losses[step] - expected) <= 1e-9 * expected);
    }
}

static int read_one_by_one(void **state)
{
    (void)state;
    char text[16 * (WINDOWS + 1) + 6] = "";
    uint32_t random = 1;
    for (size_t i = 0; i + 1 < sizeof(text); i++) {
        random = random * 1664525U + 1013904223U;
        text[i] = (char)('a' + (random >> 16) % 26);
    }
    cli_write("short.txt", text);
    cli_run_well(0, CLI_WORDS_OF("tokenize", "--tokenizer", "byte", "--out", "short", "short.txt"));
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF(STILL, "run_dir=ones", "train.global_batch=1", "train.steps=60"));
    assert_int_equal(losses_of("ones", ones), STEPS);
    for (int i = 0; i < STEPS; i++) {
        for (int j = i / WINDOWS * WINDOWS; j < i; j++) {
            assert_true(fabs(ones[i] - ones[j]) > 1e-6 * ones[i]);
        }
    }
    json_t *metrics = cli_metrics("ones");
    assert_true(json_integer_value(json_object_get(json_array_get(metrics, 19), "skipped_steps")) >
                0);
    json_decref(metrics);
    return 0;
}

static void expect_samples(const char *run, int64_t step, int64_t samples)
{
    json_t *root = edges_state(run, step);
    assert_int_equal(json_integer_value(json_object_get(root, "samples")), samples);
    json_decref(root);
}

static void test_larger_and_smaller(void **state)
{
    (void)state;
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF(STILL, "run_dir=grown", "train.global_batch=1", "train.steps=20"));
    expect_samples("grown", 20, 20);
    /* 24 windows are an epoch: two batches end one and begin the next. */
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF(STILL, "run_dir=grown", "train.global_batch=2", "train.steps=25"));
    expect_rows("grown", 20, 20, 2);
    expect_samples("grown", 25, 30);
    cli_run_well(cli_ranks(), CLI_WORDS_OF(STILL, "run_dir=grown", "train.global_batch=5",
                                           "train.micro_batch=2", "train.steps=29"));
    expect_rows("grown", 25, 30, 5);
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF(STILL, "run_dir=grown", "train.global_batch=1", "train.steps=32"));
    expect_rows("grown", 29, 50, 1);
    expect_samples("grown", 32, 53);
}

static void test_other_run_and_layout(void **state)
{
    (void)state;
    const char *expert = cli_ranks() > 1 ? "parallel.expert=2" : "parallel.expert=1";
    cli_run_well(0, CLI_WORDS_OF(STILL, "run_dir=serial", "train.global_batch=3", "train.steps=7"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF(STILL, "run_dir=other", "resume=serial", expert,
                                           "train.global_batch=4", "train.steps=10"));
    /* Its metrics begin at step 8. */
    json_t *metrics = cli_metrics("other");
    for (size_t i = 0; i < 3; i++) {
        double found =
            json_real_value(json_object_get(json_array_get(metrics, i), "cross_entropy"));
        const double *row = ones + 21 + 4 * i;
        double expected = (row[0] + row[1] + row[2] + row[3]) / 4;
        assert_true(fabs(found - expected) <= 1e-9 * expected);
    }
    json_decref(metrics);
}

/* A state without the count, as older programs wrote it, has taken steps x its own batch. */
static void test_older_checkpoint(void **state)
{
    (void)state;
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF(STILL, "run_dir=older", "train.global_batch=3", "train.steps=6"));
    json_t *root = edges_state("older", 6);
    assert_int_equal(json_object_del(root, "samples"), 0);
    edges_state_write("older", 6, root);
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF(STILL, "run_dir=older", "train.global_batch=2", "train.steps=10"));
    expect_rows("older", 6, 18, 2);
    expect_samples("older", 10, 26);
    root = edges_state("older", 10);
    (void)json_object_set_new(root, "samples", json_integer(-4));
    edges_state_write("older", 10, root);
    /* A count that cannot be: the checkpoint is named, and that of step 6 is taken. */
    struct process_result result = cli_run(
        cli_ranks(), CLI_WORDS_OF(STILL, "run_dir=older", "train.global_batch=4", "train.steps=8"));
    assert_int_equal(cli_count(result.err, "state.json: samples: found -4, expected "), 1);
    cli_expect_status(&result, 0);
    expect_rows("older", 6, 18, 4);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_larger_and_smaller),
        cmocka_unit_test(test_other_run_and_layout),
        cmocka_unit_test(test_older_checkpoint),
    };
    cli_begin("resume_batch", argc, argv);
    int failed = cmocka_run_group_tests(tests, read_one_by_one, NULL);
    cli_end();
    return failed;
}
