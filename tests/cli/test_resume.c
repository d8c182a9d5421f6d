/* Runs that are killed, stopped, damaged and moved to other layouts go on as if nothing had
 * been. */
#include "cli/cli.h"

#include "base/file.h"

#include <dirent.h>
#include <math.h>
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

enum { KILLS = 8, MOST_EVENTS = 50, PATIENCE_MS = 60000, REQUEUE = 85 };

#define LONG_RUN                                                                                   \
    "train", "c.yaml", "train.steps=60", "checkpoint.every=5", "eval.every=20", "eval.batches=2",  \
        "eval.at_start=true", "moe.intermediate_size=512"

/* ---- watching a run -------------------------------------------------------------------------- */

/* Tells of lines that come to metrics.jsonl and of names in checkpoints/. */
static int watch_run(const char *run)
{
    char checkpoints[CLI_PATH];
    (void)snprintf(checkpoints, sizeof(checkpoints), "%s/checkpoints", run);
    cli_tool(CLI_WORDS_OF("mkdir", "-p", checkpoints));
    int watch = inotify_init1(IN_CLOEXEC);
    assert_true(watch >= 0);
    assert_true(inotify_add_watch(watch, run, IN_MODIFY) >= 0);
    assert_true(inotify_add_watch(watch, checkpoints, IN_CREATE | IN_MOVED_TO) >= 0);
    return watch;
}

/* Waits for `events` events, or with a name for one whose file's name holds it; false when the job
 * ended before. */
