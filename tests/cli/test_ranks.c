/* Ranks that are threads of one process, `--ranks N`: the digits, messages, exit codes and signals
 * of as many processes under mpiexec. */
#include "cli/cli.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { REQUEUE = 85 };

/* The layouts of two ranks; the last one sends and computes at once. */
static const char *const layouts[] = {"parallel.tensor=2", "parallel.expert=2",
                                      "comm.overlap=true"};
enum { LAYOUTS = sizeof(layouts) / sizeof(*layouts) };

static void expect_same_runs(const char *first, const char *second)
{
    char digests[2][32];
    json_t *metrics[2] = {cli_metrics(first), cli_metrics(second)};
    cli_digest(first, digests[0]);
    cli_digest(second, digests[1]);
    assert_string_equal(digests[0], digests[1]);
    assert_true(json_array_size(metrics[0]) > 0 && json_equal(metrics[0], metrics[1]));
    json_decref(metrics[0]);
    json_decref(metrics[1]);
}

static void test_train(void **state)
{
    (void)state;
    for (int i = 0; i < LAYOUTS; i++) {
        char runs[2][32];
        char words[2][80];
        for (int j = 0; j < 2; j++) {
            (void)snprintf(runs[j], sizeof(runs[j]), "%s_%d", j ? "threads" : "mpi", i);
            (void)snprintf(words[j], sizeof(words[j]), "run_dir=%s", runs[j]);
        }
        cli_run_well(2, CLI_WORDS_OF("train", "c.yaml", layouts[i], words[0]));
        cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", layouts[i], words[1], "--ranks", "2"));
        expect_same_runs(runs[0], runs[1]);
    }
}

/* Ranks that cannot share a model hold it more than once, and say so. */
static void test_copies(void **state)
{
    (void)state;
    static const char model[] = TESTDATA_DIR "/golden/mixtral";
    static const struct {
        const char *ranks, *says;
    } cases[] = {{"3", "3 ranks hold 3 copies of the model; on 2 it would be held once"},
                 {"6", "6 ranks hold 3 copies of the model; on 4 it would be held once"},
                 {"4", NULL}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        char out[32];
        (void)snprintf(out, sizeof(out), "copies_%s", cases[i].ranks);
        struct process_result result =
            cli_run(0, CLI_WORDS_OF("import", model, out, "--ranks", cases[i].ranks));
        assert_int_equal(cli_count(result.err, "copies "), cases[i].says ? 2 : 0);
        assert_true(!cases[i].says || strstr(result.err, cases[i].says));
        cli_expect_status(&result, 0);
    }
}

/* Where OpenMP binds threads, ranks run on all the processors that they have without that. */
static void test_bound(void **state)
{
    (void)state;
#ifdef __clang__
    skip(); /* base/processors.h */
#endif
    size_t bytes;
    const char *const changes[] = {"OMP_PROC_BIND=close", "OMP_PLACES=threads", NULL};
    struct process_result result = cli_run_with(
        0, changes, CLI_WORDS_OF("train", "c.yaml", layouts[0], "run_dir=bound", "--ranks", "2"));
    cli_expect_status(&result, 0);
    char *bound = cli_read("bound/environment.json", &bytes);
    char *unbound = cli_read("threads_0/environment.json", &bytes);
    assert_non_null(strstr(bound, "cores"));
    assert_string_equal(bound, unbound);
    free(bound);
    free(unbound);
}

/* What is printed is the same, and printed once. */
static void expect_same_output(const char *const *over_mpi, const char *const *over_threads)
{
    struct process_result first = cli_run(2, over_mpi);
    struct process_result second = cli_run(0, over_threads);
    assert_int_equal(first.status, 0);
    assert_int_equal(second.status, 0);
    assert_true(strlen(first.out) > 0);
    assert_string_equal(first.out, second.out);
    process_result_fini(&first);
    process_result_fini(&second);
}

static void test_others(void **state)
{
    (void)state;
    expect_same_output(CLI_WORDS_OF("eval", "mpi_1", "--json"),
                       CLI_WORDS_OF("eval", "mpi_1", "--json", "--ranks", "2"));
    expect_same_output(CLI_WORDS_OF("generate", "mpi_0", "--tokens", "20"),
                       CLI_WORDS_OF("generate", "mpi_0", "--tokens", "20", "--ranks", "2"));
    struct process_result result = cli_run(
        0, CLI_WORDS_OF("verify", "c.yaml", "parallel.tensor=2", "--steps", "2", "--ranks", "2"));
    assert_int_equal(cli_count(result.out, "passed"), 1);
    cli_expect_status(&result, 0);
}

