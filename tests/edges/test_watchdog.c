/* No rank waits for ever for one that is stopped, from the first moment to the last and in every
 * command; and none gives up while another works. */
#include "cli/cli.h"

#include "base/clock.h"

#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define PATIENCE "TRIDENT_TIMEOUT_SECONDS=2"

enum { FAILED = 3, LATE = 60, HALF = LATE / 2 };

/* The process that is the last rank of the job. */
static pid_t last_rank(const struct process *job)
{
    pid_t ranks[16];
    int count = process_tree(job->pid, "trident", ranks, 16);
    for (int i = 0; i < count; i++) {
        if (process_number_in_environment(ranks[i], "OMPI_COMM_WORLD_RANK") == cli_ranks() - 1 ||
            process_number_in_environment(ranks[i], "PMI_RANK") == cli_ranks() - 1) {
            return ranks[i];
        }
    }
    return -1;
}

/* The job ended because of the watchdog, which said `text`, in at most so many lines. */
static void expect_ended(struct process *job, const char *text, int lines)
{
    struct process_result result;
    process_wait(job, LATE, &result);
    if (result.late || result.status != FAILED || !strstr(result.err, text) ||
        cli_count(result.err, "trident: error: ") > lines) {
        print_error("status %d%s, expected '%s': %s\n", result.status, result.late ? ", late" : "",
                    text, result.err);
    }
    assert_false(result.late);
    assert_int_equal(result.status, FAILED);
    assert_in_range(cli_count(result.err, "trident: error: "), 1, lines);
    assert_non_null(strstr(result.err, text));
    process_result_fini(&result);
    process_reap_all();
}

/* Until none of these processes but one (-1: not even one) lives; false when it lasts too long. */
static bool wait_ranks(const pid_t *ranks, int count, pid_t but, double limit)
{
    double until = tri_clock_now() + limit;
    bool lives = true;
    while (lives && tri_clock_now() < until) {
        lives = false;
        for (int i = 0; i < count; i++) {
            lives = lives || (ranks[i] != but && process_lives(ranks[i]));
        }
        (void)usleep(lives ? 5000 : 0);
    }
    return !lives;
}

static bool wait_launcher(const struct process *job, int milliseconds)
{
    struct pollfd end = {.fd = job->err};
    for (int i = 0; i < milliseconds && !(end.revents & POLLHUP); i++) {
        (void)poll(&end, 1, 0);
        (void)usleep(1000);
    }
    return end.revents & POLLHUP;
}

/* The job has one rank that is stopped. All its others end by themselves, with one line or more.
 * mpiexec then ends the stopped one, unless that holds up mpiexec itself, in the middle of their
 * first words to each other. Open MPI's may hang for ever in its own end: no rank of ours is left
 * then. */
static void expect_all_ended(struct process *job, pid_t stopped)
{
    struct process_result result;
    pid_t ranks[16];
    int count = process_tree(job->pid, "trident", ranks, 16);
    bool ended = wait_ranks(ranks, count, stopped, HALF);
    if (ended && !wait_launcher(job, 1500)) {
        (void)kill(stopped, SIGKILL);
        ended = wait_ranks(ranks, count, -1, HALF);
    }
    bool hangs = !wait_launcher(job, 5000);
    if (hangs) {
        print_message("mpiexec hangs; its ranks have %s\n", ended ? "ended" : "not ended");
        process_kill_tree(job->pid);
    }
    process_wait(job, 2 * LATE, &result);
    assert_true(ended);
    assert_false(result.late);
    assert_int_not_equal(result.status, 0);
    if (cli_count(result.err, "trident: error: ") == 0) {
        print_error("status %d, expected an error: %s\n", result.status, result.err);
        fail();
    }
    process_result_fini(&result);
    process_reap_all();
}

/* At moments of its first half second; where it has come by then, nobody knows. */
static void test_stopped_at_start(void **state)
{
    (void)state;
    for (unsigned int i = 0; i < 6; i++) {
        struct process job;
        pid_t stopped = -1;
        char run[32];
        (void)snprintf(run, sizeof(run), "run_dir=start%u", i);
        cli_start(
            &job, cli_ranks(), CLI_WORDS_OF(PATIENCE),
            CLI_WORDS_OF("train", "c.yaml", "train.steps=1000000", "comm.timeout_seconds=2", run));
        while ((stopped = last_rank(&job)) < 0) {
            (void)usleep(500);
        }
        (void)usleep(i * i * 15000);
        assert_int_equal(kill(stopped, SIGSTOP), 0);
        expect_all_ended(&job, stopped);
    }
}

