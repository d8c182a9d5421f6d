/* What other programs see of Trident: two models in two threads do not disturb each other, what is
 * saved is what is loaded, and no failure ends the program, prints or leaves a handler behind. */
#include "support/thread_fault.h"
#include "trident/trident.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* ThreadSanitizer does not see how libgomp's threads wait for each other. */
#ifdef __SANITIZE_THREAD__
enum { THREADS = 1 };
static const struct trident_options by_default = {.threads = THREADS};
#define BY_DEFAULT &by_default
#else
enum { THREADS = 2 };
#define BY_DEFAULT NULL
#endif

enum { ROWS = 3, LENGTH = 8, STEPS = 3, VOCABULARY = 48, LOGITS = ROWS * LENGTH * VOCABULARY };

static const char *const configs[] = {
    "{seed: 3, reproducible: true, model: {vocab_size: 48, num_layers: 2, hidden_size: 16, "
    "num_heads: 2},"
    " moe: {num_experts: 4, top_k: 2}, data: {sequence_length: 8},"
    " train: {global_batch: 4, micro_batch: 2}}",
    "{seed: 4, model: {vocab_size: 48, num_layers: 3, hidden_size: 24, num_heads: 3,"
    " norm: layernorm}, data: {sequence_length: 8, separator: 7},"
    " train: {global_batch: 4, micro_batch: 1}}"};

/* One model's life, and what it gave. */
struct life {
    const char *config;
    int ranks;
    char path[256];
    struct trident_step step[STEPS];
    float logits[LOGITS], again[LOGITS];
    int64_t steps;
    struct trident_error error;
    enum trident_status status;
};

static void write_tokens(int32_t tokens[ROWS * LENGTH], int first)
{
    for (int i = 0; i < ROWS * LENGTH; i++) {
        tokens[i] = (first + i * i) % VOCABULARY;
    }
}

static enum trident_status train(struct life *life, struct trident_model *model)
{
    int32_t tokens[ROWS * LENGTH];
    int32_t targets[ROWS * LENGTH];
    enum trident_status status = TRIDENT_OK;
    for (int i = 0; i < STEPS && status == TRIDENT_OK; i++) {
        write_tokens(tokens, i);
        write_tokens(targets, i + 1);
        targets[i] = -1;
        status = trident_model_step(model, tokens, targets, ROWS, LENGTH, 1e-2, &life->step[i],
                                    &life->error);
    }
    write_tokens(tokens, 5);
    if (status == TRIDENT_OK) {
        status = trident_model_forward(model, tokens, ROWS, LENGTH, life->logits, &life->error);
    }
    return status;
}

static enum trident_status read_back(struct life *life, struct trident_runtime *runtime)
{
    struct trident_model *model;
    int32_t tokens[ROWS * LENGTH];
    write_tokens(tokens, 5);
    enum trident_status status =
        trident_model_load(runtime, life->path, TRIDENT_ANSWERS, NULL, &model, &life->error);
    if (status == TRIDENT_OK) {
        life->steps = trident_model_steps(model);
        status = trident_model_forward(model, tokens, ROWS, LENGTH, life->again, &life->error);
    }
    trident_model_destroy(model);
    return status;
}

static void *live(void *state)
{
    struct life *life = state;
    struct trident_options options = {.ranks = life->ranks, .threads = THREADS};
    struct trident_runtime *runtime;
    struct trident_model *model = NULL;
    life->status = trident_runtime_create(&options, &runtime, &life->error);
    if (life->status == TRIDENT_OK) {
        life->status = trident_model_create(runtime, life->config, &model, &life->error);
    }
    if (life->status == TRIDENT_OK) {
        life->status = train(life, model);
    }
    if (life->status == TRIDENT_OK) {
        life->status = trident_model_save(model, life->path, &life->error);
    }
    trident_model_destroy(model);
    if (life->status == TRIDENT_OK) {
        life->status = read_back(life, runtime);
    }
    trident_runtime_destroy(runtime);
    return NULL;
}

