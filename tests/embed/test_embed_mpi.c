/* A model over the ranks of another program's communicator: the bits of one rank, the same answers
 * in every process, and MPI goes on after it. */
#include "trident/trident_mpi.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

enum { ROWS = 3, LENGTH = 8, STEPS = 2, VOCABULARY = 48, LOGITS = ROWS * LENGTH * VOCABULARY };

#define MODEL                                                                                      \
    "reproducible: true, model: {vocab_size: 48, num_layers: 2, hidden_size: 16, "                 \
    "num_heads: 2}, moe: {num_experts: 4, top_k: 2}, data: {sequence_length: 8}, "                 \
    "train: {global_batch: 4, micro_batch: 2}"
static const char by_data[] = "{seed: 3, " MODEL "}";
static const char other_seed[] = "{seed: 4, " MODEL "}";
static const char by_tensor[] = "{seed: 3, " MODEL ", parallel: {tensor: 2}}";
static const char by_expert[] = "{seed: 3, " MODEL ", parallel: {expert: 2}}";

/* What a model gave. */
struct answers {
    struct trident_step step[STEPS];
    float logits[LOGITS];
};

static int own;
static int size;
static struct answers alone; /* of one rank, a thread, without MPI */

static void expect_ok(enum trident_status status, const struct trident_error *error)
{
    if (status != TRIDENT_OK) {
        fail_msg("%s", error->message);
    }
}

static void expect_bad(enum trident_status status, const struct trident_error *error,
                       const char *text)
{
    assert_int_equal(status, TRIDENT_BAD_INPUT);
    if (!strstr(error->message, text)) {
        fail_msg("%s does not say %s", error->message, text);
    }
}

static void write_tokens(int32_t tokens[ROWS * LENGTH], int first)
{
    for (int i = 0; i < ROWS * LENGTH; i++) {
        tokens[i] = (first + i * i) % VOCABULARY;
    }
}

static void ask(struct trident_model *model, float logits[LOGITS])
{
    struct trident_error error;
    int32_t tokens[ROWS * LENGTH];
    write_tokens(tokens, 5);
    memset(logits, 0, LOGITS * sizeof(*logits));
    expect_ok(trident_model_forward(model, tokens, ROWS, LENGTH, logits, &error), &error);
}

static void train(struct trident_runtime *runtime, const char *config, const char *path,
                  struct answers *answers)
{
    struct trident_model *model;
    struct trident_error error;
    int32_t tokens[ROWS * LENGTH];
    int32_t targets[ROWS * LENGTH];
    memset(answers, 0, sizeof(*answers));
    expect_ok(trident_model_create(runtime, config, &model, &error), &error);
    for (int i = 0; i < STEPS; i++) {
        write_tokens(tokens, i);
        write_tokens(targets, i + 1);
        expect_ok(trident_model_step(model, tokens, targets, ROWS, LENGTH, 1e-2, &answers->step[i],
                                     &error),
                  &error);
    }
    ask(model, answers->logits);
    if (path) {
        expect_ok(trident_model_save(model, path, &error), &error);
    }
    trident_model_destroy(model);
}

static struct trident_runtime *join(MPI_Comm communicator)
{
    struct trident_options options = {.threads = 1};
    struct trident_runtime *runtime;
    struct trident_error error;
    expect_ok(trident_runtime_create_mpi(communicator, &options, &runtime, &error), &error);
    return runtime;
}

/* Every process has all of it. */
static void expect_alone(const char *config, const char *path)
{
    static struct answers answers;
    struct trident_runtime *runtime = join(MPI_COMM_WORLD);
    train(runtime, config, path, &answers);
    assert_memory_equal(answers.step, alone.step, sizeof(alone.step));
    assert_memory_equal(answers.logits, alone.logits, sizeof(alone.logits));
    trident_runtime_destroy(runtime);
}

static void test_same_bits(void **state)
{
    (void)state;
    struct trident_runtime *runtime;
    struct trident_error error;
    expect_ok(trident_runtime_create(NULL, &runtime, &error), &error);
    train(runtime, by_data, NULL, &alone);
    trident_runtime_destroy(runtime);
    assert_true(alone.step[1].updated && alone.step[1].loss != alone.step[0].loss);
    expect_alone(by_data, NULL);
    if (size % 2 == 0) {
        expect_alone(by_tensor, NULL);
        expect_alone(by_expert, NULL);
    }
}

static void test_saved(void **state)
{
    (void)state;
    char path[256];
    struct trident_model *model;
    struct trident_error error;
    static float logits[LOGITS];
    (void)snprintf(path, sizeof(path), "%s/embed_mpi_%d", TEST_TMP, size);
    expect_alone(by_data, path);
    struct trident_runtime *runtime = join(MPI_COMM_WORLD);
    expect_ok(trident_model_load(runtime, path, TRIDENT_ANSWERS, NULL, &model, &error), &error);
    ask(model, logits);
    assert_memory_equal(logits, alone.logits, sizeof(logits));
    assert_int_equal(trident_model_steps(model), STEPS);
    trident_model_destroy(model);
    trident_runtime_destroy(runtime);
}

