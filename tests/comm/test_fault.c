/* No rank is left behind: jobs with a stopped, failing or mistaken rank end within seconds, with a
 * non-zero status and one line that says which rank and what. The arguments are flags for
 * mpiexec. */
#include "comm/mpi_internal.h"

#include "support/process.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* A job that hangs takes forever; one that fails, 2 seconds on a machine with nothing else to
 * do. */
enum { SECONDS = 15, LATE = 60, ARGS = 16 };

static char **mpiexec_flags;
static int mpiexec_flag_count;
/* MPICH does not yield, so more ranks than cores would be slow rather than wrong. */
static int ranks = 4;
static char process_file[256];

/* What args came to; good until the next ones. */
static const struct process_result *run_program(const char *const *args)
{
    static struct process_result result;
    struct process process;
    const char *const changes[] = {"ASAN_OPTIONS=detect_leaks=0", NULL};
    process_result_fini(&result);
    process_start(&process, args, changes);
    process_wait(&process, LATE, &result);
    assert_false(result.late);
    return &result;
}

/* What the job of this mode came to. */
static const struct process_result *run_job(const char *mode)
{
    char count[16];
    (void)snprintf(count, sizeof(count), "%d", ranks);
    (void)snprintf(process_file, sizeof(process_file), "%s/comm_fault.%d.pid", TEST_TMP,
                   (int)getpid());
    (void)unlink(process_file);
    const char *args[ARGS] = {MPIEXEC};
    int used = 1;
    for (int i = 0; i < mpiexec_flag_count; i++) {
        args[used++] = mpiexec_flags[i];
    }
    args[used++] = "-n";
    args[used++] = count;
    args[used++] = TRIDENT_BIN "/comm_fault";
    args[used++] = mode;
    args[used] = process_file;
    return run_program(args);
}

/* The same of ranks that are threads. */
static const struct process_result *run_threads(const char *mode)
{
    static const char program[] = TRIDENT_BIN "/comm_fault";
    const char *args[] = {program, mode, "-", "--ranks", "4", NULL};
    return run_program(args);
}

/* The job left no process of its own: the stopped rank was ended too. */
static void check_ended(void)
{
    FILE *file = fopen(process_file, "r");
    assert_non_null(file);
    char text[32];
    assert_non_null(fgets(text, sizeof(text), file));
    (void)fclose(file);
    (void)unlink(process_file);
    long process = strtol(text, NULL, 10);
    assert_true(process > 1);
    process_reap_all();
    assert_int_equal(kill((pid_t)process, 0), -1);
}

static int lines_with(const char *text, const char *what)
{
    int count = 0;
    for (const char *at = strstr(text, what); at; at = strstr(at + 1, what)) {
        count++;
    }
    return count;
}

/* The job failed in time, and said this in one line and nothing else. */
static void check_failed(const struct process_result *outcome, const char *line)
{
    if (!strstr(outcome->err, line) || lines_with(outcome->err, "trident: error: ") != 1) {
        print_error("expected: %s\nfound: %s\n", line, outcome->err);
    }
    assert_non_null(strstr(outcome->err, line));
    assert_int_equal(lines_with(outcome->err, "trident: error: "), 1);
    assert_int_not_equal(outcome->status, 0);
    assert_true(outcome->seconds < SECONDS);
}

static void test_stopped_before(void **state)
{
    (void)state;
    const struct process_result *outcome = run_job("stop-before");
    char line[256];
    (void)snprintf(line, sizeof(line),
                   "trident: error: rank 0: all_reduce over group world (forward, "
                   "attention) has waited 1.");
    check_failed(outcome, line);
    (void)snprintf(line, sizeof(line), " s for rank %d\n", ranks - 1);
    check_failed(outcome, line);
    check_ended();
}

static void test_stopped_inside(void **state)
{
    (void)state;
    const struct process_result *outcome = run_job("stop-inside");
    char line[256];
    (void)snprintf(line, sizeof(line), " s; all have arrived, rank %d (stopped)\n", ranks - 1);
    check_failed(outcome, line);
    check_ended();
}

static void test_stopped_chain(void **state)
{
    (void)state;
    if (ranks < 4) {
        skip();
    }
    const struct process_result *outcome = run_job("stop-chain");
    check_failed(
        outcome,
        "trident: error: rank 1: reduce_scatter over group expert (forward, attention) has ");
    check_failed(outcome, " s for rank 3\n");
    check_ended();
}

