/* A tokenizer that is learned: the merges that the trainer of the tokenizers package recorded, and
 * its files. */
#include "files.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/bpe_train.h"
#include "data/tokenize.h"
#include "data/tokenizer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct tri_bpe_trainer *create(void)
{
    struct tri_error error = {0};
    struct tri_bpe_trainer *trainer;
    assert_int_equal(tri_bpe_trainer_create(&trainer, &error), TRI_OK);
    return trainer;
}

static void add(struct tri_bpe_trainer *trainer, bool begins, const char *text, size_t bytes)
{
    struct tri_error error = {0};
    if (tri_bpe_trainer_add(trainer, begins, (const unsigned char *)text, bytes, &error) !=
        TRI_OK) {
        fail_msg("%s", error.message);
    }
}

static void finish(struct tri_bpe_trainer *trainer, int64_t size)
{
    struct tri_error error = {0};
    if (tri_bpe_trainer_finish(trainer, size, ".", &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    tri_bpe_trainer_destroy(trainer);
}

/* The texts of the recorded lines, each by itself. */
static void add_recorded(struct tri_bpe_trainer *trainer)
{
    FILE *file = fopen(TESTDATA_DIR "/golden/tokenizers/gpt2/ids.jsonl", "r");
    char *line = NULL;
    size_t room = 0;
    assert_non_null(file);
    while (getline(&line, &room, file) > 0) {
        json_t *record = json_loads(line, JSON_ALLOW_NUL, NULL);
        const json_t *text = json_object_get(record, "text");
        add(trainer, true, json_string_value(text), json_string_length(text));
        json_decref(record);
    }
    free(line);
    (void)fclose(file);
}

static json_t *load_model(const char *path)
{
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    json_t *model = json_incref(json_object_get(root, "model"));
    json_decref(root);
    return model;
}

static void merges_are_the_recorded_ones(void **state)
{
    (void)state;
    files_enter("tokenizer_trained");
    json_t *recorded = json_load_file(TESTDATA_DIR "/golden/tokenizers/trained.json", 0, NULL);
    assert_non_null(recorded);
    size_t tokens = json_object_size(json_object_get(recorded, "vocab"));
    struct tri_bpe_trainer *trainer = create();
    add_recorded(trainer);
    finish(trainer, (int64_t)tokens + 1);
    json_t *model = load_model("tokenizer.json");
    const json_t *mine = json_object_get(model, "merges");
    const json_t *theirs = json_object_get(recorded, "merges");
    assert_true(json_array_size(theirs) > 1000);
    assert_int_equal(json_array_size(mine), json_array_size(theirs));
    for (size_t i = 0; i < json_array_size(mine); i++) {
        if (!json_equal(json_array_get(mine, i), json_array_get(theirs, i))) {
            fail_msg("merge %zu is another one: %s, recorded %s", i,
                     json_string_value(json_array_get(json_array_get(mine, i), 0)),
                     json_string_value(json_array_get(json_array_get(theirs, i), 0)));
        }
    }
    assert_true(json_equal(json_object_get(model, "vocab"), json_object_get(recorded, "vocab")));
    json_decref(model);
    json_decref(recorded);
}

/* What it learns is what it uses; parts of a document are one text. */
static void a_learned_tokenizer_reads_its_text(void **state)
{
    (void)state;
    static const char text[] = "low lower lowest \xff new newer newest; low low newest\n";
    struct tri_error error = {0};
    struct tri_tokenizer *tokenizer;
    int32_t *tokens;
    int64_t count;
    char back[sizeof(text)];
    files_enter("tokenizer_learned");
    struct tri_bpe_trainer *trainer = create();
    for (size_t i = 0; i < sizeof(text) - 1; i++) {
        add(trainer, i == 0, text + i, 1);
    }
    finish(trainer, 270);
    assert_int_equal(tri_tokenizer_create(".", &tokenizer, &error), TRI_OK);
    assert_int_equal(tokenizer->vocab_size, 270);
    assert_int_equal(tri_tokenizer_find_special(tokenizer, "<|endoftext|>"), 269);
    assert_int_equal(
        tri_tokenizer_encode(tokenizer, text, sizeof(text) - 1, &tokens, &count, &error), TRI_OK);
    assert_in_range(count, 5, 35);
    assert_int_equal(tri_tokenizer_decode(tokenizer, tokens, count, back, sizeof(back)),
                     sizeof(text) - 1);
    assert_memory_equal(back, text, sizeof(text) - 1);
    tri_free(tokens);
    tri_tokenizer_destroy(tokenizer);
}

/* Its merges too, however long. */
static void a_long_word_is_learned_and_read(void **state)
{
    (void)state;
    enum { LONG = 1 << 14 };
    struct tri_error error = {0};
    struct tri_tokenizer *tokenizer;
    int32_t *tokens;
    int64_t count;
    files_enter("tokenizer_long");
    char *text = tri_alloc(TRI_MEMORY_OTHER, LONG);
    memset(text, 'x', LONG);
    struct tri_bpe_trainer *trainer = create();
    add(trainer, true, text, LONG);
    finish(trainer, 257 + 13);
    assert_int_equal(tri_tokenizer_create(".", &tokenizer, &error), TRI_OK);
    assert_int_equal(tri_tokenizer_encode(tokenizer, text, LONG, &tokens, &count, &error), TRI_OK);
    assert_int_equal(count, 2);
    tri_free(tokens);
    tri_free(text);
    tri_tokenizer_destroy(tokenizer);
}

static void tokenize_learns_and_keeps_its_tokenizer(void **state)
{
    (void)state;
    struct tri_error error = {0};
    struct tri_tokenize_result result;
    static char *files[] = {"text.txt"};
    files_enter("tokenizer_kept");
    for (int i = 0; i < 2; i++) {
        files_write("text.txt", "a rose is a rose is a rose", 26);
        struct tri_tokenize_args args = {
            .folder = "out", .num_files = 1, .files = files, .separator = -1, .train_vocab = 260};
        if (tri_tokenize_files(&args, &result, &error) != TRI_OK) {
            fail_msg("%s", error.message);
        }
        assert_int_equal(result.vocab_size, 260);
        assert_in_range(result.train_tokens, 5, 25);
        assert_true(tri_file_exists("out/tokenizer/tokenizer.json"));
        assert_false(tri_file_exists("out/learned.trident.tmp"));
        args.tokenizer = "out";
        args.train_vocab = 0;
        int64_t before = result.train_tokens;
        assert_int_equal(tri_tokenize_files(&args, &result, &error), TRI_OK);
        assert_int_equal(result.train_tokens, before);
        assert_true(tri_file_exists("out/tokenizer/tokenizer.json"));
        args.tokenizer = "byte";
        assert_int_equal(tri_tokenize_files(&args, &result, &error), TRI_OK);
        assert_false(tri_file_exists("out/tokenizer"));
    }
    /* One that somebody has put there himself is not lost; of no use, it is not looked at. */
    char *words[] = {"out/tokenizer/tokenizer.json", "out/tokenizer/notes"};
    for (int i = 0; i < 2; i++) {
        struct tri_tokenize_args own = {
            .tokenizer = "byte", .folder = "out", .num_files = 1, .files = files, .separator = -1};
        assert_int_equal(tri_file_remove_tree("out/tokenizer", &error), TRI_OK);
        assert_int_equal(tri_file_make_dirs("out/tokenizer", &error), TRI_OK);
        files_write(words[i], "mine", 4);
        assert_int_equal(tri_tokenize_files(&own, &result, &error), i ? TRI_OK : TRI_BAD_INPUT);
        assert_true(tri_file_exists(words[i]));
        own.tokenizer = NULL;
        own.train_vocab = 260;
        assert_int_equal(tri_tokenize_files(&own, &result, &error), TRI_BAD_INPUT);
        files_expect_line(&error, "out/tokenizer", "somebody's own", NULL);
        assert_true(tri_file_exists(words[i]));
    }
    struct tri_tokenize_args args = {
        .folder = "out", .num_files = 1, .files = files, .separator = -1, .train_vocab = 256};
    assert_int_equal(tri_tokenize_files(&args, &result, &error), TRI_BAD_INPUT);
    files_expect_line(&error, "vocabulary of 256", "expected 257", NULL);
}

/* ---- token by token -------------------------------------------------------------------------- */

static void characters_are_shown_whole(void **state)
{
    (void)state;
    static const unsigned char text[] = "a\xc3\xa9\xe4\xbd\xa0\xf0\x9f\x98\x80\xff"
                                        "b\xe4\xbd"
                                        "c\xf0";
    static const size_t shown[] = {1, 0, 2, 0, 0, 3, 0, 0, 0, 4, 1, 1, 0, 0, 3, 0};
    struct tri_error error = {0};
    struct tri_tokenizer *tokenizer;
    struct tri_token_stream stream = {0};
    assert_int_equal(tri_tokenizer_create("byte", &tokenizer, &error), TRI_OK);
    size_t at = 0;
    size_t bytes;
    const unsigned char *part;
    for (size_t i = 0; i < sizeof(text) - 1; i++) {
        part = tri_token_stream_add(&stream, tokenizer, text[i], &bytes);
        assert_int_equal(bytes, shown[i]);
        if (bytes > 0) {
            assert_memory_equal(part, text + at, bytes);
        }
        at += bytes;
    }
    part = tri_token_stream_end(&stream, &bytes);
    assert_int_equal(bytes, 1);
    assert_int_equal(part[0], 0xf0);
    tri_token_stream_fini(&stream);
    tri_tokenizer_destroy(tokenizer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_are_the_recorded_ones),
        cmocka_unit_test(a_learned_tokenizer_reads_its_text),
        cmocka_unit_test(a_long_word_is_learned_and_read),
        cmocka_unit_test(tokenize_learns_and_keeps_its_tokenizer),
        cmocka_unit_test(characters_are_shown_whole),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
