/* Texts that are made to be slow or large when they are put into a normal form. */
#include "files.h"

#include "base/memory.h"
#include "data/normal.h"
#include "data/tokenize.h"
#include "data/tokenizer.h"

#include <jansson.h>
#include <string.h>

/* ---- runs of marks --------------------------------------------------------------------------- */

enum { MARKS = 300000 };
static const struct {
    const char *text;
    int class;
} marks[] = {{"\xcc\x81", 230}, {"\xcc\xa3", 220}, {"\xcc\x82", 230},
             {"\xcc\xa7", 202}, {"\xcc\xa4", 220}, {"\xcd\x85", 240}};

static size_t which(size_t i)
{
    return (i * 2654435761u >> 7) % 6;
}

/* By class, each class in the order of the text; as many as there are in no time. */
static void expect_sorted(size_t count)
{
    static const int classes[] = {202, 220, 230, 240};
    unsigned char *text = tri_alloc(TRI_MEMORY_OTHER, 2 * count + 2);
    unsigned char *expected = tri_alloc(TRI_MEMORY_OTHER, 2 * count + 2);
    size_t at = 1;
    text[0] = expected[0] = 'q';
    for (size_t i = 0; i < count; i++) {
        memcpy(text + 1 + 2 * i, marks[which(i)].text, 2);
    }
    for (int j = 0; j < 4; j++) {
        for (size_t i = 0; i < count; i++) {
            if (marks[which(i)].class == classes[j]) {
                memcpy(expected + at, marks[which(i)].text, 2);
                at += 2;
            }
        }
    }
    text[at] = expected[at] = 'z';
    for (int form = TRI_NFC; form <= TRI_NFKD; form++) {
        struct tri_normal_scratch scratch = {0};
        const struct tri_normalizer normalizer = {
            .count = 1, .step = {{.kind = TRI_NORMAL_FORM, .form = (enum tri_form)form}}};
        const unsigned char *normal;
        size_t bytes = at + 1;
        assert_true(
            tri_normalize(&normalizer, &scratch, text, &bytes, TRI_NORMAL_SPARE, true, &normal));
        assert_int_equal(bytes, at + 1);
        assert_memory_equal(normal, expected, bytes);
        tri_normal_scratch_fini(&scratch);
    }
    tri_free(text);
    tri_free(expected);
}

static void marks_are_sorted_however_many(void **state)
{
    (void)state;
    for (size_t count = 0; count < 100; count++) {
        expect_sorted(count);
    }
    expect_sorted(MARKS);
}

/* ---- bombs ----------------------------------------------------------------------------------- */

/* tokenizer.json: a recorded one that makes a thousand of each a, sixteen times; token: and has an
 * added token of them. */
static void write_bomb(bool token)
{
    char path[512];
    char many[1001] = {0};
    memset(many, 'a', 1000);
    (void)snprintf(path, sizeof(path), "%s/golden/tokenizers/llama3/tokenizer.json", TESTDATA_DIR);
    json_t *root = json_load_file(path, 0, NULL);
    json_t *steps = json_array();
    for (int i = 0; i < TRI_NORMAL_STEPS; i++) {
        json_t *step = json_pack("{s:s, s:{s:s}, s:s}", "type", "Replace", "pattern", "String", "a",
                                 "content", many);
        assert_int_equal(json_array_append_new(steps, step), 0);
    }
    json_t *normalizer = json_pack("{s:s, s:o}", "type", "Sequence", "normalizers", steps);
    assert_int_equal(json_object_set_new(root, "normalizer", normalizer), 0);
    if (token) {
        json_t *added = json_array_get(json_object_get(root, "added_tokens"), 1);
        (void)json_object_set_new(added, "content", json_string("<aaa>"));
        (void)json_object_set_new(added, "normalized", json_true());
    }
    assert_int_equal(json_dump_file(root, "tokenizer.json", 0), 0);
    json_decref(root);
}

static enum tri_status drop(void *context, const int32_t *tokens, int64_t count,
                            struct tri_error *error)
{
    (void)context;
    (void)tokens;
    (void)count;
    (void)error;
    return TRI_OK;
}

static void a_text_may_not_grow_without_end(void **state)
{
    (void)state;
    enum { BYTES = 1 << 20 };
    struct tri_error error = {0};
    struct tri_tokenizer *tokenizer;
    int32_t *tokens;
    int64_t count;
    files_enter("normal_bomb");
    write_bomb(false);
    assert_int_equal(tri_tokenizer_create("tokenizer.json", &tokenizer, &error), TRI_OK);
    assert_int_equal(tri_tokenizer_encode(tokenizer, "a", 1, &tokens, &count, &error),
                     TRI_BAD_INPUT);
    files_expect_line(&error, "normalizer", "32 times", NULL);
    unsigned char *text = tri_alloc(TRI_MEMORY_OTHER, BYTES);
    for (size_t i = 0; i < BYTES; i++) {
        text[i] = i % 5 == 4 ? ' ' : 'a';
    }
    assert_int_equal(tokenizer->encode(tokenizer, text, BYTES, drop, NULL, &error), TRI_BAD_INPUT);
    files_expect_line(&error, "normalizer", "32 times", NULL);
    struct tri_text_encoder *encoder = tri_text_encoder_create(tokenizer);
    assert_int_equal(tri_text_encoder_encode(encoder, text, 9, (struct tri_text_place){true, false},
                                             drop, NULL, &error),
                     TRI_BAD_INPUT);
    files_expect_line(&error, "normalizer", "32 times", NULL);
    tri_text_encoder_destroy(encoder);
    /* Whoever reads files names the one. */
    files_write("b.txt", text, BYTES);
    files_write("a.txt", "b", 1);
    struct tri_tokenize_result result;
    struct tri_tokenize_args args = {.tokenizer = "tokenizer.json",
                                     .folder = "out",
                                     .num_files = 2,
                                     .files = (char *[]){"a.txt", "b.txt"},
                                     .separator = -1};
    assert_int_equal(tri_tokenize_files(&args, &result, &error), TRI_BAD_INPUT);
    files_expect_line(&error, "b.txt: tokenizer", "32 times", NULL);
    tri_free(text);
    tri_tokenizer_destroy(tokenizer);
    write_bomb(true);
    assert_int_equal(tri_tokenizer_create("tokenizer.json", &tokenizer, &error), TRI_BAD_INPUT);
    files_expect_line(&error, "tokenizer.json", "added_tokens", "normalizer", NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(marks_are_sorted_however_many),
        cmocka_unit_test(a_text_may_not_grow_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
