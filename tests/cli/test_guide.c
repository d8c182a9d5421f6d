/* What docs/user-guide.md says of the program's output is what comes: the keys of every --json, the
 * files of a run, the keys of its metrics. */
#include "cli/cli.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { WORD_BYTES = 64, ROW_BYTES = 2048 };

static char *guide;

/* From where `start` is in the guide to `end` behind it; the caller frees it. */
static char *part_of_guide(const char *start, const char *end)
{
    const char *from = strstr(guide, start);
    assert_non_null(from);
    const char *to = strstr(from + strlen(start), end);
    return strndup(from, to ? (size_t)(to - from) : strlen(from));
}

/* ---- the table of --json --------------------------------------------------------------------- */

/* An object of the words in backticks: those in brackets are the members of the word before. */
static json_t *parse_keys(const char *cell)
{
    json_t *keys = json_object();
    char last[WORD_BYTES] = "";
    int depth = 0;
    for (const char *at = cell; *at; at++) {
        depth += (*at == '(') - (*at == ')');
        if (*at != '`') {
            continue;
        }
        const char *word_end = strchr(at + 1, '`');
        if (!word_end || word_end - at > WORD_BYTES) {
            fail();
            break;
        }
        char word[WORD_BYTES];
        (void)snprintf(word, sizeof(word), "%.*s", (int)(word_end - at - 1), at + 1);
        at = word_end;
        if (depth == 0) {
            (void)memcpy(last, word, sizeof(last));
        }
        json_t *owner = depth == 0 ? keys : json_object_get(keys, last);
        assert_int_equal(json_object_set_new(owner, word, json_object()), 0);
    }
    assert_int_equal(depth, 0);
    return keys;
}

static void expect_same_keys(const char *command, const char *where, json_t *came, json_t *told)
{
    const char *key;
    json_t *value;
    bool same = true;
    json_object_foreach(came, key, value)
    {
        if (!json_object_get(told, key)) {
            print_error("%s --json: the guide lacks '%s'%s\n", command, key, where);
            same = false;
        }
    }
    json_object_foreach(told, key, value)
    {
        if (!json_object_get(came, key)) {
            print_error("%s --json: no '%s' came%s\n", command, key, where);
            same = false;
        }
    }
    assert_true(same);
}

/* Also of the members, where the guide names any; of an array those of its first element. */
static void expect_keys(const char *command, json_t *came, json_t *told)
{
    const char *key;
    json_t *members;
    expect_same_keys(command, "", came, told);
    json_object_foreach(told, key, members)
    {
        json_t *value = json_object_get(came, key);
        value = json_is_array(value) ? json_array_get(value, 0) : value;
        if (json_object_size(members) > 0) {
            assert_true(json_is_object(value));
            expect_same_keys(command, key, value, members);
        }
    }
}

/* The guide's second cell of the row that begins with "| `NAME` |". */
static void find_row(const char *table, const char *name, char cell[ROW_BYTES])
{
    char start[WORD_BYTES];
    (void)snprintf(start, sizeof(start), "\n| `%s` | ", name);
    const char *row = strstr(table, start);
    cell[0] = '\0';
    if (!row) {
        print_error("the guide has no row `%s`\n", name);
        fail();
        return;
    }
    (void)snprintf(cell, ROW_BYTES, "%.*s", (int)strcspn(row + strlen(start), "\n"),
                   row + strlen(start));
}