static void check_fine(const struct process_result *outcome)
{
    if (outcome->status != 0) {
        print_error("%s\n", outcome->err);
    }
    assert_int_equal(outcome->status, 0);
    assert_null(strstr(outcome->err, "trident:"));
}

static void test_late(void **state)
{
    (void)state;
    const struct process_result *outcome = run_job("late");
    check_fine(outcome);
}

/* Others wait for longer than the timeout. */
static void test_working(void **state)
{
    (void)state;
    const struct process_result *outcome = run_job("work");
    check_fine(outcome);
    assert_true(outcome->seconds > 3);
}

/* Half of the ranks are on a node that cannot see who works, or who has stopped. */
static void test_two_nodes(void **state)
{
    (void)state;
    if (ranks < 4) {
        skip();
    }
    const struct process_result *outcome = run_job("far-work");
    check_fine(outcome);
    assert_true(outcome->seconds > 3);
    outcome = run_job("far-stop-before");
    check_failed(outcome, "trident: error: rank 2: all_reduce over group world (forward, "
                          "attention) has waited ");
    check_failed(outcome, " s for rank 3 (ranks 0, 1 not visible from this node)\n");
    check_ended();
}

static void test_stopped_at_the_end(void **state)
{
    (void)state;
    static const char *const modes[] = {"stop-last", "stop-before-end", "stop-after-end"};
    for (int i = 0; i < 3; i++) {
        char rank[32];
        const struct process_result *outcome = run_job(modes[i]);
        check_failed(outcome, "ending the job over group world has waited 1.");
        (void)snprintf(rank, sizeof(rank), i == 0 ? " s for rank %d\n" : "rank %d (stopped)\n",
                       ranks - 1);
        check_failed(outcome, rank);
        check_ended();
        assert_int_equal(outcome->status, TRI_FAILED);
    }
}

static void test_suspended(void **state)
{
    (void)state;
    const struct process_result *outcome = run_job("suspend");
    check_fine(outcome);
    assert_true(outcome->seconds > 2);
}

static void test_panic(void **state)
{
    (void)state;
    const struct process_result *outcome = run_job("panic");
    check_failed(outcome, "trident: error: rank 1: the disk is full\n");
    assert_int_equal(outcome->status, TRI_BAD_INPUT);
}

/* The lines are those of processes. */
static void test_threads(void **state)
{
    (void)state;
    check_fine(run_threads("late"));
    check_fine(run_threads("work"));
    check_failed(run_threads("stop-before"),
                 "trident: error: rank 0: all_reduce over group world (forward, attention) has "
                 "waited 1.");
    check_failed(run_threads("stop-before"), " s for rank 3\n");
    check_failed(run_threads("stop-before-mesh"), " s for rank 3\n");
    check_failed(run_threads("stop-inside"),
                 " s; all have begun it, rank 3 does not wait for its end\n");
    check_failed(run_threads("stop-chain"), "trident: error: rank 1: reduce_scatter over group "
                                            "expert (forward, attention) has ");
    check_failed(run_threads("stop-chain"), " s for rank 3\n");
    check_failed(run_threads("stop-last"), " over group world has waited 1.");
    const struct process_result *outcome = run_threads("panic");
    check_failed(outcome, "trident: error: rank 1: the disk is full\n");
    assert_int_equal(outcome->status, TRI_BAD_INPUT);
    check_failed(run_threads("panic-all"), ": the disk is full for all\n");
#ifdef TRIDENT_DEBUG
    check_failed(run_threads("mismatch"), "the ranks call different collectives: rank 0 ");
#else
    check_failed(run_threads("mismatch-long"), "rank 1: 32 bytes are received where 64 are sent\n");
    check_failed(run_threads("mismatch-short"),
                 "rank 1: 32 bytes are received where 16 are sent\n");
#endif
}

/* Ranks or watchdogs that cannot be started: one rank says so. */
static void test_no_threads(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* they have pthread_create for themselves */
#endif
    check_failed(run_threads("threads-0"), "trident: error: rank 0: cannot start rank 0: ");
    check_failed(run_threads("threads-3"), ": cannot start ");
    check_failed(run_threads("threads-4"), ": cannot start ");
    check_failed(run_threads("threads-6"), ": cannot start ");
}