static bool wait_events(int watch, const struct process *job, int events, const char *name)
{
    char buffer[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
    while (name || events > 0) {
        struct pollfd ends[2] = {{.fd = watch, .events = POLLIN}, {.fd = job->err}};
        assert_true(poll(ends, 2, PATIENCE_MS) > 0);
        if (!(ends[0].revents & POLLIN)) {
            return false;
        }
        ssize_t bytes = read(watch, buffer, sizeof(buffer));
        assert_true(bytes > 0);
        for (ssize_t at = 0; at < bytes;) {
            const struct inotify_event *event = (const void *)(buffer + at);
            events--;
            if (name && event->len > 0 && strstr(event->name, name)) {
                return true;
            }
            at += (ssize_t)sizeof(*event) + (ssize_t)event->len;
        }
    }
    return true;
}

static uint32_t random_number(void)
{
    static uint32_t state = 12345;
    state = state * 1664525U + 1013904223U;
    return state >> 8;
}

static int unfinished_saves(const char *run)
{
    char path[CLI_PATH];
    (void)snprintf(path, sizeof(path), "%s/checkpoints", run);
    DIR *folder = opendir(path);
    int count = 0;
    for (struct dirent *entry; folder && (entry = readdir(folder));) {
        count += strstr(entry->d_name, ".tmp") != NULL;
    }
    if (folder) {
        (void)closedir(folder);
    }
    return count;
}

static void expect_same_files(const char *a, const char *b)
{
    size_t bytes_a = 0;
    size_t bytes_b = 0;
    char *data_a = cli_read(a, &bytes_a);
    char *data_b = cli_read(b, &bytes_b);
    assert_true(data_a && data_b);
    assert_int_equal(bytes_a, bytes_b);
    assert_memory_equal(data_a, data_b, bytes_a);
    free(data_a);
    free(data_b);
}

static void expect_same_lines(const json_t *a, const json_t *b)
{
    if (!json_equal(a, b)) {
        char *text_a = json_dumps(a, JSON_COMPACT);
        char *text_b = json_dumps(b, JSON_COMPACT);
        print_error("%s\n%s\n", text_a, text_b);
        free(text_a);
        free(text_b);
    }
    assert_true(json_equal(a, b));
}

/* The same lines, and the same bits in the checkpoint of the last step. */
static void expect_same_runs(const char *a, const char *b, int64_t steps)
{
    static const char *const files[] = {"model", "optimizer"};
    json_t *metrics_a = cli_metrics(a);
    json_t *metrics_b = cli_metrics(b);
    cli_expect_each_step(metrics_a, steps);
    cli_expect_each_step(metrics_b, steps);
    assert_int_equal(json_array_size(metrics_a), json_array_size(metrics_b));
    for (size_t i = 0; i < json_array_size(metrics_a); i++) {
        expect_same_lines(json_array_get(metrics_a, i), json_array_get(metrics_b, i));
    }
    json_decref(metrics_a);
    json_decref(metrics_b);
    for (int i = 0; i < 2; i++) {
        char path_a[CLI_PATH];
        char path_b[CLI_PATH];
        static const char form[] = "%s/checkpoints/step_%lld/%s-00001-of-00001.safetensors";
        (void)snprintf(path_a, sizeof(path_a), form, a, (long long)steps, files[i]);
        (void)snprintf(path_b, sizeof(path_b), form, b, (long long)steps, files[i]);
        expect_same_files(path_a, path_b);
    }
}

/* ---- routers --------------------------------------------------------------------------------- */

static void check_router(const char *run, const char *router, const char *more)
{
    char whole[32];
    char resumed[32];
    char own[CLI_PATH];
    char on[CLI_PATH];
    char from[CLI_PATH];
    char path[CLI_PATH];
    (void)snprintf(own, sizeof(own), "run_dir=%s", run);
    (void)snprintf(on, sizeof(on), "run_dir=%s_on", run);
    (void)snprintf(from, sizeof(from), "resume=%s/checkpoints/step_4", run);
    (void)snprintf(path, sizeof(path), "%s/config.yaml", run);
    const char *loss = strstr(router, "dense") ? "moe.z_loss=0.1" : "moe.aux_loss=0.1";
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", own, router, more, loss,
                                           "train.steps=8", "checkpoint.every=4"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", path, on, from));
    (void)snprintf(path, sizeof(path), "%s/checkpoints/step_8", run);
    cli_digest(path, whole);
    (void)snprintf(path, sizeof(path), "%s_on/checkpoints/step_8", run);
    cli_digest(path, resumed);
    assert_string_equal(whole, resumed);
}

/* Numbers drawn by the step; biases of sigmoids; every token to every expert, and to fewer of them
 * from a step before, at, and after the checkpoint on. */
static void test_routers(void **state)
{
    (void)state;
    check_router("drawn", "moe.router=sparsemixer", "moe.mask_range=0.5");
    check_router("biased", "moe.score=sigmoid", "moe.bias_balancing=0.02");
    check_router("all", "moe.router=dense", "moe.mutual_information=0.1");
    check_router("sharp_2", "moe.router=dense", "moe.sharpen_step=2");
    check_router("sharp_5", "moe.router=dense", "moe.sharpen_step=5");
    check_router("sharp_7", "moe.router=dense", "moe.sharpen_step=7");
}

/* ---- kill -9 --------------------------------------------------------------------------------- */

static void test_killed(void **state)
{
    (void)state;
    bool runs = true;
    for (int i = 0; runs && i < KILLS; i++) {
        struct process job;
        struct process_result result;
        int watch = watch_run("killed");
        cli_start(&job, cli_ranks(), NULL, CLI_WORDS_OF(LONG_RUN, "run_dir=killed"));
        if (i == 0) {
            (void)usleep(random_number() % 200000);
        } else if (i % 2) {
            runs = wait_events(watch, &job, 0, ".tmp");
        } else {
            runs = wait_events(watch, &job, 1 + (int)(random_number() % MOST_EVENTS), NULL);
        }
        process_kill_tree(job.pid);
        process_wait(&job, 60, &result);
        assert_false(result.late);
        process_result_fini(&result);
        process_reap_all();
        (void)close(watch);
    }
    cli_run_well(cli_ranks(), CLI_WORDS_OF(LONG_RUN, "run_dir=killed"));
    expect_same_runs("whole", "killed", 60);
    assert_int_equal(unfinished_saves("killed"), 0);
}

/* The process that saves dies at each place of a save in turn; between them the run gets on. */
static void test_killed_in_save(void **state)
{
    (void)state;
    static const char *const faults[] = {
        "TRIDENT_FILE_FAULT=open:SIGKILL:step_5.trident.tmp",
        "TRIDENT_FILE_FAULT=write:SIGKILL:step_5.trident.tmp/model-",
        "TRIDENT_FILE_FAULT=sync:SIGKILL:step_5.trident.tmp/model-",
        "TRIDENT_FILE_FAULT=write:SIGKILL:step_10.trident.tmp/optimizer-:500000",
        "TRIDENT_FILE_FAULT=write:SIGKILL:step_15.trident.tmp/state.json",
        "TRIDENT_FILE_FAULT=sync:SIGKILL:step_15.trident.tmp/manifest.json",
        "TRIDENT_FILE_FAULT=rename:SIGKILL:step_20.trident.tmp/manifest.json",
        "TRIDENT_FILE_FAULT=write:SIGKILL:metrics.jsonl",
        "TRIDENT_FILE_FAULT=write:SIGKILL:run_dies/config.yaml",
    };
    int saves = 0;
    for (size_t i = 0; i < sizeof(faults) / sizeof(*faults); i++) {
        struct process_result result = cli_run_with(cli_ranks(), CLI_WORDS_OF(faults[i]),
                                                    CLI_WORDS_OF(LONG_RUN, "run_dir=run_dies"));
        assert_false(result.late);
        assert_int_not_equal(result.status, 0);
        process_result_fini(&result);
        process_reap_all();
        saves += unfinished_saves("run_dies");
    }
    assert_true(saves >= 6);
    cli_run_well(cli_ranks(), CLI_WORDS_OF(LONG_RUN, "run_dir=run_dies"));
    expect_same_runs("whole", "run_dies", 60);
    assert_int_equal(unfinished_saves("run_dies"), 0);
}

/* ---- signals and locks ----------------------------------------------------------------------- */

static void send_to_ranks(const struct process *job, int signal_number)
{
    pid_t ranks[16];
    int count = process_tree(job->pid, "trident", ranks, 16);
    assert_true(count > 0);
    for (int i = 0; i < count; i++) {
        (void)kill(ranks[i], signal_number);
    }
}

#define LONGER_RUN "train", "c.yaml", "train.steps=120", "checkpoint.every=40"

static void test_signalled(void **state)
{
    (void)state;
    static const int signals[] = {SIGTERM, SIGUSR1};
    cli_run_well(cli_ranks(), CLI_WORDS_OF(LONGER_RUN, "run_dir=even"));
    for (int i = 0; i < 2; i++) {
        struct process job;
        struct process_result result;
        int watch = watch_run("stopped");
        /* Slowly enough that it is not done before it has the signal. */
        cli_start(&job, cli_ranks(), CLI_WORDS_OF("TRIDENT_FILE_FAULT=write:SLEEP=100:stopped/m"),
                  CLI_WORDS_OF(LONGER_RUN, "run_dir=stopped"));
        assert_true(wait_events(watch, &job, 7, NULL));
        send_to_ranks(&job, signals[i]);
        process_wait(&job, 60, &result);
        (void)close(watch);
        assert_int_equal(cli_count(result.err, "stopped by a signal after step"), 1);
        assert_int_equal(cli_count(result.err, "trident: error"), 0);
        cli_expect_status(&result, REQUEUE);
    }
    cli_run_well(cli_ranks(), CLI_WORDS_OF(LONGER_RUN, "run_dir=stopped"));
    expect_same_runs("even", "stopped", 120);
}

/* The launcher is asked to end, or dies: what its ranks have saved by then is gone on from. */
static void test_launcher_signalled(void **state)
{
    (void)state;
    static const int signals[] = {SIGUSR1, SIGTERM, SIGKILL};
    for (int i = 0; i < 3; i++) {
        struct process job;
        struct process_result result;
        int watch = watch_run("launched");
        cli_start(&job, cli_ranks(), CLI_WORDS_OF("OMPI_MCA_odls_base_sigkill_timeout=1"),
                  CLI_WORDS_OF(LONGER_RUN, "run_dir=launched"));
        bool runs = wait_events(watch, &job, 40, NULL);
        if (runs) {
            (void)kill(job.pid, signals[i]);
        }
        process_wait(&job, 60, &result);
        (void)close(watch);
        assert_false(result.late);
        assert_true(i > 0 || runs);
        process_result_fini(&result);
        process_reap_all();
    }
    cli_run_well(cli_ranks(), CLI_WORDS_OF(LONGER_RUN, "run_dir=launched"));
    expect_same_runs("even", "launched", 120);
    assert_int_equal(unfinished_saves("launched"), 0);
}

static void test_locked(void **state)
{
    (void)state;
    struct process job;
    struct process_result result;
    int watch = watch_run("locked");
    cli_start(&job, cli_ranks(), NULL,
              CLI_WORDS_OF("train", "c.yaml", "train.steps=1000000", "run_dir=locked"));
    assert_true(wait_events(watch, &job, 3, NULL));
    (void)close(watch);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=locked", "--fresh"));
    cli_expect_error(&result, cli_ranks(), 3, "locked: another job is working in this run folder");
    send_to_ranks(&job, SIGTERM);
    process_wait(&job, 60, &result);
    cli_expect_status(&result, REQUEUE);
}

/* ---- starting again -------------------------------------------------------------------------- */

static void test_finished_and_fresh(void **state)
{
    (void)state;
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=done"));
    json_t *first = cli_metrics("done");
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=done"));
    assert_int_equal(cli_count(result.err, "done is finished: it has trained all of its 4 steps"),
                     1);
    cli_expect_status(&result, 0);
    /* Scripts are told too. */
    result = cli_run(cli_ranks(),
                     CLI_WORDS_OF("train", "c.yaml", "run_dir=done", "train.steps=3", "--json"));
    assert_int_equal(cli_count(result.err, "continuing from done/checkpoints/step_4, step 4"), 1);
    assert_int_equal(cli_count(result.err, "changed  train.steps 4 → 3"), 1);
    assert_int_equal(cli_count(result.err, "has trained more than its 3 steps"), 1);
    cli_expect_status(&result, 0);
    json_t *second = cli_metrics("done");
    assert_true(json_equal(first, second));
    json_decref(second);
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=done", "train.steps=3",
                                           "train.schedule=constant", "seed=7", "--fresh"));
    second = cli_metrics("done");
    cli_expect_each_step(second, 3);
    assert_false(json_equal(json_array_get(first, 1), json_array_get(second, 1)));
    json_decref(first);
    json_decref(second);
    assert_false(tri_file_exists("done/checkpoints/step_4"));
    assert_true(tri_file_exists("done/checkpoints/step_3"));
}

