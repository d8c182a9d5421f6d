#include "files.h"

#include "base/memory.h"
#include "data/shard_writer.h"
#include "data/shards.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static struct tri_tokens *open_set(const char *pattern, enum tri_data_format format, int64_t vocab)
{
    struct tri_error error = {0};
    struct tri_tokens *tokens;
    if (tri_tokens_create(pattern, format, vocab, &tokens, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return tokens;
}

static struct tri_error refuse(const char *pattern, enum tri_data_format format, int64_t vocab)
{
    struct tri_error error = {0};
    struct tri_tokens *tokens = (struct tri_tokens *)&error;
    assert_int_equal(tri_tokens_create(pattern, format, vocab, &tokens, &error), TRI_BAD_INPUT);
    assert_null(tokens);
    return error;
}

static void expect_tokens(const struct tri_tokens *tokens, int64_t first, int64_t count,
                          const int32_t *expected)
{
    struct tri_error error = {0};
    int32_t found[64];
    assert_true(count <= 64);
    assert_int_equal(tri_tokens_read(tokens, first, count, found, &error), TRI_OK);
    assert_memory_equal(found, expected, (size_t)count * sizeof(*found));
}

/* ---- files that are right -------------------------------------------------------------------- */

static void reads_llmc_u16_and_llama3_u32(void **state)
{
    (void)state;
    files_enter("shards_good");
    unsigned char gpt2[1024 + 6] = {0x88, 0xd8, 0x34, 0x01, 1, 0, 0, 0, 3};
    const unsigned char narrow[] = {0x50, 0xc4, 0x00, 0x00, 0x01, 0x02};
    memcpy(gpt2 + 1024, narrow, sizeof(narrow));
    files_write("a_000000.bin", gpt2, sizeof(gpt2));
    unsigned char llama[1024 + 8] = {0xa1, 0xd9, 0x34, 0x01, 7, 0, 0, 0, 2};
    const unsigned char wide[] = {0x00, 0xf4, 0x01, 0x00, 0x07, 0x00, 0x00, 0x00};
    memcpy(llama + 1024, wide, sizeof(wide));
    files_write("a_000001.bin", llama, sizeof(llama));

    struct tri_tokens *tokens = open_set("a_*.bin", TRI_DATA_LLMC, 128256);
    assert_int_equal(tri_tokens_count(tokens), 5);
    assert_int_equal(tri_tokens_shards(tokens), 2);
    assert_int_equal(tri_tokens_largest(tokens), 128000);
    struct tri_shard_info info = tri_tokens_shard(tokens, 1);
    assert_string_equal(info.path, "a_000001.bin");
    assert_int_equal(info.tokens, 2);
    assert_int_equal(info.bytes_per_token, 4);
    assert_true(info.has_header);
    const int32_t expected[] = {50256, 0, 513, 128000, 7};
    for (int first = 0; first < 5; first++) {
        for (int end = first; end <= 5; end++) {
            expect_tokens(tokens, first, end - first, expected + first);
        }
    }
    tri_tokens_destroy(tokens);
}

static void reads_headerless_u16_and_u32(void **state)
{
    (void)state;
    files_enter("shards_raw");
    const unsigned char bytes[] = {1, 2, 3, 0, 0xff, 0xff, 0, 0};
    files_write("raw.bin", bytes, sizeof(bytes));
    struct tri_tokens *tokens = open_set("raw.bin", TRI_DATA_U16, 65536);
    const int32_t narrow[] = {513, 3, 65535, 0};
    assert_int_equal(tri_tokens_count(tokens), 4);
    assert_false(tri_tokens_shard(tokens, 0).has_header);
    expect_tokens(tokens, 0, 4, narrow);
    tri_tokens_destroy(tokens);
    tokens = open_set("raw.bin", TRI_DATA_U32, 0);
    const int32_t wide[] = {0x00030201, 65535};
    assert_int_equal(tri_tokens_count(tokens), 2);
    expect_tokens(tokens, 0, 2, wide);
    tri_tokens_destroy(tokens);
}

static void shards_follow_their_names_and_brackets_are_no_pattern(void **state)
{
    (void)state;
    files_enter("shards_names");
    for (int i = 9; i >= 0; i--) {
        char name[32];
        (void)snprintf(name, sizeof(name), "t_%06d.bin", i);
        files_write_shard(name, 3, 3 * i, 1);
    }
    assert_int_equal(mkdir("B", 0777), 0);
    files_write_shard("B/t_1.bin", 1, 99, 0);
    assert_int_equal(mkdir("[ab]", 0777), 0);
    files_write_shard("[ab]/t_1.bin", 1, 77, 0);
    struct tri_tokens *tokens = open_set("t_*.bin", TRI_DATA_LLMC, 256);
    int32_t expected[30];
    for (int i = 0; i < 30; i++) {
        expected[i] = i;
    }
    assert_int_equal(tri_tokens_count(tokens), 30);
    expect_tokens(tokens, 0, 30, expected);
    tri_tokens_destroy(tokens);
    tokens = open_set("[ab]/t_1.bin", TRI_DATA_LLMC, 256);
    expected[0] = 77;
    expect_tokens(tokens, 0, 1, expected);
    tri_tokens_destroy(tokens);
}

/* ---- files that are wrong -------------------------------------------------------------------- */

enum { GOOD_BYTES = 1024 + 20 };

/* A good shard of ten tokens with one byte changed and with its end moved. */
static struct tri_error refuse_changed(size_t at, unsigned char value, ptrdiff_t longer)
{
    files_write_shard("bad.bin", 10, 0, 1);
    size_t bytes;
    unsigned char *data = files_read("bad.bin", &bytes);
    assert_int_equal(bytes, GOOD_BYTES);
    unsigned char changed[GOOD_BYTES + 2] = {0};
    memcpy(changed, data, bytes);
    tri_free(data);
    changed[at] = value;
    files_write("bad.bin", changed, (size_t)((ptrdiff_t)bytes + longer));
    return refuse("bad.bin", TRI_DATA_LLMC, 256);
}

static void wrong_files_give_one_line_each(void **state)
{
    (void)state;
    files_enter("shards_wrong");
    struct tri_error error = refuse("none_*.bin", TRI_DATA_LLMC, 256);
    files_expect_line(&error, "none_*.bin", "no file matches", NULL);
    error = refuse("", TRI_DATA_LLMC, 256);
    files_expect_line(&error, "no file matches", NULL);
    error = refuse("no/folder/t.bin", TRI_DATA_LLMC, 256);
    files_expect_line(&error, "no/folder/t.bin", "no file matches", NULL);
    error = refuse("no/folder/t_*.bin", TRI_DATA_LLMC, 256);
    files_expect_line(&error, "no/folder/t_*.bin", "no file matches", NULL);
    error = refuse(".", TRI_DATA_LLMC, 256);
    files_expect_line(&error, "Is a directory", NULL);

    char text[1100];
    memset(text, 'x', sizeof(text));
    memcpy(text, "{\"text\": \"\xc3\xa4\"}\r\n\t", 17);
    files_write("text.bin", text, sizeof(text));
    error = refuse("text.bin", TRI_DATA_LLMC, 256);
    files_expect_line(&error, "text.bin: is text, expected token shards", "tokenize", NULL);

    error = refuse_changed(1, 0, 0);
    files_expect_line(&error, "bad.bin: magic number", "expected 20240520", "20240801", NULL);
    error = refuse_changed(4, 2, 0);
    files_expect_line(&error, "bad.bin: version 2, expected 1", NULL);
    error = refuse_changed(8, 11, 0);
    files_expect_line(&error, "bad.bin: 1044 bytes, expected 1046", "11 tokens", NULL);
    error = refuse_changed(11, 0x80, 0);
    files_expect_line(&error, "bad.bin: the header promises -2147483638 tokens", NULL);
    error = refuse_changed(12, 1, 0);
    files_expect_line(&error, "bad.bin: header word 3 is 1, expected 0", NULL);
    error = refuse_changed(1023, 1, 0);
    files_expect_line(&error, "bad.bin: header word 255", NULL);
    error = refuse_changed(0, 0x88, 2);
    files_expect_line(&error, "bad.bin: 1046 bytes, expected 1044", NULL);
    error = refuse_changed(0, 0x88, -1);
    files_expect_line(&error, "bad.bin: 1043 bytes, expected 1044", NULL);
    error = refuse_changed(0, 0x88, -21);
    files_expect_line(&error, "bad.bin: 1023 bytes, too short", NULL);
    error = refuse_changed(0, 0x88, -GOOD_BYTES);
    files_expect_line(&error, "bad.bin: 0 bytes, too short", NULL);
    error = refuse_changed(1024 + 7, 1, 0);
    files_expect_line(&error, "bad.bin: token 259 at position 3, expected below 256", NULL);
}

static void every_flipped_bit_of_a_header_is_refused(void **state)
{
    (void)state;
    files_enter("shards_flipped");
    files_write_shard("good.bin", 10, 0, 1);
    size_t bytes;
    unsigned char *data = files_read("good.bin", &bytes);
    for (size_t bit = 0; bit < 8 * 16; bit++) {
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        files_write("bad.bin", data, bytes);
        data[bit / 8] ^= (unsigned char)(1 << bit % 8);
        struct tri_error error = refuse("bad.bin", TRI_DATA_LLMC, 256);
        files_expect_line(&error, "bad.bin: ", NULL);
    }
    tri_free(data);
}

static void wrong_headerless_files_give_one_line_each(void **state)
{
    (void)state;
    files_enter("shards_wrong_raw");
    const unsigned char bytes[] = {1, 0, 2, 0, 3, 0, 0xff};
    files_write("odd.bin", bytes, 7);
    struct tri_error error = refuse("odd.bin", TRI_DATA_U16, 256);
    files_expect_line(&error, "odd.bin: 7 bytes", "multiple of 2", NULL);
    files_write("odd.bin", bytes, 6);
    error = refuse("odd.bin", TRI_DATA_U32, 256);
    files_expect_line(&error, "odd.bin: 6 bytes", "multiple of 4", NULL);
    files_write("none.bin", bytes, 0);
    error = refuse("none.bin", TRI_DATA_U16, 256);
    files_expect_line(&error, "none.bin: holds no tokens", NULL);
    error = refuse("odd.bin", TRI_DATA_LLMC, 256);
    files_expect_line(&error, "odd.bin: 6 bytes, too short", NULL);
    files_write_shard("llmc.bin", 10, 0, 1);
    error = refuse("llmc.bin", TRI_DATA_U16, 65536);
    files_expect_line(&error, "llmc.bin: has a header", "expected llmc", NULL);
    files_write_shard("empty.bin", 0, 0, 1);
    error = refuse("empty.bin", TRI_DATA_LLMC, 256);
    files_expect_line(&error, "empty.bin: holds no tokens", NULL);
    const unsigned char huge[] = {0, 0, 0, 0x80};
    files_write("huge.bin", huge, sizeof(huge));
    error = refuse("huge.bin", TRI_DATA_U32, 0);
    files_expect_line(&error, "huge.bin: token 2147483648 at position 0", NULL);
}

static void the_second_shard_is_the_one_named(void **state)
{
    (void)state;
    files_enter("shards_second");
    files_write_shard("t_0.bin", 5, 0, 1);
    files_write_shard("t_1.bin", 5, 96, 1);
    struct tri_error error = refuse("t_*.bin", TRI_DATA_LLMC, 100);
    files_expect_line(&error, "t_1.bin: token 100 at position 4", NULL);
    files_write("t_1.bin", "", 0);
    error = refuse("t_*.bin", TRI_DATA_LLMC, 100);
    files_expect_line(&error, "t_1.bin: 0 bytes", NULL);
}

static void a_large_set_is_checked_where_it_is_read(void **state)
{
    (void)state;
    files_enter("shards_large");
    /* Sparse: 110 MB of token 0 that take no disk, then one token out of range. */
    FILE *file = fopen("large.bin", "wb");
    assert_non_null(file);
    assert_int_equal(fseek(file, 110 * 1000 * 1000, SEEK_SET), 0);
    const unsigned char token[] = {0, 1};
    assert_int_equal(fwrite(token, 1, 2, file), 2);
    assert_int_equal(fclose(file), 0);
    struct tri_tokens *tokens = open_set("large.bin", TRI_DATA_U16, 256);
    assert_int_equal(tri_tokens_count(tokens), 55000001);
    const int32_t zeros[64] = {0};
    expect_tokens(tokens, 55000001 - 65, 64, zeros);
    struct tri_error error = {0};
    int32_t found[64];
    assert_int_equal(tri_tokens_read(tokens, 55000001 - 64, 64, found, &error), TRI_BAD_INPUT);
    files_expect_line(&error, "large.bin: token 256 at position 55000000, expected below 256",
                      NULL);
    tri_tokens_destroy(tokens);
    assert_int_equal(remove("large.bin"), 0);
}

/* What is left of its last page reads as zeros. */
static void a_file_cut_short_in_use_is_no_zeros(void **state)
{
    (void)state;
    files_enter("shards_cut");
    const int32_t ones[] = {1, 1};
    const unsigned char tokens[] = {1, 0, 1, 0, 1, 0, 1, 0};
    files_write("t.bin", tokens, sizeof(tokens));
    struct tri_tokens *set = open_set("t.bin", TRI_DATA_U16, 256);
    expect_tokens(set, 2, 2, ones);
    assert_int_equal(truncate("t.bin", 4), 0);
    struct tri_error error = {0};
    int32_t found[4];
    assert_int_equal(tri_tokens_read(set, 0, 4, found, &error), TRI_FAILED);
    assert_string_equal(error.message, "t.bin: was cut short while it was in use");
    tri_tokens_destroy(set);
}

/* ---- the writer ------------------------------------------------------------------------------ */

static int64_t write_set(int64_t vocab, int64_t total, int64_t per_shard, int64_t part)
{
    struct tri_error error = {0};
    struct tri_shard_writer *writer = tri_shard_writer_create(&(struct tri_shard_writer_args){
        .folder = ".", .stem = "t", .vocab_size = vocab, .per_shard = per_shard});
    int32_t tokens[1000];
    for (int64_t at = 0; at < total; at += part) {
        int64_t count = total - at < part ? total - at : part;
        for (int64_t i = 0; i < count; i++) {
            tokens[i] = (int32_t)((at + i) * 7919 % vocab);
        }
        assert_int_equal(tri_shard_writer_write(writer, tokens, NULL, count, &error), TRI_OK);
    }
    assert_int_equal(tri_shard_writer_finish(writer, &error), TRI_OK);
    int64_t files = tri_shard_writer_files(writer);
    tri_shard_writer_destroy(writer);
    return files;
}

static void what_is_written_is_read_back(void **state)
{
    (void)state;
    static const int64_t vocab[] = {256, 65536, 65537, 128256};
    for (size_t v = 0; v < 4; v++) {
        files_enter("shards_written");
        assert_int_equal(write_set(vocab[v], 50000, 20000, 999), 3);
        struct tri_tokens *tokens = open_set("t_*.bin", TRI_DATA_LLMC, vocab[v]);
        assert_int_equal(tri_tokens_shards(tokens), 3);
        assert_int_equal(tri_tokens_count(tokens), 50000);
        assert_string_equal(tri_tokens_shard(tokens, 2).path, "t_000002.bin");
        assert_int_equal(tri_tokens_shard(tokens, 2).tokens, 10000);
        assert_int_equal(tri_tokens_shard(tokens, 2).bytes_per_token, vocab[v] <= 65536 ? 2 : 4);
        for (int64_t at = 0; at < 50000; at += 1) {
            int32_t expected = (int32_t)(at * 7919 % vocab[v]);
            expect_tokens(tokens, at, 1, &expected);
        }
        tri_tokens_destroy(tokens);
    }
}

static void the_writer_s_bytes_are_llm_c_s(void **state)
{
    (void)state;
    files_enter("shards_bytes");
    assert_int_equal(write_set(50257, 3, 10, 3), 1);
    unsigned char expected[1024 + 6] = {0x88, 0xd8, 0x34, 0x01, 1, 0, 0, 0, 3};
    const unsigned char tokens[] = {0, 0, 0xef, 0x1e, 0xde, 0x3d}; /* 0, 7919, 15838 */
    memcpy(expected + 1024, tokens, sizeof(tokens));
    size_t bytes;
    unsigned char *found = files_read("t_000000.bin", &bytes);
    assert_int_equal(bytes, sizeof(expected));
    assert_memory_equal(found, expected, bytes);
    tri_free(found);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_llmc_u16_and_llama3_u32),
        cmocka_unit_test(reads_headerless_u16_and_u32),
        cmocka_unit_test(shards_follow_their_names_and_brackets_are_no_pattern),
        cmocka_unit_test(wrong_files_give_one_line_each),
        cmocka_unit_test(every_flipped_bit_of_a_header_is_refused),
        cmocka_unit_test(wrong_headerless_files_give_one_line_each),
        cmocka_unit_test(the_second_shard_is_the_one_named),
        cmocka_unit_test(a_large_set_is_checked_where_it_is_read),
        cmocka_unit_test(a_file_cut_short_in_use_is_no_zeros),
        cmocka_unit_test(what_is_written_is_read_back),
        cmocka_unit_test(the_writer_s_bytes_are_llm_c_s),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
