/* Models whose tokens are not all bytes: nothing is printed for an id that no byte has, ids are
 * asked for where there is no tokenizer, a separator ends the text and is no byte of it. */
#include "cli/cli.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void write_u16(const char *path, const uint16_t *tokens, size_t count)
{
    FILE *file = fopen(path, "wbe");
    assert_non_null(file);
    assert_int_equal(fwrite(tokens, sizeof(*tokens), count, file), count);
    assert_int_equal(fclose(file), 0);
}

/* Runs of 'a' to 'z', each ended by token 256; learned by heart in a few steps. */
static void train_with_separator(void)
{
    uint16_t tokens[27 * 40];
    for (size_t i = 0; i < sizeof(tokens) / sizeof(*tokens); i++) {
        tokens[i] = (uint16_t)(i % 27 == 26 ? 256 : 'a' + i % 27);
    }
    write_u16("letters.bin", tokens, sizeof(tokens) / sizeof(*tokens));
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=letters", "data.format=u16",
                                 "data.train=letters.bin", "data.valid=letters.bin",
                                 "model.vocab_size=257", "data.separator=256", "train.steps=60",
                                 "data.sequence_length=30", "train.learning_rate=1e-2",
                                 "checkpoint.every=0"));
}

static json_t *generate(const char *const *more)
{
    const char *words[CLI_WORDS] = {"generate", "letters", "--json", "--temperature", "0"};
    for (size_t i = 0; more[i]; i++) {
        words[5 + i] = more[i];
    }
    struct process_result result = cli_run(cli_ranks(), words);
    return cli_expect_json(&result, 0);
}

static void test_separator_ends(void **state)
{
    (void)state;
    json_t *root = generate(CLI_WORDS_OF("--prompt", "uvw", "--tokens", "20"));
    json_t *tokens = json_object_get(root, "tokens");
    assert_string_equal(json_string_value(json_object_get(root, "text")), "xyz");
    assert_true(json_is_true(json_object_get(root, "ended")));
    assert_int_equal(json_array_size(tokens), 4);
    assert_int_equal(json_integer_value(json_array_get(tokens, 3)), 256);
    json_decref(root);
    root = generate(CLI_WORDS_OF("--prompt", "uvw", "--tokens", "2"));
    assert_string_equal(json_string_value(json_object_get(root, "text")), "xy");
    assert_true(json_is_false(json_object_get(root, "ended")));
    json_decref(root);
    struct process_result result = cli_run(
        cli_ranks(), CLI_WORDS_OF("generate", "letters", "--prompt", "uvw", "--temperature", "0"));
    assert_string_equal(result.out, "uvwxyz\n");
    assert_int_equal(cli_count(result.err, "have no text"), 0);
    cli_expect_status(&result, 0);
    /* One that is a byte of the prompt is printed with it. */
    result =
        cli_run(cli_ranks(), CLI_WORDS_OF("generate", "letters", "--prompt", "a\nbc", "--tokens",
                                          "1", "data.separator=10", "--temperature", "0"));
    assert_string_equal(result.out, "a\nbcd\n");
    cli_expect_status(&result, 0);
    /* A prompt may hold one, and a new text begins after it. */
    root = generate(CLI_WORDS_OF("--ids", "--prompt", "121 122 256", "--tokens", "3"));
    assert_int_equal(json_integer_value(json_array_get(json_object_get(root, "tokens"), 0)), 'a');
    json_decref(root);
}

/* Without the key, 256 is a token like others: it has no text, and that is said. */
static void test_no_text(void **state)
{
    (void)state;
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("generate", "letters", "--prompt", "yz", "--temperature",
                                          "0", "--tokens", "3", "data.separator=none"));
    assert_int_equal(strncmp(result.out, "yzab\n", 5), 0);
    assert_int_equal(cli_count(result.err, "1 of 5 tokens are not bytes and have no text"), 1);
    cli_expect_status(&result, 0);
}

static void test_bits_per_byte(void **state)
{
    (void)state;
    struct process_result result = cli_run(cli_ranks(), CLI_WORDS_OF("eval", "letters", "--json"));
    json_t *root = cli_expect_json(&result, 0);
    double loss = json_real_value(json_object_get(root, "loss"));
    double bits = json_real_value(json_object_get(root, "bits_per_byte"));
    double expected = loss / log(2.0) * (27.0 * 40 - 1) / (26.0 * 40 - 1);
    assert_int_equal(json_integer_value(json_object_get(root, "tokens")), 27 * 40 - 1);
    assert_true(fabs(bits - expected) < 1e-9 * expected);
    json_decref(root);
}

/* 300 tokens: no tokenizer. */
static void test_other_vocabulary(void **state)
{
    (void)state;
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=other", "data.format=u16",
                                 "data.train=letters.bin", "data.valid=", "model.vocab_size=300",
                                 "train.steps=1"));
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("generate", "other", "--prompt", "abc"));
    assert_string_equal(result.out, "");
    cli_expect_error(&result, cli_ranks(), 2, "300 tokens is not bytes");
    result = cli_run(cli_ranks(), CLI_WORDS_OF("generate", "other", "--ids"));
    cli_expect_error(&result, cli_ranks(), 2, "--ids: expected --prompt");
    static const char *const bad[][2] = {{"12 300", "300"},
                                         {"-1", "'-1'"},
                                         {"1 x", "'x'"},
                                         {" ", "expected token ids"},
                                         {"99999999999", "99999"}};
    for (size_t i = 0; i < (cli_ranks() ? 1 : 5); i++) {
        result =
            cli_run(cli_ranks(), CLI_WORDS_OF("generate", "other", "--ids", "--prompt", bad[i][0]));
        cli_expect_error(&result, cli_ranks(), 2, bad[i][1]);
    }
    result = cli_run(cli_ranks(), CLI_WORDS_OF("generate", "other", "--ids", "--prompt",
                                               "299, 256 12", "--tokens", "30"));
    assert_int_equal(strncmp(result.out, "299 256 12 ", 11), 0);
    assert_int_equal(cli_count(result.out, " "), 33);
    cli_expect_status(&result, 0);
    result = cli_run(0, CLI_WORDS_OF("eval", "other", "--data", "letters.bin"));
    assert_int_equal(cli_count(result.out, "bits per byte unknown"), 1);
    cli_expect_status(&result, 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_separator_ends),
        cmocka_unit_test(test_no_text),
        cmocka_unit_test(test_bits_per_byte),
        cmocka_unit_test(test_other_vocabulary),
    };
    cli_begin("edges_tokens", argc, argv);
    train_with_separator();
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
