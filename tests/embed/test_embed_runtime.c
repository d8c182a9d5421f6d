/* A runtime of other programs': how many models it holds, what its log may call, where its threads
 * may run. */
#include "trident/trident.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LENGTH = 8, STEPS = 3 };

static const char config[] = "{model: {vocab_size: 48, num_layers: 1, hidden_size: 8, "
                             "num_heads: 2}, data: {sequence_length: 8}}";

static void expect_bad(enum trident_status status, const struct trident_error *error,
                       const char *text)
{
    assert_int_equal(status, TRIDENT_BAD_INPUT);
    if (!strstr(error->message, text)) {
        fail_msg("%s does not say %s", error->message, text);
    }
}

/* ---- many models ----------------------------------------------------------------------------- */

enum { MODELS = 20, MODELS_MOST = 255, AGAIN = 40 };

/* A runtime holds many at once, and says when they are too many. */
static void test_many(void **state)
{
    (void)state;
    struct trident_options options = {.ranks = 2, .threads = 1};
    struct trident_runtime *runtime;
    struct trident_model *model[MODELS_MOST + 1];
    struct trident_error error;
    int32_t tokens[LENGTH] = {1, 2, 3};
    int count = 0;
    assert_int_equal(trident_runtime_create(&options, &runtime, NULL), TRIDENT_OK);
    for (int i = 0; i < AGAIN; i++) {
        assert_int_equal(trident_model_create(runtime, config, &model[0], NULL), TRIDENT_OK);
        trident_model_destroy(model[0]);
    }
    enum trident_status status = TRIDENT_OK;
    while (status == TRIDENT_OK && count <= MODELS_MOST) {
        status = trident_model_create(runtime, config, &model[count], &error);
        count += status == TRIDENT_OK;
    }
    expect_bad(status, &error, "255 meshes");
    assert_int_equal(count, MODELS_MOST);
    for (int i = 0; i < count; i++) {
        assert_true(i >= MODELS || trident_model_step(model[i], tokens, tokens, 1, LENGTH, 1e-3,
                                                      NULL, NULL) == TRIDENT_OK);
        trident_model_destroy(model[i]);
    }
    assert_int_equal(trident_model_create(runtime, config, &model[0], NULL), TRIDENT_OK);
    trident_model_destroy(model[0]);
    trident_runtime_destroy(runtime);
}

/* ---- the log --------------------------------------------------------------------------------- */

struct listener {
    struct trident_runtime *runtime;
    struct trident_model *model;
    _Atomic int lines, refused, steps;
};

/* Who calls back from here would wait for itself. */
static void listen_to(void *state, const char *line)
{
    struct listener *listener = state;
    struct trident_error error;
    struct trident_model *model = NULL;
    if (line[strlen(line) - 1] == '\n') {
        atomic_fetch_add(&listener->lines, 1);
    }
    if (trident_model_create(listener->runtime, config, &model, &error) == TRIDENT_BAD_INPUT &&
        strstr(error.message, "within")) {
        atomic_fetch_add(&listener->refused, 1);
    }
    trident_model_destroy(listener->model);
    trident_runtime_destroy(listener->runtime);
    atomic_store(&listener->steps, (int)trident_model_steps(listener->model));
}

static void test_log(void **state)
{
    (void)state;
    struct listener listener = {0};
    struct trident_options options = {
        .ranks = 2, .threads = 1, .log = listen_to, .log_state = &listener};
    int32_t tokens[LENGTH] = {1, 2, 3};
    const char *const changes[] = {"model.norm_epsilon=0.5", NULL};
    struct trident_model *model;
    assert_int_equal(trident_runtime_create(&options, &listener.runtime, NULL), TRIDENT_OK);
    assert_int_equal(trident_model_create(listener.runtime, config, &listener.model, NULL),
                     TRIDENT_OK);
    assert_int_equal(
        trident_model_step(listener.model, tokens, tokens, 1, LENGTH, 1e-3, NULL, NULL),
        TRIDENT_OK);
    assert_int_equal(trident_model_save(listener.model, TEST_TMP "/embed_log", NULL), TRIDENT_OK);
    assert_int_equal(trident_model_load(listener.runtime, TEST_TMP "/embed_log", TRIDENT_TRAINS,
                                        changes, &model, NULL),
                     TRIDENT_OK);
    assert_true(listener.lines > 0 && listener.refused == listener.lines);
    assert_int_equal(listener.steps, 1);
    trident_model_destroy(model);
    trident_model_destroy(listener.model);
    trident_runtime_destroy(listener.runtime);
}

/* ---- signals --------------------------------------------------------------------------------- */

