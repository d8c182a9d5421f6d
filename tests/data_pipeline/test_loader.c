#include "files.h"

#include "base/memory.h"
#include "data/loader.h"
#include "shard/rows.h"

#include <stdio.h>
#include <string.h>

static struct tri_tokens *tokens_of(const char *pattern)
{
    struct tri_error error = {0};
    struct tri_tokens *tokens;
    if (tri_tokens_create(pattern, TRI_DATA_LLMC, 65536, &tokens, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return tokens;
}

/* A set whose token i is i, so that a token tells where it was read. */
static struct tri_tokens *counting_tokens(int64_t count)
{
    files_enter("loader");
    files_write_shard("t_0.bin", count, 0, 1);
    return tokens_of("t_*.bin");
}

static struct tri_loader *loader_of(const struct tri_tokens *tokens, int64_t seed, int64_t seq,
                                    int64_t batch)
{
    struct tri_error error = {0};
    struct tri_loader *loader;
    struct tri_loader_args args = {.tokens = tokens,
                                   .seed = seed,
                                   .sequence_length = seq,
                                   .global_batch = batch,
                                   .separator = -1};
    if (tri_loader_create(&args, &loader, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return loader;
}

enum { ROOM = 4096 };
struct rows {
    int32_t tokens[ROOM], targets[ROOM], first_key[ROOM], positions[ROOM];
};

static struct tri_row_arrays arrays_at(struct rows *rows, int64_t at)
{
    return (struct tri_row_arrays){rows->tokens + at, rows->targets + at, rows->first_key + at,
                                   rows->positions + at};
}

static void read_rows(const struct tri_loader *loader, int64_t step, struct tri_range range,
                      int64_t seq, struct rows *rows)
{
    struct tri_error error = {0};
    assert_true(range.end * seq <= ROOM);
    const struct tri_row_arrays out = arrays_at(rows, range.begin * seq);
    assert_int_equal(
        tri_loader_rows(loader, step, range.begin, tri_range_size(range), &out, &error), TRI_OK);
}

/* ---- training -------------------------------------------------------------------------------- */

static void an_epoch_visits_every_window_once(void **state)
{
    (void)state;
    static const int64_t counts[] = {9,  10,  15,   16,   17,   18,   24,
                                     25, 100, 1000, 1001, 1007, 1008, 1009};
    const int64_t seq = 8;
    struct rows rows;
    for (size_t c = 0; c < sizeof(counts) / sizeof(*counts); c++) {
        struct tri_tokens *tokens = counting_tokens(counts[c]);
        struct tri_loader *loader = loader_of(tokens, 3, seq, 1);
        /* As many as fit whatever the phase, and never none. */
        int64_t windows = counts[c] < 2 * seq ? 1 : counts[c] / seq - 1;
        bool phases_differ = false;
        int64_t last_phase = -1;
        for (int64_t epoch = 0; epoch < 6; epoch++) {
            int64_t starts[128];
            bool seen[128] = {false};
            int64_t phase = INT64_MAX;
            for (int64_t i = 0; i < windows; i++) {
                read_rows(loader, epoch * windows + i, (struct tri_range){0, 1}, seq, &rows);
                phase = rows.tokens[0] < phase ? rows.tokens[0] : phase;
                for (int t = 0; t < seq; t++) {
                    assert_int_equal(rows.tokens[t], rows.tokens[0] + t);
                    assert_int_equal(rows.targets[t], rows.tokens[t] + 1);
                    assert_int_equal(rows.first_key[t], 0);
                }
                assert_true(rows.targets[seq - 1] < counts[c]);
                starts[i] = rows.tokens[0];
            }
            for (int64_t i = 0; i < windows; i++) {
                assert_int_equal((starts[i] - phase) % seq, 0);
                assert_in_range((starts[i] - phase) / seq, 0, windows - 1);
                assert_false(seen[(starts[i] - phase) / seq]);
                seen[(starts[i] - phase) / seq] = true;
            }
            phases_differ = phases_differ || (last_phase >= 0 && phase != last_phase);
            last_phase = phase;
        }
        assert_true(phases_differ || counts[c] == 9);
        tri_loader_destroy(loader);
        tri_tokens_destroy(tokens);
    }
}

static void every_token_is_predicted_in_some_epoch(void **state)
{
    (void)state;
    const int64_t count = 61;
    const int64_t seq = 8;
    struct rows rows;
    struct tri_tokens *tokens = counting_tokens(count);
    struct tri_loader *loader = loader_of(tokens, 1, seq, 1);
    const int64_t windows = count / seq - 1;
    int seen[61] = {0};
    for (int64_t step = 0; step < 400 * windows; step++) {
        read_rows(loader, step, (struct tri_range){0, 1}, seq, &rows);
        for (int t = 0; t < seq; t++) {
            seen[rows.targets[t]]++;
        }
    }
    for (int64_t i = 1; i < count; i++) {
        assert_true(seen[i] > 0);
    }
    /* The middle is in every epoch. */
    assert_int_equal(seen[30], 400);
    tri_loader_destroy(loader);
    tri_tokens_destroy(tokens);
}

static void a_batch_goes_on_into_the_next_epoch(void **state)
{
    (void)state;
    const int64_t seq = 8;
    struct rows batch;
    struct rows single;
    struct tri_tokens *tokens = counting_tokens(100); /* 11 windows: batches of 5 span epochs */
    struct tri_loader *by_batch = loader_of(tokens, 3, seq, 5);
    struct tri_loader *one_by_one = loader_of(tokens, 3, seq, 1);
    for (int64_t step = 0; step < 12; step++) {
        read_rows(by_batch, step, (struct tri_range){0, 5}, seq, &batch);
        for (int64_t r = 0; r < 5; r++) {
            read_rows(one_by_one, 5 * step + r, (struct tri_range){0, 1}, seq, &single);
            assert_memory_equal(batch.tokens + r * seq, single.tokens,
                                (size_t)seq * sizeof(int32_t));
        }
    }
    tri_loader_destroy(by_batch);
    tri_loader_destroy(one_by_one);
    tri_tokens_destroy(tokens);
}

static void every_layout_reads_the_same_global_batch(void **state)
{
    (void)state;
    const int64_t seq = 8;
    const int64_t batch = 13;
    struct rows whole;
    struct rows parts;
    struct tri_tokens *tokens = counting_tokens(1000);
    for (int replicas = 1; replicas <= 8; replicas++) {
        for (int64_t micro = 1; micro <= 4; micro++) {
            struct tri_loader *loader = loader_of(tokens, 5, seq, batch);
            for (int64_t step = 0; step < 12; step++) {
                memset(&parts, 0xff, sizeof(parts));
                read_rows(loader, step, (struct tri_range){0, batch}, seq, &whole);
                for (int replica = 0; replica < replicas; replica++) {
                    for (int64_t i = 0; i < tri_rows_micro_steps(batch, replicas, micro); i++) {
                        read_rows(loader, step, tri_rows_micro(batch, replicas, replica, micro, i),
                                  seq, &parts);
                    }
                }
                size_t bytes = (size_t)(batch * seq) * sizeof(int32_t);
                assert_memory_equal(whole.tokens, parts.tokens, bytes);
                assert_memory_equal(whole.targets, parts.targets, bytes);
                assert_memory_equal(whole.first_key, parts.first_key, bytes);
            }
            tri_loader_destroy(loader);
        }
    }
    tri_tokens_destroy(tokens);
}

static void how_tokens_are_cut_into_shards_changes_nothing(void **state)
{
    (void)state;
    const int64_t seq = 8;
    struct rows one;
    struct rows many;
    struct tri_tokens *whole = counting_tokens(1000);
    static const int cuts[] = {0, 1, 2, 5, 300, 301, 777, 999, 1000};
    for (size_t i = 0; i + 1 < sizeof(cuts) / sizeof(*cuts); i++) {
        char name[32];
        (void)snprintf(name, sizeof(name), "s_%zu.bin", i);
        files_write_shard(name, cuts[i + 1] - cuts[i], cuts[i], 1);
    }
    struct tri_tokens *cut = tokens_of("s_*.bin");
    struct tri_loader *from_whole = loader_of(whole, 4, seq, 10);
    struct tri_loader *from_cut = loader_of(cut, 4, seq, 10);
    for (int64_t step = 0; step < 40; step++) {
        read_rows(from_whole, step, (struct tri_range){0, 10}, seq, &one);
        read_rows(from_cut, step, (struct tri_range){0, 10}, seq, &many);
        assert_memory_equal(one.tokens, many.tokens, (size_t)(10 * seq) * sizeof(int32_t));
        assert_memory_equal(one.targets, many.targets, (size_t)(10 * seq) * sizeof(int32_t));
    }
    tri_loader_destroy(from_whole);
    tri_loader_destroy(from_cut);
    tri_tokens_destroy(cut);
    tri_tokens_destroy(whole);
}

static void a_restart_reads_what_the_run_would_have_read(void **state)
{
    (void)state;
    const int64_t seq = 8;
    struct rows before;
    struct rows after;
    struct tri_tokens *tokens = counting_tokens(200);
    for (int64_t stop = 0; stop < 20; stop++) {
        struct tri_loader *run = loader_of(tokens, 9, seq, 6);
        for (int64_t step = 0; step <= stop; step++) {
            read_rows(run, step, (struct tri_range){0, 6}, seq, &before);
        }
        tri_loader_destroy(run);
        struct tri_tokens *again = tokens_of("t_*.bin");
        struct tri_loader *restarted = loader_of(again, 9, seq, 6);
        read_rows(restarted, stop, (struct tri_range){0, 6}, seq, &after);
        assert_memory_equal(before.tokens, after.tokens, (size_t)(6 * seq) * sizeof(int32_t));
        tri_loader_destroy(restarted);
        tri_tokens_destroy(again);
    }
    tri_tokens_destroy(tokens);
}

static void another_seed_reads_in_another_order(void **state)
{
    (void)state;
    const int64_t seq = 8;
    struct rows a;
    struct rows b;
    struct tri_tokens *tokens = counting_tokens(1000);
    struct tri_loader *one = loader_of(tokens, 1, seq, 16);
    struct tri_loader *two = loader_of(tokens, 2, seq, 16);
    read_rows(one, 0, (struct tri_range){0, 16}, seq, &a);
    read_rows(two, 0, (struct tri_range){0, 16}, seq, &b);
    assert_memory_not_equal(a.tokens, b.tokens, (size_t)(16 * seq) * sizeof(int32_t));
    tri_loader_destroy(one);
    tri_loader_destroy(two);
    tri_tokens_destroy(tokens);
}

/* A change of these numbers is a change of every run: one that an older program began would go on
 * with other rows. */
static void the_order_is_the_one_that_runs_were_begun_with(void **state)
{
    (void)state;
    struct rows rows;
    struct tri_tokens *tokens = counting_tokens(100);
    struct tri_loader *loader = loader_of(tokens, 1, 8, 24);
    read_rows(loader, 0, (struct tri_range){0, 24}, 8, &rows);
    static const int32_t starts[24] = {72, 56, 16, 64, 48, 8, 32, 40, 24, 0,  80, 28,
                                       20, 44, 60, 84, 12, 4, 52, 68, 76, 36, 9,  73};
    for (int64_t i = 0; i < 24; i++) {
        assert_int_equal(rows.tokens[8 * i], starts[i]);
    }
    tri_loader_destroy(loader);
    tri_tokens_destroy(tokens);
}

static void a_document_begins_after_a_separator(void **state)
{
    (void)state;
    files_enter("loader_documents");
    const unsigned char raw[] = {5, 0, 9, 0, 9, 0, 1, 0, 2, 0, 9, 0, 3, 0, 4, 0, 9, 0, 0, 0};
    files_write("raw.bin", raw, sizeof(raw));
    struct tri_error error = {0};
    struct tri_tokens *tokens;
    assert_int_equal(tri_tokens_create("raw.bin", TRI_DATA_U16, 10, &tokens, &error), TRI_OK);
    struct tri_loader *loader;
    struct tri_loader_args args = {
        .tokens = tokens, .seed = 1, .sequence_length = 9, .global_batch = 1, .separator = 9};
    assert_int_equal(tri_loader_create(&args, &loader, &error), TRI_OK);
    struct rows rows;
    read_rows(loader, 0, (struct tri_range){0, 1}, 9, &rows);
    const int32_t input[] = {5, 9, 9, 1, 2, 9, 3, 4, 9};
    const int32_t target[] = {9, 9, 1, 2, 9, 3, 4, 9, 0};
    const int32_t first[] = {0, 0, 2, 3, 3, 3, 6, 6, 6};
    assert_memory_equal(rows.tokens, input, sizeof(input));
    assert_memory_equal(rows.targets, target, sizeof(target));
    assert_memory_equal(rows.first_key, first, sizeof(first));
    tri_loader_destroy(loader);
    tri_tokens_destroy(tokens);
}

static void a_set_too_short_for_a_window_is_refused(void **state)
{
    (void)state;
    struct tri_error error = {0};
    struct tri_loader *loader;
    struct tri_tokens *tokens = counting_tokens(8);
    struct tri_loader_args args = {
        .tokens = tokens, .seed = 1, .sequence_length = 8, .global_batch = 1, .separator = -1};
    assert_int_equal(tri_loader_create(&args, &loader, &error), TRI_BAD_INPUT);
    assert_null(loader);
    files_expect_line(&error, "t_0.bin", "8 tokens", "at least 9", "data.sequence_length", NULL);
    args.sequence_length = 7;
    assert_int_equal(tri_loader_create(&args, &loader, &error), TRI_OK);
    tri_loader_destroy(loader);
    tri_tokens_destroy(tokens);
    tokens = counting_tokens(1);
    args.tokens = tokens;
    assert_int_equal(tri_loader_create_eval(&args, &loader, &error), TRI_BAD_INPUT);
    files_expect_line(&error, "t_0.bin", "1 token", "at least 2", NULL);
    tri_tokens_destroy(tokens);
}

/* ---- evaluation ------------------------------------------------------------------------------ */

static void evaluation_predicts_every_token_but_the_first_once(void **state)
{
    (void)state;
    struct tri_error error = {0};
    const int64_t seq = 8;
    for (int64_t count = 2; count <= 40; count++) {
        struct tri_tokens *tokens = counting_tokens(count);
        struct tri_loader *loader;
        struct tri_loader_args args = {.tokens = tokens, .sequence_length = seq, .separator = -1};
        assert_int_equal(tri_loader_create_eval(&args, &loader, &error), TRI_OK);
        int64_t full = tri_loader_eval_count(loader);
        int64_t rest = tri_loader_eval_rest(loader);
        assert_int_equal(full, (count - 1) / seq);
        struct rows rows;
        memset(&rows, 0xff, sizeof(rows));
        const struct tri_row_arrays whole = arrays_at(&rows, 0);
        const struct tri_row_arrays last = arrays_at(&rows, full * seq);
        assert_int_equal(tri_loader_eval_rows(loader, 0, full, &whole, &error), TRI_OK);
        if (rest > 0) {
            assert_int_equal(tri_loader_eval_rows(loader, full, 1, &last, &error), TRI_OK);
        }
        int64_t next = 1;
        for (int64_t i = 0; i < full * seq + rest; i++) {
            assert_int_equal(rows.tokens[i], next - 1);
            assert_int_equal(rows.targets[i], next);
            assert_int_equal(rows.first_key[i], 0);
            next++;
        }
        assert_int_equal(rows.targets[full * seq + rest], -1);
        assert_int_equal(next, count);
        tri_loader_destroy(loader);
        tri_tokens_destroy(tokens);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_epoch_visits_every_window_once),
        cmocka_unit_test(every_token_is_predicted_in_some_epoch),
        cmocka_unit_test(a_batch_goes_on_into_the_next_epoch),
        cmocka_unit_test(every_layout_reads_the_same_global_batch),
        cmocka_unit_test(how_tokens_are_cut_into_shards_changes_nothing),
        cmocka_unit_test(a_restart_reads_what_the_run_would_have_read),
        cmocka_unit_test(another_seed_reads_in_another_order),
        cmocka_unit_test(the_order_is_the_one_that_runs_were_begun_with),
        cmocka_unit_test(a_document_begins_after_a_separator),
        cmocka_unit_test(a_set_too_short_for_a_window_is_refused),
        cmocka_unit_test(evaluation_predicts_every_token_but_the_first_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
