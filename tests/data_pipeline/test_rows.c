#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "shard/rows.h"
#include "shard/virtual.h"

static void shares_and_micro_steps_of_an_uneven_batch(void **state)
{
    (void)state;
    /* The picture in rows.h. */
    assert_int_equal(tri_rows_micro_steps(7, 3, 2), 2);
    static const int64_t begin[3][2] = {{0, 2}, {2, 4}, {4, 6}};
    static const int64_t end[3][2] = {{2, 2}, {4, 4}, {6, 7}};
    for (int replica = 0; replica < 3; replica++) {
        for (int step = 0; step < 2; step++) {
            struct tri_range rows = tri_rows_micro(7, 3, replica, 2, step);
            assert_int_equal(rows.begin, begin[replica][step]);
            assert_int_equal(rows.end, end[replica][step]);
        }
    }
}

static void every_row_is_worked_on_exactly_once(void **state)
{
    (void)state;
    for (int64_t batch = 0; batch <= 20; batch++) {
        for (int replicas = 1; replicas <= 9; replicas++) {
            for (int64_t micro = 1; micro <= 6; micro++) {
                int64_t steps = tri_rows_micro_steps(batch, replicas, micro);
                int64_t next = 0;
                int64_t busiest = 0;
                for (int replica = 0; replica < replicas; replica++) {
                    struct tri_range share = tri_rows_share(batch, replicas, replica);
                    assert_int_equal(share.begin, next);
                    assert_in_range(tri_range_size(share), batch / replicas, batch / replicas + 1);
                    for (int64_t i = 0; i < steps; i++) {
                        struct tri_range rows = tri_rows_micro(batch, replicas, replica, micro, i);
                        assert_in_range(tri_range_size(rows), 0, micro);
                        assert_int_equal(rows.begin, next);
                        next = rows.end;
                        busiest = tri_range_size(rows) > 0 && i + 1 > busiest ? i + 1 : busiest;
                    }
                    assert_int_equal(next, share.end);
                }
                assert_int_equal(next, batch);
                assert_int_equal(steps, busiest);
            }
        }
    }
}

static void cuts_nest(void **state)
{
    (void)state;
    for (int64_t n = 0; n <= 70; n++) {
        for (int parts = 1; parts <= 8; parts++) {
            for (int finer = 1; finer <= 6; finer++) {
                for (int i = 0; i < parts; i++) {
                    struct tri_range part = tri_range_part(n, parts, i);
                    assert_int_equal(part.begin, tri_range_part(n, parts * finer, i * finer).begin);
                    assert_int_equal(part.end,
                                     tri_range_part(n, parts * finer, (i + 1) * finer - 1).end);
                    assert_in_range(tri_range_size(part), n / parts, (n + parts - 1) / parts);
                }
            }
        }
    }
}

/* Where a micro-batch's tokens are cut over a number of ranks, its rows, cut alike, are cut too. */
static void cuts_of_rows_are_cuts_of_each_row(void **state)
{
    (void)state;
    for (int64_t rows = 1; rows <= 5; rows++) {
        for (int64_t seq = 1; seq <= 40; seq++) {
            for (int parts = 1; parts <= 8; parts++) {
                for (int i = 0; i < parts; i++) {
                    int64_t begin = tri_range_part(rows * seq, parts, i).begin;
                    int within = (int)(rows * i % parts);
                    assert_int_equal(begin % seq, tri_range_part(seq, parts, within).begin % seq);
                }
            }
        }
    }
}

/* A rank's virtual shards follow each other and are its share of the dimension. */
static void virtual_shards_are_a_share(void **state)
{
    (void)state;
    for (int64_t extent = 0; extent <= 40; extent++) {
        for (int ranks = 1; ranks <= 8; ranks *= 2) {
            for (int rank = 0; rank < ranks; rank++) {
                const struct tri_virtual shards = {8, rank * 8 / ranks, 8 / ranks};
                struct tri_range share = tri_range_part(extent, ranks, rank);
                int64_t next = 0;
                for (int i = 0; i < shards.own; i++) {
                    struct tri_range part = tri_virtual_part(shards, extent, i);
                    struct tri_range whole = tri_range_part(extent, 8, shards.first + i);
                    assert_int_equal(part.begin, next);
                    assert_int_equal(share.begin + part.begin, whole.begin);
                    assert_int_equal(share.begin + part.end, whole.end);
                    next = part.end;
                }
                assert_int_equal(next, tri_range_size(share));
                assert_int_equal(tri_virtual_size(shards, extent), next);
            }
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_and_micro_steps_of_an_uneven_batch),
        cmocka_unit_test(every_row_is_worked_on_exactly_once),
        cmocka_unit_test(cuts_nest),
        cmocka_unit_test(cuts_of_rows_are_cuts_of_each_row),
        cmocka_unit_test(virtual_shards_are_a_share),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
