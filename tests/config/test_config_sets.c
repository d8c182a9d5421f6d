/* Several sets of shards in data.train and data.valid: as written, as printed, in overrides, and
 * what is refused. */
#include "config_testing.h"

#include "base/memory.h"

#include <stdio.h>

static void expect_text(const char *yaml, const char *train, const char *valid)
{
    struct tri_config config, back;
    parse_well(yaml, &config);
    assert_string_equal(config.data.train, train);
    assert_string_equal(config.data.valid, valid);
    char *printed = tri_config_to_yaml(&config);
    parse_well(printed, &back);
    assert_string_equal(back.data.train, train);
    assert_string_equal(back.data.valid, valid);
    tri_free(printed);
}

static void several_sets_are_one_value(void **state)
{
    (void)state;
    static const char mix[] = "[{path: \"a/*.bin\", weight: 0.7}, {path: \"b c\", weight: 1}]";
    static const char named[] = "{\"code\": \"x/[0-9].bin\", \"prose.2\": \"y\"}";
    expect_text("data: {train: a.bin, valid: b.bin}\n", "a.bin", "b.bin");
    expect_text("data:\n  train:\n    - {path: a/*.bin, weight: 0.70}\n    - path: b c\n  valid:\n"
                "    code: x/[0-9].bin\n    prose.2: 'y'\n",
                mix, named);
    expect_text("data: {train: [{weight: 2, path: 'q \"\\'}]}\n",
                "[{path: \"q \\\"\\\\\", weight: 2}]", "");
    struct tri_sets sets;
    tri_config_sets(mix, &sets);
    assert_int_equal(sets.count, 2);
    assert_string_equal(sets.set[0].path, "a/*.bin");
    assert_string_equal(sets.set[1].path, "b c");
    assert_true(sets.set[0].weight == 0.7 && sets.set[1].weight == 1.0);
    tri_config_sets(named, &sets);
    assert_int_equal(sets.count, 2);
    assert_string_equal(sets.set[1].name, "prose.2");
    assert_string_equal(sets.set[0].path, "x/[0-9].bin");
    tri_config_sets("[0-9].bin", &sets);
    assert_true(sets.count == 1 && sets.set[0].weight == 1.0 && !sets.set[0].name[0]);
    assert_string_equal(sets.set[0].path, "[0-9].bin");
    tri_config_sets("", &sets);
    assert_int_equal(sets.count, 0);
}

static enum tri_status override(const char *text, struct tri_config *config,
                                struct tri_error *error)
{
    char word[2000];
    (void)snprintf(word, sizeof(word), "%s", text);
    char *words[] = {word};
    return tri_config_parse(&tri_strategies, "c.yaml", "seed: 1\n", 8, 1, words, config, error);
}

static void overrides_take_them(void **state)
{
    (void)state;
    struct tri_config config;
    struct tri_error error = {0};
    assert_int_equal(override("data.train=[{path: a, weight: 3}, {path: b}]", &config, &error),
                     TRI_OK);
    assert_string_equal(config.data.train, "[{path: \"a\", weight: 3}, {path: \"b\", weight: 1}]");
    assert_int_equal(override("data.valid={x: a, y: b}", &config, &error), TRI_OK);
    assert_string_equal(config.data.valid, "{\"x\": \"a\", \"y\": \"b\"}");
    assert_int_equal(override("data.train=[ab]*.bin", &config, &error), TRI_OK);
    assert_string_equal(config.data.train, "[ab]*.bin");
    assert_int_equal(override("data.valid={x: a", &config, &error), TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "'data.valid'"));
    assert_int_equal(override("data.train=[{]", &config, &error), TRI_BAD_INPUT);
    /* A list is one with blanks, and with paths alone, too. */
    assert_int_equal(override("data.train=[ {path: a}, {path: b} ]", &config, &error), TRI_OK);
    assert_string_equal(config.data.train, "[{path: \"a\", weight: 1}, {path: \"b\", weight: 1}]");
    assert_int_equal(override("data.train=[a.bin, b.bin]", &config, &error), TRI_BAD_INPUT);
    assert_non_null(
        strstr(error.message, "command line: key 'data.train': found 'a.bin' as set 1,"));
    assert_int_equal(override("data.valid=[ab]", &config, &error), TRI_OK);
}

