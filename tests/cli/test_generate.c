/* `generate` with several prompts is what it is with each of them; a chat by lines of standard
 * input answers what its model has learned; contexts and files that cannot be are one line. */
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

static struct process_result run(const char *const *words)
{
    return cli_run(cli_ranks(), words);
}

static json_t *generate(const char *const *more)
{
    const char *words[CLI_WORDS] = {"generate", "run", "--json", "--tokens", "6"};
    for (size_t i = 0; more[i]; i++) {
        words[5 + i] = more[i];
    }
    struct process_result result = run(words);
    return cli_expect_json(&result, 0);
}

/* The same tokens and text; how long it took is another matter. */
static void expect_same(json_t *x, json_t *y)
{
    (void)json_object_del(x, "seconds");
    (void)json_object_del(y, "seconds");
    assert_true(json_equal(x, y));
}

/* Lines of other lengths, in batches of two, one, and all. */
static void test_several(void **state)
{
    (void)state;
    static const char *const prompts[] = {"a longer line than all", "b", "two words"};
    static const char *const batches[] = {"2", "1", "7"};
    json_t *alone[3];
    cli_write("lines.txt", "a longer line than all\n \nb\ntwo words");
    cli_write("lines.jsonl", "{\"prompt\": \"a longer line than all\"}\n{\"text\": \"b\", "
                             "\"other\": [1]}\n\n{\"prompt\": \"two words\", \"completion\": 1}\n");
    for (int i = 0; i < 3; i++) {
        const char seed[] = {(char)('5' + i), '\0'};
        alone[i] = generate(CLI_WORDS_OF("--prompt", prompts[i], "--seed", seed));
        assert_int_equal(json_array_size(json_object_get(alone[i], "tokens")), 6);
    }
    for (int b = 0; b < 3; b++) {
        json_t *all = generate(CLI_WORDS_OF("--prompts", b == 1 ? "lines.jsonl" : "lines.txt",
                                            "--batch", batches[b], "--seed", "5"));
        json_t *texts = json_object_get(all, "texts");
        assert_int_equal(json_array_size(texts), 3);
        for (size_t i = 0; i < 3; i++) {
            expect_same(json_array_get(texts, i), alone[i]);
        }
        json_decref(all);
    }
    for (int i = 0; i < 3; i++) {
        json_decref(alone[i]);
    }
    struct process_result result = run(
        CLI_WORDS_OF("generate", "run", "--prompts", "lines.txt", "--tokens", "1", "--top-k", "1"));
    assert_int_equal(cli_count(result.out, "--- "), 3);
    assert_int_equal(cli_count(result.out, "--- 3\ntwo words"), 1);
    assert_int_equal(cli_count(result.err, "wrote 3 tokens in "), 1);
    cli_expect_status(&result, 0);
}

/* Which experts a token has depends on what comes behind it: said when training begins, and no text
 * can be written, unless rows are single tokens. */
static void test_expert_choice(void **state)
{
    (void)state;
    struct process_result result =
        run(CLI_WORDS_OF("train", "c.yaml", "run_dir=choice", "moe.router=expert_choice",
                         "train.steps=2", "checkpoint.every=0"));
    assert_int_equal(cli_count(result.err, "router expert_choice: which experts a token has"), 1);
    cli_expect_status(&result, 0);
    result = run(CLI_WORDS_OF("generate", "choice", "--prompt", "a"));
    cli_expect_error(&result, cli_ranks(), 2, "router expert_choice cannot generate");
    cli_run_well(cli_ranks(), CLI_WORDS_OF("eval", "choice"));
    cli_run_well(0,
                 CLI_WORDS_OF("train", "c.yaml", "run_dir=single", "moe.router=expert_choice",
                              "data.sequence_length=1", "model.max_position=8", "train.steps=2"));
    cli_run_well(0, CLI_WORDS_OF("generate", "single", "--prompt", "a", "--tokens", "3"));
}