/* Lines past the checkpoint and a torn one, as a killed job leaves them. */
static void test_metrics_trimmed(void **state)
{
    (void)state;
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "train.steps=6", "run_dir=clean",
                                           "train.schedule=constant"));
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "train.steps=4", "run_dir=torn",
                                           "train.schedule=constant", "checkpoint.every=0"));
    FILE *file = fopen("torn/metrics.jsonl", "ae");
    assert_non_null(file);
    assert_true(
        fputs("{\"step\":5,\"loss\":1.0}\n{\"step\":6,\"loss\":1.0}\n{\"step\":7,\"lo", file) >= 0);
    assert_int_equal(fclose(file), 0);
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "train.steps=6", "run_dir=torn",
                                           "train.schedule=constant", "checkpoint.every=0"));
    json_t *metrics = cli_metrics("torn");
    json_t *expected = cli_metrics("clean");
    cli_expect_each_step(metrics, 6);
    size_t last = json_array_size(expected) - 1;
    assert_true(json_equal(json_array_get(metrics, json_array_size(metrics) - 1),
                           json_array_get(expected, last)));
    json_decref(metrics);
    json_decref(expected);
}

/* A run killed before its first checkpoint starts with none of its lines. */
static void test_metrics_without_checkpoint(void **state)
{
    (void)state;
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF("train", "c.yaml", "run_dir=calm", "eval.at_start=true"));
    cli_tool(CLI_WORDS_OF("mkdir", "early"));
    cli_write("early/metrics.jsonl",
              "{\"step\":0,\"valid_loss\":1.0}\n{\"step\":1,\"loss\":1.0}\n");
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF("train", "c.yaml", "run_dir=early", "eval.at_start=true"));
    expect_same_runs("calm", "early", 4);
}