static void what_is_no_set_is_refused(void **state)
{
    (void)state;
    static const char *const train[] = {"[a, b]",
                                        "[{weight: 1}]",
                                        "[{path: a, weight: 0}]",
                                        "{x: a}",
                                        "[{path: a, weight: -1}]",
                                        "[{path: a, weight: .inf}]",
                                        "[{path: a, of: 1}]",
                                        "[{path: [a]}]",
                                        "[]",
                                        "[{path: '', weight: 1}]",
                                        "[{path: a, weight: '1'}]",
                                        "'[{path: a}]'"};
    static const char *const valid[] = {"[a]",
                                        "{}",
                                        "{a b: x}",
                                        "{a: }",
                                        "{a: {b: c}}",
                                        "'{a: b}'",
                                        "{abcdefghijklmnopqrstuvwxyzabcdefgh: x}"};
    struct tri_config config;
    struct tri_error error;
    char text[2000];
    for (size_t i = 0; i < COUNT(train) + COUNT(valid); i++) {
        bool of_valid = i >= COUNT(train);
        (void)snprintf(text, sizeof(text), "data:\n  %s: %s\n", of_valid ? "valid" : "train",
                       of_valid ? valid[i - COUNT(train)] : train[i]);
        if (parse(text, &config, &error) != TRI_BAD_INPUT) {
            fail_msg("not refused: %s", text);
        }
        assert_non_null(strstr(error.message, of_valid ? "c.yaml:2: key 'data.valid': found"
                                                       : "c.yaml:2: key 'data.train': found"));
        assert_non_null(
            strstr(error.message, of_valid ? "a mapping of names (letters, digits, - _ .) to such"
                                           : "a list of {path: TEXT, weight: NUMBER above 0}"));
    }
    /* More than the value holds. */
    size_t used = (size_t)snprintf(text, sizeof(text), "data: {train: [");
    for (int i = 0; i < 20; i++) {
        used += (size_t)snprintf(text + used, sizeof(text) - used, "{path: %050d},", i);
    }
    (void)snprintf(text + used, sizeof(text) - used, "]}\n");
    assert_int_equal(parse(text, &config, &error), TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "found 20 sets that take "));
}

/* Which one of them it is, and in which line. */
static void the_wrong_one_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"data:\n  train:\n  - {path: a}\n  - {path: b,\n     weight: none}\n",
         "c.yaml:5: key 'data.train': found 'none' as weight of set 2, expected"},
        {"data:\n  train:\n  - path: a\n    wieght: 2\n",
         "c.yaml:4: key 'data.train': found 'wieght' in set 1, expected"},
        {"data:\n  train:\n  - path: a\n  - weight: 2\n",
         "c.yaml:4: key 'data.train': found a mapping without a path as set 2, expected"},
        {"data:\n  train: [{path: a},\n   b]\n",
         "c.yaml:3: key 'data.train': found 'b' as set 2, expected"},
        {"data:\n  train: [{path: []}]\n", "found [] as path of set 1, expected"},
        {"data:\n  valid:\n    a: x\n    b c: y\n",
         "c.yaml:4: key 'data.valid': found 'b c' as the name of set 2, expected"},
        {"data:\n  valid:\n    a: x\n    b:\n",
         "c.yaml:4: key 'data.valid': found nothing as set 'b'"},
    };
    struct tri_config config;
    struct tri_error error;
    for (size_t i = 0; i < COUNT(cases); i++) {
        assert_int_equal(parse(cases[i].text, &config, &error), TRI_BAD_INPUT);
        if (!strstr(error.message, cases[i].says)) {
            fail_msg("%s\nis not\n%s", error.message, cases[i].says);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(several_sets_are_one_value),
        cmocka_unit_test(overrides_take_them),
        cmocka_unit_test(what_is_no_set_is_refused),
        cmocka_unit_test(the_wrong_one_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