/* Where frequencies depend on how long rows are, these are the run's, whatever is fed at once. */
static void test_dynamic_rope(void **state)
{
    (void)state;
    json_t *found[3];
    cli_write("two.txt", "some words\nsome longer words\n");
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=dynamic", "model.position=rope",
                                 "model.rope_scaling=dynamic", "model.rope_factor=8",
                                 "model.rope_original=8", "model.init_std=0.5", "train.steps=1"));
    for (int i = 0; i < 3; i++) {
        static const char *const more[][3] = {
            {"--prompt", "some words"},
            {"--prompt", "some words", "--no-cache"},
            {"--prompts", "two.txt"},
        };
        const char *words[CLI_WORDS] = {"generate", "dynamic", "--json", "--tokens", "8"};
        memcpy(words + 5, more[i], sizeof(more[i]));
        struct process_result result = run(words);
        found[i] = cli_expect_json(&result, 0);
    }
    expect_same(found[0], found[1]);
    expect_same(found[0], json_array_get(json_object_get(found[2], "texts"), 0));
    for (int i = 0; i < 3; i++) {
        json_decref(found[i]);
    }
}

/* Also where the text becomes longer than the context. */
static void test_without_cache(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        json_t *with =
            generate(CLI_WORDS_OF("--prompt", "some words", "--context", i ? "11" : "32"));
        json_t *without = generate(
            CLI_WORDS_OF("--prompt", "some words", "--no-cache", "--context", i ? "11" : "32"));
        expect_same(with, without);
        json_decref(with);
        json_decref(without);
    }
}

/* By heart: what is answered to what, and what is answered then. */
static void train_chat(void)
{
    cli_write(
        "chats.jsonl",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"ab\"}, {\"role\": \"assistant\", "
        "\"content\": \"cde\"}, {\"role\": \"user\", \"content\": \"f\"}, {\"role\": "
        "\"assistant\", \"content\": \"gh\"}]}\n");
    cli_run_well(0, CLI_WORDS_OF("tokenize", "--tokenizer", "byte", "--format", "chat",
                                 "--template", "plain", "--out", "chats", "chats.jsonl"));
    cli_run_well(0,
                 CLI_WORDS_OF("train", "c.yaml", "run_dir=chat", "data.train=chats/train_*.bin",
                              "data.valid=", "model.max_position=64", "data.sequence_length=30",
                              "train.steps=120", "train.learning_rate=1e-2", "checkpoint.every=0"));
}

static struct process_result talk_by(const char *script, const char *const *more)
{
    const char *words[CLI_WORDS] = {"generate", "chat", "--chat", "--temperature", "0"};
    for (size_t i = 0; more[i]; i++) {
        words[5 + i] = more[i];
    }
    cli_write("with_lines", script);
    assert_int_equal(chmod("with_lines", 0700), 0);
    cli_set_wrapper("./with_lines");
    struct process_result result = run(words);
    cli_set_wrapper(NULL);
    return result;
}

/* seconds: "0", or how long the user thinks. */
static struct process_result talk_slowly(const char *seconds, const char *lines,
                                         const char *const *more)
{
    char script[128];
    (void)snprintf(script, sizeof(script), "#!/bin/sh\n(sleep %s; cat lines) | \"$@\"\n", seconds);
    cli_write("lines", lines);
    return talk_by(script, more);
}

static struct process_result talk(const char *lines, const char *const *more)
{
    return talk_slowly("0", lines, more);
}

