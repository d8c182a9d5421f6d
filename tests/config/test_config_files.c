/* Files: the examples, the docs, what is no config at all, and a good file cut anywhere. */
#include "config_testing.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"
#include "moe/strategies.h"

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>

static void test_examples(void **state)
{
    (void)state;
    glob_t found;
    assert_int_equal(glob(TRIDENT_SOURCE_DIR "/examples/*.yaml", 0, NULL, &found), 0);
    assert_true(found.gl_pathc >= 8);
    for (size_t i = 0; i < found.gl_pathc; i++) {
        struct tri_config config;
        struct tri_error error = {0};
        if (tri_config_load(&tri_strategies, found.gl_pathv[i], 0, NULL, &config, &error) !=
                TRI_OK ||
            tri_config_check_layout(&config, 2, &error) != TRI_OK) {
            fail_msg("%s", error.message);
        }
        assert_int_equal(config.model.vocab_size, 256);
        assert_string_not_equal(config.data.train, "");
        assert_string_not_equal(config.data.valid, "");
    }
    globfree(&found);
}

static void test_docs(void **state)
{
    (void)state;
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    assert_non_null(out);
    tri_config_print_markdown(&tri_strategies, out);
    assert_int_equal(fclose(out), 0);
    struct tri_mapping docs;
    struct tri_error error;
    assert_int_equal(tri_file_map(TRIDENT_SOURCE_DIR "/docs/config.md", &docs, &error), TRI_OK);
    if (docs.size != bytes || memcmp(docs.data, text, bytes) != 0) {
        fail_msg("docs/config.md is not what the table says; write it again with "
                 "`trident help config --markdown > docs/config.md`");
    }
    tri_file_unmap(&docs);
    free(text);
}

static void check_load(const char *path, const char *message)
{
    struct tri_config config;
    struct tri_error error = {0};
    assert_int_equal(tri_config_load(&tri_strategies, path, 0, NULL, &config, &error),
                     TRI_BAD_INPUT);
    assert_string_equal(error.message, message);
}

static void write_file(const char *path, const void *data, size_t bytes)
{
    struct tri_error error;
    assert_int_equal(tri_file_save(path, data, bytes, &error), TRI_OK);
}

static void test_odd_files(void **state)
{
    (void)state;
    static char large[(1 << 20) + 1];
    static const char folder[] = TEST_TMP;
    static const char path[] = TEST_TMP "/config_odd.yaml";
    check_load(TEST_TMP "/config_absent.yaml",
               TEST_TMP "/config_absent.yaml: cannot open: No such file or directory");
    check_load(folder, TEST_TMP ": Is a directory, expected the file of a config");
    write_file(path, "", 0);
    check_load(path, TEST_TMP "/config_odd.yaml: found no keys: the file is empty");
    write_file(path,
               "\x7f"
               "ELF\x02\x01",
               6);
    check_load(path, TEST_TMP "/config_odd.yaml:1: not text: found byte 0x7f at offset 0");
    write_file(path, "seed: 1\0", 8);
    check_load(path, TEST_TMP "/config_odd.yaml:1: not text: found byte 0x00 at offset 7");
    write_file(path, "\xff\xfes\0e\0", 6);
    check_load(path, TEST_TMP "/config_odd.yaml:1: not text: found byte 0x00 at offset 3");
    memset(large, '#', sizeof(large));
    write_file(path, large, sizeof(large));
    check_load(path, TEST_TMP "/config_odd.yaml: found 1048577 bytes, expected at most 1048576");
    write_file(path, "\xef\xbb\xbfseed: 3\r\nrun_dir: caf\xc3\xa9\r\n", 28);
    struct tri_config config;
    struct tri_error error;
    assert_int_equal(tri_config_load(&tri_strategies, path, 0, NULL, &config, &error), TRI_OK);
    assert_int_equal(config.seed, 3);
    assert_string_equal(config.run_dir, "caf\xc3\xa9");
    memset(large, 'x', 2000);
    large[2000] = '\0';
    assert_int_equal(
        tri_config_parse(&tri_strategies, large, "seed: 1", 7, 0, NULL, &config, &error),
        TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "found a path of 2000 bytes, expected at most 1023"));
}

/* Whatever the text: a config, or one line. */
static enum tri_status check_any(const char *text, size_t length)
{
    struct tri_config config;
    struct tri_error error = {0};
    enum tri_status status =
        tri_config_parse(&tri_strategies, "c.yaml", text, length, 0, NULL, &config, &error);
    if (status == TRI_OK) {
        return status;
    }
    assert_int_equal(status, TRI_BAD_INPUT);
    assert_int_equal(error.status, TRI_BAD_INPUT);
    assert_int_equal(strncmp(error.message, "c.yaml:", 7), 0);
    for (const char *at = error.message; *at; at++) {
        assert_true((unsigned char)*at >= ' ');
    }
    return status;
}

static void test_cut_and_changed(void **state)
{
    (void)state;
    struct tri_mapping file;
    struct tri_error error;
    assert_int_equal(tri_file_map(TRIDENT_SOURCE_DIR "/examples/qwen3_moe.yaml", &file, &error),
                     TRI_OK);
    int64_t held = tri_memory_get().current[TRI_MEMORY_OTHER];
    size_t good = 0;
    for (size_t length = 0; length <= file.size; length++) {
        /* An exact copy, so that a sanitizer sees any read past the end. */
        char *copy = malloc(length + 1);
        assert_non_null(copy);
        memcpy(copy, file.data, length);
        good += check_any(copy, length) == TRI_OK;
        free(copy);
    }
    assert_true(good > 0 && good < file.size);
    char *changed = malloc(file.size + 1);
    assert_non_null(changed);
    for (uint64_t round = 0; round < 500; round++) {
        memcpy(changed, file.data, file.size);
        for (uint64_t i = 0; i < 1 + round % 4; i++) {
            uint64_t bits = tri_random_bits(1, round, i);
            static const char likely[] = "{}[]:,\n\t \"'&*!|>#-?%@`0\x80\xff";
            changed[bits % (file.size + 1)] = likely[(bits >> 40) % (sizeof(likely) - 1)];
        }
        (void)check_any(changed, file.size);
    }
    free(changed);
    assert_int_equal(tri_memory_get().current[TRI_MEMORY_OTHER], held);
    tri_file_unmap(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_examples),
        cmocka_unit_test(test_docs),
        cmocka_unit_test(test_odd_files),
        cmocka_unit_test(test_cut_and_changed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
