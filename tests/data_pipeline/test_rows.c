#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "shard/rows.h"

static void shares_and_micro_steps_of_an_uneven_batch(void **state)
{
    (void)state;
    /* The picture in rows.h. */
    assert_int_equal(tri_rows_micro_steps(7, 3, 2), 2);
    static const int64_t begin[3][2] = {{0, 2}, {3, 5}, {5, 7}};
    static const int64_t end[3][2] = {{2, 3}, {5, 5}, {7, 7}};
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shares_and_micro_steps_of_an_uneven_batch),
        cmocka_unit_test(every_row_is_worked_on_exactly_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