static void test_chat(void **state)
{
    (void)state;
    train_chat();
    struct process_result result = talk("ab\n\nf\r\n", CLI_WORDS_OF("--template", "plain"));
    assert_string_equal(result.out, "cde\ngh\n");
    assert_int_equal(cli_count(result.err, "wrote "), 1);
    cli_expect_status(&result, 0);
    result =
        talk_slowly("3", "ab\n", CLI_WORDS_OF("--template", "plain", "comm.timeout_seconds=1"));
    assert_string_equal(result.out, "cde\n");
    cli_expect_status(&result, 0);
    result = talk("", CLI_WORDS_OF("--template", "plain"));
    assert_string_equal(result.out, "");
    cli_expect_status(&result, 0);
    result = talk_by("#!/bin/sh\nexec \"$@\" <.\n", CLI_WORDS_OF("--template", "plain"));
    cli_expect_error(&result, cli_ranks(), 3, "standard input: cannot read: Is a directory");
    result = talk_by("#!/bin/sh\nexec \"$@\" </dev/zero\n", CLI_WORDS_OF("--template", "plain"));
    cli_expect_error(&result, cli_ranks(), 2, "standard input: a line of more than 16777216 bytes");
    /* An answer is cut where the context ends; a turn that has no room for one is refused. */
    result = talk("ab\nf\n", CLI_WORDS_OF("--template", "plain", "--context", "39"));
    assert_string_equal(result.out, "cde\n");
    cli_expect_error(&result, cli_ranks(), 2,
                     "chat: its 42 tokens leave no room for an answer in a context of 39");
    result = run(CLI_WORDS_OF("generate", "chat", "--chat", "--template", "plain", "--prompt", "ab",
                              "--temperature", "0"));
    assert_string_equal(result.out, "cde\n");
    cli_expect_status(&result, 0);
}

/* The conversations of a file, each up to the answer that it has. */
static void test_chats_of_a_file(void **state)
{
    (void)state;
    cli_write("asked.jsonl", "{\"prompt\": \"ab\"}\n");
    for (int i = 0; i < 2; i++) {
        struct process_result result =
            run(CLI_WORDS_OF("generate", "chat", "--chat", "--template", "plain", "--prompts",
                             i ? "chats.jsonl" : "asked.jsonl", "--temperature", "0", "--json"));
        assert_int_equal(cli_count(result.err, "1 of 1 chats end with the assistant's words"), i);
        json_t *root = cli_expect_json(&result, 0);
        json_t *text = json_object_get(json_array_get(json_object_get(root, "texts"), 0), "text");
        assert_string_equal(json_string_value(text), i ? "gh" : "cde");
        json_decref(root);
    }
}

static double number_of(json_t *root, const char *name)
{
    json_t *found = json_object_get(root, name);
    assert_non_null(found);
    return json_number_value(found);
}

/* A model of router dense with some of its experts: how much they work is told, all of them give
 * what dense use gives, and options that say nothing of it are refused. */
static void test_active(void **state)
{
    (void)state;
    static const char *const ways[][3] = {{"--active", "4"},
                                          {"--active-threshold", "0"},
                                          {"--active-average", "0"},
                                          {"--active", "1"},
                                          {"--active"},
                                          {"--active=2"}};
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=all", "moe.router=dense",
                                 "moe.mutual_information=0.01", "train.steps=3"));
    struct process_result plain = run(CLI_WORDS_OF("eval", "all", "--json"));
    json_t *dense = cli_expect_json(&plain, 0);
    assert_null(json_object_get(dense, "expert_share"));
    for (int i = 0; i < 6; i++) {
        struct process_result result =
            run(CLI_WORDS_OF("eval", "all", "--json", ways[i][0], ways[i][1]));
        json_t *sparse = cli_expect_json(&result, 0);
        double share = number_of(sparse, "expert_share");
        assert_true(share == (i < 3 ? 1.0 : i == 3 ? 0.25 : 0.5));
        assert_true((number_of(sparse, "loss") == number_of(dense, "loss")) == (i < 3));
        json_decref(sparse);
    }
    json_decref(dense);
    struct process_result text =
        run(CLI_WORDS_OF("generate", "all", "--json", "--tokens", "4", "--active", "1"));
    json_t *generated = cli_expect_json(&text, 0);
    assert_true(number_of(generated, "expert_share") == 0.25);
    json_decref(generated);
    static const struct {
        const char *words[6], *says;
    } bad[] = {
        {{"eval", "all", "--active", "5"}, "--active': found '5', expected an integer from 1 to 4"},
        {{"eval", "all", "--active", "--active-average", "1"}, "found --active with"},
        {{"generate", "all", "--active-threshold", "-1"}, "expected a number from 0 to 4"},
        {{"eval", "run", "--active"}, "trained with moe.router dense, found top_k"},
        {{"export", "all", "x"}, "has this moe.router: this model cannot be exported"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        const char *words[CLI_WORDS] = {NULL};
        memcpy(words, bad[i].words, sizeof(bad[i].words));
        struct process_result result = run(words);
        cli_expect_error(&result, cli_ranks(), 2, bad[i].says);
    }
}

