/* A tokenizer goes with the tokens into the run and its checkpoints, is used by whatever reads or
 * writes text there, and goes with the weights to a Hugging Face folder and back. */
#include "cli/cli.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define TOKENIZERS TESTDATA_DIR "/golden/tokenizers"

static const char gpt2[] = TOKENIZERS "/gpt2";
static const char llama3[] = TOKENIZERS "/llama3";
static const char mixtral[] = TESTDATA_DIR "/golden/mixtral";
static const char mixture[] = "data.train=[{path: bpe/train_*.bin}, {path: other/train_*.bin}, "
                              "{path: bpe/valid_*.bin}]";

static void train(const char *run)
{
    char run_dir[64];
    (void)snprintf(run_dir, sizeof(run_dir), "run_dir=%s", run);
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", run_dir, "data.train=bpe/train_*.bin",
                                 "data.valid=bpe/valid_*.bin", "model.vocab_size=1504",
                                 "train.steps=2"));
}

static json_t *generate(const char *run)
{
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("generate", run, "--json", "--temperature", "0",
                                          "--prompt", "the sea", "--tokens", "5"));
    return cli_expect_json(&result, 0);
}

static void expect_same_file(const char *left, const char *right)
{
    size_t bytes[2];
    char *text[2] = {cli_read(left, &bytes[0]), cli_read(right, &bytes[1])};
    assert_non_null(text[0]);
    assert_non_null(text[1]);
    assert_int_equal(bytes[0], bytes[1]);
    assert_memory_equal(text[0], text[1], bytes[0]);
    free(text[0]);
    free(text[1]);
}

static void test_it_goes_with_the_run(void **state)
{
    (void)state;
    expect_same_file("bpe/tokenizer/tokenizer.json", TOKENIZERS "/gpt2/tokenizer.json");
    expect_same_file("one/tokenizer/tokenizer.json", TOKENIZERS "/gpt2/tokenizer.json");
    expect_same_file("one/checkpoints/step_2/tokenizer.json", TOKENIZERS "/gpt2/tokenizer.json");
    struct process_result result = cli_run(0, CLI_WORDS_OF("inspect", "one", "--json"));
    json_t *root = cli_expect_json(&result, 0);
    const json_t *tokenizer = json_object_get(root, "tokenizer");
    assert_int_equal(json_integer_value(json_object_get(tokenizer, "vocab_size")), 1504);
    assert_int_equal(json_integer_value(json_object_get(tokenizer, "special")), 2);
    json_decref(root);
}

/* The bytes of what is predicted are those of the text, less the first token's. */
static void test_bits_are_of_bytes(void **state)
{
    (void)state;
    struct process_result result = cli_run(cli_ranks(), CLI_WORDS_OF("eval", "one", "--json"));
    json_t *root = cli_expect_json(&result, 0);
    double loss = json_real_value(json_object_get(root, "loss"));
    double bits = json_real_value(json_object_get(root, "bits_per_byte"));
    double tokens = (double)json_integer_value(json_object_get(root, "tokens"));
    double bytes = loss / log(2.0) * tokens / bits;
    assert_true(bytes > 900.0 && bytes < 1300.0); /* of 4000, 0.3 of the tokens */
    assert_true(fabs(bytes - round(bytes)) < 1e-6 * bytes);
    json_decref(root);
}

static void test_stops_end_a_text(void **state)
{
    (void)state;
    json_t *free_run = generate("one");
    const json_t *tokens = json_object_get(free_run, "tokens");
    assert_int_equal(json_array_size(tokens), 5);
    char stops[64];
    (void)snprintf(stops, sizeof(stops), "{\"eos_token_id\": [1500, %d]}",
                   (int)json_integer_value(json_array_get(tokens, 0)));
    cli_write("bpe/tokenizer/generation_config.json", stops);
    train("two");
    json_t *stopped = generate("two");
    assert_int_equal(json_array_size(json_object_get(stopped, "tokens")), 1);
    assert_true(json_is_true(json_object_get(stopped, "ended")));
    assert_string_equal(json_string_value(json_object_get(stopped, "text")), "");
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("generate", "two", "--temperature", "0", "--prompt",
                                          "the sea", "--tokens", "5"));
    assert_string_equal(result.out, "the sea\n");
    cli_expect_status(&result, 0);
    json_decref(stopped);
    json_decref(free_run);
}

/* A kind that is not read is carried along all the same. */
static void test_another_kind_is_carried(void **state)
{
    (void)state;
    cli_tool(CLI_WORDS_OF("cp", "-r", "bpe", "bare"));
    cli_write("bare/tokenizer/tokenizer.json", "{\"model\": {\"type\": \"Unigram\"}}");
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=kind", "data.train=bare/train_*.bin",
                                 "data.valid=", "model.vocab_size=1504", "train.steps=1"));
    expect_same_file("kind/checkpoints/step_1/tokenizer.json", "bare/tokenizer/tokenizer.json");
    struct process_result result = cli_run(0, CLI_WORDS_OF("inspect", "kind", "--json"));
    assert_int_equal(cli_count(result.err, "Unigram"), 1);
    json_t *root = cli_expect_json(&result, 0);
    assert_true(json_is_null(json_object_get(root, "tokenizer")));
    json_decref(root);
    result =
        cli_run(cli_ranks(), CLI_WORDS_OF("eval", "kind", "--data", "bare/valid_*.bin", "--json"));
    assert_int_equal(cli_count(result.err, "Unigram"), 1);
    root = cli_expect_json(&result, 0);
    assert_true(json_is_null(json_object_get(root, "bits_per_byte")));
    json_decref(root);
}

