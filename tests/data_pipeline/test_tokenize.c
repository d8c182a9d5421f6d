#include "files.h"

#include "base/file.h"
#include "base/memory.h"
#include "data/shards.h"
#include "data/tokenize.h"
#include "data/tokenizer.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct tri_tokenize_result tokenize(const struct tri_tokenize_args *args)
{
    struct tri_error error = {0};
    struct tri_tokenize_result result;
    if (tri_tokenize_files(args, &result, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return result;
}

static struct tri_error refuse(const struct tri_tokenize_args *args)
{
    struct tri_error error = {0};
    struct tri_tokenize_result result;
    assert_int_equal(tri_tokenize_files(args, &result, &error), TRI_BAD_INPUT);
    return error;
}

/* The tokens of a set appended to out; returns how many. */
static int64_t read_set(const char *pattern, int64_t vocab, int32_t *out)
{
    struct tri_error error = {0};
    struct tri_tokens *tokens;
    if (tri_tokens_create(pattern, TRI_DATA_LLMC, vocab, &tokens, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    int64_t count = tri_tokens_count(tokens);
    assert_int_equal(tri_tokens_read(tokens, 0, count, out, &error), TRI_OK);
    tri_tokens_destroy(tokens);
    return count;
}

enum { A_BYTES = 3000, B_BYTES = 777 };
static unsigned char text_a[A_BYTES], text_b[B_BYTES];
static char *both[] = {"a.txt", "b.txt"};

static void write_inputs(const char *folder)
{
    files_enter(folder);
    for (int i = 0; i < A_BYTES; i++) {
        text_a[i] = (unsigned char)(i * 37 + i / 256);
    }
    for (int i = 0; i < B_BYTES; i++) {
        text_b[i] = (unsigned char)(255 - i % 251);
    }
    files_write("a.txt", text_a, A_BYTES);
    files_write("b.txt", text_b, B_BYTES);
}

static void expect_bytes(const int32_t *tokens, const unsigned char *text, int64_t count)
{
    for (int64_t i = 0; i < count; i++) {
        assert_int_equal(tokens[i], text[i]);
    }
}

/* ---- round trips ----------------------------------------------------------------------------- */

static void files_come_back_joined_with_their_last_part_apart(void **state)
{
    (void)state;
    write_inputs("tokenize_joined");
    struct tri_tokenize_result result = tokenize(&(struct tri_tokenize_args){
        "byte", "out/deep", 2, both, 0.1, -1, 0, TRI_FORMAT_GUESS, NULL, 0});
    assert_int_equal(result.bytes, A_BYTES + B_BYTES);
    assert_int_equal(result.vocab_size, 256);
    assert_int_equal(result.train_tokens, 3399); /* floor(3777 * 0.9) */
    assert_int_equal(result.valid_tokens, 378);
    assert_int_equal(result.train_shards, 1);
    assert_int_equal(result.valid_shards, 1);
    int32_t tokens[A_BYTES + B_BYTES];
    assert_int_equal(read_set("out/deep/train_*.bin", 256, tokens), 3399);
    assert_int_equal(read_set("out/deep/valid_*.bin", 256, tokens + 3399), 378);
    expect_bytes(tokens, text_a, A_BYTES);
    expect_bytes(tokens + A_BYTES, text_b, B_BYTES);
    assert_true(tri_file_exists("out/deep/train_000000.bin"));
    assert_true(tri_file_exists("out/deep/valid_000000.bin"));
    assert_false(tri_file_exists("out/deep/tokenize.trident.tmp"));
}

static void a_separator_goes_between_files_only(void **state)
{
    (void)state;
    write_inputs("tokenize_separator");
    static const int64_t separators[] = {0, 10, 255, 256, 65535};
    for (size_t i = 0; i < sizeof(separators) / sizeof(*separators); i++) {
        int64_t separator = separators[i];
        int64_t vocab = separator < 256 ? 256 : separator + 1;
        struct tri_tokenize_result result = tokenize(&(struct tri_tokenize_args){
            "byte", "out", 2, both, 0.0, separator, 0, TRI_FORMAT_GUESS, NULL, 0});
        assert_int_equal(result.vocab_size, vocab);
        assert_int_equal(result.train_tokens, A_BYTES + B_BYTES + 1);
        assert_int_equal(result.valid_tokens, 0);
        assert_int_equal(result.valid_shards, 0);
        int32_t tokens[A_BYTES + B_BYTES + 1];
        assert_int_equal(read_set("out/train_*.bin", vocab, tokens), A_BYTES + B_BYTES + 1);
        expect_bytes(tokens, text_a, A_BYTES);
        assert_int_equal(tokens[A_BYTES], separator);
        expect_bytes(tokens + A_BYTES + 1, text_b, B_BYTES);
    }
    struct tri_tokenize_result one = tokenize(&(struct tri_tokenize_args){
        "byte", "out", 1, both, 0.0, 256, 0, TRI_FORMAT_GUESS, NULL, 0});
    assert_int_equal(one.train_tokens, A_BYTES);
}

static void a_stream_is_cut_into_shards(void **state)
{
    (void)state;
    write_inputs("tokenize_shards");
    int32_t tokens[A_BYTES + B_BYTES];
    struct tri_tokenize_args args = {"byte",           "out", 2, both, 0.5, -1, 100,
                                     TRI_FORMAT_GUESS, NULL,  0};
    struct tri_tokenize_result result = tokenize(&args);
    assert_int_equal(result.train_tokens, 1888);
    assert_int_equal(result.train_shards, 19);
    assert_int_equal(result.valid_shards, 19);
    assert_int_equal(read_set("out/train_*.bin", 256, tokens), 1888);
    assert_int_equal(read_set("out/valid_*.bin", 256, tokens + 1888), 1889);
    expect_bytes(tokens, text_a, A_BYTES);
    expect_bytes(tokens + A_BYTES, text_b, B_BYTES);
    assert_int_equal(read_set("out/train_000018.bin", 256, tokens), 88);

    /* Fewer shards the second time: none of the first may stay behind; other files do. */
    files_write("out/train_notes.bin", "x", 1);
    files_write("out/train_1.bin", "x", 1);
    args.per_shard = 1000;
    args.valid = 0.0;
    result = tokenize(&args);
    assert_int_equal(result.train_shards, 4);
    assert_int_equal(read_set("out/train_0*.bin", 256, tokens), A_BYTES + B_BYTES);
    assert_false(tri_file_exists("out/train_000004.bin"));
    assert_false(tri_file_exists("out/valid_000000.bin"));
    assert_true(tri_file_exists("out/train_notes.bin"));
    assert_true(tri_file_exists("out/train_1.bin"));
}

static void the_split_is_what_the_fraction_says(void **state)
{
    (void)state;
    files_enter("tokenize_split");
    char *file[] = {"ten.txt"};
    files_write("ten.txt", "0123456789", 10);
    for (int tenths = 1; tenths <= 9; tenths++) {
        struct tri_tokenize_result result = tokenize(&(struct tri_tokenize_args){
            "byte", "out", 1, file, tenths / 10.0, -1, 0, TRI_FORMAT_GUESS, NULL, 0});
        assert_int_equal(result.valid_tokens, tenths);
        assert_int_equal(result.train_tokens, 10 - tenths);
    }
    /* The validation side is rounded up, so it exists whenever it is asked for. */
    struct tri_tokenize_result result = tokenize(&(struct tri_tokenize_args){
        "byte", "out", 1, file, 0.01, -1, 0, TRI_FORMAT_GUESS, NULL, 0});
    assert_int_equal(result.valid_tokens, 1);
    struct tri_error error = refuse(&(struct tri_tokenize_args){"byte", "out", 1, file, 0.99, -1, 0,
                                                                TRI_FORMAT_GUESS, NULL, 0});
    files_expect_line(&error, "10 tokens are too few", "0.99", NULL);
}

static void tiny_shakespeare_splits_as_nanogpt_s_script_does(void **state)
{
    (void)state;
    files_enter("tokenize_shakespeare");
    char *file[] = {TRIDENT_SOURCE_DIR "/examples/data/tinyshakespeare.txt"};
    struct tri_tokenize_result result = tokenize(
        &(struct tri_tokenize_args){"byte", "out", 1, file, 0.1, -1, 0, TRI_FORMAT_GUESS, NULL, 0});
    assert_int_equal(result.train_tokens, 1003854);
    assert_int_equal(result.valid_tokens, 111540);
}

/* ---- refusals -------------------------------------------------------------------------------- */

static void wrong_arguments_give_one_line_each(void **state)
{
    (void)state;
    write_inputs("tokenize_wrong");
    const struct tri_tokenize_args good = {"byte",           "out", 2, both, 0.1, -1, 0,
                                           TRI_FORMAT_GUESS, NULL,  0};
    struct tri_tokenize_args args = good;
    args.num_files = 0;
    struct tri_error error = refuse(&args);
    files_expect_line(&error, "no files given", NULL);
    args = good;
    args.tokenizer = "tokenizer.json";
    error = refuse(&args);
    files_expect_line(&error, "tokenizer.json", "expected byte", NULL);
    static const double fractions[] = {-0.1, 1.0, 2.0, (double)NAN, (double)INFINITY};
    for (size_t i = 0; i < sizeof(fractions) / sizeof(*fractions); i++) {
        args = good;
        args.valid = fractions[i];
        error = refuse(&args);
        files_expect_line(&error, "fraction", "below 1", NULL);
    }
    static const int64_t separators[] = {-2, 65536, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < sizeof(separators) / sizeof(*separators); i++) {
        args = good;
        args.separator = separators[i];
        error = refuse(&args);
        files_expect_line(&error, "separator", "expected 0 to 65535", NULL);
    }
    args = good;
    args.template = "chatml"; /* and the files are a.txt and b.txt */
    error = refuse(&args);
    files_expect_line(&error, "found --template, but files that are read as plain text", NULL);
    args = good;
    args.per_shard = -1;
    error = refuse(&args);
    files_expect_line(&error, "-1 tokens to a shard", NULL);
    args.per_shard = (int64_t)1 << 31;
    error = refuse(&args);
    files_expect_line(&error, "2147483648 tokens to a shard", NULL);
    assert_false(tri_file_exists("out"));
}

static void wrong_inputs_give_one_line_each(void **state)
{
    (void)state;
    write_inputs("tokenize_inputs");
    char *files[] = {"a.txt", "missing.txt"};
    struct tri_tokenize_args args = {"byte",           "out", 2, files, 0.1, -1, 0,
                                     TRI_FORMAT_GUESS, NULL,  0};
    struct tri_error error = refuse(&args);
    files_expect_line(&error, "missing.txt", "No such file", NULL);
    files_write("missing.txt", "", 0);
    error = refuse(&args);
    files_expect_line(&error, "missing.txt: is empty", NULL);
    files[1] = ".";
    error = refuse(&args);
    files_expect_line(&error, "Is a directory", NULL);
    files[1] = "b.txt";
    assert_int_equal(setenv("TRIDENT_FILE_FAULT", "open:EACCES:b.txt", 1), 0);
    error = refuse(&args);
    assert_int_equal(unsetenv("TRIDENT_FILE_FAULT"), 0);
    files_expect_line(&error, "b.txt", "Permission denied", NULL);
    assert_false(tri_file_exists("out"));
    args.folder = "a.txt";
    error = refuse(&args);
    files_expect_line(&error, "a.txt", "there is a file of that name", NULL);
}

/* What people have: others' keys, null, a template of a family that is not known here. */
static void chats_of_others_are_named(void **state)
{
    (void)state;
    static const char shared[] = "{\"conversations\":[{\"from\":\"human\",\"value\":\"a\"}]}\n";
    static const char null[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"a\"},"
                               "{\"role\":\"assistant\",\"content\":null}]}\n";
    char *files[] = {"a.jsonl"};
    struct tri_tokenize_args args = {.tokenizer = "byte",
                                     .folder = "out",
                                     .num_files = 1,
                                     .files = files,
                                     .separator = -1,
                                     .template = "plain"};
    files_enter("tokenize_others");
    for (int i = 0; i < 3; i++) {
        static const enum tri_format formats[] = {TRI_FORMAT_GUESS, TRI_FORMAT_JSONL,
                                                  TRI_FORMAT_CHAT};
        args.format = formats[i];
        files_write("a.jsonl", shared, sizeof(shared) - 1);
        struct tri_error error = refuse(&args);
        files_expect_line(&error, "a.jsonl:1: found conversations", "expected messages", NULL);
    }
    files_write("a.jsonl", null, sizeof(null) - 1);
    struct tri_error error = refuse(&args);
    files_expect_line(&error, "a.jsonl:1: messages[1].content: found null", "a string", NULL);
    size_t bytes;
    unsigned char *json = files_read(TESTDATA_DIR "/golden/tokenizers/gpt2/tokenizer.json", &bytes);
    files_write("tokenizer.json", json, bytes);
    files_write("chat_template.jinja", "{{ messages }}", 14);
    tri_free(json);
    args.tokenizer = ".";
    args.template = NULL;
    args.format = TRI_FORMAT_GUESS;
    error = refuse(&args);
    files_expect_line(&error, "a.jsonl: holds chats", "template in the tokenizer's folder",
                      "--template", NULL);
}

static void a_full_disk_leaves_the_old_shards_whole(void **state)
{
    (void)state;
    write_inputs("tokenize_full");
    struct tri_tokenize_args args = {"byte",           "out", 1, both, 0.1, -1, 1000,
                                     TRI_FORMAT_GUESS, NULL,  0};
    (void)tokenize(&args);
    static const char *const faults[] = {
        "write:ENOSPC:train_000001", "write:ENOSPC:valid_000000:2000", "open:EACCES:train_000001",
        "sync:EIO:valid_000000", "rename:EIO:tokenize.trident.tmp/train_000001"};
    args.num_files = 2;
    args.valid = 0.5;
    for (size_t i = 0; i < sizeof(faults) / sizeof(*faults); i++) {
        struct tri_error error = {0};
        struct tri_tokenize_result result;
        assert_int_equal(setenv("TRIDENT_FILE_FAULT", faults[i], 1), 0);
        enum tri_status status = tri_tokenize_files(&args, &result, &error);
        assert_int_equal(unsetenv("TRIDENT_FILE_FAULT"), 0);
        assert_int_equal(status, TRI_FAILED);
        assert_null(strchr(error.message, '\n'));
        assert_false(tri_file_exists("out/tokenize.trident.tmp"));
        int32_t tokens[A_BYTES];
        assert_int_equal(read_set("out/train_*.bin", 256, tokens), 2700);
        assert_int_equal(read_set("out/valid_*.bin", 256, tokens + 2700), 300);
        expect_bytes(tokens, text_a, A_BYTES);
    }
    /* Whole new ones stay, wherever they are, once the old ones are gone or cannot be found. */
    struct tri_error error = {0};
    struct tri_tokenize_result result;
    assert_int_equal(setenv("TRIDENT_FILE_FAULT", "list:EIO:out", 1), 0);
    assert_int_equal(tri_tokenize_files(&args, &result, &error), TRI_FAILED);
    assert_int_equal(error.status, TRI_FAILED);
    assert_non_null(strstr(error.message, "out: cannot list: Input/output error"));
    assert_int_equal(setenv("TRIDENT_FILE_FAULT", "rename:EIO:out/train_000001", 1), 0);
    assert_int_equal(tri_tokenize_files(&args, &result, &error), TRI_FAILED);
    assert_int_equal(unsetenv("TRIDENT_FILE_FAULT"), 0);
    assert_non_null(strstr(error.message, "not in place are in out/tokenize.trident.tmp"));
    assert_true(tri_file_exists("out/train_000000.bin"));
    assert_true(tri_file_exists("out/tokenize.trident.tmp/train_000001.bin"));
}

static char *read_file(const char *path)
{
    size_t bytes;
    unsigned char *data = files_read(path, &bytes);
    char *text = tri_alloc(TRI_MEMORY_OTHER, bytes + 1);
    memcpy(text, data, bytes);
    tri_free(data);
    return text;
}

static void expect_same_text(const char *left, const char *right, bool same)
{
    char *a = read_file(left), *b = read_file(right);
    assert_int_equal(strcmp(a, b) == 0, same);
    tri_free(a);
    tri_free(b);
}

/* Where a tokenizer is, the shards are its own. */
static void shards_and_tokenizer_change_together(void **state)
{
    (void)state;
    static const char gpt2[] = TESTDATA_DIR "/golden/tokenizers/gpt2";
    static const char qwen2[] = TESTDATA_DIR "/golden/tokenizers/qwen2";
    static const char kept[] = "out/tokenizer/tokenizer.json";
    static const struct {
        const char *fault, *says;
        bool old_stays;
    } cases[] = {
        {"write:ENOSPC:out/tokenizer.trident.tmp", "No space left", true},
        {"rename:EIO:out/tokenizer.old", "out/tokenizer", true},
        {"rename:EIO:out/tokenizer.trident.tmp", "tokenizer.json", true},
        {"rename:EIO:out/train_000000", "tokenizer are in out/tokenizer.trident.tmp", false}};
    write_inputs("tokenize_together");
    struct tri_tokenize_args args = {gpt2, "out", 1, both, 0.0, -1, 0, TRI_FORMAT_TEXT, NULL, 0};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct tri_error error = {0};
        struct tri_tokenize_result result;
        args.tokenizer = gpt2;
        (void)tokenize(&args);
        char *before = read_file("out/train_000000.bin");
        args.tokenizer = qwen2;
        assert_int_equal(setenv("TRIDENT_FILE_FAULT", cases[i].fault, 1), 0);
        assert_int_equal(tri_tokenize_files(&args, &result, &error), TRI_FAILED);
        assert_int_equal(unsetenv("TRIDENT_FILE_FAULT"), 0);
        if (!strstr(error.message, cases[i].says)) {
            fail_msg("%s: %s", cases[i].fault, error.message);
        }
        assert_int_equal(tri_file_exists(kept), cases[i].old_stays);
        assert_int_equal(tri_file_exists("out/tokenize.trident.tmp"), !cases[i].old_stays);
        assert_int_equal(tri_file_exists("out/tokenizer.trident.tmp"), !cases[i].old_stays);
        if (cases[i].old_stays) {
            expect_same_text(kept, TESTDATA_DIR "/golden/tokenizers/gpt2/tokenizer.json", true);
            char *after = read_file("out/train_000000.bin");
            assert_string_equal(before, after);
            tri_free(after);
        }
        tri_free(before);
    }
    (void)tokenize(&args);
    expect_same_text(kept, TESTDATA_DIR "/golden/tokenizers/qwen2/tokenizer.json", true);
    assert_false(tri_file_exists("out/tokenizer.trident.tmp"));
    assert_false(tri_file_exists("out/tokenizer.old.trident.tmp"));
}

/* ---- the tokenizer --------------------------------------------------------------------------- */

/* One at a time works in a folder; what it refuses leaves it as it was. */
static void two_do_not_write_into_one_folder(void **state)
{
    (void)state;
    const struct tri_tokenize_args args = {
        .tokenizer = "byte", .folder = "busy", .files = both, .num_files = 2, .separator = -1};
    struct tri_tokenize_result result;
    struct tri_error error = {0};
    int code;
    write_inputs("tokenize_busy");
    tokenize(&args);
    int folder = open("busy", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_true(folder >= 0);
    assert_int_equal(tri_file_lock(folder, "busy", true, &code), TRI_LOCK_TAKEN);
    assert_int_equal(tri_tokenize_files(&args, &result, &error), TRI_FAILED);
    assert_non_null(strstr(error.message, "busy: another tokenize is writing"));
    assert_true(tri_file_exists("busy/train_000000.bin"));
    assert_int_equal(close(folder), 0);
    tokenize(&args);
}

static void bytes_are_tokens_and_separators_are_silent(void **state)
{
    (void)state;
    struct tri_error error = {0};
    struct tri_tokenizer *tokenizer;
    assert_int_equal(tri_tokenizer_create("byte", &tokenizer, &error), TRI_OK);
    assert_string_equal(tokenizer->name, "byte");
    assert_int_equal(tokenizer->vocab_size, 256);
    char text[10000];
    for (size_t i = 0; i < sizeof(text); i++) {
        text[i] = (char)(i * 11);
    }
    int32_t *tokens;
    int64_t count;
    assert_int_equal(tri_tokenizer_encode(tokenizer, text, sizeof(text), &tokens, &count, &error),
                     TRI_OK);
    assert_int_equal(count, sizeof(text));
    char back[sizeof(text)];
    assert_int_equal(tri_tokenizer_decode(tokenizer, tokens, count, back, sizeof(back)),
                     sizeof(text));
    assert_memory_equal(back, text, sizeof(text));
    tri_free(tokens);
    assert_int_equal(tri_tokenizer_encode(tokenizer, text, 0, &tokens, &count, &error), TRI_OK);
    assert_int_equal(count, 0);
    tri_free(tokens);

    const int32_t mixed[] = {'a', 256, -1, 'b', 65535, 'c'};
    memset(back, '#', 4);
    assert_int_equal(tri_tokenizer_decode(tokenizer, mixed, 6, back, 2), 3);
    assert_memory_equal(back, "ab##", 4);
    tri_tokenizer_destroy(tokenizer);
    tri_tokenizer_destroy(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_come_back_joined_with_their_last_part_apart),
        cmocka_unit_test(a_separator_goes_between_files_only),
        cmocka_unit_test(a_stream_is_cut_into_shards),
        cmocka_unit_test(the_split_is_what_the_fraction_says),
        cmocka_unit_test(tiny_shakespeare_splits_as_nanogpt_s_script_does),
        cmocka_unit_test(wrong_arguments_give_one_line_each),
        cmocka_unit_test(wrong_inputs_give_one_line_each),
        cmocka_unit_test(chats_of_others_are_named),
        cmocka_unit_test(a_full_disk_leaves_the_old_shards_whole),
        cmocka_unit_test(shards_and_tokenizer_change_together),
        cmocka_unit_test(two_do_not_write_into_one_folder),
        cmocka_unit_test(bytes_are_tokens_and_separators_are_silent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
