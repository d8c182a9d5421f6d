/* Signals at any moment: a run saves and stops, and no thread that computes ever runs a handler. */
#include "cli/cli.h"

#include <dirent.h>
#include <poll.h>
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

enum { REQUEUE = 85, SIGNALS = 100 };

static uint32_t random_number(void)
{
    static uint32_t state = 4711;
    state = state * 1664525U + 1013904223U;
    return state >> 8;
}

static int64_t file_size(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 ? (int64_t)info.st_size : -1;
}

static bool has_ended(const struct process *job)
{
    struct pollfd end = {.fd = job->err};
    (void)poll(&end, 1, 0);
    return end.revents & POLLHUP;
}

/* Until the file is longer than so many bytes; false when the job ended before. */
static bool wait_longer(const struct process *job, const char *path, int64_t bytes)
{
    while (file_size(path) <= bytes) {
        if (has_ended(job)) {
            return false;
        }
        (void)usleep(1000);
    }
    return true;
}

static int count_threads(pid_t process)
{
    char path[CLI_PATH];
    (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)process);
    DIR *tasks = opendir(path);
    int count = -2;
    while (tasks && readdir(tasks)) {
        count++;
    }
    if (tasks) {
        (void)closedir(tasks);
    }
    return count;
}

/* ---- products -------------------------------------------------------------------------------- */

static void write_config(const char *path, int hidden, int length)
{
    char text[1024];
    (void)snprintf(text, sizeof(text),
                   "run_dir: run\n"
                   "threads: 1\n"
                   "model: {vocab_size: 256, num_layers: 2, hidden_size: %d, num_heads: 4,\n"
                   "        intermediate_size: %d}\n"
                   "moe: {num_experts: 4, top_k: 2, every: 2, intermediate_size: %d}\n"
                   "data: {train: \"tok/train_*.bin\", sequence_length: %d}\n"
                   "train: {global_batch: 4, steps: 1000000, learning_rate: 1e-3,\n"
                   "        schedule: constant}\n"
                   "checkpoint: {every: 0, keep_last: 1}\n",
                   hidden, 4 * hidden, hidden, length);
    cli_write(path, text);
}

static void expect_same_file(int64_t step, const char *name)
{
    static const char *const runs[2] = {"even", "often"};
    size_t bytes[2] = {0};
    char *data[2];
    for (int i = 0; i < 2; i++) {
        char path[CLI_PATH];
        (void)snprintf(path, sizeof(path), "%s/checkpoints/step_%lld/%s-00001-of-00001.safetensors",
                       runs[i], (long long)step, name);
        data[i] = cli_read(path, &bytes[i]);
        assert_non_null(data[i]);
    }
    assert_int_equal(bytes[0], bytes[1]);
    assert_memory_equal(data[0], data[1], bytes[0]);
    free(data[0]);
    free(data[1]);
}

/* So many runs, each stopped by the first of its share of the signals, which come at random moments
 * of its first steps, and gone on with by the next. What they come to is what one run without
 * signals comes to, bit by bit. */
static void stop_often(const char *const *changes, const char *config, int runs)
{
    struct process_result result;
    char steps[64];
    cli_tool(CLI_WORDS_OF("rm", "-rf", "even", "often"));
    for (int i = 0; i < runs; i++) {
        struct process job;
        int64_t before = file_size("often/metrics.jsonl");
        cli_start(&job, 0, changes, CLI_WORDS_OF("train", config, "run_dir=often"));
        assert_true(wait_longer(&job, "often/metrics.jsonl", before));
        for (int k = 0; k < SIGNALS / runs; k++) {
            (void)usleep(random_number() % 8000);
            (void)kill(job.pid, k % 2 ? SIGTERM : SIGUSR1);
        }
        process_wait(&job, 60, &result);
        cli_expect_status(&result, REQUEUE);
    }
    json_t *often = cli_metrics("often");
    int64_t last = (int64_t)json_array_size(often);
    cli_expect_each_step(often, last);
    (void)snprintf(steps, sizeof(steps), "train.steps=%lld", (long long)last);
    result = cli_run_with(0, changes, CLI_WORDS_OF("train", config, "run_dir=even", steps));
    cli_expect_status(&result, 0);
    json_t *even = cli_metrics("even");
    assert_true(json_equal(even, often));
    json_decref(even);
    json_decref(often);
    expect_same_file(last, "model");
    expect_same_file(last, "optimizer");
}