static void test_damage_is_seen(void **state)
{
    (void)state;
    train("three");
    static const char path[] = "three/checkpoints/step_2/tokenizer.json";
    size_t bytes;
    char *text = cli_read(path, &bytes);
    assert_non_null(text);
    FILE *file = fopen(path, "wbe");
    assert_non_null(file);
    text[bytes / 2] ^= 1;
    assert_int_equal(fwrite(text, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
    free(text);
    struct process_result result = cli_run(
        cli_ranks(), CLI_WORDS_OF("generate", "three/checkpoints/step_2", "--prompt", "the"));
    cli_expect_error(&result, cli_ranks(), 2, "tokenizer.json");
}

/* The shards' goes first, and what a run begins with is told where it is another one. */
static void test_a_run_begins_with_another(void **state)
{
    (void)state;
    static const char word[] = "which is taken, is not the same as the one in";
    cli_run_well(0, CLI_WORDS_OF("tokenize", "--tokenizer", llama3, "--out", "other", "t.txt"));
    struct process_result result = cli_run(
        cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=four", "data.train=other/train_*.bin",
                                  "data.valid=bpe/valid_*.bin", "init_from=one",
                                  "model.vocab_size=1504", "train.steps=1"));
    assert_int_equal(cli_count(result.err, word), 2); /* data.valid's too */
    cli_expect_status(&result, 0);
    expect_same_file("four/tokenizer/tokenizer.json", TOKENIZERS "/llama3/tokenizer.json");
    result = cli_run(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=mixed", mixture,
                                     "model.vocab_size=1504", "train.steps=1"));
    assert_int_equal(cli_count(result.err, word), 1);
    cli_expect_status(&result, 0);
    expect_same_file("mixed/tokenizer/tokenizer.json", TOKENIZERS "/gpt2/tokenizer.json");
    result = cli_run(cli_ranks(), CLI_WORDS_OF("eval", "four"));
    assert_int_equal(cli_count(result.err, word), 1);
    cli_expect_status(&result, 0);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("eval", "four", "--data", "other/train_*.bin"));
    assert_int_equal(cli_count(result.err, word), 0);
    cli_expect_status(&result, 0);
    result = cli_run(cli_ranks(), CLI_WORDS_OF("eval", "mixed", "--data", "other/train_*.bin"));
    assert_int_equal(cli_count(result.err, word), 1);
    cli_expect_status(&result, 0);
    cli_tool(CLI_WORDS_OF("rm", "-r", "other/tokenizer"));
    result = cli_run(cli_ranks(),
                     CLI_WORDS_OF("train", "c.yaml", "run_dir=five", "data.train=other/train_*.bin",
                                  "init_from=one", "model.vocab_size=1504", "train.steps=1"));
    assert_int_equal(cli_count(result.err, word), 0);
    cli_expect_status(&result, 0);
    expect_same_file("five/tokenizer/tokenizer.json", TOKENIZERS "/gpt2/tokenizer.json");
}

/* The checkpoint's goes first, into another run, whose shards may have none or another. */
static void test_a_run_resumes_another(void **state)
{
    (void)state;
    cli_tool(CLI_WORDS_OF("cp", "-r", "bpe", "unnamed"));
    cli_tool(CLI_WORDS_OF("rm", "-r", "unnamed/tokenizer"));
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=six", "resume=one",
                                          "data.train=unnamed/train_*.bin",
                                          "data.valid=", "model.vocab_size=1504", "train.steps=3"));
    cli_expect_status(&result, 0);
    expect_same_file("six/tokenizer/tokenizer.json", TOKENIZERS "/gpt2/tokenizer.json");
    expect_same_file("six/checkpoints/step_3/tokenizer.json", TOKENIZERS "/gpt2/tokenizer.json");
}

/* It is kept as it is; that nobody can read it is said when the run begins. */
static void test_a_run_keeps_a_damaged_one(void **state)
{
    (void)state;
    static const char *const files[] = {"tokenizer.json", "generation_config.json"};
    for (int i = 0; i < 2; i++) {
        char path[128];
        cli_tool(CLI_WORDS_OF("rm", "-rf", "broken"));
        cli_tool(CLI_WORDS_OF("cp", "-r", "bpe", "broken"));
        (void)snprintf(path, sizeof(path), "broken/tokenizer/%s", files[i]);
        cli_write(path, "{\"eos_token_id\": [");
        struct process_result result = cli_run(
            cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=seven", "--fresh",
                                      "data.train=broken/train_*.bin",
                                      "data.valid=", "model.vocab_size=1504", "train.steps=1"));
        assert_int_equal(cli_count(result.err, "keeps a tokenizer that cannot be used: "), 1);
        assert_int_equal(cli_count(result.err, files[i]), 1);
        cli_expect_status(&result, 0);
    }
}

