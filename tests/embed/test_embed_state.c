/* What a model of another program's remembers from call to call, and from save to load: it goes on
 * where it was, counts what it was given, and its losses are those of its own answers. */
#include "base/file.h"
#include "edges/state.h"
#include "trident/trident.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 3, LENGTH = 8, TOKENS = ROWS * LENGTH, VOCABULARY = 48, SEPARATOR = 7, STEPS = 4 };

static const char reproducible[] =
    "{seed: 3, reproducible: true, model: {vocab_size: 48, num_layers: 2, hidden_size: 16, "
    "num_heads: 2}, moe: {num_experts: 4, top_k: 2}, data: {sequence_length: 8}, "
    "train: {global_batch: 4, micro_batch: 2}}";
static const char separated[] =
    "{seed: 4, model: {vocab_size: 48, num_layers: 2, hidden_size: 24, num_heads: 3}, "
    "data: {sequence_length: 8, separator: 7}, train: {global_batch: 4, micro_batch: 2}}";

static void expect_ok(enum trident_status status, const struct trident_error *error)
{
    if (status != TRIDENT_OK) {
        fail_msg("%s", error->message);
    }
}

static struct trident_runtime *start(int ranks)
{
    struct trident_options options = {.ranks = ranks, .threads = 1};
    struct trident_runtime *runtime;
    struct trident_error error;
    expect_ok(trident_runtime_create(&options, &runtime, &error), &error);
    return runtime;
}

static struct trident_model *create(struct trident_runtime *runtime, const char *config)
{
    struct trident_model *model;
    struct trident_error error;
    expect_ok(trident_model_create(runtime, config, &model, &error), &error);
    return model;
}

static struct trident_model *load(struct trident_runtime *runtime, const char *path)
{
    struct trident_model *model;
    struct trident_error error;
    expect_ok(trident_model_load(runtime, path, TRIDENT_TRAINS, NULL, &model, &error), &error);
    return model;
}

static void save(struct trident_model *model, const char *path)
{
    struct trident_error error;
    expect_ok(trident_model_save(model, path, &error), &error);
}

static void write_tokens(int32_t tokens[TOKENS], int first)
{
    for (int i = 0; i < TOKENS; i++) {
        tokens[i] = (first + i * i) % VOCABULARY;
    }
}

/* The steps [first, end) of a training. */
static void train(struct trident_model *model, int first, int end)
{
    struct trident_error error;
    int32_t tokens[TOKENS];
    int32_t targets[TOKENS];
    for (int i = first; i < end; i++) {
        write_tokens(tokens, i);
        write_tokens(targets, i + 1);
        targets[i] = -1;
        expect_ok(trident_model_step(model, tokens, targets, ROWS, LENGTH, 1e-2, NULL, &error),
                  &error);
    }
}

static void expect_same_file(const char *a, const char *b, const char *name)
{
    static char bytes[2][1 << 20];
    const char *const runs[] = {a, b};
    size_t length[2];
    for (int i = 0; i < 2; i++) {
        char path[512];
        (void)snprintf(path, sizeof(path), "%s/checkpoints/step_%d/%s", runs[i], STEPS, name);
        FILE *file = fopen(path, "r");
        assert_non_null(file);
        length[i] = fread(bytes[i], 1, sizeof(bytes[i]), file);
        assert_int_equal(fclose(file), 0);
        assert_in_range(length[i], 1, sizeof(bytes[i]) - 1);
    }
    assert_int_equal(length[0], length[1]);
    assert_memory_equal(bytes[0], bytes[1], length[0]);
}

/* ---- going on -------------------------------------------------------------------------------- */

#define WHOLE TEST_TMP "/embed_state/whole"
#define PARTS TEST_TMP "/embed_state/parts"
#define SKIPS TEST_TMP "/embed_state/skips"

static void expect_counted(const char *run)
{
    json_t *state = edges_state(run, STEPS);
    const struct {
        const char *name;
        int value;
    } expected[] = {{"step", STEPS}, {"samples", STEPS * ROWS}, {"tokens", STEPS * (TOKENS - 1)},
                    {"seed", 3},     {"skipped_steps", 0},      {"skipped_in_a_row", 0}};
    for (size_t i = 0; i < sizeof(expected) / sizeof(*expected); i++) {
        assert_int_equal(json_integer_value(json_object_get(state, expected[i].name)),
                         expected[i].value);
    }
    json_decref(state);
}

