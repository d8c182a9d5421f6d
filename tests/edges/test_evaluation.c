/* An evaluation counts the tokens of its set and nothing else: the end of a set is a shorter row,
 * whose missing tokens are routed nowhere and take no expert's place. */
#include "cli/cli.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TOP_K = 2 };

struct evaluation {
    double loss;
    json_int_t tokens, routes, dropped;
    char loads[512];
};

/* Shards NAME/ of the first `bytes` bytes of the text. */
static void cut_set(const char *name, int bytes)
{
    char file[64];
    char *text = cli_read("t.txt", NULL);
    assert_non_null(text);
    text[bytes] = '\0';
    (void)snprintf(file, sizeof(file), "%s.txt", name);
    cli_write(file, text);
    free(text);
    cli_run_well(0, CLI_WORDS_OF("tokenize", "--tokenizer", "byte", "--out", name, file));
}

/* words: more words of the command line, at most 8. */
static struct evaluation evaluate(int ranks, const char *set, const char *const *words)
{
    char shards[64];
    const char *all[16] = {"eval", "run", "--json", "--data", shards};
    struct evaluation evaluation = {0};
    for (size_t i = 0; words[i]; i++) {
        all[5 + i] = words[i];
    }
    (void)snprintf(shards, sizeof(shards), "%s/train_*.bin", set);
    struct process_result result = cli_run(ranks, all);
    json_t *root = cli_expect_json(&result, 0);
    json_t *loads = json_object_get(root, "expert_load");
    evaluation.loss = json_real_value(json_object_get(root, "loss"));
    evaluation.tokens = json_integer_value(json_object_get(root, "tokens"));
    evaluation.dropped = json_integer_value(json_object_get(root, "dropped_tokens"));
    assert_int_equal(json_array_size(loads), 1);
    for (size_t e = 0; e < json_array_size(json_array_get(loads, 0)); e++) {
        evaluation.routes += json_integer_value(json_array_get(json_array_get(loads, 0), e));
    }
    char *text = json_dumps(loads, JSON_COMPACT);
    (void)snprintf(evaluation.loads, sizeof(evaluation.loads), "%s", text);
    free(text);
    json_decref(root);
    return evaluation;
}

static void expect_counted(const struct evaluation *evaluation, int tokens)
{
    assert_int_equal(evaluation->tokens, tokens - 1);
    assert_int_equal(evaluation->routes, TOP_K * (tokens - 1));
}

static void test_fits_a_row(void **state)
{
    (void)state;
    static const char *const windows[] = {"moe.capacity_window=sequence",
                                          "moe.capacity_window=rank", "moe.capacity_window=step"};
    static const char *const lengths[] = {"data.sequence_length=24", "data.sequence_length=32"};
    const char *layout = cli_ranks() > 1 ? "parallel.tensor=2" : "parallel.tensor=1";
    cut_set("small", 21);
    for (int w = 0; w < 3; w++) {
        const char *const exact[] = {
            "data.sequence_length=20", windows[w], "moe.eval_capacity_factor=0.8",
            "moe.min_capacity=1",      layout,     NULL};
        struct evaluation expected = evaluate(cli_ranks(), "small", exact);
        expect_counted(&expected, 21);
        assert_true(expected.dropped > 0);
        for (int i = 0; i < 2; i++) {
            const char *words[8];
            memcpy(words, exact, sizeof(exact));
            words[0] = lengths[i];
            struct evaluation found = evaluate(cli_ranks(), "small", words);
            expect_counted(&found, 21);
            assert_true(found.loss == expected.loss);
            assert_int_equal(found.dropped, expected.dropped);
            assert_string_equal(found.loads, expected.loads);
        }
    }
}

/* Whole rows and an end of 1, 2 and 5 tokens: more ranks than the end has rows, or tokens. */
static void test_ends(void **state)
{
    (void)state;
    static const char *const layouts[] = {"parallel.tensor=2", "parallel.expert=2",
                                          "train.micro_batch=1"};
    static const int ends[] = {1, 2, 5};
    for (int i = 0; i < 3; i++) {
        int tokens = 3 * 16 + 1 + ends[i];
        cut_set("ends", tokens);
        const char *const words[] = {"reproducible=true", "train.sequence_parallel=true", NULL};
        struct evaluation one = evaluate(0, "ends", words);
        expect_counted(&one, tokens);
        if (cli_ranks() > 1) {
            const char *const more[] = {words[0], words[1], layouts[i], NULL};
            struct evaluation many = evaluate(cli_ranks(), "ends", more);
            expect_counted(&many, tokens);
            assert_true(many.loss == one.loss);
            assert_string_equal(many.loads, one.loads);
        }
        cli_tool(CLI_WORDS_OF("rm", "-r", "ends"));
    }
}

/* More rows than are taken at once, which is 8 micro-batches of each replica: reproducible losses
 * are the same bits all the same. */
