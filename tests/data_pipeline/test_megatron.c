/* Megatron's .bin and .idx, written out by hand as indexed_dataset.py writes them. */
#include "files.h"

#include "data/shards.h"

#include <string.h>

enum { SEQUENCES = 4, BOUNDS = 4, BYTES = 34 + 12 * SEQUENCES + 8 * BOUNDS };

/* Sequences of 3, 0, 2 and 4 tokens; documents of sequences 0, of none, of the others. */
static const int32_t lengths[SEQUENCES] = {3, 0, 2, 4};
static const int64_t bounds[BOUNDS] = {0, 1, 1, 4};

static void write_index(unsigned char *index, unsigned char type, int64_t width)
{
    int64_t bytes = 0;
    const uint64_t numbers[] = {SEQUENCES, BOUNDS};
    memset(index, 0, BYTES);
    memcpy(index, "MMIDIDX", 7);
    index[9] = 1;
    index[17] = type;
    memcpy(index + 18, numbers, sizeof(numbers));
    memcpy(index + 34, lengths, sizeof(lengths));
    for (int i = 0; i < SEQUENCES; i++) {
        memcpy(index + 34 + 4 * SEQUENCES + 8 * i, &bytes, sizeof(bytes));
        bytes += lengths[i] * width;
    }
    memcpy(index + 34 + 12 * SEQUENCES, bounds, sizeof(bounds));
    files_write("m.idx", index, BYTES);
}

static void write_tokens(void)
{
    uint16_t tokens[9];
    for (int i = 0; i < 9; i++) {
        tokens[i] = (uint16_t)(50000 + i);
    }
    files_write("m.bin", tokens, sizeof(tokens));
}

static void tokens_and_documents_are_read(void **state)
{
    (void)state;
    unsigned char index[BYTES];
    struct tri_error error = {0};
    struct tri_tokens *tokens;
    int32_t found[9];
    files_enter("megatron");
    for (int wide = 0; wide < 2; wide++) {
        const int32_t ids[9] = {50000, 50001, 50002, 50003, 50004, 50005, 50006, 50007, 50008};
        write_tokens();
        write_index(index, wide ? 4 : 8, wide ? 4 : 2);
        if (wide) {
            files_write("m.bin", ids, sizeof(ids));
        }
        assert_int_equal(tri_tokens_create("*.bin", TRI_DATA_MEGATRON, 60000, &tokens, &error),
                         TRI_OK);
        assert_int_equal(tri_tokens_count(tokens), 9);
        assert_int_equal(tri_tokens_shard(tokens, 0).bytes_per_token, wide ? 4 : 2);
        assert_int_equal(tri_tokens_shard(tokens, 0).documents, 2);
        assert_int_equal(tri_tokens_read(tokens, 0, 9, found, &error), TRI_OK);
        assert_memory_equal(found, ids, sizeof(ids));
        assert_true(tri_tokens_documented(tokens));
        assert_int_equal(tri_tokens_next_document(tokens, 0), 3);
        assert_int_equal(tri_tokens_next_document(tokens, 3), 9);
        tri_tokens_destroy(tokens);
    }
}

static void refuse(const unsigned char *index, size_t bytes, const char *text)
{
    struct tri_error error = {0};
    struct tri_tokens *tokens;
    files_write("m.idx", index, bytes);
    assert_int_equal(tri_tokens_create("m.bin", TRI_DATA_MEGATRON, 60000, &tokens, &error),
                     TRI_BAD_INPUT);
    files_expect_line(&error, text, (const char *)NULL);
}

static void indexes_that_lie_are_refused(void **state)
{
    (void)state;
    unsigned char good[BYTES], bad[BYTES + 1];
    struct tri_error error = {0};
    struct tri_tokens *tokens;
    files_enter("megatron_bad");
    write_tokens();
    assert_int_equal(tri_tokens_create("m.bin", TRI_DATA_MEGATRON, 60000, &tokens, &error),
                     TRI_BAD_INPUT);
    files_expect_line(&error, "m.idx", (const char *)NULL);
    write_index(good, 8, 2);
    refuse(good, 20, "m.idx: no index of Megatron's");
    static const struct {
        size_t at;
        unsigned char byte;
        const char *says;
    } cases[] = {
        {0, 'X', "m.idx: no index of Megatron's"},
        {9, 2, "m.idx: version 2, expected 1"},
        {17, 5, "m.idx: tokens of type 5, expected 8 (16 bits) or 4 (32 bits)"},
        {18, 5, "do not hold what the header promises, 5 sequences"},
        {25, 0x80, "do not hold what the header promises"},
        {33, 0x80, "do not hold what the header promises"},
        {34, 4, "m.idx: sequence 1 has"},
        {37, 0x80, "m.idx: sequence 0 has -"},
        {34 + 12, 3, "m.bin: 18 bytes, expected those of the sequences in m.idx"},
        {34 + 12, 200, "m.bin: 18 bytes, expected"},
        {34 + 16 + 8, 7, "m.idx: sequence 1 has 0 tokens from byte 7 on, expected one from 6"},
        {34 + 48, 1, "m.idx: document 0 begins with sequence 1"},
        {34 + 48 + 16, 0, "m.idx: document 2 begins with sequence 0, expected one from 1 to 4"},
        {34 + 48 + 24, 5, "m.idx: document 3 begins with sequence 5"},
        {34 + 48 + 24, 3, "m.idx: document 3 begins with sequence 3"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        memcpy(bad, good, BYTES);
        bad[cases[i].at] = cases[i].byte;
        refuse(bad, BYTES, cases[i].says);
    }
    memcpy(bad, good, BYTES);
    refuse(bad, BYTES - 1, "do not hold");
    bad[BYTES] = 0;
    refuse(bad, BYTES + 1, "do not hold");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tokens_and_documents_are_read),
        cmocka_unit_test(indexes_that_lie_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