/* Rank 0 stops while it works alone. */
static void test_stopped_alone(void **state)
{
    (void)state;
    static const struct {
        const char *fault;
        const char *words[8];
    } cases[] = {
        {"TRIDENT_FILE_FAULT=write:SIGSTOP:shards/",
         {"tokenize", "--tokenizer", "byte", "--out", "shards", "t.txt"}},
        {"TRIDENT_FILE_FAULT=write:SIGSTOP:hf.trident.tmp/config.json",
         {"export", "trained", "hf"}},
        {"TRIDENT_FILE_FAULT=write:SIGSTOP:model", {"import", "good", "imported"}},
        {"TRIDENT_FILE_FAULT=map:SIGSTOP:model", {"inspect", "trained"}},
    };
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "moe.every=1", "run_dir=trained"));
    cli_run_well(0, CLI_WORDS_OF("export", "trained", "good"));
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct process job;
        cli_start(&job, cli_ranks(), CLI_WORDS_OF(PATIENCE, cases[i].fault), cases[i].words);
        expect_ended(&job, " s for rank 0", 1);
    }
}

/* Another rank stops in its part of a file that all write. */
static void test_stopped_writer(void **state)
{
    (void)state;
    struct process job;
    cli_write("rank1.sh", "#!/bin/sh\n"
                          "if [ \"${OMPI_COMM_WORLD_RANK:-$PMI_RANK}\" = 1 ]; then\n"
                          "    export TRIDENT_FILE_FAULT=\"$RANK1_FAULT\"\n"
                          "fi\n"
                          "exec \"$@\"\n");
    assert_int_equal(chmod("rank1.sh", 0777), 0);
    cli_set_wrapper("./rank1.sh");
    cli_start(&job, cli_ranks(), CLI_WORDS_OF(PATIENCE, "RANK1_FAULT=write:SIGSTOP:model"),
              CLI_WORDS_OF("export", "trained", "stopped"));
    cli_set_wrapper(NULL);
    expect_ended(&job, " s for rank 1", 1);
}

/* ---- work is no hang ------------------------------------------------------------------------- */

#define TRAIN "train", "c.yaml", "comm.timeout_seconds=1", "run_dir=slow"

/* Every call on a file may take longer than the patience: of a save, of a start, of a save that
 * makes room. */
static void test_slow_files(void **state)
{
    (void)state;
    static const struct {
        const char *faults, *steps;
        double seconds;
    } cases[] = {
        {"TRIDENT_FILE_FAULT=sync:SLEEP=1500:step_4.trident.tmp/opt,"
         "open:SLEEP=1500:step_4.trident.tmp/manif,rename:SLEEP=1500:step_4.trident.tmp/manif",
         "train.steps=4", 4.5},
        {"TRIDENT_FILE_FAULT=lock:SLEEP=1500:slow/lock,open:SLEEP=1500:step_4/opt", "train.steps=5",
         3.0},
        {"TRIDENT_FILE_FAULT=rename:SLEEP=1500:step_4.trident.tmp,"
         "remove:SLEEP=1500:step_4.trident.tmp/manif",
         "train.steps=6", 3.0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct process_result result =
            cli_run_with(cli_ranks(), CLI_WORDS_OF(cases[i].faults),
                         CLI_WORDS_OF(TRAIN, cases[i].steps,
                                      i < 2 ? "checkpoint.keep_last=2" : "checkpoint.keep_last=1"));
        assert_true(result.seconds > cases[i].seconds);
        cli_expect_status(&result, 0);
    }
}

/* Rank 0 computes alone, for seconds, what the others compare with. */
static void test_slow_reference(void **state)
{
    (void)state;
    struct process_result result = cli_run_with(
        cli_ranks(), CLI_WORDS_OF("TRIDENT_KERNELS=ref"),
        CLI_WORDS_OF("verify", "c.yaml", "--steps", "0", "--compare", "1", "comm.timeout_seconds=1",
                     "model.hidden_size=128", "model.intermediate_size=512",
                     "data.sequence_length=32", "train.global_batch=16"));
    cli_expect_status(&result, 0);
}

/* One that never ends, where the others wait for it, does end the job, ten times later, and the
 * line names the file. */
static void test_hung_file(void **state)
{
    (void)state;
    struct process job;
    cli_start(&job, cli_ranks(), CLI_WORDS_OF("TRIDENT_FILE_FAULT=sync:SLEEP=1000000:state.json"),
              CLI_WORDS_OF("train", "c.yaml", "comm.timeout_seconds=0.5", "run_dir=hung"));
    expect_ended(&job, "s in a call on ", 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_stopped_at_start), cmocka_unit_test(test_stopped_alone),
        cmocka_unit_test(test_stopped_writer),   cmocka_unit_test(test_slow_files),
        cmocka_unit_test(test_slow_reference),   cmocka_unit_test(test_hung_file),
    };
    cli_begin("watchdog", argc, argv);
    cli_set_grace("1");
    int failed = cmocka_run_group_tests_name("watchdog", tests, NULL, NULL);
    cli_end();
    return failed;
}