static void test_keep_last(void **state)
{
    (void)state;
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "train.steps=9", "run_dir=kept",
                                           "checkpoint.keep_last=3"));
    for (int step = 1; step <= 9; step++) {
        char path[CLI_PATH];
        (void)snprintf(path, sizeof(path), "kept/checkpoints/step_%d", step);
        assert_int_equal(tri_file_exists(path), step == 9 || step == 8 || step == 6);
    }
}

/* `resume` takes another run's checkpoint, which stays as it is. */
static void test_other_run(void **state)
{
    (void)state;
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=first", "train.steps=4",
                                           "train.schedule=constant"));
    struct cli_snapshot *before = cli_snapshot_take("first");
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=second", "resume=first",
                                           "train.steps=6", "train.schedule=constant"));
    cli_snapshot_expect_kept(before, false);
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=first", "train.steps=6",
                                           "train.schedule=constant"));
    char first[32];
    char second[32];
    cli_digest("first", first);
    cli_digest("second", second);
    assert_string_equal(first, second);
}

/* ---- other layouts --------------------------------------------------------------------------- */

static double loss_of_step(const char *run, int64_t step)
{
    json_t *metrics = cli_metrics(run);
    double loss = (double)NAN;
    for (size_t i = 0; i < json_array_size(metrics); i++) {
        const json_t *line = json_array_get(metrics, i);
        if (json_object_get(line, "loss") &&
            json_integer_value(json_object_get(line, "step")) == step) {
            loss = json_real_value(json_object_get(line, "loss"));
        }
    }
    json_decref(metrics);
    return loss;
}

