/* Shards without a header can be anything: what is no tokens, or tokens of the other width, is
 * refused with what it is. */
#include "cli/cli.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { TOKENS = 3000 };

static void write_bytes(const char *path, const char *magic, size_t magic_bytes, const void *data,
                        size_t bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(magic, 1, magic_bytes, file), magic_bytes);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

/* Training refuses the shard x.bin as this format, and says what it is. */
static void refuse(const char *format, const char *vocab, const char *says)
{
    struct process_result result =
        cli_run(cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=no", "data.train=x.bin",
                                          "data.valid=", format, vocab));
    cli_expect_error(&result, cli_ranks(), 2, says);
}

static void test_widths(void **state)
{
    (void)state;
    uint16_t narrow[TOKENS];
    uint32_t wide[TOKENS];
    for (uint32_t i = 0; i < TOKENS; i++) {
        narrow[i] = (uint16_t)(i * 7919 % 251 + 1);
        wide[i] = narrow[i];
    }
    write_bytes("x.bin", "", 0, wide, sizeof(wide));
    refuse("data.format=u16", "model.vocab_size=256", "expected data.format u32");
    refuse("data.format=u16", "model.vocab_size=65536", "expected data.format u32");
    write_bytes("x.bin", "", 0, narrow, sizeof(narrow));
    refuse("data.format=u32", "model.vocab_size=256", "expected data.format u16");
    refuse("data.format=u32", "model.vocab_size=200000", "expected data.format u16");
    struct process_result result = cli_run(0, CLI_WORDS_OF("inspect", "x.bin", "--format", "u32"));
    cli_expect_error(&result, 0, 2, "16-bit tokens");
}

static void test_formats(void **state)
{
    (void)state;
    static const struct {
        const char *magic;
        size_t bytes;
        const char *says;
    } cases[] = {
        {"\x93NUMPY\x01\x00v\x00", 10, "a NumPy array"},
        {"PK\x03\x04", 4, "a zip archive"},
        {"\x1f\x8b\x08\x00", 4, "compressed by gzip"},
        {"\x28\xb5\x2f\xfd", 4, "compressed by zstd"},
        {"PAR1", 4, "a Parquet file"},
        {"\x40\0\0\0\0\0\0\0{\"a\": ", 14, "a safetensors file"},
    };
    const uint16_t tokens[TOKENS] = {1, 0, 3};
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        write_bytes("x.bin", cases[i].magic, cases[i].bytes, tokens, sizeof(tokens));
        refuse("data.format=u16", "model.vocab_size=65536", cases[i].says);
    }
    static const struct {
        int32_t magic;
        const char *says;
    } own[] = {{20261129, "the mask beside one"},
               {20261130, "the list of documents beside one"},
               {20240522, "eval --choices"}};
    for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++) {
        const int32_t header[256] = {own[i].magic, 1};
        write_bytes("x.bin", (const char *)header, sizeof(header), tokens, sizeof(tokens));
        refuse("data.format=u16", "model.vocab_size=65536", own[i].says);
        refuse("data.format=llmc", "model.vocab_size=65536", own[i].says);
    }
    size_t bytes;
    char *text = cli_read("t.txt", &bytes);
    write_bytes("x.bin", "", 0, text, bytes / 4 * 4);
    free(text);
    refuse("data.format=u16", "model.vocab_size=65536", "trident tokenize");
    refuse("data.format=u32", "model.vocab_size=200000", "trident tokenize");
}

/* 16-bit ids beside a larger vocabulary may be right: that is said, and the run goes on. */
static void test_small_ids(void **state)
{
    (void)state;
    uint16_t tokens[TOKENS];
    for (uint32_t i = 0; i < TOKENS; i++) {
        tokens[i] = (uint16_t)(i * 7919 % 60000);
    }
    write_bytes("x.bin", "", 0, tokens, sizeof(tokens));
    struct process_result result = cli_run(
        cli_ranks(), CLI_WORDS_OF("train", "c.yaml", "run_dir=small", "data.train=x.bin",
                                  "data.valid=", "data.format=u16", "model.vocab_size=65600",
                                  "train.steps=1", "train.global_batch=1"));
    assert_int_equal(cli_count(result.err, "no ids above 65535"), 1);
    cli_expect_status(&result, 0);
}

/* Padding alone is of either width, and dull, but tokens. */
static void test_zeros(void **state)
{
    (void)state;
    static const uint16_t tokens[TOKENS];
    write_bytes("x.bin", "", 0, tokens, sizeof(tokens));
    cli_run_well(0, CLI_WORDS_OF("inspect", "x.bin", "--format", "u16"));
    cli_run_well(0, CLI_WORDS_OF("inspect", "x.bin", "--format", "u32"));
}

int main(int argc, char **argv)
{
    cli_begin("headerless", argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_widths),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_small_ids),
        cmocka_unit_test(test_zeros),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    cli_end();
    return failed;
}