static void test_json(void **state)
{
    (void)state;
    static const struct {
        const char *row;
        const char *words[10];
    } commands[] = {
        {"train", {"train", "c.yaml"}},
        {"eval", {"eval", "run"}},
        {"generate", {"generate", "run", "--tokens", "2"}},
        {"generate --ids", {"generate", "run", "--tokens", "2", "--ids", "--prompt", "7"}},
        {"generate --prompts", {"generate", "run", "--tokens", "2", "--prompts", "p.txt"}},
        {"verify", {"verify", "c.yaml", "--steps", "1", "--compare", "1"}},
        {"plan", {"plan", "c.yaml"}},
        {"plan --layouts", {"plan", "c.yaml", "--layouts", "--ranks", "3"}},
        {"plan --cluster", {"plan", "c.yaml", "--cluster", "m.yaml"}},
        {"plan --layouts --cluster",
         {"plan", "c.yaml", "--layouts", "--ranks", "3", "--cluster", "m.yaml"}},
        {"calibrate", {"calibrate", "--quick", "--threads", "1", "--ranks", "2"}},
        {"tokenize", {"tokenize", "--tokenizer", "byte", "--out", "more", "t.txt"}},
        {"import", {"import", TESTDATA_DIR "/golden/mixtral", "imported"}},
        {"export", {"export", "imported", "exported"}},
        {"inspect CONFIG", {"inspect", "c.yaml"}},
        {"inspect RUN", {"inspect", "run"}},
        {"inspect TOKENS", {"inspect", "tok/train_*.bin"}},
        {"runs", {"runs", "run"}},
        {"report", {"report", "run"}},
    };
    const size_t count = sizeof(commands) / sizeof(*commands);
    cli_write("p.txt", "one\ntwo\n");
    cli_write("m.yaml", "{ranks_per_host: 8, links: {inside: {any: {bytes: 1e9}}},"
                        " kernels: {f32: {any: {bytes: 1e10}}}}");
    char *table = part_of_guide("## For scripts", "\n## ");
    assert_int_equal(cli_count(table, "\n| `"), count);
    for (size_t i = 0; i < count; i++) {
        char cell[ROW_BYTES];
        const char *words[CLI_WORDS] = {NULL};
        size_t used = 0;
        for (; commands[i].words[used]; used++) {
            words[used] = commands[i].words[used];
        }
        words[used] = "--json";
        find_row(table, commands[i].row, cell);
        json_t *told = parse_keys(cell);
        struct process_result result = cli_run(0, words);
        json_t *came = cli_expect_json(&result, 0);
        expect_keys(commands[i].row, came, told);
        json_decref(told);
        json_decref(came);
    }
    free(table);
}

/* ---- the run's folder ------------------------------------------------------------------------ */

static void test_files(void **state)
{
    (void)state;
    char *table = part_of_guide("A run leaves a folder", "\n\nStarted again");
    DIR *folder = opendir("run");
    assert_non_null(folder);
    for (struct dirent *entry = readdir(folder); entry; entry = readdir(folder)) {
        char start[WORD_BYTES + 256];
        (void)snprintf(start, sizeof(start), "\n| `%s", entry->d_name);
        if (entry->d_name[0] != '.' && cli_count(table, start) != 1) {
            print_error("the guide does not name run/%s\n", entry->d_name);
            fail();
        }
    }
    (void)closedir(folder);
    free(table);
}

static void test_metrics(void **state)
{
    (void)state;
    char *text = part_of_guide("\nA line of `metrics.jsonl`", "\n\n");
    json_t *lines = cli_metrics("run");
    for (size_t i = 0; i < json_array_size(lines); i++) {
        const char *key;
        json_t *value;
        json_object_foreach(json_array_get(lines, i), key, value)
        {
            char word[WORD_BYTES];
            (void)snprintf(word, sizeof(word), "`%s`", key);
            if (!strstr(text, word)) {
                print_error("the guide does not name '%s' of metrics.jsonl\n", key);
                fail();
            }
        }
    }
    json_decref(lines);
    free(text);
}

/* What a run that was finished before has not computed. */
static void test_finished(void **state)
{
    (void)state;
    struct process_result result = cli_run(0, CLI_WORDS_OF("train", "c.yaml", "--json"));
    json_t *root = cli_expect_json(&result, 0);
    assert_true(json_is_true(json_object_get(root, "finished_before")));
    assert_true(json_is_null(json_object_get(root, "loss")));
    assert_true(json_is_null(json_object_get(root, "valid_loss")));
    json_decref(root);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_json),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_metrics),
        cmocka_unit_test(test_finished),
    };
    guide = cli_read(TRIDENT_SOURCE_DIR "/docs/user-guide.md", NULL);
    cli_begin("guide", argc, argv);
    int failed = guide ? cmocka_run_group_tests(tests, NULL, NULL) : 1;
    cli_end();
    free(guide);
    return failed;
}