static void test_in_products(void **state)
{
    (void)state;
    static const char *const paths[] = {"TRIDENT_KERNELS=avx512", "TRIDENT_KERNELS=avx2",
                                        "TRIDENT_KERNELS=x86-64"};
    write_config("large.yaml", 256, 128);
    write_config("small.yaml", 64, 64);
    stop_often(NULL, "large.yaml", 10);
    stop_often(CLI_WORDS_OF("TRIDENT_KERNELS=ref"), "small.yaml", 4);
    for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++) {
        const char *const *changes = CLI_WORDS_OF(paths[i]);
        struct process_result result = cli_run_with(0, changes, CLI_WORDS_OF("--version"));
        if (result.status == 0) {
            stop_often(changes, "large.yaml", 4);
        }
        process_result_fini(&result);
    }
}

/* ---- masks ----------------------------------------------------------------------------------- */

/* A set of signals in /proc/…/status. */
static uint64_t read_set(const char *status, const char *name)
{
    const char *line = strstr(status, name);
    assert_non_null(line);
    return strtoull(line + strlen(name), NULL, 16);
}

/* Of a process that trains: the threads that would run a handler for a signal from outside. */
static int threads_with_handlers(pid_t process)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS, 32, 33};
    const uint64_t never = UINT64_C(1) << (SIGKILL - 1) | UINT64_C(1) << (SIGSTOP - 1);
    uint64_t outside = UINT64_MAX;
    for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++) {
        outside &= ~(UINT64_C(1) << (own[i] - 1));
    }
    char path[CLI_PATH];
    (void)snprintf(path, sizeof(path), "/proc/%d/task", (int)process);
    DIR *tasks = opendir(path);
    assert_non_null(tasks);
    int count = 0;
    for (struct dirent *task; (task = readdir(tasks));) {
        char status[4096] = "";
        (void)snprintf(path, sizeof(path), "/proc/%d/task/%s/status", (int)process, task->d_name);
        FILE *file = task->d_name[0] == '.' ? NULL : fopen(path, "re");
        if (file) {
            status[fread(status, 1, sizeof(status) - 1, file)] = '\0';
            (void)fclose(file);
            uint64_t blocked = read_set(status, "SigBlk:");
            bool takes = read_set(status, "SigCgt:") & ~blocked & outside;
            /* One thread, which is not the first, leaves most unblocked, and takes them. */
            bool main_or_computing = strtol(task->d_name, NULL, 10) == process || blocked >> 33;
            count += takes && main_or_computing;
            if (strtol(task->d_name, NULL, 10) == process) {
                assert_true(blocked & UINT64_C(1) << (SIGTERM - 1));
                assert_true(blocked & UINT64_C(1) << (SIGUSR1 - 1));
                assert_true(blocked & UINT64_C(1) << (SIGALRM - 1));
                /* Also where no library has a handler today. */
                assert_true((blocked & outside & UINT32_MAX) == (outside & UINT32_MAX & ~never));
            }
        }
    }
    (void)closedir(tasks);
    return count;
}

static void test_handlers(void **state)
{
    (void)state;
    struct process job;
    struct process_result result;
    pid_t ranks[16];
    cli_start(
        &job, cli_ranks(), CLI_WORDS_OF("OMP_NUM_THREADS=2"),
        CLI_WORDS_OF("train", "c.yaml", "train.steps=1000000", "threads=2", "run_dir=handlers"));
    assert_true(wait_longer(&job, "handlers/metrics.jsonl", 0));
    int count = process_tree(job.pid, "trident", ranks, 16);
    assert_int_equal(count, cli_ranks() > 0 ? cli_ranks() : 1);
    for (int i = 0; i < count; i++) {
        assert_int_equal(threads_with_handlers(ranks[i]), 0);
    }
    for (int i = 0; i < count; i++) {
        (void)kill(ranks[i], SIGTERM);
    }
    process_wait(&job, 60, &result);
    cli_expect_status(&result, REQUEUE);
}

/* ---- start-up and evaluations ---------------------------------------------------------------- */

static void send_to_ranks(const struct process *job, int number)
{
    pid_t ranks[16];
    int count = process_tree(job->pid, "trident", ranks, 16);
    for (int i = 0; i < count; i++) {
        (void)kill(ranks[i], number);
    }
}

#define ENDLESS "train", "c.yaml", "train.steps=1000000"

/* While it makes its folder: there it stops itself until it has the signal, and then has time to
 * see it. */