/* In one go, and with a save and a load between: the same weights and moments, and all is
 * counted. */
static void test_goes_on(void **state)
{
    (void)state;
    struct tri_error ignored;
    assert_int_equal(tri_file_remove_tree(TEST_TMP "/embed_state", &ignored), TRI_OK);
    struct trident_runtime *runtime = start(1);
    struct trident_model *model = create(runtime, reproducible);
    train(model, 0, STEPS);
    save(model, WHOLE "/checkpoints/step_4");
    save(model, WHOLE "/checkpoints/step_2"); /* for test_skipped_do_not_count */
    trident_model_destroy(model);
    trident_runtime_destroy(runtime);
    runtime = start(2);
    model = create(runtime, reproducible);
    train(model, 0, 2);
    save(model, PARTS "/checkpoints/step_2");
    trident_model_destroy(model);
    model = load(runtime, PARTS);
    assert_int_equal(trident_model_steps(model), 2);
    train(model, 2, STEPS);
    save(model, PARTS "/checkpoints/step_4");
    trident_model_destroy(model);
    trident_runtime_destroy(runtime);
    expect_same_file(WHOLE, PARTS, "model-00001-of-00001.safetensors");
    expect_same_file(WHOLE, PARTS, "optimizer-00001-of-00001.safetensors");
    expect_counted(WHOLE);
    expect_counted(PARTS);
}

/* The logits after one more step of WHOLE's weights, as one after so many steps of which so many
 * were skipped. */
static void step_after(int steps, int skipped, float logits[TOKENS * VOCABULARY])
{
    struct trident_error error;
    int32_t tokens[TOKENS];
    char path[512];
    (void)snprintf(path, sizeof(path), WHOLE "/checkpoints/step_%d", steps);
    json_t *last = edges_state(WHOLE, steps);
    (void)json_object_set_new(last, "step", json_integer(steps));
    (void)json_object_set_new(last, "skipped_steps", json_integer(skipped));
    edges_state_write(WHOLE, steps, last);
    struct trident_runtime *runtime = start(1);
    struct trident_model *model = load(runtime, path);
    assert_int_equal(trident_model_steps(model), steps);
    train(model, 0, 1);
    write_tokens(tokens, 5);
    expect_ok(trident_model_forward(model, tokens, ROWS, LENGTH, logits, &error), &error);
    trident_model_destroy(model);
    trident_runtime_destroy(runtime);
}

/* The optimizer counts the steps that changed something. */
static void test_skipped_do_not_count(void **state)
{
    (void)state;
    static float logits[3][TOKENS * VOCABULARY];
    step_after(2, 0, logits[0]);
    step_after(STEPS, 2, logits[1]);
    step_after(STEPS, 0, logits[2]);
    assert_memory_equal(logits[0], logits[1], sizeof(logits[0]));
    assert_memory_not_equal(logits[0], logits[2], sizeof(logits[0]));
}

/* Steps whose gradients are no numbers change nothing, are counted, and in a row. */
static void test_skips(void **state)
{
    (void)state;
    struct trident_runtime *runtime = start(2);
    struct trident_model *model = create(runtime, reproducible);
    struct trident_step step;
    struct trident_error error;
    int32_t tokens[TOKENS];
    write_tokens(tokens, 0);
    for (int i = 0; i < STEPS; i++) {
        expect_ok(trident_model_step(model, tokens, tokens, ROWS, LENGTH, 1e30, &step, &error),
                  &error);
        assert_int_equal(step.updated, i == 0);
    }
    assert_int_equal(trident_model_steps(model), STEPS);
    save(model, SKIPS "/checkpoints/step_4");
    trident_model_destroy(model);
    trident_runtime_destroy(runtime);
    json_t *last = edges_state(SKIPS, STEPS);
    assert_int_equal(json_integer_value(json_object_get(last, "skipped_steps")), STEPS - 1);
    assert_int_equal(json_integer_value(json_object_get(last, "skipped_in_a_row")), STEPS - 1);
    json_decref(last);
}

