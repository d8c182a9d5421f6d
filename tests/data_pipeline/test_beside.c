/* Masks and documents that lie beside shards: what they say, across files, and what is refused. */
#include "files.h"

#include "base/memory.h"
#include "data/loader.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

static struct tri_tokens *open_set(const char *pattern)
{
    struct tri_error error = {0};
    struct tri_tokens *tokens;
    if (tri_tokens_create(pattern, TRI_DATA_LLMC, 0, &tokens, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return tokens;
}

static bool odd(int64_t place)
{
    return place * 7 % 5 < 2;
}

static bool all(int64_t place)
{
    (void)place;
    return true;
}

/* ---- masks ----------------------------------------------------------------------------------- */

/* Three files, of which the second has no mask. */
static const int64_t sizes[] = {203, 5, 131};

static struct tri_tokens *masked_set(void)
{
    files_write_shard("t_0.bin", sizes[0], 0, 1);
    files_write_shard("t_1.bin", sizes[1], 0, 1);
    files_write_shard("t_2.bin", sizes[2], 0, 1);
    files_write_mask("t_0.mask", sizes[0], odd);
    files_write_mask("t_2.mask", sizes[2], odd);
    return open_set("t_?.bin");
}

static bool expected(int64_t place)
{
    return place < sizes[0] ? odd(place)
                            : place < sizes[0] + sizes[1] || odd(place - sizes[0] - sizes[1]);
}

static void masks_say_which_targets_count(void **state)
{
    (void)state;
    files_enter("beside_masks");
    struct tri_tokens *tokens = masked_set();
    assert_true(tri_tokens_masked(tokens) && !tri_tokens_documented(tokens));
    assert_int_equal(tri_tokens_shards(tokens), 3);
    assert_true(tri_tokens_shard(tokens, 0).masked && !tri_tokens_shard(tokens, 1).masked);
    int64_t count = tri_tokens_count(tokens);
    int32_t targets[400];
    for (int64_t first = 0; first < count; first += 13) {
        for (int64_t n = 0; n <= count - first; n += 29) {
            int64_t sum = 0;
            memset(targets, 0, sizeof(targets));
            tri_tokens_mask(tokens, first, n, targets);
            for (int64_t i = 0; i < n; i++) {
                assert_int_equal(targets[i], expected(first + i) ? 0 : -1);
                sum += expected(first + i);
            }
            assert_int_equal(targets[n], 0);
            assert_int_equal(tri_tokens_counted(tokens, first, n), sum);
        }
    }
    tri_tokens_destroy(tokens);
}

static struct tri_row_arrays arrays(int32_t *room, int64_t n)
{
    return (struct tri_row_arrays){room, room + n, room + 2 * n, room + 3 * n};
}

static void a_loader_masks_and_counts(void **state)
{
    (void)state;
    enum { SEQ = 16, BATCH = 3 };
    struct tri_error error = {0};
    files_enter("beside_loader");
    struct tri_tokens *tokens = masked_set();
    struct tri_loader_args args = {.tokens = tokens,
                                   .seed = 5,
                                   .sequence_length = SEQ,
                                   .global_batch = BATCH,
                                   .separator = -1};
    struct tri_loader *loader;
    int32_t room[4 * SEQ * BATCH];
    const struct tri_row_arrays out = arrays(room, SEQ * BATCH);
    assert_int_equal(tri_loader_create(&args, &loader, &error), TRI_OK);
    for (int64_t step = 0; step < 20; step++) {
        int64_t sum = 0;
        assert_int_equal(tri_loader_rows(loader, step, 0, BATCH, &out, &error), TRI_OK);
        for (int i = 0; i < SEQ * BATCH; i++) {
            sum += out.targets[i] >= 0;
            /* Tokens of the first file are their places; the next is masked or it is that. */
            if (out.tokens[i] >= 131 && out.tokens[i] < 202) {
                assert_int_equal(out.targets[i], odd(out.tokens[i] + 1) ? out.tokens[i] + 1 : -1);
            }
        }
        assert_int_equal(tri_loader_counted(loader, step), sum);
    }
    tri_loader_destroy(loader);
    assert_int_equal(tri_loader_create_eval(&args, &loader, &error), TRI_OK);
    int64_t count = tri_loader_eval_count(loader);
    assert_int_equal(count, 338 / SEQ);
    int64_t sum = 0;
    for (int64_t row = 0; row < count + 1; row++) {
        int64_t n = row < count ? SEQ : tri_loader_eval_rest(loader);
        assert_int_equal(tri_loader_eval_rows(loader, row, 1, &out, &error), TRI_OK);
        for (int64_t t = 0; t < n; t++) {
            sum += out.targets[t] >= 0;
            assert_int_equal(out.targets[t] >= 0, expected(row * SEQ + t + 1));
        }
        assert_int_equal(
            tri_loader_eval_counted(loader, row < count ? row + 1 : count, row == count), sum);
    }
    tri_loader_destroy(loader);
    tri_tokens_destroy(tokens);
}

/* ---- documents ------------------------------------------------------------------------------- */

static void documents_go_on_in_the_next_file(void **state)
{
    (void)state;
    files_enter("beside_documents");
    files_write_shard("t_0.bin", 10, 0, 1);
    files_write_shard("t_1.bin", 4, 10, 1);
    files_write_shard("t_2.bin", 6, 14, 1);
    files_write_shard("t_3.bin", 5, 20, 1); /* has no list: begins one */
    files_write_documents("t_0.docs", 3, (const int64_t[]){0, 4, 9});
    files_write_documents("t_1.docs", 0, NULL);
    files_write_documents("t_2.docs", 2, (const int64_t[]){1, 5});
    struct tri_tokens *tokens = open_set("t_?.bin");
    const int64_t begins[] = {4, 9, 15, 19, 20, 25};
    int at = 0;
    for (int64_t place = 0; place < 25; place++) {
        at += place >= begins[at];
        assert_int_equal(tri_tokens_next_document(tokens, place), begins[at]);
    }
    assert_int_equal(tri_tokens_shard(tokens, 0).documents, 3);
    assert_int_equal(tri_tokens_shard(tokens, 3).documents, -1);
    struct tri_error error = {0};
    struct tri_loader *loader;
    int32_t room[4 * 24];
    const struct tri_row_arrays out = arrays(room, 24);
    for (int positions = 0; positions < 2; positions++) {
        struct tri_loader_args args = {.tokens = tokens,
                                       .sequence_length = 24,
                                       .separator = 12,
                                       .document_positions = positions == 1};
        assert_int_equal(tri_loader_create_eval(&args, &loader, &error), TRI_OK);
        assert_true(tri_loader_has_documents(loader));
        assert_int_equal(tri_loader_eval_rows(loader, 0, 1, &out, &error), TRI_OK);
        const int32_t first[] = {0, 0,  0,  0,  4,  4,  4,  4,  4,  9,  9,  9,
                                 9, 13, 13, 15, 15, 15, 15, 19, 20, 20, 20, 20};
        assert_memory_equal(out.first_key, first, sizeof(first));
        for (int t = 0; t < 24; t++) {
            assert_int_equal(out.targets[t], t + 1); /* over the border too */
            assert_int_equal(out.positions[t], positions ? t - first[t] : t);
        }
        tri_loader_destroy(loader);
    }
    tri_tokens_destroy(tokens);
}

/* ---- the set's name -------------------------------------------------------------------------- */

static uint64_t contents(const char *pattern, uint64_t *fingerprint)
{
    struct tri_error error = {0};
    struct tri_tokens *tokens = open_set(pattern);
    uint64_t hash = 0;
    assert_int_equal(tri_tokens_contents(tokens, &hash, &error), TRI_OK);
    *fingerprint = tri_tokens_fingerprint(tokens, 0);
    tri_tokens_destroy(tokens);
    return hash;
}

static void contents_know_masks_and_documents(void **state)
{
    (void)state;
    uint64_t print[5], hash[5];
    files_enter("beside_contents");
    files_write_shard("a.bin", 200, 0, 1);
    hash[0] = contents("a.bin", &print[0]);
    files_write_mask("a.mask", 200, odd);
    hash[1] = contents("a.bin", &print[1]);
    files_write_documents("a.docs", 2, (const int64_t[]){0, 100});
    hash[2] = contents("a.bin", &print[2]);
    files_write_documents("a.docs", 2, (const int64_t[]){0, 101});
    hash[3] = contents("a.bin", &print[3]);
    files_write_mask("a.mask", 200, all);
    hash[4] = contents("a.bin", &print[4]);
    for (int i = 0; i < 5; i++) {
        for (int j = 0; j < i; j++) {
            assert_true(hash[i] != hash[j] && print[i] != print[j]);
        }
    }
    /* However it is cut. */
    uint64_t other;
    files_write_shard("c_0.bin", 150, 0, 1);
    files_write_shard("c_1.bin", 50, 150, 1);
    files_write_mask("c_0.mask", 150, all);
    files_write_documents("c_0.docs", 2, (const int64_t[]){0, 101});
    files_write_documents("c_1.docs", 0, NULL);
    assert_true(contents("c_?.bin", &other) == hash[4]);
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void refuse(const char *text, const char *more)
{
    struct tri_error error = {0};
    struct tri_tokens *tokens;
    assert_int_equal(tri_tokens_create("b.bin", TRI_DATA_LLMC, 0, &tokens, &error), TRI_BAD_INPUT);
    files_expect_line(&error, text, more, (const char *)NULL);
}

static void files_that_lie_are_refused(void **state)
{
    (void)state;
    unsigned char *data;
    size_t bytes;
    files_enter("beside_bad");
    files_write_shard("b.bin", 20, 0, 1);
    files_write("b.mask", "short", 5);
    refuse("b.mask: 5 bytes", "expected");
    files_write_mask("b.mask", 19, odd);
    refuse("b.mask: of 19 tokens", "expected 20");
    files_write_mask("b.mask", 20, odd);
    data = files_read("b.mask", &bytes);
    files_write("b.mask", data, bytes - 1);
    refuse("b.mask: 1026 bytes", "expected 1027");
    data[0] ^= 1;
    files_write("b.mask", data, bytes);
    refuse("b.mask: header word 0", "expected 20261129");
    data[0] ^= 1;
    data[1000] = 1;
    files_write("b.mask", data, bytes);
    refuse("b.mask: header word 250", "expected 0");
    data[1000] = 0;
    memset(data + 16, 0xff, 8);
    files_write("b.mask", data, bytes);
    refuse("b.mask: the header promises -1", "");
    tri_free(data);
    files_write_mask("b.mask", 20, odd);
    files_write_documents("b.docs", 2, (const int64_t[]){0, 20});
    refuse("b.docs: document 1 begins at token 20", "to 19");
    files_write_documents("b.docs", 3, (const int64_t[]){0, 7, 7});
    refuse("b.docs: document 2 begins at token 7", "from 8");
    files_write_documents("b.docs", 2, (const int64_t[]){0, -5});
    refuse("b.docs: document 1 begins at token 18446744073709551611", "");
    data = files_read("b.docs", &bytes);
    memset(data + 16, 0x7f, 8);
    files_write("b.docs", data, bytes);
    refuse("b.docs: ", "documents, expected at most 20");
    tri_free(data);
    /* Links that lead nowhere, as where shards were moved. */
    assert_int_equal(remove("b.docs"), 0);
    assert_int_equal(symlink("elsewhere", "b.docs"), 0);
    refuse("b.docs: ", "No such file");
    assert_int_equal(remove("b.docs"), 0);
    assert_int_equal(remove("b.mask"), 0);
    assert_int_equal(symlink("b.mask", "b.mask"), 0);
    refuse("b.mask: ", "symbolic links");
}

static bool only_the_first(int64_t place)
{
    return place == 0;
}

/* The first token of all is nobody's target; in rows of documents that of a document is. */
static void sets_of_which_nothing_counts_are_refused(void **state)
{
    (void)state;
    files_enter("beside_nothing");
    files_write_shard("none.bin", 100, 0, 1);
    files_write_mask("none.mask", 100, only_the_first);
    int64_t places[100];
    for (int64_t i = 0; i < 100; i++) {
        places[i] = i;
    }
    files_write_shard("short.bin", 100, 0, 1);
    files_write_documents("short.docs", 100, places);
    for (int i = 0; i < 6; i++) {
        struct tri_error error = {0};
        struct tri_loader *loader = NULL;
        struct tri_tokens *tokens;
        bool short_ones = i >= 4;
        assert_int_equal(tri_tokens_create(short_ones ? "short.bin" : "none.bin", TRI_DATA_LLMC, 0,
                                           &tokens, &error),
                         TRI_OK);
        const struct tri_loader_args args = {.tokens = tokens,
                                             .sequence_length = 16,
                                             .global_batch = 2,
                                             .separator = -1,
                                             .packs = short_ones || i % 2 == 1};
        enum tri_status status = i / 2 % 2 ? tri_loader_create_eval(&args, &loader, &error)
                                           : tri_loader_create(&args, &loader, &error);
        assert_int_equal(status, TRI_BAD_INPUT);
        assert_null(loader);
        files_expect_line(&error, short_ones ? "short.bin" : "none.bin", "none of the set's",
                          "targets counts", NULL);
        tri_tokens_destroy(tokens);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masks_say_which_targets_count),
        cmocka_unit_test(a_loader_masks_and_counts),
        cmocka_unit_test(documents_go_on_in_the_next_file),
        cmocka_unit_test(contents_know_masks_and_documents),
        cmocka_unit_test(files_that_lie_are_refused),
        cmocka_unit_test(sets_of_which_nothing_counts_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