static void test_refused(void **state)
{
    (void)state;
    static const char says[] = "--ranks makes the ranks itself";
    static const char way[] = "unset PMI_SIZE, SLURM_STEP_NUM_TASKS";
    struct process_result result = cli_run(2, CLI_WORDS_OF("train", "c.yaml", "--ranks", "2"));
    cli_expect_error(&result, 2, 2, says);
    result = cli_run_with(0, CLI_WORDS_OF("SLURM_STEP_NUM_TASKS=1", "SLURM_PROCID=0"),
                          CLI_WORDS_OF("eval", "mpi_0", "--ranks", "2"));
    cli_expect_error(&result, 0, 2, says);
    result = cli_run_with(0, CLI_WORDS_OF("SLURM_STEP_NUM_TASKS=1", "PMI_SIZE=1"),
                          CLI_WORDS_OF("eval", "mpi_0", "--ranks", "2"));
    cli_expect_error(&result, 0, 2, way);
    result = cli_run(0, CLI_WORDS_OF("train", "c.yaml", "--ranks", "0"));
    cli_expect_error(&result, 0, 2, "--ranks");
    result = cli_run(0, CLI_WORDS_OF("train", "c.yaml", "--ranks", "3", "parallel.expert=2"));
    cli_expect_error(&result, 0, 2, "parallel.");
    result = cli_run(0, CLI_WORDS_OF("tokenize", "--ranks", "2", "t.txt"));
    cli_expect_error(&result, 0, 2, "--ranks");
}

/* A failure of one rank is every rank's: one line, and nothing hangs. */
static void test_failures(void **state)
{
    (void)state;
    struct process_result result =
        cli_run_with(0, CLI_WORDS_OF("TRIDENT_FILE_FAULT=write:ENOSPC:model-"),
                     CLI_WORDS_OF("train", "c.yaml", "--ranks", "2", "run_dir=full"));
    cli_expect_error(&result, 0, 3, "model-");
    result = cli_run_with(0, CLI_WORDS_OF("TRIDENT_MEMORY_LIMIT=1000"),
                          CLI_WORDS_OF("train", "c.yaml", "--ranks", "2", "run_dir=small"));
    cli_expect_error(&result, 0, 3, "limit: TRIDENT_MEMORY_LIMIT");
}

static void limit(const char *how)
{
    char script[80];
    (void)snprintf(script, sizeof(script), "#!/bin/sh\n%s\nexec \"$@\"\n", how);
    cli_write("limited.sh", script);
    assert_int_equal(chmod("limited.sh", 0755), 0);
    cli_set_wrapper("./limited.sh");
}

/* Far more ranks than cores share the addresses of one process, also where those are limited. */
static void test_many(void **state)
{
    (void)state;
    static const char *const limits[] = {"", "ulimit -v 4000000", "ulimit -d 3000000"};
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    enum { LIMITS = 1 }; /* they reserve more addresses than that */
#else
    enum { LIMITS = sizeof(limits) / sizeof(*limits) };
#endif
    for (int i = 0; i < LIMITS; i++) {
        limit(limits[i]);
        cli_run_well(0,
                     CLI_WORDS_OF("verify", "c.yaml", "--ranks", "64", "--steps", "0", "--compare",
                                  "1", "parallel.expert=4", "train.global_batch=64"));
        cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "--ranks", "34", "--fresh", "run_dir=many",
                                     "train.global_batch=34", "train.steps=1",
                                     "train.recompute=full"));
    }
    if (LIMITS > 1) {
        /* All of the process's room is for all of its ranks. */
        limit("ulimit -d 200000");
        cli_run_well(
            0, CLI_WORDS_OF("verify", "c.yaml", "--ranks", "4", "--steps", "0", "--compare", "1"));
    }
    cli_set_wrapper(NULL);
}

/* A signal is for all ranks: they save, and the same command goes on. */
static void test_stopped(void **state)
{
    (void)state;
    const char *const *words = CLI_WORDS_OF("train", "c.yaml", "--ranks", "2", "train.steps=20",
                                            "checkpoint.every=8", "run_dir=stopped");
    const char *const *afresh = CLI_WORDS_OF("train", "c.yaml", "--ranks", "2", "train.steps=20",
                                             "checkpoint.every=8", "run_dir=stopped", "--fresh");
    struct process job;
    struct process_result result;
    siginfo_t info;
    cli_run_well(
        2, CLI_WORDS_OF("train", "c.yaml", "train.steps=20", "checkpoint.every=8", "run_dir=even"));
    /* It stops itself before the line of a step, until it has the signal. */
    cli_start(&job, 0, CLI_WORDS_OF("TRIDENT_FILE_FAULT=write:SIGSTOP:stopped/metrics"), afresh);
    assert_int_equal(waitid(P_PID, (id_t)job.pid, &info, WSTOPPED), 0);
    (void)kill(job.pid, SIGTERM);
    do {
        (void)kill(job.pid, SIGCONT);
        assert_int_equal(waitid(P_PID, (id_t)job.pid, &info, WSTOPPED | WEXITED | WNOWAIT), 0);
    } while (info.si_code == CLD_STOPPED);
    process_wait(&job, 60, &result);
    assert_int_equal(cli_count(result.err, "stopped by a signal after step "), 1);
    assert_int_equal(cli_count(result.err, "the same command without --fresh goes on from there"),
                     1);
    cli_expect_status(&result, REQUEUE);
    cli_run_well(0, words);
    expect_same_runs("even", "stopped");
}

static int end(void **state)
{
    (void)state;
    cli_end();
    return 0;
}

int main(int argc, char **argv)
{
    cli_begin("ranks", argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_copies),   cmocka_unit_test(test_train),
        cmocka_unit_test(test_others),   cmocka_unit_test(test_refused),
        cmocka_unit_test(test_failures), cmocka_unit_test(test_stopped),
        cmocka_unit_test(test_bound),    cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, NULL, end);
}
