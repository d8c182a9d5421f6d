/* A training set is known by its tokens, not by the names, cuts and widths of its files. */
#include "files.h"

#include "base/work.h"
#include "data/shards.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static uint64_t contents(const char *pattern, enum tri_data_format format)
{
    struct tri_error error = {0};
    struct tri_tokens *tokens;
    uint64_t hash = 0;
    assert_int_equal(tri_tokens_create(pattern, format, 65536, &tokens, &error), TRI_OK);
    assert_int_equal(tri_tokens_contents(tokens, &hash, &error), TRI_OK);
    tri_tokens_destroy(tokens);
    return hash;
}

static void names_cuts_and_widths_change_nothing(void **state)
{
    (void)state;
    files_enter("contents");
    files_write_shard("a.bin", 64464, 0, 1);
    uint64_t whole = contents("a.bin", TRI_DATA_LLMC);
    files_write_shard("cut_0.bin", 1, 0, 1);
    files_write_shard("cut_1.bin", 40000, 1, 1);
    files_write_shard("cut_2.bin", 64464 - 40001, 40001, 1);
    assert_true(contents("cut_*.bin", TRI_DATA_LLMC) == whole);
    static uint32_t wide[64464];
    for (uint32_t i = 0; i < 64464; i++) {
        wide[i] = i;
    }
    files_write("wide.bin", wide, sizeof(wide));
    assert_true(contents("wide.bin", TRI_DATA_U32) == whole);
    /* Any one token, and the order, does. */
    static const size_t places[] = {0, 1, 30000, 64463};
    for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
        wide[places[i]] ^= 1;
        files_write("wide.bin", wide, sizeof(wide));
        assert_true(contents("wide.bin", TRI_DATA_U32) != whole);
        wide[places[i]] ^= 1;
    }
    files_write_shard("swapped_0.bin", 64464 - 40001, 40001, 1);
    files_write_shard("swapped_1.bin", 40001, 0, 1);
    assert_true(contents("swapped_*.bin", TRI_DATA_LLMC) != whole);
}

/* Of more than 2^24 tokens, blocks from the first to the last. */
static void a_large_set_is_sampled(void **state)
{
    (void)state;
    const int64_t count = (1 << 24) + 1000001;
    files_enter("contents_large");
    static const unsigned char one = 1;
    files_write("t.bin", "", 0);
    assert_int_equal(truncate("t.bin", count * 2), 0);
    uint64_t zeros = contents("t.bin", TRI_DATA_U16);
    assert_true(contents("t.bin", TRI_DATA_U16) == zeros);
    const int64_t places[] = {65535, count - 1};
    for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
        files_write("t.bin", "", 0);
        assert_int_equal(truncate("t.bin", count * 2), 0);
        FILE *file = fopen("t.bin", "r+be");
        assert_non_null(file);
        assert_int_equal(fseek(file, (long)places[i] * 2, SEEK_SET), 0);
        assert_int_equal(fwrite(&one, 1, 1, file), 1);
        assert_int_equal(fclose(file), 0);
        assert_true(contents("t.bin", TRI_DATA_U16) != zeros);
    }
    assert_int_equal(unlink("t.bin"), 0);
}

/* Ranks wait for one that reads, from a slow disk perhaps: it gives signs. */
static void reading_gives_signs(void **state)
{
    (void)state;
    struct tri_error error = {0};
    struct tri_tokens *tokens;
    struct tri_work work = {0};
    uint64_t hash;
    files_enter("contents_signs");
    files_write("t.bin", "", 0);
    assert_int_equal(truncate("t.bin", 2 * TRI_TOKENS_CHECK_BYTES), 0);
    assert_int_equal(tri_tokens_create("t.bin", TRI_DATA_U16, 65536, &tokens, &error), TRI_OK);
    tri_work_attach(&work);
    assert_int_equal(tri_tokens_contents(tokens, &hash, &error), TRI_OK);
    uint64_t before = work.done;
    assert_true(before >= 256);
    (void)tri_tokens_fingerprint(tokens, 0);
    assert_true(work.done >= before + 64);
    tri_work_attach(NULL);
    tri_tokens_destroy(tokens);
    assert_int_equal(unlink("t.bin"), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_cuts_and_widths_change_nothing),
        cmocka_unit_test(a_large_set_is_sampled),
        cmocka_unit_test(reading_gives_signs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