static void test_many_rows(void **state)
{
    (void)state;
    static const char *const rows[] = {"train.micro_batch=1", "train.micro_batch=3",
                                       "train.micro_batch=60"};
    double loss = 0.0;
    cut_set("many", 3900);
    for (int i = 0; i < 3; i++) {
        const char *const words[] = {"reproducible=true", "train.global_batch=60", rows[i], NULL};
        struct evaluation evaluation = evaluate(cli_ranks(), "many", words);
        expect_counted(&evaluation, 3900);
        loss = i == 0 ? evaluation.loss : loss;
        assert_true(evaluation.loss == loss);
    }
}

/* The evaluation within a run is the same one; of eval.batches batches it is whole rows alone. */
static void test_valid_loss(void **state)
{
    (void)state;
    static const char *const batches[] = {"eval.batches=0", "eval.batches=1", "eval.batches=2"};
    static const int tokens[] = {4 * 16 + 8, 2 * 16, 4 * 16};
    cut_set("valid", tokens[0] + 1);
    for (int i = 0; i < 3; i++) {
        cli_run_well(cli_ranks(),
                     CLI_WORDS_OF("train", "c.yaml", "run_dir=other", "train.steps=1",
                                  "data.valid=valid/train_*.bin", "moe.eval_capacity_factor=0.5",
                                  "train.global_batch=2", "train.micro_batch=1", batches[i],
                                  "--fresh"));
        json_t *lines = cli_metrics("other");
        json_t *last = json_array_get(lines, json_array_size(lines) - 1);
        json_t *load = json_array_get(json_object_get(last, "valid_expert_load"), 0);
        json_int_t routes = 0;
        assert_true(json_is_real(json_object_get(last, "valid_loss")));
        for (size_t e = 0; e < json_array_size(load); e++) {
            routes += json_integer_value(json_array_get(load, e));
        }
        assert_int_equal(routes, TOP_K * tokens[i]);
        json_decref(lines);
    }
}

/* Of each step all tokens that pass the model. */
static void expect_speed(const char *path, long tokens)
{
    char *text = cli_read(path, NULL);
    assert_non_null(text);
    char *rest = text;
    for (char *line = strtok_r(rest, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        json_t *entry = json_loads(line, 0, NULL);
        if (json_object_get(entry, "step_ms")) {
            double speed = json_real_value(json_object_get(entry, "tokens_per_second"));
            double seconds = json_real_value(json_object_get(entry, "step_ms")) / 1e3;
            assert_int_equal(lround(speed * seconds), tokens);
        }
        json_decref(entry);
    }
    free(text);
}

/* A mean over nothing is no 0: of rows without a target that counts there is no loss to tell. What
 * the model passes is its speed all the same. */
static void test_nothing_counts(void **state)
{
    (void)state;
    enum { PROMPT = 300, STEPS = 4 };
    char line[PROMPT + 64] = "{\"prompt\": \"";
    memset(line + strlen(line), 'a', PROMPT);
    (void)strcat(line, "\", \"completion\": \"yes\"}\n");
    cli_write("masked.jsonl", line);
    cli_run_well(
        0, CLI_WORDS_OF("tokenize", "--tokenizer", "byte", "--out", "masked", "masked.jsonl"));
    struct process_result result = cli_run(
        cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=nothing", "train.steps=4", "--json",
                                  "data.train=masked/train_*.bin", "data.valid=masked/train_*.bin",
                                  "data.sequence_length=16", "train.global_batch=2",
                                  "train.micro_batch=1", "eval.batches=1"));
    assert_true(cli_count(result.err, "validation no target counted") >= 1);
    assert_int_equal(cli_count(result.err, "validation loss"), 0);
    assert_true(cli_count(result.err, "step 1/4  no target counted") >= 1);
    json_t *root = cli_expect_json(&result, 0);
    assert_true(json_is_null(json_object_get(root, "valid_loss")));
    json_t *lines = cli_metrics("nothing");
    json_int_t before = 0;
    int without = 0, steps = 0;
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const json_t *entry = json_array_get(lines, i);
        if (!json_object_get(entry, "tokens")) {
            assert_true(json_is_null(json_object_get(entry, "valid_loss")));
            assert_int_equal(json_integer_value(json_object_get(entry, "valid_tokens")), 0);
            continue;
        }
        json_int_t tokens = json_integer_value(json_object_get(entry, "tokens"));
        assert_int_equal(json_is_null(json_object_get(entry, "loss")), tokens == before);
        assert_int_equal(json_is_null(json_object_get(entry, "cross_entropy")), tokens == before);
        without += tokens == before;
        before = tokens;
        steps++;
    }
    assert_int_equal(steps, STEPS);
    assert_true(without >= 1);
    json_decref(lines);
    json_decref(root);
    expect_speed("nothing/metrics.jsonl", 2 * 16);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fits_a_row),     cmocka_unit_test(test_ends),
        cmocka_unit_test(test_many_rows),      cmocka_unit_test(test_valid_loss),
        cmocka_unit_test(test_nothing_counts),
    };
    cli_begin("edges_evaluation", argc, argv);
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "train.steps=2"));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