/* The signals that a thread has blocked, as bits. */
static unsigned long long blocked_in(const char *thread)
{
    char path[300];
    char line[256];
    unsigned long long blocked = 0;
    (void)snprintf(path, sizeof(path), "/proc/self/task/%s/status", thread);
    FILE *file = fopen(path, "r");
    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, "SigBlk:", 7) == 0) {
            blocked = strtoull(line + 7, NULL, 16);
        }
    }
    if (file) {
        (void)fclose(file);
    }
    return blocked;
}

/* Threads of this process but the first that a handler of the program's could run on, of all. */
static int count_open(int *all)
{
    int open = 0;
    const unsigned long long outside = 1ULL << (SIGTERM - 1) | 1ULL << (SIGUSR1 - 1);
    DIR *tasks = opendir("/proc/self/task");
    *all = 0;
    for (struct dirent *task = readdir(tasks); task; task = readdir(tasks)) {
        pid_t thread = (pid_t)strtol(task->d_name, NULL, 10);
        if (thread > 0 && thread != getpid()) {
            ++*all;
            open += (blocked_in(task->d_name) & outside) != outside;
        }
    }
    (void)closedir(tasks);
    return open;
}

/* The program's signals are for its own threads, which take them as before. */
static int live_beside_signals(void)
{
    struct trident_options options = {.ranks = 2, .threads = 2};
    struct trident_runtime *runtime;
    struct trident_model *model;
    int32_t tokens[LENGTH] = {1, 2, 3};
    sigset_t before;
    sigset_t after;
    int all;
    (void)sigemptyset(&before);
    (void)sigaddset(&before, SIGUSR2);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (trident_runtime_create(&options, &runtime, NULL) != TRIDENT_OK ||
        trident_model_create(runtime, config, &model, NULL) != TRIDENT_OK ||
        trident_model_step(model, tokens, tokens, 1, LENGTH, 1e-3, NULL, NULL) != TRIDENT_OK) {
        return 10;
    }
    if (count_open(&all) > 0 || all < 3) {
        return 11;
    }
    trident_model_destroy(model);
    trident_runtime_destroy(runtime);
    (void)pthread_sigmask(SIG_SETMASK, NULL, &after);
    return sigismember(&after, SIGUSR2) == 1 && sigismember(&after, SIGUSR1) == 0 &&
                   sigismember(&after, SIGTERM) == 0
               ? 0
               : 12;
}

static void test_signals(void **state)
{
    (void)state;
    int status = 0;
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        _exit(live_beside_signals());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* ---- bound by OpenMP ------------------------------------------------------------------------- */

static int processors(pid_t thread)
{
    cpu_set_t set;
    return sched_getaffinity(thread, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : -1;
}

/* The threads of this process but the first that may not run on so many processors. */
static int count_narrow(int all)
{
    int narrow = 0;
    DIR *tasks = opendir("/proc/self/task");
    for (struct dirent *task = readdir(tasks); task; task = readdir(tasks)) {
        pid_t thread = (pid_t)strtol(task->d_name, NULL, 10);
        narrow += thread > 0 && thread != getpid() && processors(thread) != all;
    }
    (void)closedir(tasks);
    return narrow;
}

/* In a program that OpenMP bound when it was loaded: no thread of a runtime's is. */
static int live_bound(int all)
{
    struct trident_options options = {.ranks = 2, .threads = 2};
    struct trident_runtime *runtime;
    struct trident_model *model;
    int32_t tokens[LENGTH] = {1, 2, 3};
    if (all > 1 && processors(0) != 1) {
        return 10;
    }
    if (trident_runtime_create(&options, &runtime, NULL) != TRIDENT_OK ||
        trident_model_create(runtime, config, &model, NULL) != TRIDENT_OK) {
        return 11;
    }
    for (int i = 0; i < STEPS; i++) {
        if (trident_model_step(model, tokens, tokens, 1, LENGTH, 1e-3, NULL, NULL) != TRIDENT_OK) {
            return 12;
        }
    }
    if (count_narrow(all) > 0) {
        return 13;
    }
    trident_model_destroy(model);
    trident_runtime_destroy(runtime);
    return 0;
}

static void test_bound(void **state)
{
    (void)state;
#ifdef __clang__
    skip(); /* base/processors.h */
#endif
    char all[16];
    int status = 0;
    (void)snprintf(all, sizeof(all), "%d", processors(0));
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)setenv("OMP_PROC_BIND", "close", 1);
        (void)setenv("OMP_PLACES", "threads", 1);
        (void)execl("/proc/self/exe", "test_embed_runtime", all, (char *)NULL);
        _exit(20);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* With an argument: the number of processors, in a program that OpenMP has bound. */
int main(int argc, char **argv)
{
    if (argc > 1) {
        return live_bound((int)strtol(argv[1], NULL, 10));
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_signals), /* first: sanitizers start threads of their own later */
        cmocka_unit_test(test_many),
        cmocka_unit_test(test_log),
        cmocka_unit_test(test_bound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