static void test_before_training(void **state)
{
    (void)state;
    struct process job;
    struct process_result result;
    siginfo_t info;
    cli_start(&job, 0,
              CLI_WORDS_OF(
                  "TRIDENT_FILE_FAULT=rename:SIGSTOP:trident.tried,syncdir:SLEEP=1000:not_begun/c"),
              CLI_WORDS_OF(ENDLESS, "run_dir=not_begun"));
    assert_int_equal(waitid(P_PID, (id_t)job.pid, &info, WSTOPPED), 0);
    (void)kill(job.pid, SIGTERM);
    (void)kill(job.pid, SIGCONT);
    process_wait(&job, 60, &result);
    assert_int_equal(cli_count(result.err, "stopped by a signal after step 0"), 1);
    cli_expect_status(&result, REQUEUE);
    assert_int_equal(access("not_begun", F_OK), -1);
}

/* From the moment that the process takes signals; where it has come by then, nobody knows. */
static void test_start_up(void **state)
{
    (void)state;
    struct process_result result;
    for (int i = 0; i < 6; i++) {
        struct process job;
        cli_start(&job, 0, NULL, CLI_WORDS_OF(ENDLESS, "run_dir=begun"));
        while (count_threads(job.pid) < 2 && !has_ended(&job)) {
            (void)usleep(200);
        }
        (void)usleep(random_number() % 5000 * (uint32_t)i);
        (void)kill(job.pid, i % 2 ? SIGTERM : SIGUSR1);
        process_wait(&job, 60, &result);
        assert_int_equal(cli_count(result.err, "stopped by a signal after step "), 1);
        cli_expect_status(&result, REQUEUE);
    }
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=begun", "--fresh"));
}

/* An evaluation of seconds ends at once; the next run makes up for it. */
static void test_in_evaluation(void **state)
{
    (void)state;
    static const char *const slow[] = {"TRIDENT_KERNELS=ref", NULL};
    struct process job;
    struct process_result result;
    write_config("slow.yaml", 96, 32);
    for (int64_t step = 1; step <= 2; step++) {
        /* The line of the step is there, and that of its evaluation is not. */
        cli_start(&job, cli_ranks(), slow,
                  CLI_WORDS_OF("train", "slow.yaml", "run_dir=cut", "train.steps=2",
                               "train.micro_batch=1", "data.valid=tok/*.bin", "eval.every=1"));
        json_t *metrics = NULL;
        size_t lines = step == 1 ? 1 : 3;
        do {
            json_decref(metrics);
            (void)usleep(2000);
            metrics = file_size("cut/metrics.jsonl") > 0 ? cli_metrics("cut") : json_array();
        } while (json_array_size(metrics) < lines && !has_ended(&job));
        assert_int_equal(json_array_size(metrics), lines);
        json_decref(metrics);
        send_to_ranks(&job, SIGUSR1);
        process_wait(&job, 60, &result);
        cli_expect_status(&result, REQUEUE);
        metrics = cli_metrics("cut");
        assert_int_equal(json_array_size(metrics), lines);
        json_decref(metrics);
    }
    for (int i = 0; i < 2; i++) {
        result = cli_run_with(
            cli_ranks(), slow,
            CLI_WORDS_OF("train", "slow.yaml", i ? "run_dir=whole" : "run_dir=cut", "train.steps=2",
                         "train.micro_batch=1", "data.valid=tok/*.bin", "eval.every=1", "--json"));
        json_t *root = cli_expect_json(&result, 0);
        /* The one that was cut had its last step before. */
        assert_int_equal(json_is_real(json_object_get(root, "loss")), i);
        assert_int_equal(json_is_null(json_object_get(root, "loss")), !i);
        assert_true(json_is_real(json_object_get(root, "valid_loss")));
        json_decref(root);
    }
    json_t *cut = cli_metrics("cut");
    json_t *whole = cli_metrics("whole");
    assert_int_equal(json_array_size(whole), 4);
    assert_true(json_equal(cut, whole));
    json_decref(cut);
    json_decref(whole);
}

/* ---- the launcher ---------------------------------------------------------------------------- */

/* The signal goes to mpiexec while its ranks train. A step is short beside its patience, also where
 * the machine has other work. */
