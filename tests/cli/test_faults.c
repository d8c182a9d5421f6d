/* One rank's failure, a rank that stops, losses that are not finite: the job ends within seconds,
 * with one line that says which and why. */
#include "cli/cli.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- losses ---------------------------------------------------------------------------------- */

/* Decoupled decay at this rate multiplies every matrix by about -1e6 a step. */
#define DIVERGING                                                                                  \
    "train", "c.yaml", "train.steps=40", "train.learning_rate=1000", "train.weight_decay=1000",    \
        "train.schedule=constant", "checkpoint.every=1", "data.valid="

static void test_not_finite(void **state)
{
    (void)state;
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF(DIVERGING, "run_dir=diverging", "train.max_skipped=4"));
    cli_expect_error(&result, cli_ranks(), 3, "the last 4 steps, up to step ");
    json_t *metrics = cli_metrics("diverging");
    size_t lines = json_array_size(metrics);
    assert_true(lines > 4);
    cli_expect_each_step(metrics, (int64_t)lines);
    for (size_t i = 0; i < lines; i++) {
        const json_t *line = json_array_get(metrics, i);
        json_int_t skipped = json_integer_value(json_object_get(line, "skipped_steps"));
        bool finite = json_is_real(json_object_get(line, "loss")) &&
                      json_is_real(json_object_get(line, "grad_norm"));
        assert_int_equal(skipped, i < lines - 4 ? 0 : i + 5 - lines);
        assert_int_equal(finite, i < lines - 4);
    }
    json_decref(metrics);
    /* The checkpoint of the last step that was not skipped is there, whole, and the newest. */
    char path[CLI_PATH];
    (void)snprintf(path, sizeof(path), "diverging/checkpoints/step_%d", (int)lines - 4);
    result = cli_run(0, CLI_WORDS_OF("inspect", "diverging", "--json"));
    json_t *root = cli_expect_json(&result, 0);
    assert_string_equal(json_string_value(json_object_get(root, "path")), path);
    json_decref(root);
}

/* A rate at which an early checkpoint is still good goes on from it. */
static void test_not_finite_then_better(void **state)
{
    (void)state;
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF(DIVERGING, "run_dir=mended", "train.max_skipped=2",
                                          "checkpoint.keep_last=40"));
    cli_expect_error(&result, cli_ranks(), 3, "; the last checkpoint from before them is ");
    cli_tool(CLI_WORDS_OF("sh", "-c", "cd mended/checkpoints && rm -r $(ls | grep -v '^step_1$')"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=mended", "train.steps=4",
                                           "data.valid=", "train.learning_rate=0"));
    json_t *metrics = cli_metrics("mended");
    cli_expect_each_step(metrics, 4);
    json_decref(metrics);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static void test_plan_exceeds_memory(void **state)
{
    (void)state;
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "model.hidden_size=65536",
                                          "model.num_layers=40", "run_dir=huge"));
    if (cli_ranks() == 0) {
        assert_true(result.max_rss_kib < 300 * 1024);
        assert_non_null(strstr(result.err, "this run plans "));
    }
    cli_expect_error(&result, cli_ranks(), 3, " GB a rank is free");
    result = cli_run_with(cli_ranks(), CLI_WORDS_OF("TRIDENT_MEMORY_LIMIT=20000000"),
                          CLI_WORDS_OF("train", "c.yaml", "run_dir=huge"));
    cli_expect_error(&result, cli_ranks(), 3, "but 0.02 GB a rank is free");
    assert_int_equal(access("huge", F_OK), -1);
}

/* ---- one rank -------------------------------------------------------------------------------- */

/* A file fails on rank 1 alone. */
static void test_one_rank_fails(void **state)
{
    (void)state;
    static const struct {
        const char *fault, *says;
        const char *words[4];
    } cases[] = {
        {"RANK1_FAULT=open:EACCES:c.yaml", "c.yaml: cannot open", {"train", "c.yaml"}},
        {"RANK1_FAULT=open:EACCES:tok/", "train_000000.bin: cannot open", {"train", "c.yaml"}},
        {"RANK1_FAULT=read:EIO:tok/", "valid_000000.bin: cannot read", {"eval", "good"}},
        {"RANK1_FAULT=read:EIO:model-", "safetensors: cannot read", {"eval", "good"}},
        {"RANK1_FAULT=open:EACCES:manifest", "manifest.json: cannot open", {"eval", "good"}},
        {"RANK1_FAULT=open:EACCES:optimizer",
         "safetensors: cannot open",
         {"train", "c.yaml", "run_dir=good", "train.steps=5"}},
        {"RANK1_FAULT=write:ENOSPC:model.safe", "No space left", {"export", "moe", "hf"}},
        {"RANK1_FAULT=sync:EIO:model.safe", "cannot finish: Input", {"export", "moe", "hf"}},
    };
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=good"));
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "moe.every=1", "run_dir=moe"));
    cli_write("rank1.sh", "#!/bin/sh\n"
                          "if [ \"${OMPI_COMM_WORLD_RANK:-$PMI_RANK}\" = 1 ]; then\n"
                          "    export TRIDENT_FILE_FAULT=\"$RANK1_FAULT\"\n"
                          "fi\n"
                          "exec \"$@\"\n");
    assert_int_equal(chmod("rank1.sh", 0777), 0);
    cli_set_wrapper("./rank1.sh");
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        const char *words[5] = {0};
        memcpy(words, cases[i].words, sizeof(cases[i].words));
        struct process_result result =
            cli_run_with(cli_ranks(), CLI_WORDS_OF(cases[i].fault), words);
        bool writes = strcmp(words[0], "export") == 0;
        cli_expect_error(&result, cli_ranks(), writes ? 3 : 2, cases[i].says);
    }
    cli_set_wrapper(NULL);
    assert_true(access("hf", F_OK) != 0 && access("hf.trident.tmp", F_OK) != 0);
    char digest[32];
    cli_digest("good", digest);
}

