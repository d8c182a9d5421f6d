/* `trident runs`: each state that a run can be in, from its folder alone; folders that are no runs,
 * half-written ones and hostile ones are a line each. */
#include "cli/cli.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static json_t *list_runs(const char *folder)
{
    struct process_result result = cli_run(0, CLI_WORDS_OF("runs", folder, "--json", "--by-name"));
    return cli_expect_json(&result, 0);
}

/* The entry of a run; it must be in this state. */
static const json_t *expect_state(const json_t *root, const char *path, const char *state)
{
    const json_t *runs = json_object_get(root, "runs");
    for (size_t i = 0; i < json_array_size(runs); i++) {
        const json_t *run = json_array_get(runs, i);
        if (strcmp(json_string_value(json_object_get(run, "path")), path) == 0) {
            assert_string_equal(json_string_value(json_object_get(run, "state")), state);
            return run;
        }
    }
    print_error("%s is not listed\n", path);
    fail();
    return NULL;
}

static int64_t int_of(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    assert_true(json_is_integer(value));
    return json_integer_value(value);
}

/* Until the run's metrics have so many lines. */
static void wait_for_lines(const char *path, int lines)
{
    bool there = false;
    for (int i = 0; i < 1500 && !there; i++) {
        (void)usleep(20000);
        char *text = cli_read(path, NULL);
        there = text && cli_count(text, "\n") >= lines;
        free(text);
    }
    assert_true(there);
}

static void test_states(void **state)
{
    (void)state;
    struct process job;
    struct process_result result;
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=all/deep/done"));
    result = cli_run_with(0, CLI_WORDS_OF("TRIDENT_FILE_FAULT=write:ENOSPC:model-"),
                          CLI_WORDS_OF("train", "c.yaml", "run_dir=all/full", "data.valid="));
    cli_expect_status(&result, 3);
    /* It stops itself, by SIGSTOP, in its first checkpoint. */
    cli_start(&job, 0, CLI_WORDS_OF("TRIDENT_FILE_FAULT=write:SIGSTOP:model-"),
              CLI_WORDS_OF("train", "c.yaml", "run_dir=all/frozen", "data.valid="));
    wait_for_lines("all/frozen/metrics.jsonl", 2);

    json_t *root = list_runs("all");
    assert_int_equal(json_array_size(json_object_get(root, "runs")), 3);
    const json_t *done = expect_state(root, "all/deep/done", "finished");
    assert_int_equal(int_of(done, "step"), 4);
    assert_int_equal(int_of(done, "experts"), 4);
    assert_int_equal(int_of(json_object_get(done, "layout"), "ranks"), 1);
    json_t *metrics = cli_metrics("all/deep/done");
    const json_t *last = json_array_get(metrics, json_array_size(metrics) - 2);
    assert_true(json_equal(json_object_get(last, "loss"), json_object_get(done, "loss")));
    json_decref(metrics);
    const json_t *full = expect_state(root, "all/full", "failed");
    assert_non_null(strstr(json_string_value(json_object_get(full, "reason")), "No space left"));
    const json_t *frozen = expect_state(root, "all/frozen", "running");
    assert_int_equal(int_of(frozen, "step"), 2);
    char host[64] = "";
    (void)gethostname(host, sizeof(host) - 1);
    assert_string_equal(json_string_value(json_object_get(frozen, "host")), host);
    pid_t pid = (pid_t)int_of(frozen, "pid");
    json_decref(root);

    assert_int_equal(kill(pid, SIGKILL), 0);
    process_wait(&job, 30, &result);
    process_result_fini(&result);
    root = list_runs("all");
    (void)expect_state(root, "all/frozen", "died");
    json_decref(root);
    /* Looking held no lock that keeps a run out. */
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=all/frozen", "data.valid="));
    root = list_runs("all/frozen");
    (void)expect_state(root, "all/frozen", "finished");
    json_decref(root);
}

static void test_signal(void **state)
{
    (void)state;
    struct process job;
    struct process_result result;
    cli_start(&job, 0, NULL,
              CLI_WORDS_OF("train", "c.yaml", "run_dir=stopped", "train.steps=1000000",
                           "checkpoint.every=0", "data.valid="));
    wait_for_lines("stopped/metrics.jsonl", 1);
    assert_int_equal(kill(job.pid, SIGTERM), 0);
    process_wait(&job, 30, &result);
    cli_expect_status(&result, 85);
    json_t *root = list_runs("stopped");
    (void)expect_state(root, "stopped", "stopped");
    json_decref(root);
}