/* A run that sharpens is evaluated as --active does; dense use of it is, and is said to be, another
 * thing than it was trained for. */
static void test_sharpened(void **state)
{
    (void)state;
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml", "run_dir=sharp", "moe.router=dense",
                                 "moe.sharpen_step=2", "train.steps=3", "eval.every=1",
                                 "reproducible=true"));
    json_t *lines = cli_metrics("sharp");
    json_t *last = json_array_get(lines, json_array_size(lines) - 1);
    for (int sparse = 0; sparse < 2; sparse++) {
        struct process_result result =
            run(CLI_WORDS_OF("eval", "sharp", "--json", sparse ? "--active" : NULL));
        assert_int_equal(cli_count(result.err, "from step 2 on it was trained for 2 of a token"),
                         !sparse);
        json_t *found = cli_expect_json(&result, 0);
        assert_true((number_of(found, "loss") == number_of(last, "valid_loss")) == sparse);
        json_decref(found);
    }
    json_decref(lines);
}

static void test_refused(void **state)
{
    (void)state;
    static const struct {
        const char *words[6];
        const char *says;
    } bad[] = {
        {{"--prompt", "thirty-three letters are too many"},
         "--prompt: found 33 tokens, expected at most 32"},
        {{"--prompt", "abc", "--context", "2"}, "found 3 tokens, expected at most 2"},
        {{"--context", "33"}, "--context"},
        {{"--prompts", "nothing.txt"}, "nothing.txt"},
        {{"--prompts", "no\033such\nfile"}, "no such file: "},
        {{"--prompts", "blank.txt"}, "blank.txt: has no prompts"},
        {{"--prompts", "bad.jsonl"}, "bad.jsonl:2: column 10"},
        {{"--prompts", "none.jsonl"}, "none.jsonl:1: found neither, expected prompt"},
        {{"--prompts", "talk.jsonl"}, "talk.jsonl:1: found messages, expected --chat"},
        {{"--prompts", "long.txt"}, "long.txt: prompt 2: found 33 tokens, expected at most 32"},
        {{"--prompts", "long.txt", "--prompt", "a"}, "found --prompt with --prompts"},
        {{"--prompts", "long.txt", "--ids"}, "found --ids with --prompts"},
        {{"--batch", "2"}, "found --batch without --prompts"},
        {{"--template", "plain"}, "found --template without --chat"},
        {{"--system", "s"}, "found --system without --chat"},
        {{"--chat", "--json"}, "found --json with a --chat turn by turn"},
        {{"--chat"}, "has no chat template; expected --template chatml"},
        {{"--chat", "--template", "other"}, "template 'other': expected chatml"},
    };
    cli_write("blank.txt", "\n  \n");
    cli_write("bad.jsonl", "{\"prompt\": \"a\"}\n{\"text\": a}\n");
    cli_write("none.jsonl", "{\"words\": \"a\"}\n");
    cli_write("talk.jsonl", "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}]}\n");
    cli_write("long.txt", "a\nthirty-three letters are too many\n");
    size_t step = cli_ranks() ? 3 : 1;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i += step) {
        const char *words[CLI_WORDS] = {"generate", "run"};
        memcpy(words + 2, bad[i].words, sizeof(bad[i].words));
        struct process_result result = run(words);
        assert_string_equal(result.out, "");
        cli_expect_error(&result, cli_ranks(), 2, bad[i].says);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_several),       cmocka_unit_test(test_without_cache),
        cmocka_unit_test(test_expert_choice), cmocka_unit_test(test_dynamic_rope),
        cmocka_unit_test(test_chat),          cmocka_unit_test(test_chats_of_a_file),
        cmocka_unit_test(test_refused),       cmocka_unit_test(test_active),
        cmocka_unit_test(test_sharpened),
    };
    cli_begin("generate", argc, argv);
    cli_run_well(0, CLI_WORDS_OF("train", "c.yaml"));
    int status = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return status;
}