/* Of a run whose newest checkpoint is damaged the one before it; asked for by name, none. */
static void test_damaged(void **state)
{
    (void)state;
    const char *const path = PARTS "/checkpoints/step_4";
    struct trident_runtime *runtime = start(2);
    struct trident_model *model;
    struct trident_error error;
    FILE *file = fopen(PARTS "/checkpoints/step_4/model-00001-of-00001.safetensors", "r+");
    assert_non_null(file);
    assert_int_equal(fseek(file, -1, SEEK_END), 0);
    int last = fgetc(file);
    assert_int_equal(fseek(file, -1, SEEK_END), 0);
    assert_int_equal(fputc(last ^ 1, file), last ^ 1);
    assert_int_equal(fclose(file), 0);
    model = load(runtime, PARTS);
    assert_int_equal(trident_model_steps(model), 2);
    trident_model_destroy(model);
    assert_int_equal(trident_model_load(runtime, path, TRIDENT_ANSWERS, NULL, &model, &error),
                     TRIDENT_BAD_INPUT);
    assert_non_null(strstr(error.message, "model-00001"));
    assert_null(model);
    trident_runtime_destroy(runtime);
}

/* ---- losses ---------------------------------------------------------------------------------- */

/* In double, from logits; targets below 0 do not count. */
static double cross_entropy(const float *logits, const int32_t targets[TOKENS])
{
    double sum = 0.0;
    int counted = 0;
    for (int t = 0; t < TOKENS; t++) {
        double all = 0.0;
        for (int v = 0; v < VOCABULARY && targets[t] >= 0; v++) {
            all += exp((double)(logits[t * VOCABULARY + v] - logits[t * VOCABULARY + targets[t]]));
        }
        sum += targets[t] >= 0 ? log(all) : 0.0;
        counted += targets[t] >= 0;
    }
    return sum / counted;
}

/* A step's loss is that of the answers before it, where documents end too and the target is token
 * 0. */
static void test_losses(void **state)
{
    (void)state;
    static const char *const configs[] = {reproducible, separated};
    static float logits[TOKENS * VOCABULARY];
    int32_t tokens[TOKENS];
    int32_t targets[TOKENS];
    for (int c = 0; c < 2; c++) {
        struct trident_runtime *runtime = start(2);
        struct trident_model *model = create(runtime, configs[c]);
        for (int i = 0; i < STEPS; i++) {
            struct trident_step step;
            struct trident_error error;
            write_tokens(tokens, i);
            write_tokens(targets, i + 1);
            tokens[2] = tokens[LENGTH + 4] = SEPARATOR;
            targets[3] = targets[LENGTH + 1] = targets[TOKENS - 1] = 0;
            targets[i] = -1;
            expect_ok(trident_model_forward(model, tokens, ROWS, LENGTH, logits, &error), &error);
            expect_ok(trident_model_step(model, tokens, targets, ROWS, LENGTH, 0.1, &step, &error),
                      &error);
            double expected = cross_entropy(logits, targets);
            if (fabs(step.cross_entropy - expected) > 1e-5) {
                fail_msg("%.9g, expected %.9g", step.cross_entropy, expected);
            }
        }
        trident_model_destroy(model);
        trident_runtime_destroy(runtime);
    }
}

/* What is before a separator changes nothing behind it. */
static void test_documents(void **state)
{
    (void)state;
    static float logits[2][LENGTH * VOCABULARY];
    struct trident_runtime *runtime = start(1);
    struct trident_model *model = create(runtime, separated);
    int32_t tokens[LENGTH] = {1, 2, SEPARATOR, 3, 4, 5, 6, 8};
    for (int i = 0; i < 2; i++) {
        struct trident_error error;
        tokens[0] = i;
        expect_ok(trident_model_forward(model, tokens, 1, LENGTH, logits[i], &error), &error);
    }
    const size_t behind = 3 * (size_t)VOCABULARY;
    assert_memory_not_equal(logits[0], logits[1], behind * sizeof(float));
    assert_memory_equal(logits[0] + behind, logits[1] + behind,
                        sizeof(logits[0]) - behind * sizeof(float));
    trident_model_destroy(model);
    trident_runtime_destroy(runtime);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_goes_on), cmocka_unit_test(test_skipped_do_not_count),
        cmocka_unit_test(test_skips),   cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_losses),  cmocka_unit_test(test_documents),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