/* Whatever lies in a folder: a line, and no byte that a terminal would obey. */
static void test_hostile(void **state)
{
    (void)state;
    assert_int_equal(mkdir("odd", 0777), 0);
    assert_int_equal(mkdir("odd/half", 0777), 0);
    assert_int_equal(mkdir("odd/noise", 0777), 0);
    assert_int_equal(mkdir("odd/empty", 0777), 0);
    assert_int_equal(mkdir("odd/\033[31m\n\xff", 0777), 0);
    assert_int_equal(mkdir("odd/deep", 0777), 0);
    assert_int_equal(mkdir("odd/far", 0777), 0);
    assert_int_equal(mkdir("odd/vast", 0777), 0);
    assert_int_equal(symlink("..", "odd/deep/again"), 0);
    cli_write("odd/half/status.json", "{\"state\": \"runn");
    cli_write("odd/half/metrics.jsonl", "{\"step\":1,\"loss\":2.5,\"tokens_per_second\":7}\n{\"st");
    cli_write("odd/noise/status.json", "{\"state\": \"running\", \"step\": -1, \"host\": 7}");
    cli_write("odd/noise/metrics.jsonl", "[[[[[[[[[[[[\x01\x02\n\n]]]\xff\xfe\n");
    cli_write("odd/\033[31m\n\xff/status.json",
              "{\"state\": \"failed\", \"reason\": \"\\u001b[2J\\n<b>\"}");
    cli_write("odd/far/status.json", "{\"state\": \"running\", \"host\": \"no-host-of-ours\"}");
    cli_write("odd/far/lock", "");
    cli_write("odd/vast/status.json",
              "{\"state\": \"failed\", \"layout\": {\"ranks\": 8, \"tensor\": "
              "9223372036854775807, \"cross\": 9223372036854775807, \"depth\": 2}}");
    assert_int_equal(mkfifo("odd/\033[31m\n\xff/metrics.jsonl", 0666), 0);
    struct process_result result = cli_run(0, CLI_WORDS_OF("runs", "odd"));
    assert_int_equal(cli_count(result.out, "\n"), 6);
    assert_null(strchr(result.out, '\033'));
    assert_int_equal(cli_count(result.out, "unknown: "), 4);
    assert_int_equal(cli_count(result.out, "unknown: runs on no-host-of-ours"), 1);
    assert_int_equal(cli_count(result.out, "2.5000"), 1);
    cli_expect_status(&result, 0);
    json_t *root = list_runs("odd");
    const json_t *half = expect_state(root, "odd/half", "unknown");
    assert_int_equal(int_of(half, "step"), 1);
    const json_t *noise = expect_state(root, "odd/noise", "unknown");
    assert_true(json_is_string(json_object_get(noise, "problem")));
    assert_true(json_is_null(json_object_get(noise, "loss")));
    (void)expect_state(root, "odd/far", "unknown");
    (void)expect_state(root, "odd/vast", "unknown");
    json_decref(root);
    result = cli_run(0, CLI_WORDS_OF("runs", "c.yaml"));
    cli_expect_error(&result, 0, 2, "c.yaml: no folder, expected a folder of runs");
    result = cli_run(0, CLI_WORDS_OF("runs", "nowhere"));
    cli_expect_error(&result, 0, 2, "nowhere: no such folder");
}

/* Which steps have a line, and which of these the experts' load. */
static void test_thinned(void **state)
{
    (void)state;
    static const int64_t steps[] = {3, 4, 6, 7};
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=thin", "train.steps=7", "eval.every=4",
                                 "metrics.every=3", "metrics.expert_load_every=6"));
    json_t *metrics = cli_metrics("thin");
    size_t seen = 0;
    for (size_t i = 0; i < json_array_size(metrics); i++) {
        const json_t *line = json_array_get(metrics, i);
        if (!json_object_get(line, "loss")) {
            continue;
        }
        const json_t *load = json_object_get(line, "expert_load");
        assert_true(seen < 4);
        assert_int_equal(int_of(line, "step"), steps[seen]);
        assert_true(seen < 2 ? json_is_null(load) : json_is_array(load));
        seen++;
    }
    assert_int_equal(seen, 4);
    assert_int_equal(json_array_size(metrics), 6);
    json_decref(metrics);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states),
        cmocka_unit_test(test_signal),
        cmocka_unit_test(test_hostile),
        cmocka_unit_test(test_thinned),
    };
    cli_begin("runs", argc, argv);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
