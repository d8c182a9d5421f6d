/* Every blocking collective against a local computation, and its bytes in the ledger. */
#include "fixture.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

static const struct tri_where here = {TRI_PHASE_BACKWARD, TRI_KIND_MLP};
static const enum tri_dtype summed[] = {TRI_F32, TRI_BF16, TRI_F64, TRI_I32, TRI_I64};
enum { SUMMED = sizeof(summed) / sizeof(summed[0]), RANKS = 64 };

static char *block(int64_t n, enum tri_dtype dtype)
{
    return tri_alloc(TRI_MEMORY_OTHER, (size_t)n * tri_dtype_size(dtype));
}

/* The ledger holds one call with these bytes since the last reset; nothing for a group of one. */
static void check_booked(const struct tri_group *group, enum tri_op op, struct tri_where where,
                         int64_t bytes)
{
    struct tri_ledger *ledger = job_ledger();
    struct tri_ledger_cell all = tri_ledger_sum(ledger, -1, -1, -1, -1);
    const struct tri_ledger_cell *cell = &ledger->cell[op][group->id][where.phase][where.kind];
    CHECK(all.calls == (group->size > 1));
    CHECK(cell->calls == all.calls && cell->bytes == all.bytes);
    CHECK(all.bytes == (group->size > 1 ? bytes : 0));
    CHECK(cell->seconds == cell->seconds_exposed);
    CHECK(group->size > 1 ? cell->seconds > 0 : cell->seconds == 0);
    tri_ledger_reset(job_ledger());
}

static void check_all_reduce(struct tri_group *group, int64_t n, enum tri_dtype dtype)
{
    char *data = block(n, dtype);
    fill(data, n, dtype, job_rank());
    tri_all_reduce_sum(group, here, data, n, dtype);
    CHECK(is_sum(group, data, 0, n, dtype));
    check_booked(group, TRI_OP_ALL_REDUCE, here, n * (int64_t)tri_dtype_size(dtype));
    tri_free(data);
}

static double as_double(const void *data, int64_t i, enum tri_dtype dtype)
{
    switch (dtype) {
    case TRI_F32:
        return (double)((const float *)data)[i];
    case TRI_BF16:
        return (double)tri_bf16_to_f32(((const uint16_t *)data)[i]);
    case TRI_F64:
        return ((const double *)data)[i];
    case TRI_I32:
        return ((const int32_t *)data)[i];
    default:
        return (double)((const int64_t *)data)[i];
    }
}

static void check_max(struct tri_group *group, int64_t n, enum tri_dtype dtype)
{
    char *data = block(n, dtype);
    char *other = block(n, dtype);
    fill(data, n, dtype, job_rank());
    tri_all_reduce_max(group, here, data, n, dtype);
    check_booked(group, TRI_OP_ALL_REDUCE, here, n * (int64_t)tri_dtype_size(dtype));
    bool reached = n == 0;
    for (int r = 0; r < group->size; r++) {
        fill(other, n, dtype, world_rank(group, r));
        for (int64_t i = 0; i < n; i++) {
            CHECK(as_double(data, i, dtype) >= as_double(other, i, dtype));
        }
        reached = reached || as_double(data, n - 1, dtype) == as_double(other, n - 1, dtype);
    }
    CHECK(reached);
    tri_free(data);
    tri_free(other);
}

static void check_nan(struct tri_group *group)
{
    for (int r = 0; r < group->size; r++) {
        float value = group->rank == r ? NAN : (float)group->rank;
        tri_all_reduce_max(group, here, &value, 1, TRI_F32);
        CHECK(isnan(value));
        value = group->rank == r ? INFINITY : (float)group->rank;
        tri_all_reduce_sum(group, here, &value, 1, TRI_F32);
        CHECK(isinf(value));
    }
    tri_ledger_reset(job_ledger());
}

static void check_gather(struct tri_group *group, int64_t scale, enum tri_dtype dtype)
{
    int64_t counts[RANKS];
    int64_t at[RANKS];
    int64_t n = uneven(counts, group->size, scale);
    (void)tri_places(at, counts, group->size);
    int64_t width = (int64_t)tri_dtype_size(dtype);
    char *data = block(n, dtype);
    for (int64_t i = 0; i < counts[group->rank]; i++) {
        int64_t place = at[group->rank] + i;
        put_value(data, place, dtype, job_rank(), place);
    }
    tri_all_gather_v(group, here, data, counts, dtype);
    check_booked(group, TRI_OP_ALL_GATHER, here, counts[group->rank] * width);
    for (int r = 0; r < group->size; r++) {
        CHECK(is_fill(data, at[r], counts[r], dtype, world_rank(group, r)));
    }
    tri_free(data);
}

static void check_reduce_scatter(struct tri_group *group, int64_t scale, enum tri_dtype dtype)
{
    int64_t counts[RANKS];
    int64_t at[RANKS];
    int64_t n = uneven(counts, group->size, scale);
    (void)tri_places(at, counts, group->size);
    char *data = block(n, dtype);
    fill(data, n, dtype, job_rank());
    tri_reduce_scatter_v(group, here, data, counts, dtype);
    check_booked(group, TRI_OP_REDUCE_SCATTER, here, n * (int64_t)tri_dtype_size(dtype));
    CHECK(is_sum(group, data, at[group->rank], counts[group->rank], dtype));
    tri_free(data);
}

/* Rows that member s sends to member r. */
static int64_t rows_between(int s, int r)
{
    return (s * 3 + r * 5 + 2) % 4;
}

