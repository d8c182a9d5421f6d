/* Files of multiple choice: what they hold, and what is refused. */
#include "data/choices.h"
#include "files.h"

#include <stdio.h>
#include <string.h>

enum { WORDS = 512 };

/* Two questions: contexts of 3 and 1 tokens; completions of 2, 1 and 4, and of 1 and 1. */
static const uint16_t questions[] = {
    65535, 34, 0, 2, 3, 3, 10, 11, 12, 2, 20, 21, 1, 30, 4, 40, 41, 42, 43, //
    65535, 22, 1, 0, 2, 1, 7,  1,  8,  1, 9,
};
enum { COUNT = sizeof(questions) / sizeof(*questions), FIRST = 19 };

struct file {
    int32_t header[256];
    uint16_t words[WORDS];
    size_t count;
};

static struct file make(void)
{
    struct file file = {.header = {20240522, 1, 2, 38}, .count = COUNT};
    memcpy(file.words, questions, sizeof(questions));
    file.words[1] = 2 * FIRST;
    file.words[FIRST + 1] = 2 * (COUNT - FIRST);
    return file;
}

static enum tri_status open_file(const struct file *file, struct tri_choices **choices,
                                 struct tri_error *error)
{
    files_write("q.bin", file, sizeof(file->header) + file->count * sizeof(*file->words));
    return tri_choices_open("q.bin", 100, choices, error);
}

static void expect_row(const struct tri_choices *choices, int64_t question, int completion,
                       const int32_t *tokens, const int32_t *targets, int64_t counted)
{
    enum { SEQ = 8 };
    int32_t t[SEQ], y[SEQ];
    assert_int_equal(tri_choices_row(choices, question, completion, SEQ, t, y), counted);
    assert_memory_equal(t, tokens, sizeof(t));
    assert_memory_equal(y, targets, sizeof(y));
}

static void test_rows(void **state)
{
    (void)state;
    struct tri_choices *choices;
    struct tri_error error;
    struct file file = make();
    assert_int_equal(open_file(&file, &choices, &error), TRI_OK);
    assert_int_equal(tri_choices_count(choices), 2);
    assert_int_equal(tri_choices_longest(choices), 6);
    assert_int_equal(tri_choices_most_completions(choices), 3);
    struct tri_choices_question question = tri_choices_question(choices, 0);
    assert_int_equal(question.completions, 3);
    assert_int_equal(question.right, 2);
    expect_row(choices, 0, 0, (int32_t[]){10, 11, 12, 20, 0, 0, 0, 0},
               (int32_t[]){-1, -1, 20, 21, -1, -1, -1, -1}, 2);
    expect_row(choices, 0, 1, (int32_t[]){10, 11, 12, 0, 0, 0, 0, 0},
               (int32_t[]){-1, -1, 30, -1, -1, -1, -1, -1}, 1);
    expect_row(choices, 0, 2, (int32_t[]){10, 11, 12, 40, 41, 42, 0, 0},
               (int32_t[]){-1, -1, 40, 41, 42, 43, -1, -1}, 4);
    expect_row(choices, 1, 1, (int32_t[]){7, 0, 0, 0, 0, 0, 0, 0},
               (int32_t[]){9, -1, -1, -1, -1, -1, -1, -1}, 1);
    tri_choices_close(choices);
}

static void expect_refused(const struct file *file, const char *text)
{
    struct tri_choices *choices;
    struct tri_error error = {0};
    assert_int_equal(open_file(file, &choices, &error), TRI_BAD_INPUT);
    files_expect_line(&error, "q.bin", text, NULL);
    assert_null(choices);
}

static void test_refused(void **state)
{
    (void)state;
    struct file file = make();
    file.header[0]++;
    expect_refused(&file, "magic number 20240523");
    file = make();
    file.header[2] = 3;
    expect_refused(&file, "promises 3 questions");
    file.header[2] = 1;
    expect_refused(&file, "22 bytes behind the last question");
    file = make();
    file.words[0] = 1;
    expect_refused(&file, "question 0: the first word is 1, expected 65535");
    file = make();
    file.words[FIRST + 1] = 23;
    expect_refused(&file, "question 1: 23 bytes");
    file = make();
    file.words[FIRST + 2] = 0;
    expect_refused(&file, "question 1: its number is 0");
    file = make();
    file.words[3] = 3;
    expect_refused(&file, "question 0: the right completion is 3");
    file = make();
    file.words[4] = 1;
    expect_refused(&file, "question 0: the number of completions is 1");
    file = make();
    file.words[5] = 14;
    expect_refused(&file, "its context has 14 tokens, expected 1 to the 13");
    file = make();
    file.words[6] = 100;
    expect_refused(&file, "question 0: token 100 in its context, expected below 100");
    file = make();
    file.words[14] = 0;
    expect_refused(&file, "its completion has 0 tokens");
    file = make();
    file.words[14] = 2;
    expect_refused(&file, "2 words behind its last completion");
}

/* Cut anywhere, or with any one word another: refused, or read as what it then says. */
static void test_any_damage(void **state)
{
    (void)state;
    static const uint16_t values[] = {0, 1, 2, 22, 38, 65534, 65535};
    int refused = 0;
    for (size_t i = 0; i < COUNT; i++) {
        struct file file = make();
        struct tri_choices *choices;
        struct tri_error error;
        file.count = i;
        assert_int_equal(open_file(&file, &choices, &error), TRI_BAD_INPUT);
        for (size_t v = 0; v < sizeof(values) / sizeof(*values); v++) {
            int32_t tokens[16], targets[16];
            file = make();
            file.words[i] = values[v];
            if (open_file(&file, &choices, &error) != TRI_OK) {
                refused++;
                continue;
            }
            for (int64_t q = 0; q < 2; q++) {
                int most = tri_choices_question(choices, q).completions;
                assert_true(tri_choices_row(choices, q, most - 1, 16, tokens, targets) > 0);
            }
            tri_choices_close(choices);
        }
    }
    assert_true(refused > COUNT);
    files_write("q.bin", questions, 3);
    struct tri_choices *choices;
    struct tri_error error;
    assert_int_equal(tri_choices_open("q.bin", 100, &choices, &error), TRI_BAD_INPUT);
    assert_int_equal(tri_choices_open("absent.bin", 100, &choices, &error), TRI_BAD_INPUT);
}

int main(void)
{
    files_enter("choices");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rows),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_any_damage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