/* Halves of the job, each with a model; what they were made from is gone by then. */
static void test_parts(void **state)
{
    (void)state;
    static struct answers answers;
    MPI_Comm half;
    MPI_Comm_split(MPI_COMM_WORLD, own % 2, -own, &half);
    struct trident_runtime *runtime = join(half);
    MPI_Comm_free(&half);
    train(runtime, by_data, NULL, &answers);
    trident_runtime_destroy(runtime);
    assert_memory_equal(&answers, &alone, sizeof(alone));
    int sum = 0;
    MPI_Allreduce(&own, &sum, 1, MPI_INT, MPI_SUM, MPI_COMM_WORLD);
    assert_int_equal(sum, size * (size - 1) / 2);
}

/* What one process alone gives wrongly is refused in all, and the runtime goes on. */
static void test_differing(void **state)
{
    (void)state;
    struct trident_model *model;
    struct trident_error error;
    int32_t tokens[ROWS * LENGTH];
    static float logits[LOGITS];
    bool odd = own == size - 1;
    struct trident_runtime *runtime = join(MPI_COMM_WORLD);
    const char *config = odd ? "{modell: 1}" : by_data;
    expect_bad(trident_model_create(runtime, config, &model, &error), &error, "modell");
    assert_null(model);
    config = odd ? by_data : other_seed;
    if (size > 1) {
        expect_bad(trident_model_create(runtime, config, &model, &error), &error, "seed");
    }
    expect_bad(trident_model_load(runtime, odd ? TEST_TMP "/none" : TEST_TMP "/neither",
                                  TRIDENT_ANSWERS, NULL, &model, &error),
               &error, size > 1 ? "neither" : "none");
    expect_ok(trident_model_create(runtime, by_data, &model, &error), &error);
    write_tokens(tokens, 0);
    tokens[2] = odd ? VOCABULARY : 0;
    expect_bad(trident_model_forward(model, tokens, ROWS, LENGTH, logits, &error), &error,
               "tokens: found 48 in row 0");
    if (size > 1) {
        int32_t targets[ROWS * LENGTH];
        tokens[2] = odd;
        expect_bad(trident_model_step(model, tokens, tokens, ROWS, LENGTH, 0.1, NULL, &error),
                   &error, "parallel ranks differ");
        write_tokens(tokens, 0);
        write_tokens(targets, odd);
        expect_bad(trident_model_step(model, tokens, targets, ROWS, LENGTH, 0.1, NULL, &error),
                   &error, "parallel ranks differ");
        expect_bad(
            trident_model_step(model, tokens, tokens, ROWS, LENGTH, odd ? 0.1 : 0.2, NULL, &error),
            &error, "parallel ranks differ");
    }
    assert_int_equal(trident_model_steps(model), 0);
    assert_int_equal(trident_runtime_is_broken(runtime), 0);
    ask(model, logits);
    trident_model_destroy(model);
    trident_runtime_destroy(runtime);
}

static void test_refused(void **state)
{
    (void)state;
    struct trident_options options = {.ranks = 2};
    struct trident_runtime *runtime;
    struct trident_error error;
    expect_bad(trident_runtime_create_mpi(MPI_COMM_WORLD, &options, &runtime, &error), &error,
               "ranks: found 2, expected 0 or 1");
    assert_null(runtime);
    expect_bad(trident_runtime_create_mpi(MPI_COMM_NULL, NULL, &runtime, &error), &error,
               "MPI_COMM_NULL");
    if (size > 1) {
        MPI_Comm half;
        MPI_Comm between;
        MPI_Comm_split(MPI_COMM_WORLD, own % 2, own, &half);
        MPI_Intercomm_create(half, 0, MPI_COMM_WORLD, 1 - own % 2, 1, &between);
        expect_bad(trident_runtime_create_mpi(between, NULL, &runtime, &error), &error,
                   "an intercommunicator");
        MPI_Comm_free(&between);
        MPI_Comm_free(&half);
    }
}

static void test_level(void **state)
{
    (void)state;
    struct trident_runtime *runtime;
    struct trident_error error;
    expect_bad(trident_runtime_create_mpi(MPI_COMM_WORLD, NULL, &runtime, &error), &error,
               "MPI_THREAD_FUNNELED, expected MPI_THREAD_SERIALIZED");
    assert_null(runtime);
}

/* With an argument: MPI is for its own thread alone. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits), cmocka_unit_test(test_saved),
        cmocka_unit_test(test_parts),     cmocka_unit_test(test_differing),
        cmocka_unit_test(test_refused),
    };
    const struct CMUnitTest level[] = {cmocka_unit_test(test_level)};
    struct trident_runtime *runtime;
    bool funneled = argc > 1;
    int provided;
    if (trident_runtime_create_mpi(MPI_COMM_WORLD, NULL, &runtime, NULL) != TRIDENT_BAD_INPUT) {
        return 1; /* MPI does not run yet */
    }
    MPI_Init_thread(&argc, &argv, funneled ? MPI_THREAD_FUNNELED : MPI_THREAD_SERIALIZED,
                    &provided);
    MPI_Comm_rank(MPI_COMM_WORLD, &own);
    MPI_Comm_size(MPI_COMM_WORLD, &size);
    int failed = funneled ? cmocka_run_group_tests(level, NULL, NULL)
                          : cmocka_run_group_tests(tests, NULL, NULL);
    if (failed) {
        MPI_Abort(MPI_COMM_WORLD, failed);
    }
    MPI_Finalize();
    return 0;
}