/* ---- ranks that stop or die while others train ----------------------------------------------- */

/* Starts a run without end and waits until it trains. */
static void start_endless(struct process *job, const char *run_dir, const char *timeout)
{
    int watch = inotify_init1(IN_CLOEXEC);
    char buffer[4096];
    const char *run = run_dir + strlen("run_dir=");
    assert_int_equal(mkdir(run, 0777), 0);
    assert_true(watch >= 0 && inotify_add_watch(watch, run, IN_MODIFY) >= 0);
    cli_start(job, cli_ranks(), NULL,
              CLI_WORDS_OF("train", "c.yaml", "train.steps=1000000", "data.valid=", run_dir,
                           timeout, "parallel.expert=2"));
    struct pollfd ends[2] = {{.fd = watch, .events = POLLIN}, {.fd = job->err}};
    assert_true(poll(ends, 2, -1) > 0);
    if (!(ends[0].revents & POLLIN)) {
        struct process_result result;
        process_wait(job, 60, &result);
        fail_msg("ended before it trained: %s", result.err);
    }
    assert_true(read(watch, buffer, sizeof(buffer)) > 0);
    (void)close(watch);
}

/* The process that is this rank of the job. */
static pid_t process_of_rank(const struct process *job, int rank)
{
    pid_t ranks[16];
    int count = process_tree(job->pid, "trident", ranks, 16);
    for (int i = 0; i < count; i++) {
        if (process_number_in_environment(ranks[i], "OMPI_COMM_WORLD_RANK") == rank ||
            process_number_in_environment(ranks[i], "PMI_RANK") == rank) {
            return ranks[i];
        }
    }
    fail_msg("rank %d is not there", rank);
    return -1;
}

/* The line names the rank that stopped, beside those that wait for it elsewhere. */
static void test_stopped_rank(void **state)
{
    (void)state;
    struct process job;
    struct process_result result;
    char number[16];
    int last = cli_ranks() - 1;
    start_endless(&job, "run_dir=stopped", "comm.timeout_seconds=2");
    pid_t stopped = process_of_rank(&job, last);
    assert_int_equal(kill(stopped, SIGSTOP), 0);
    process_wait(&job, 60, &result);
    const char *line = strstr(result.err, "trident: error: rank ");
    assert_non_null(line);
    const char *named = strstr(line, " s for rank");
    named = named ? named : strstr(line, " s; all have arrived, rank");
    assert_non_null(named);
    (void)snprintf(number, sizeof(number), " %d", last);
    const char *found = strstr(named, number);
    assert_true(found && found < strchr(line, '\n'));
    assert_non_null(strstr(line, " over group "));
    const char *waited = strstr(line, " has waited ");
    assert_true(waited && strtod(waited + strlen(" has waited "), NULL) >= 2.0);
    cli_expect_error(&result, cli_ranks(), 3, " has waited ");
    /* It was ended too. */
    process_reap_all();
    assert_int_equal(kill(stopped, 0), -1);
}

static void test_killed_rank(void **state)
{
    (void)state;
    struct process job;
    struct process_result result;
    start_endless(&job, "run_dir=missing_rank", "comm.timeout_seconds=600");
    assert_int_equal(kill(process_of_rank(&job, cli_ranks() - 1), SIGKILL), 0);
    process_wait(&job, 60, &result);
    assert_false(result.late);
    assert_int_not_equal(result.status, 0);
    process_result_fini(&result);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_plan_exceeds_memory),    cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_not_finite_then_better), cmocka_unit_test(test_one_rank_fails),
        cmocka_unit_test(test_stopped_rank),           cmocka_unit_test(test_killed_rank),
    };
    cli_begin("faults", argc, argv);
    cli_set_grace("1");
    /* The last three need ranks. */
    size_t count = sizeof(tests) / sizeof(*tests) - (cli_ranks() < 2 ? 3 : 0);
    int failed = _cmocka_run_group_tests("faults", tests, count, NULL, NULL);
    cli_end();
    return failed;
}
