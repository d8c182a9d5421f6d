/* Runs on several sets: a mixture by weight, exact on every layout and when it goes on; validation
 * sets by name; documents packed into rows. */
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define SETS                                                                                       \
    "data.train=[{path: tok/train_*.bin, weight: 2}, {path: more/train_*.bin, weight: 1}]",        \
        "data.valid={own: tok/valid_*.bin, more: more/train_*.bin}", "reproducible=true",          \
        "data.packing=documents", "moe.aux_loss=0.01"

/* The program's first lines are in the file that a wrapper would see: here what it says is looked
 * at in whole. */
static void expect_said(struct process_result *result, const char *text)
{
    if (!strstr(result->err, text)) {
        fail_msg("'%s' is not in:\n%s", text, result->err);
    }
}

static void test_mixture(void **state)
{
    (void)state;
    char alone[32], moved[32];
    struct process_result result = cli_run(
        0, CLI_WORDS_OF("train", "c.yaml", SETS, "run_dir=alone", "train.steps=6", "eval.every=3"));
    expect_said(&result, "mixture  66.67% of the rows from tok/train_*.bin: 16 rows, ");
    expect_said(&result, "mixture  33.33% of the rows from more/train_*.bin: 8 rows, ");
    expect_said(&result, "packing  more/train_*.bin: 60 documents in ");
    expect_said(&result, "step 6  validation own: loss ");
    expect_said(&result, "step 6  validation more: loss ");
    cli_expect_status(&result, 0);
    cli_digest("alone", alone);
    /* On other ranks, and ended between. */
    cli_run_well(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", SETS, "run_dir=moved",
                                           "train.steps=6", "train.micro_batch=1", "eval.every=3"));
    cli_digest("moved", moved);
    assert_string_equal(moved, alone);
    json_t *metrics = cli_metrics("alone");
    json_t *other = cli_metrics("moved");
    assert_true(json_equal(metrics, other));
    json_decref(other);
    json_t *last = json_array_get(metrics, json_array_size(metrics) - 1);
    json_t *sets = json_object_get(last, "valid_sets");
    double loss = 0, targets = 0;
    const char *const names[] = {"own", "more"};
    for (int i = 0; i < 2; i++) {
        json_t *set = json_object_get(sets, names[i]);
        double tokens = (double)json_integer_value(json_object_get(set, "tokens"));
        loss += tokens * json_real_value(json_object_get(set, "loss"));
        targets += tokens;
    }
    assert_int_equal(json_integer_value(json_object_get(last, "valid_tokens")),
                     (json_int_t)targets);
    double difference = loss / targets - json_real_value(json_object_get(last, "valid_loss"));
    assert_true(difference < 1e-9 && difference > -1e-9);
    json_decref(metrics);
}

static void test_resume(void **state)
{
    (void)state;
    char straight[32], resumed[32];
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", SETS, "run_dir=straight", "train.steps=6",
                                 "train.schedule=constant", "data.valid="));
    cli_run_well(cli_ranks(),
                 CLI_WORDS_OF("train", "c.yaml", SETS, "run_dir=resumed", "train.steps=4",
                              "train.schedule=constant", "data.valid="));
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", SETS, "run_dir=resumed", "train.steps=6",
                                 "train.schedule=constant", "data.valid="));
    cli_digest("straight", straight);
    cli_digest("resumed", resumed);
    assert_string_equal(resumed, straight);
    /* Other weights give other rows. */
    struct process_result result = cli_run(
        cli_ranks(),
        CLI_WORDS_OF("train", "c.yaml", SETS, "run_dir=resumed", "train.steps=8", "data.valid=",
                     "data.train=[{path: tok/train_*.bin}, {path: more/train_*.bin}]"));
    cli_expect_error(&result, cli_ranks(), 2, "was trained on other data");
    result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", SETS, "run_dir=resumed",
                                               "train.steps=8", "data.packing=windows"));
    cli_expect_error(&result, cli_ranks(), 2, "data.packing");
}

static void test_eval(void **state)
{
    (void)state;
    struct process_result result = cli_run(cli_ranks(), CLI_WORDS_OF("eval", "alone", "--json"));
    json_t *root = cli_expect_json(&result, 0);
    json_t *sets = json_object_get(root, "sets");
    assert_int_equal(json_object_size(sets), 2);
    result = cli_run(0, CLI_WORDS_OF("eval", "alone", "--json", "--data", "more/train_*.bin"));
    json_t *one = cli_expect_json(&result, 0);
    json_t *more = json_object_get(sets, "more");
    assert_true(json_real_value(json_object_get(one, "loss")) ==
                json_real_value(json_object_get(more, "loss")));
    assert_true(
        json_equal(json_object_get(one, "bits_per_byte"), json_object_get(more, "bits_per_byte")));
    json_decref(one);
    json_decref(root);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("eval", "alone", "--bytes", "10"));
    cli_expect_error(&result, cli_ranks(), 2, "--bytes are of one set");
    result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=gone",
                                               "data.valid={own: tok/valid_*.bin, gone: no.bin}"));
    cli_expect_error(&result, cli_ranks(), 2, "no.bin: no file matches");
}

/* Documents and masks of `tokenize`, and what `inspect` says of them. */
static void test_chats(void **state)
{
    (void)state;
    struct process_result result = cli_run(0, CLI_WORDS_OF("inspect", "more/train_000000.bin"));
    assert_non_null(strstr(result.out, ", 60 documents, masked"));
    assert_non_null(strstr(result.out, " count as targets"));
    cli_expect_status(&result, 0);
    static const char hint[] = "(data.packing documents: rows of whole ones)";
    result = cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=rows", "train.steps=1",
                                               "data.train=more/train_*.bin", "data.valid="));
    assert_int_equal(cli_count(result.err, hint), 1);
    cli_expect_status(&result, 0);
    result =
        cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=packed", "train.steps=1",
                                          "data.train=more/train_*.bin",
                                          "data.valid=tok/valid_*.bin", "data.packing=documents"));
    assert_int_equal(cli_count(result.err, hint), 0);
    cli_expect_status(&result, 0);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("verify", "c.yaml", "data.train=more/train_*.bin",
                                               "data.packing=documents", "--steps", "3"));
    cli_expect_status(&result, 0);
}

static void write_lines(const char *path)
{
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    for (int i = 0; i < 60; i++) {
        (void)fprintf(file, "{\"prompt\": \"%.*s\", \"completion\": \"%.*s\"}\n", i % 11 + 1,
                      "what is it?", i * 7 % 13, "a wind at sea");
    }
    assert_int_equal(fclose(file), 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mixture),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_eval),
        cmocka_unit_test(test_chats),
    };
    cli_begin("sets", argc, argv);
    write_lines("lines.jsonl");
    cli_run_well(0, CLI_WORDS_OF("tokenize", "--tokenizer", "byte", "--format", "jsonl", "--out",
                                 "more", "lines.jsonl"));
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
