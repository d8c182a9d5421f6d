/* Mixtures: the shares are exact, no set lags, each goes through its own samples in order, and the
 * rows are those of the sets. */
#include "files.h"

#include "data/loader.h"
#include "data/mixture.h"

#include <string.h>

static void check_shares(int count, const double *weights, double slack)
{
    struct tri_mixture *mixture = tri_mixture_create(count, weights);
    double sum = 0;
    int64_t quotas = 0, taken[TRI_MIXTURE_SETS] = {0};
    for (int i = 0; i < count; i++) {
        sum += weights[i];
        quotas += tri_mixture_quota(mixture, i);
        assert_true(tri_mixture_quota(mixture, i) >= 1);
    }
    assert_int_equal(quotas, TRI_MIXTURE_PERIOD);
    for (int64_t sample = 0; sample < 2 * TRI_MIXTURE_PERIOD + 1000; sample++) {
        int64_t own;
        int set = tri_mixture_pick(mixture, sample, &own);
        assert_int_equal(own, taken[set]++);
        for (int i = 0; i < count; i++) {
            double due = weights[i] / sum * (double)(sample + 1);
            double lag = due - (double)taken[i];
            assert_true(lag < slack && lag > -slack);
        }
        if (sample % 4999 == 0) {
            for (int i = 0; i < count; i++) {
                assert_int_equal(tri_mixture_taken(mixture, i, sample + 1), taken[i]);
            }
        }
    }
    tri_mixture_destroy(mixture);
}

static void shares_are_exact_and_even(void **state)
{
    (void)state;
    check_shares(1, (const double[]){0.3}, 1e-6);
    check_shares(2, (const double[]){0.7, 0.3}, 2.5);
    check_shares(3, (const double[]){1, 1, 1}, 3);
    check_shares(5, (const double[]){100, 7, 7, 0.5, 3}, 4);
    check_shares(3, (const double[]){1e-9, 1, 1e-12}, 8); /* one of each in a period */
}

/* Their sum is more than a double holds. */
static void weights_may_be_of_any_size(void **state)
{
    (void)state;
    struct tri_mixture *mixture = tri_mixture_create(3, (const double[]){1e308, 1e308, 1e-300});
    assert_int_equal(tri_mixture_quota(mixture, 2), 1);
    assert_true(tri_mixture_quota(mixture, 0) >= TRI_MIXTURE_PERIOD / 2 - 1);
    assert_true(tri_mixture_quota(mixture, 1) >= TRI_MIXTURE_PERIOD / 2 - 1);
    tri_mixture_destroy(mixture);
}

static void rows_are_those_of_the_sets(void **state)
{
    (void)state;
    enum { SEQ = 8, BATCH = 5, ROOM = SEQ * BATCH };
    struct tri_error error = {0};
    struct tri_loader *parts[2], *alone[2];
    struct tri_tokens *tokens[2];
    files_enter("mixture");
    files_write_shard("a.bin", 100, 0, 1);
    files_write_shard("b.bin", 300, 1000, 1);
    files_write_documents("b.docs", 3, (const int64_t[]){0, 100, 105});
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            tri_tokens_create(i ? "b.bin" : "a.bin", TRI_DATA_LLMC, 0, &tokens[i], &error), TRI_OK);
        struct tri_loader_args args = {.tokens = tokens[i],
                                       .seed = 3,
                                       .sequence_length = SEQ,
                                       .global_batch = BATCH,
                                       .separator = -1,
                                       .packs = true,
                                       .set = i};
        assert_int_equal(tri_loader_create(&args, &parts[i], &error), TRI_OK);
        args.global_batch = 1;
        assert_int_equal(tri_loader_create(&args, &alone[i], &error), TRI_OK);
    }
    struct tri_loader *mix = tri_loader_mix(2, parts, (const double[]){1, 2});
    assert_true(tri_loader_has_documents(mix));
    int64_t own[2] = {0};
    for (int64_t step = 0; step < 20; step++) {
        int32_t room[4 * ROOM], row[4 * SEQ];
        const struct tri_row_arrays out = {room, room + ROOM, room + 2 * ROOM, room + 3 * ROOM};
        const struct tri_row_arrays one = {row, row + SEQ, row + 2 * SEQ, row + 3 * SEQ};
        int64_t counted = 0;
        assert_int_equal(tri_loader_rows(mix, step, 0, BATCH, &out, &error), TRI_OK);
        for (int r = 0; r < BATCH; r++) {
            int set = out.tokens[r * SEQ] >= 1000;
            assert_int_equal(tri_loader_rows(alone[set], own[set]++, 0, 1, &one, &error), TRI_OK);
            assert_memory_equal(one.tokens, out.tokens + r * SEQ, SEQ * sizeof(int32_t));
            assert_memory_equal(one.targets, out.targets + r * SEQ, SEQ * sizeof(int32_t));
            assert_memory_equal(one.first_key, out.first_key + r * SEQ, SEQ * sizeof(int32_t));
            assert_memory_equal(one.positions, out.positions + r * SEQ, SEQ * sizeof(int32_t));
        }
        for (int i = 0; i < ROOM; i++) {
            counted += out.targets[i] >= 0;
        }
        assert_int_equal(tri_loader_counted(mix, step), counted);
        assert_int_equal(tri_loader_share(mix, 0, (step + 1) * BATCH).samples, own[0]);
        assert_int_equal(tri_loader_share(mix, 1, (step + 1) * BATCH).samples, own[1]);
    }
    assert_int_equal(tri_loader_share(mix, 0, 0).epoch, tri_loader_counts(parts[0]).packing.rows);
    /* From some sample on, with any batch: what was not taken yet. */
    tri_loader_continue(mix, 7, 13);
    int32_t first[4 * SEQ], again[4 * SEQ];
    const struct tri_row_arrays a = {first, first + SEQ, first + 2 * SEQ, first + 3 * SEQ};
    const struct tri_row_arrays b = {again, again + SEQ, again + 2 * SEQ, again + 3 * SEQ};
    assert_int_equal(tri_loader_rows(mix, 7, 2, 1, &a, &error), TRI_OK);
    tri_loader_continue(mix, 0, 0);
    assert_int_equal(tri_loader_rows(mix, 3, 0, 1, &b, &error), TRI_OK);
    assert_memory_equal(first, again, sizeof(first));
    tri_loader_destroy(mix);
    for (int i = 0; i < 2; i++) {
        tri_loader_destroy(alone[i]);
        tri_tokens_destroy(tokens[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_are_exact_and_even),
        cmocka_unit_test(weights_may_be_of_any_size),
        cmocka_unit_test(rows_are_those_of_the_sets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
