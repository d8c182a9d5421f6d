/* A run whose last steps were skipped: it fails, says from which checkpoint on, keeps that one, and
 * prints null for what is not finite. */
#include "cli/cli.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

/* Decoupled decay at this rate multiplies every matrix by about -1e6 a step. */
#define DIVERGING                                                                                  \
    "train", "c.yaml", "train.learning_rate=1000", "train.weight_decay=1000",                      \
        "train.schedule=constant", "checkpoint.every=2", "checkpoint.keep_last=1"

static int begin_run(void **state)
{
    (void)state;
    cli_tool(CLI_WORDS_OF("rm", "-rf", "run"));
    return 0;
}

/* Steps that RUN/metrics.jsonl says were skipped at its end. */
static int64_t skipped_steps(void)
{
    char *text = cli_read("run/metrics.jsonl", NULL);
    int count = cli_count(text, "\"loss\":null");
    free(text);
    return count;
}

/* The checkpoint from before the first skipped step is there, whole; its path. */
static void expect_good_one(char path[CLI_PATH])
{
    int64_t step = 0;
    json_t *metrics = cli_metrics("run");
    for (size_t i = 0; i < json_array_size(metrics); i++) {
        const json_t *line = json_array_get(metrics, i);
        if (json_is_real(json_object_get(line, "grad_norm"))) {
            step = json_integer_value(json_object_get(line, "step"));
        }
    }
    json_decref(metrics);
    assert_true(step >= 2);
    (void)snprintf(path, CLI_PATH, "run/checkpoints/step_%lld", (long long)step / 2 * 2);
    cli_run_well(0, CLI_WORDS_OF("inspect", path));
}

static void test_last_steps(void **state)
{
    (void)state;
    char path[CLI_PATH];
    char says[CLI_PATH + 256];
    const char *const *words =
        CLI_WORDS_OF(DIVERGING, "train.steps=20", "train.max_skipped=1000", "--json");
    struct process_result result = cli_run(cli_ranks(), words);
    assert_true(skipped_steps() > 2);
    expect_good_one(path);
    /* What was due among skipped steps was not saved. */
    assert_int_equal(access("run/checkpoints/step_18", F_OK), -1);
    assert_int_equal(access("run/checkpoints/step_20", F_OK), 0);
    (void)snprintf(
        says, sizeof(says),
        "up to step 20, had a loss or gradient that is not finite and changed no weight; "
        "the last checkpoint from before them is %s",
        path);
    json_t *root = json_loads(result.out, JSON_DISABLE_EOF_CHECK, NULL);
    assert_true(json_is_null(json_object_get(root, "loss")));
    assert_true(json_is_null(json_object_get(root, "valid_loss")));
    json_decref(root);
    cli_expect_error(&result, cli_ranks(), 3, says);
    /* It is as finished as it was, and as failed. */
    result = cli_run(cli_ranks(), words);
    cli_expect_error(&result, cli_ranks(), 3, says);
}

/* Waits until so many steps were skipped, at most a minute; whether they were. */
static bool wait_for_skips(int64_t steps)
{
    const struct timespec pause = {.tv_nsec = 20000000};
    for (int i = 0; i < 3000 && skipped_steps() < steps; i++) {
        (void)nanosleep(&pause, NULL);
    }
    return skipped_steps() >= steps;
}

static void test_signal(void **state)
{
    (void)state;
    char path[CLI_PATH];
    struct process process;
    struct process_result result;
    cli_start(&process, cli_ranks(), NULL,
              CLI_WORDS_OF(DIVERGING, "train.steps=1000000", "train.max_skipped=1000000"));
    bool skipped = wait_for_skips(3);
    /* To a rank and not to its launcher: MPICH's drops the status when it is signalled itself. */
    pid_t rank = process.pid;
    if (cli_ranks() > 0) {
        assert_true(process_tree(process.pid, "trident", &rank, 1) > 0);
    }
    (void)kill(rank, SIGUSR1);
    process_wait(&process, 120, &result);
    assert_true(skipped);
    cli_expect_status(&result, 85);
    expect_good_one(path);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_last_steps, begin_run),
        cmocka_unit_test_setup(test_signal, begin_run),
    };
    cli_begin("skipped", argc, argv);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