static void signal_launcher(const char *const *changes, int number, int status, const char *run)
{
    struct process job;
    struct process_result result;
    char path[CLI_PATH];
    write_config("slow.yaml", 128, 32);
    cli_start(&job, cli_ranks(), changes,
              CLI_WORDS_OF("train", "slow.yaml", run, "train.global_batch=4"));
    (void)snprintf(path, sizeof(path), "%s/metrics.jsonl", run + strlen("run_dir="));
    assert_true(wait_longer(&job, path, 0));
    (void)usleep(500000);
    (void)kill(job.pid, number);
    if (number == SIGUSR1) {
        (void)usleep(200000);
        (void)kill(job.pid, number);
    }
    process_wait(&job, 120, &result);
    static const char says[] = "stopped by a signal after step ";
    const char *said = strstr(result.err, says);
    if (!said) {
        fail_msg("status %d; %s", result.status, result.err);
        return;
    }
    (void)snprintf(path, sizeof(path), "%s/checkpoints/step_%ld/manifest.json",
                   run + strlen("run_dir="), strtol(said + strlen(says), NULL, 10));
    assert_true(file_size(path) > 0);
    cli_expect_status(&result, status);
}

/* mpiexec forwards SIGUSR1. At SIGTERM it ends its ranks with SIGKILL a second later, unless it is
 * told to be patient, and its own status is then 1; at a second one it does so in any case. */
static void test_launcher(void **state)
{
    (void)state;
    if (strstr(MPIEXEC, "mpich")) {
        skip();
    }
    signal_launcher(CLI_WORDS_OF("TRIDENT_KERNELS=ref"), SIGUSR1, REQUEUE, "run_dir=usr1");
    signal_launcher(CLI_WORDS_OF("TRIDENT_KERNELS=ref", "OMPI_MCA_odls_base_sigkill_timeout=10"),
                    SIGTERM, 1, "run_dir=term");
}

/* ---- other endings --------------------------------------------------------------------------- */

/* What is not train ends as any program does. */
static void test_other_commands(void **state)
{
    (void)state;
    static const int signals[] = {SIGTERM, SIGUSR1, SIGINT, SIGHUP};
    for (size_t i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
        struct process job;
        struct process_result result;
        cli_start(&job, 0, NULL, CLI_WORDS_OF("verify", "c.yaml", "--steps", "1000000"));
        /* Once there is a second thread, the signals are taken. */
        while (count_threads(job.pid) < 2 && !has_ended(&job)) {
            (void)usleep(1000);
        }
        (void)kill(job.pid, signals[i]);
        process_wait(&job, 60, &result);
        cli_expect_status(&result, 128 + signals[i]);
    }
}

/* A reader of standard error that has gone, and a limit on files, end no run. */
static void test_broken_outputs(void **state)
{
    (void)state;
    struct process_result result;
    cli_write("head.sh", "#!/bin/sh\n{ \"$@\"; echo $? >status; } 2>&1 | head -n 1 >/dev/null\n"
                         "exit $(cat status)\n");
    cli_write("limit.sh", "#!/bin/sh\nulimit -f 64\nexec \"$@\"\n");
    cli_tool(CLI_WORDS_OF("chmod", "+x", "head.sh", "limit.sh"));
    cli_set_wrapper("./head.sh");
    result = cli_run(0, CLI_WORDS_OF("train", "c.yaml", "train.steps=50", "run_dir=pipe"));
    cli_expect_status(&result, 0);
    cli_set_wrapper("./limit.sh");
    result = cli_run(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=limit"));
    cli_set_wrapper(NULL);
    cli_expect_error(&result, 0, 3, "File too large");
    assert_true(file_size("pipe/checkpoints/step_50/manifest.json") > 0);
}

int main(int argc, char **argv)
{
    cli_begin("signals", argc, argv);
    cli_set_grace("1");
    const struct CMUnitTest launched[] = {
        cmocka_unit_test(test_handlers),
        cmocka_unit_test(test_in_evaluation),
        cmocka_unit_test(test_launcher),
    };
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_handlers),        cmocka_unit_test(test_in_evaluation),
        cmocka_unit_test(test_start_up),        cmocka_unit_test(test_other_commands),
        cmocka_unit_test(test_broken_outputs),  cmocka_unit_test(test_in_products),
        cmocka_unit_test(test_before_training),
    };
    int failed = cli_ranks() > 0 ? cmocka_run_group_tests_name("signals", launched, NULL, NULL)
                                 : cmocka_run_group_tests_name("signals", tests, NULL, NULL);
    cli_end();
    return failed;
}