static void test_it_goes_to_hugging_face_and_back(void **state)
{
    (void)state;
    cli_tool(CLI_WORDS_OF("cp", "-r", mixtral, "hf"));
    cli_tool(CLI_WORDS_OF("chmod", "-R", "u+w", "hf"));
    cli_tool(CLI_WORDS_OF("cp", TOKENIZERS "/mixtral/tokenizer.json", "hf"));
    cli_write("hf/generation_config.json", "{\"eos_token_id\": 2}");
    cli_run_well(0, CLI_WORDS_OF("import", "hf", "imported"));
    expect_same_file("imported/tokenizer.json", "hf/tokenizer.json");
    cli_run_well(0, CLI_WORDS_OF("export", "imported", "back"));
    expect_same_file("back/tokenizer.json", "hf/tokenizer.json");
    expect_same_file("back/generation_config.json", "hf/generation_config.json");
    /* What the checkpoint's tokenizer says of the end, not what the model began with. */
    cli_write("hf/generation_config.json", "{\"eos_token_id\": [2, 5]}");
    cli_run_well(0, CLI_WORDS_OF("import", "hf", "imported_2"));
    cli_run_well(0, CLI_WORDS_OF("export", "imported_2", "back_2"));
    json_t *root = json_load_file("back_2/config.json", 0, NULL);
    const json_t *stops = json_object_get(root, "eos_token_id");
    assert_int_equal(json_array_size(stops), 2);
    assert_int_equal(json_integer_value(json_array_get(stops, 1)), 5);
    json_decref(root);
}

static void expect_no_gguf(const char *from, const char *to, const char *dtype, const char *says)
{
    struct process_result result =
        cli_run(0, CLI_WORDS_OF("export", from, to, "--format", "gguf", "--dtype", dtype));
    if (!strstr(result.err, says)) {
        fail_msg("'%s' lacks '%s'", result.err, says);
    }
    cli_expect_status(&result, 2);
}

/* One file for llama.cpp, with the run's tokenizer in it. */
static void test_it_goes_into_a_gguf_file(void **state)
{
    (void)state;
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=plain", "data.train=bpe/train_*.bin",
                                 "data.valid=", "model.vocab_size=1504", "train.steps=1",
                                 "moe.every=1"));
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("export", "plain", "one.gguf", "--format", "gguf",
                                          "--dtype", "q8_0", "--json"));
    json_t *said = cli_expect_json(&result, 0);
    assert_string_equal(json_string_value(json_object_get(said, "file")), "one.gguf");
    json_decref(said);
    char *head = cli_read("one.gguf", NULL);
    assert_memory_equal(head, "GGUF", 4);
    free(head);
    expect_no_gguf("plain", "one.gguf", "f32", "is there already");
    expect_no_gguf("one", "other.gguf", "f32", "layers without experts");
    expect_no_gguf("plain", "other.gguf", "q4", "found 'q4', expected f32, bf16, f16 or q8_0");
    expect_no_gguf("imported", "other.gguf", "f32", "and the model has ");
    result = cli_run(0, CLI_WORDS_OF("export", "one", "other", "--dtype", "q8_0"));
    assert_non_null(strstr(result.err, "found 'q8_0', expected f32, bf16 or f16"));
    cli_expect_status(&result, 2);
    result = cli_run(0, CLI_WORDS_OF("export", "one", "other", "--format", "onnx"));
    assert_non_null(strstr(result.err, "found 'onnx', expected hf or gguf"));
    cli_expect_status(&result, 2);
    result = cli_run(0, CLI_WORDS_OF("export", "plain", "no.gguf"));
    assert_non_null(strstr(result.err, "no.gguf: --format is missing"));
    cli_expect_status(&result, 2);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_goes_with_the_run),
        cmocka_unit_test(test_bits_are_of_bytes),
        cmocka_unit_test(test_stops_end_a_text),
        cmocka_unit_test(test_another_kind_is_carried),
        cmocka_unit_test(test_damage_is_seen),
        cmocka_unit_test(test_a_run_begins_with_another),
        cmocka_unit_test(test_a_run_resumes_another),
        cmocka_unit_test(test_a_run_keeps_a_damaged_one),
        cmocka_unit_test(test_it_goes_to_hugging_face_and_back),
        cmocka_unit_test(test_it_goes_into_a_gguf_file),
    };
    cli_begin("edges_tokenizer", argc, argv);
    cli_run_well(0, CLI_WORDS_OF("tokenize", "--tokenizer", gpt2, "--out", "bpe", "--valid", "0.3",
                                 "t.txt"));
    train("one");
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