static void begin(struct life *life, int config, const char *name)
{
    memset(life, 0, sizeof(*life));
    life->config = configs[config];
    (void)snprintf(life->path, sizeof(life->path), "%s/embed_%s", TEST_TMP, name);
}

static void expect_equal(const struct life *a, const struct life *b)
{
    if (a->status != TRIDENT_OK || b->status != TRIDENT_OK) {
        fail_msg("%s%s", a->error.message, b->error.message);
    }
    assert_memory_equal(a->step, b->step, sizeof(a->step));
    assert_memory_equal(a->logits, b->logits, sizeof(a->logits));
}

static struct life alone[2];
static struct life together[2];

/* Each alone, then both at once, the first one, which is reproducible, on two ranks: the same
 * bits. */
static void test_two(void **state)
{
    (void)state;
    pthread_t thread[2];
    for (int i = 0; i < 2; i++) {
        begin(&alone[i], i, i ? "alone_1" : "alone_0");
        (void)live(&alone[i]);
    }
    for (int i = 0; i < 2; i++) {
        begin(&together[i], i, i ? "together_1" : "together_0");
        together[i].ranks = i == 0 ? 2 : 1;
        assert_int_equal(pthread_create(&thread[i], NULL, live, &together[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        expect_equal(&alone[i], &together[i]);
    }
    assert_true(alone[0].step[0].loss != alone[1].step[0].loss);
}

/* What the config leaves to the planner is chosen for the runtime's ranks. */
static void test_auto(void **state)
{
    (void)state;
    static const char path[] = TEST_TMP "/embed_cluster.yaml";
    static const struct trident_options two = {.ranks = 2, .threads = 1};
    struct trident_runtime *runtime;
    struct trident_model *model;
    struct trident_error error;
    FILE *file = fopen(path, "w");
    assert_true(file && fputs("{ranks_per_host: 2, links: {inside: {any: {bytes: 1e9}}},"
                              " kernels: {f32: {any: {bytes: 1e10}}}}",
                              file) >= 0);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(trident_runtime_create(&two, &runtime, NULL), TRIDENT_OK);
    if (trident_model_create(runtime,
                             "{model: {hidden_size: 16, num_heads: 2}, moe: {num_experts: 4,"
                             " schedule: auto}, data: {sequence_length: 8}, parallel: auto,"
                             " plan: {cluster: " TEST_TMP "/embed_cluster.yaml}}",
                             &model, &error) != TRIDENT_OK) {
        fail_msg("%s", error.message);
    }
    trident_model_destroy(model);
    trident_runtime_destroy(runtime);
    (void)unlink(path);
}

/* What it was taught shows, and outlives it. */
static void test_saved(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(alone[i].steps, STEPS);
        assert_true(alone[i].step[0].updated && alone[i].step[0].grad_norm > 0.0);
        assert_int_equal(alone[i].step[0].targets, ROWS * LENGTH - 1);
        assert_memory_equal(alone[i].logits, alone[i].again, sizeof(alone[i].logits));
    }
}

static void expect_bad(enum trident_status status, const struct trident_error *error,
                       const char *text)
{
    assert_int_equal(status, TRIDENT_BAD_INPUT);
    assert_int_equal(error->status, status);
    if (!strstr(error->message, text)) {
        fail_msg("%s does not say %s", error->message, text);
    }
}

/* Bad input comes back as one line, and the runtime goes on. */
static void test_bad_input(void **state)
{
    (void)state;
    struct trident_runtime *runtime;
    struct trident_model *model;
    struct trident_model *other = NULL;
    struct trident_error error;
    struct trident_options wrong = {.ranks = -1};
    int32_t tokens[LENGTH] = {0};
    static float logits[LENGTH * VOCABULARY];
    expect_bad(trident_runtime_create(&wrong, &runtime, &error), &error, "ranks: found -1");
    assert_int_equal(trident_runtime_create(BY_DEFAULT, &runtime, NULL), TRIDENT_OK);
    expect_bad(trident_model_create(runtime, "{modell: 1}", &model, &error), &error, "modell");
    assert_null(model);
    expect_bad(trident_model_create(runtime, "{parallel: auto}", &model, &error), &error,
               "key 'parallel': found auto, expected a cluster's file in plan.cluster");
    expect_bad(trident_model_create(runtime, "{parallel: auto, plan: {cluster: " TEST_TMP "/none}}",
                                    &model, &error),
               &error, "none: cannot open");
    expect_bad(trident_model_load(runtime, TEST_TMP "/none", TRIDENT_TRAINS, NULL, &model, &error),
               &error, "none");
    const char *const changes[] = {"model.hidden_size=wide", NULL};
    expect_bad(trident_model_load(runtime, alone[0].path, TRIDENT_ANSWERS, changes, &model, &error),
               &error, "model.hidden_size");
    assert_int_equal(
        trident_model_load(runtime, alone[0].path, TRIDENT_ANSWERS, NULL, &model, &error),
        TRIDENT_OK);
    tokens[3] = VOCABULARY;
    expect_bad(trident_model_forward(model, tokens, 1, LENGTH, logits, &error), &error,
               "tokens: found 48 in row 0");
    tokens[3] = 1;
    expect_bad(trident_model_forward(model, tokens, 1, 1 << 20, logits, &error), &error,
               "of 1 to 8");
    expect_bad(trident_model_step(model, tokens, tokens, 1, LENGTH, 0.1, NULL, &error), &error,
               "asked only");
    assert_int_equal(trident_model_forward(model, tokens, 1, LENGTH, logits, &error), TRIDENT_OK);
    expect_bad(trident_model_forward(model, NULL, 1, LENGTH, logits, &error), &error, "tokens: ");
    expect_bad(trident_model_forward(model, tokens, 1, LENGTH, NULL, &error), &error, "logits: ");
    expect_bad(trident_model_create(runtime, NULL, &other, &error), &error, "config: ");
    expect_bad(trident_model_create(NULL, configs[0], &other, &error), &error, "runtime: ");
    expect_bad(trident_model_create(runtime, configs[0], NULL, &error), &error, "model: ");
    expect_bad(trident_model_forward(NULL, tokens, 1, LENGTH, logits, &error), &error, "model: ");
    expect_bad(
        trident_model_load(runtime, alone[0].path, (enum trident_use)2, NULL, &other, &error),
        &error, "use: found 2");
    expect_bad(trident_runtime_create(NULL, NULL, &error), &error, "runtime: ");
    expect_bad(trident_model_create(runtime, configs[0], &other, &error) == TRIDENT_OK
                   ? trident_model_step(other, tokens, NULL, 1, LENGTH, 0.1, NULL, &error)
                   : TRIDENT_OK,
               &error, "targets: ");
    expect_bad(trident_model_step(other, tokens, tokens, 1, LENGTH, (double)NAN, NULL, &error),
               &error, "learning_rate: ");
    expect_bad(trident_model_step(other, tokens, tokens, 1, LENGTH, -0.1, NULL, &error), &error,
               "learning_rate: ");
    int32_t targets[LENGTH] = {-1, -1, -1, -1, -1, -1, -1, -2};
    expect_bad(trident_model_step(other, tokens, targets, 1, LENGTH, 0.1, NULL, &error), &error,
               "targets: found -2 in row 0");
    targets[LENGTH - 1] = -1;
    /* None that counts is no bad input. */
    assert_int_equal(trident_model_step(other, tokens, targets, 1, LENGTH, 0.1, NULL, &error),
                     TRIDENT_OK);
    static char path[2000];
    memset(path, 'p', sizeof(path) - 1);
    expect_bad(trident_model_save(other, path, &error), &error, "path: too long");
    expect_bad(trident_model_save(other, NULL, &error), &error, "path: ");
    static const char saved[] = TEST_TMP "/embed_slash/", same[] = TEST_TMP "/embed_slash/.";
    assert_int_equal(trident_model_save(other, saved, &error), TRIDENT_OK);
    assert_int_equal(trident_model_save(other, same, &error), TRIDENT_OK);
    trident_model_destroy(other);
    assert_int_equal(trident_model_load(runtime, saved, TRIDENT_ANSWERS, NULL, &other, &error),
                     TRIDENT_OK);
    trident_model_destroy(other);
    assert_int_equal(trident_model_vocabulary(NULL), 0);
    assert_int_equal(trident_model_longest(NULL), 0);
    assert_int_equal(trident_model_steps(NULL), 0);
    assert_int_equal(trident_runtime_is_broken(NULL), 1);
    expect_bad(trident_model_load(runtime, path, TRIDENT_ANSWERS, NULL, &other, &error), &error,
               "path: too long");
    assert_int_equal(trident_runtime_is_broken(runtime), 0);
    trident_model_destroy(model);
    trident_runtime_destroy(runtime);
}

/* ---- several threads, one model -------------------------------------------------------------- */

enum { CALLERS = 3, CALLS = 100 };

static void *step_often(void *state)
{
    int32_t tokens[LENGTH] = {1, 2, 3};
    for (int i = 0; i < CALLS; i++) {
        if (trident_model_step(state, tokens, tokens, 1, LENGTH, 1e-3, NULL, NULL) != TRIDENT_OK) {
            return state;
        }
    }
    return NULL;
}

/* Every call is a step of its own: where two were the same one, the weights would differ. */
static void test_callers(void **state)
{
    (void)state;
    struct trident_options options = {.ranks = 2, .threads = 1};
    int32_t tokens[LENGTH] = {1, 2, 3};
    static float logits[2][LENGTH * VOCABULARY];
    for (int several = 0; several < 2; several++) {
        struct trident_runtime *runtime;
        struct trident_model *model;
        pthread_t thread[CALLERS];
        assert_int_equal(trident_runtime_create(&options, &runtime, NULL), TRIDENT_OK);
        assert_int_equal(trident_model_create(runtime, configs[1], &model, NULL), TRIDENT_OK);
        for (int i = 0; i < CALLERS; i++) {
            assert_int_equal(pthread_create(&thread[i], NULL, step_often, model), 0);
            if (!several) {
                assert_int_equal(pthread_join(thread[i], NULL), 0);
            }
        }
        for (int i = 0; i < CALLERS && several; i++) {
            assert_int_equal(pthread_join(thread[i], NULL), 0);
        }
        assert_int_equal(trident_model_steps(model), CALLERS * CALLS);
        assert_int_equal(trident_model_forward(model, tokens, 1, LENGTH, logits[several], NULL),
                         TRIDENT_OK);
        trident_model_destroy(model);
        trident_runtime_destroy(runtime);
    }
    assert_memory_equal(logits[0], logits[1], sizeof(logits[0]));
}

/* ---- in a child ------------------------------------------------------------------------------ */

/* A child has limits and handlers of its own; it prints nothing and exits with 0. */
static void expect_quiet(int (*run)(void))
{
    int ends[2];
    int status = 0;
    char printed[64] = "";
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        (void)dup2(ends[1], STDOUT_FILENO);
        (void)dup2(ends[1], STDERR_FILENO);
        (void)close(ends[1]);
        _exit(run());
    }
    (void)close(ends[1]);
    ssize_t length = read(ends[0], printed, sizeof(printed) - 1);
    (void)close(ends[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_string_equal(printed, "");
    assert_int_equal(length, 0);
}

/* No room for a model breaks its runtime and nothing else. */
static int run_out_of_memory(void)
{
    struct trident_runtime *runtime;
    struct trident_runtime *other;
    struct trident_model *model;
    struct trident_error error;
    struct rlimit limit;
    if (trident_runtime_create(NULL, &runtime, &error) != TRIDENT_OK ||
        trident_runtime_create(NULL, &other, &error) != TRIDENT_OK ||
        getrlimit(RLIMIT_DATA, &limit) != 0) {
        return 10;
    }
    struct rlimit less = {(rlim_t)1 << 30, limit.rlim_max};
    (void)setrlimit(RLIMIT_DATA, &less);
    enum trident_status status = trident_model_create(
        runtime, "{model: {vocab_size: 100000, num_layers: 2, hidden_size: 8192, num_heads: 8}}",
        &model, &error);
    (void)setrlimit(RLIMIT_DATA, &limit);
    if (status != TRIDENT_FAILED || !strstr(error.message, "out of memory")) {
        return 11;
    }
    if (!trident_runtime_is_broken(runtime) ||
        trident_model_create(runtime, configs[0], &model, &error) != TRIDENT_FAILED ||
        !strstr(error.message, "out of memory")) {
        return 12;
    }
    trident_runtime_destroy(runtime);
    if (trident_model_create(other, configs[0], &model, &error) != TRIDENT_OK) {
        return 13;
    }
    trident_model_destroy(model);
    trident_runtime_destroy(other);
    return 0;
}

static int wanted_failure; /* which of the threads that are started */

static int run_out_of_threads(void)
{
    struct trident_options options = {.ranks = 2, .threads = 1};
    struct trident_runtime *runtime;
    struct trident_error error;
    thread_fault_after(wanted_failure - 1, false);
    bool failed = trident_runtime_create(&options, &runtime, &error) == TRIDENT_FAILED;
    return failed && strstr(error.message, "cannot start") ? 0 : 10 + wanted_failure;
}

/* A runtime that still has models is left as it is. */
static int destroy_too_early(void)
{
    struct trident_options options = {.ranks = 2, .threads = 1};
    struct trident_runtime *runtime;
    struct trident_model *model;
    if (trident_runtime_create(&options, &runtime, NULL) != TRIDENT_OK ||
        trident_model_create(runtime, configs[0], &model, NULL) != TRIDENT_OK) {
        return 10;
    }
    (void)alarm(60);
    trident_runtime_destroy(runtime);
    trident_model_destroy(model);
    trident_runtime_destroy(runtime);
    return 0;
}

static void test_early(void **state)
{
    (void)state;
    expect_quiet(destroy_too_early);
}

static void test_no_threads(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* they have pthread_create for themselves */
#endif
    /* The starter, two ranks and two watchdogs. */
    for (wanted_failure = 1; wanted_failure <= 5; wanted_failure++) {
        expect_quiet(run_out_of_threads);
    }
}

static void test_broken(void **state)
{
    (void)state;
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip(); /* their own memory is limited too */
#endif
    expect_quiet(run_out_of_memory);
}

/* A whole life, under an environment that the program would refuse to start in. */
static int live_beside_handlers(void)
{
    static const int numbers[] = {SIGTERM, SIGUSR1, SIGBUS, SIGPIPE, SIGXFSZ, SIGALRM};
    static struct life life;
    (void)signal(SIGBUS, SIG_DFL); /* cmocka's */
    (void)setenv("TRIDENT_TIMEOUT_SECONDS", "never", 1);
    (void)setenv("TRIDENT_MEMORY_LIMIT", "none", 1);
    begin(&life, 0, "quiet");
    (void)live(&life);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(*numbers); i++) {
        struct sigaction action;
        if (sigaction(numbers[i], NULL, &action) != 0 || action.sa_handler != SIG_DFL) {
            return 20 + (int)i;
        }
    }
    return life.status == TRIDENT_OK ? 0 : 10;
}

static void test_quiet(void **state)
{
    (void)state;
    expect_quiet(live_beside_handlers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        /* First: a handler that an earlier test had got would not be installed again. */
        cmocka_unit_test(test_quiet),      cmocka_unit_test(test_two),
        cmocka_unit_test(test_saved),      cmocka_unit_test(test_auto),
        cmocka_unit_test(test_bad_input),  cmocka_unit_test(test_broken),
        cmocka_unit_test(test_callers),    cmocka_unit_test(test_early),
        cmocka_unit_test(test_no_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