static void check_all_to_all(struct tri_group *group, int64_t width, enum tri_dtype dtype)
{
    int64_t send_rows[RANKS];
    int64_t recv_rows[RANKS];
    int64_t sent = 0;
    int64_t received = 0;
    int me = group->rank;
    for (int r = 0; r < group->size; r++) {
        send_rows[r] = rows_between(me, r);
        recv_rows[r] = rows_between(r, me);
        sent += send_rows[r];
        received += recv_rows[r];
    }
    char *send = block(sent * width, dtype);
    char *recv = block(received * width, dtype);
    fill(send, sent * width, dtype, job_rank());
    tri_all_to_all_v(group, here, send, send_rows, recv, recv_rows, width, dtype);
    int64_t bytes = (sent - send_rows[me]) * width * (int64_t)tri_dtype_size(dtype);
    check_booked(group, TRI_OP_ALL_TO_ALL, here, bytes);
    char *expected = block(received * width, dtype);
    int64_t place = 0;
    for (int s = 0; s < group->size; s++) {
        int64_t begin = 0;
        for (int r = 0; r < me; r++) {
            begin += rows_between(s, r) * width;
        }
        for (int64_t i = 0; i < recv_rows[s] * width; i++) {
            put_value(expected, place++, dtype, world_rank(group, s), begin + i);
        }
    }
    CHECK(memcmp(recv, expected, (size_t)place * tri_dtype_size(dtype)) == 0);
    tri_free(send);
    tri_free(recv);
    tri_free(expected);
}

/* Two rows to everybody, the same to every second member. */
static void check_shared_rows(struct tri_group *group, enum tri_dtype dtype)
{
    enum { ROWS = 2, WIDTH = 5, BLOCK = ROWS * WIDTH };
    int64_t at[RANKS], rows[RANKS];
    char *send = block(2 * BLOCK, dtype);
    char *recv = block(group->size * BLOCK, dtype);
    char *expected = block(group->size * BLOCK, dtype);
    fill(send, 2 * BLOCK, dtype, job_rank());
    for (int r = 0; r < group->size; r++) {
        at[r] = r % 2 * ROWS;
        rows[r] = ROWS;
        for (int64_t i = 0; i < BLOCK; i++) {
            put_value(expected, r * BLOCK + i, dtype, world_rank(group, r),
                      group->rank % 2 * BLOCK + i);
        }
    }
    tri_request_end(
        tri_all_to_all_at_begin(group, here, send, rows, at, recv, rows, NULL, WIDTH, dtype));
    CHECK(tri_ledger_sum(job_ledger(), TRI_OP_ALL_TO_ALL, group->id, -1, -1).bytes ==
          (group->size - 1) * BLOCK * (int64_t)tri_dtype_size(dtype));
    tri_ledger_reset(job_ledger());
    CHECK(memcmp(recv, expected, (size_t)(group->size * BLOCK) * tri_dtype_size(dtype)) == 0);
    tri_free(send);
    tri_free(recv);
    tri_free(expected);
}

static void check_counts(struct tri_group *group, int64_t count)
{
    int64_t send[RANKS * 3] = {0};
    int64_t recv[RANKS * 3] = {0};
    for (int64_t i = 0; i < group->size * count; i++) {
        send[i] = group->rank * 1000 + i;
    }
    tri_all_to_all_counts(group, here, send, recv, count);
    check_booked(group, TRI_OP_ALL_TO_ALL, (struct tri_where){here.phase, TRI_KIND_META},
                 (group->size - 1) * count * 8);
    for (int r = 0; r < group->size; r++) {
        for (int64_t i = 0; i < count; i++) {
            CHECK(recv[r * count + i] == r * 1000 + group->rank * count + i);
        }
    }
}

static void check_broadcast(struct tri_group *group, int64_t n, enum tri_dtype dtype)
{
    char *data = block(n, dtype);
    for (int root = 0; root < group->size; root++) {
        fill(data, n, dtype, job_rank());
        tri_broadcast(group, here, data, n, dtype, root);
        check_booked(group, TRI_OP_BROADCAST, here, n * (int64_t)tri_dtype_size(dtype));
        CHECK(is_fill(data, 0, n, dtype, world_rank(group, root)));
    }
    tri_free(data);
}

static void check_group(struct tri_group *group)
{
    tri_ledger_reset(job_ledger());
    static const int64_t sizes[] = {0, 1, 7, 2048, 2051};
    for (int d = 0; d < SUMMED; d++) {
        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            check_all_reduce(group, sizes[i], summed[d]);
        }
        check_max(group, 33, summed[d]);
        check_gather(group, 5, summed[d]);
        check_reduce_scatter(group, 0, summed[d]);
        check_reduce_scatter(group, 1003, summed[d]);
        check_all_to_all(group, 3, summed[d]);
        check_shared_rows(group, summed[d]);
    }
    check_max(group, 2500, TRI_F32);
    check_nan(group);
    check_gather(group, 0, TRI_F32);
    check_gather(group, 1111, TRI_BF16);
    check_gather(group, 2500, TRI_U8);
    check_all_to_all(group, 0, TRI_F32);
    check_all_to_all(group, 777, TRI_BF16);
    check_all_to_all(group, 1500, TRI_U8);
    check_counts(group, 0);
    check_counts(group, 3);
    check_broadcast(group, 0, TRI_F32);
    check_broadcast(group, 2100, TRI_BF16);
    /* Several segments of the pipeline, the last one short. */
    if (group->id == tri_group_id(TRI_ON_ALL) && group->mesh->max_message > 1000) {
        check_reduce_scatter(group, 40000, TRI_F64);
        check_all_reduce(group, 150001, TRI_F32);
    }
    tri_barrier(group);
    CHECK(tri_ledger_sum(job_ledger(), -1, -1, -1, -1).calls == 0);
}

int main(int argc, char **argv)
{
    return run_on_groups(argc, argv, check_group);
}