static void test_panic_all(void **state)
{
    (void)state;
    const struct process_result *outcome = run_job("panic-all");
    check_failed(outcome, ": the disk is full for all\n");
    assert_int_equal(outcome->status, TRI_FAILED);
}

static void test_mpi_error(void **state)
{
    (void)state;
    const struct process_result *outcome = run_job("mpi-error");
    check_failed(outcome, "fault.c:");
    check_failed(outcome, "nvalid root");
    check_failed(outcome, "MPI_Bcast(data, 1, MPI_FLOAT, 1000, own)");
}

static void test_mismatch(void **state)
{
    (void)state;
#ifdef TRIDENT_DEBUG
    const struct process_result *outcome = run_job("mismatch");
    check_failed(
        outcome,
        "trident: error: rank 0: the ranks call different collectives: rank 0 all_reduce of "
        "8 F32 over group world (forward, attention); rank 1 all_gather of 0 F32 in parts");
    assert_int_equal(lines_with(outcome->err, " calls all_reduce of 8"), ranks - 1);
    assert_int_equal(lines_with(outcome->err, "rank 1 calls all_gather of 0"), 1);
#else
    skip();
#endif
}

static void test_mismatch_rows(void **state)
{
    (void)state;
#ifdef TRIDENT_DEBUG
    const struct process_result *outcome = run_job("mismatch-rows");
    check_failed(outcome,
                 "trident: error: rank 1: all_to_all over group world: rank 0 sends 0 rows, and is "
                 "expected to send 3\n");
#else
    skip();
#endif
}

static void test_no_sender(void **state)
{
    (void)state;
    char line[256];
    const struct process_result *outcome = run_job("no-sender");
    (void)snprintf(line, sizeof(line),
                   "trident: error: rank 0: receive of 8 F32 from rank %d over group world "
                   "(forward, attention) has waited 1.",
                   ranks - 1);
    check_failed(outcome, line);
    (void)snprintf(line, sizeof(line), " s for rank %d\n", ranks - 1);
    check_failed(outcome, line);
    check_ended();
    outcome = run_threads("no-sender");
    check_failed(outcome, "trident: error: rank 0: receive of 8 F32 from rank 3 over group world "
                          "(forward, attention) has waited 1.");
    check_failed(outcome, " s for rank 3\n");
}

/* What is longer than expected is always seen, by who receives it. */
static void test_mismatch_pair(void **state)
{
    (void)state;
    static const char *const modes[] = {"mismatch-long", "mismatch-short"};
    for (int i = 0; i < 2; i++) {
        const char *line = "trident: error: rank 1: ";
#ifdef TRIDENT_DEBUG
        char said[256];
        (void)snprintf(said, sizeof(said),
                       "%sreceive of 8 F32 from rank 0 over group world (forward, attention): it "
                       "sends %d F32\n",
                       line, i == 0 ? 16 : 4);
        line = said;
#endif
        check_failed(run_threads(modes[i]), line);
#ifndef TRIDENT_DEBUG
        if (i == 1) {
            break;
        }
#endif
        check_failed(run_job(modes[i]), line);
    }
}

int main(int argc, char **argv)
{
    mpiexec_flags = argv + 1;
    mpiexec_flag_count = argc - 1;
    if (mpiexec_flag_count > ARGS - 8) {
        return 2;
    }
#ifdef MPICH_VERSION
    ranks = 2;
#endif
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_working),
        cmocka_unit_test(test_two_nodes),
        cmocka_unit_test(test_stopped_at_the_end),
        cmocka_unit_test(test_stopped_before),
        cmocka_unit_test(test_stopped_inside),
        cmocka_unit_test(test_stopped_chain),
        cmocka_unit_test(test_late),
        cmocka_unit_test(test_suspended),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_no_threads),
        cmocka_unit_test(test_panic),
        cmocka_unit_test(test_panic_all),
        cmocka_unit_test(test_mpi_error),
        cmocka_unit_test(test_mismatch),
        cmocka_unit_test(test_mismatch_rows),
        cmocka_unit_test(test_no_sender),
        cmocka_unit_test(test_mismatch_pair),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