static void test_other_layouts(void **state)
{
    (void)state;
    static const struct {
        int ranks;
        const char *run, *tensor, *expert;
    } layouts[] = {{2, "run_dir=on_tensor", "parallel.tensor=2", "parallel.expert=1"},
                   {0, "run_dir=on_one", "parallel.tensor=1", "parallel.expert=1"},
                   {2, "run_dir=on_expert", "parallel.tensor=1", "parallel.expert=2"},
                   {2, "run_dir=on_data", "parallel.tensor=1", "parallel.expert=1"}};
    cli_run_well(2, CLI_WORDS_OF("train", "c.yaml", "run_dir=on_tensor", "train.steps=10",
                                 "train.schedule=constant", "parallel.tensor=2"));
    for (int i = 1; i < 4; i++) {
        cli_tool(CLI_WORDS_OF("cp", "-r", "on_tensor", layouts[i].run + strlen("run_dir=")));
    }
    for (int i = 0; i < 4; i++) {
        cli_run_well(layouts[i].ranks,
                     CLI_WORDS_OF("train", "c.yaml", layouts[i].run, layouts[i].tensor,
                                  layouts[i].expert, "train.steps=11", "train.schedule=constant"));
        double expected = loss_of_step("on_tensor", 11);
        double found = loss_of_step(layouts[i].run + strlen("run_dir="), 11);
        assert_true(fabs(found - expected) <= 1e-5 * fabs(expected));
    }
}

static int train_whole(void **state)
{
    (void)state;
    cli_run_well(cli_ranks(), CLI_WORDS_OF(LONG_RUN, "run_dir=whole"));
    return 0;
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_routers),
        cmocka_unit_test(test_killed),
        cmocka_unit_test(test_killed_in_save),
        cmocka_unit_test(test_signalled),
        cmocka_unit_test(test_launcher_signalled),
        cmocka_unit_test(test_locked),
        cmocka_unit_test(test_finished_and_fresh),
        cmocka_unit_test(test_metrics_trimmed),
        cmocka_unit_test(test_metrics_without_checkpoint),
        cmocka_unit_test(test_keep_last),
        cmocka_unit_test(test_other_run),
        cmocka_unit_test(test_other_layouts),
    };
    cli_begin("resume", argc, argv);
    /* The last needs two ranks. */
    size_t count = sizeof(tests) / sizeof(*tests) - (cli_ranks() < 2);
    int failed = _cmocka_run_group_tests("resume", tests, count, train_whole, NULL);
    cli_end();
    return failed;
}
