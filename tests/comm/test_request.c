/* Begin and end: several in flight give the bits of the blocking calls, and a second round
 * allocates nothing. */
#include "fixture.h"

#include "base/memory.h"

#include <string.h>

static const struct tri_where here = {TRI_PHASE_BACKWARD, TRI_KIND_GRADIENT};
enum { RANKS = 64, LARGE = 5001, SMALL = 11, SCALE = 601, WIDTH = 130 };

/* One buffer for each call in flight. */
struct buffers {
    float *large, *small, *scatter, *gather, *send, *recv, *expected;
    uint16_t *half;
    int64_t counts[RANKS], at[RANKS], n;
    int64_t rows[RANKS], rows_sent;
};

static void *block(int64_t n, enum tri_dtype dtype)
{
    return tri_alloc(TRI_MEMORY_OTHER, (size_t)n * tri_dtype_size(dtype));
}

static void create(struct buffers *b, const struct tri_group *group)
{
    b->n = uneven(b->counts, group->size, SCALE);
    (void)tri_places(b->at, b->counts, group->size);
    b->rows_sent = 0;
    for (int r = 0; r < group->size; r++) {
        b->rows[r] = (r + group->rank) % 3; /* symmetric: sent and received alike */
        b->rows_sent += b->rows[r];
    }
    b->large = block(LARGE, TRI_F32);
    b->small = block(SMALL, TRI_F32);
    b->half = block(LARGE, TRI_BF16);
    b->scatter = block(b->n, TRI_F32);
    b->gather = block(b->n, TRI_F32);
    b->send = block(b->rows_sent * WIDTH, TRI_F32);
    b->recv = block(b->rows_sent * WIDTH, TRI_F32);
    b->expected = block(b->rows_sent * WIDTH, TRI_F32);
}

static void destroy(struct buffers *b)
{
    tri_free(b->large);
    tri_free(b->small);
    tri_free(b->half);
    tri_free(b->scatter);
    tri_free(b->gather);
    tri_free(b->send);
    tri_free(b->recv);
    tri_free(b->expected);
}

static void fill_all(struct buffers *b, const struct tri_group *group)
{
    int rank = job_rank();
    fill(b->large, LARGE, TRI_F32, rank);
    fill(b->small, SMALL, TRI_F32, rank);
    fill(b->half, LARGE, TRI_BF16, rank);
    fill(b->scatter, b->n, TRI_F32, rank);
    fill(b->send, b->rows_sent * WIDTH, TRI_F32, rank);
    memset(b->gather, 0, (size_t)b->n * sizeof(float));
    for (int64_t i = b->at[group->rank]; i < b->at[group->rank] + b->counts[group->rank]; i++) {
        put_value(b->gather, i, TRI_F32, rank, i);
    }
}

enum { CALLS = 6 };

static void begin_all(struct buffers *b, struct tri_group *group,
                      struct tri_request *request[CALLS])
{
    request[0] = tri_all_reduce_sum_begin(group, here, b->large, LARGE, TRI_F32);
    request[1] = tri_reduce_scatter_v_begin(group, here, b->scatter, b->counts, TRI_F32);
    request[2] =
        tri_all_to_all_v_begin(group, here, b->send, b->rows, b->recv, b->rows, WIDTH, TRI_F32);
    request[3] = tri_all_reduce_sum_begin(group, here, b->small, SMALL, TRI_F32);
    request[4] = tri_all_gather_v_begin(group, here, b->gather, b->counts, TRI_F32);
    request[5] = tri_all_reduce_sum_begin(group, here, b->half, LARGE, TRI_BF16);
}

static void check_results(const struct buffers *b, const struct tri_group *group)
{
    CHECK(is_sum(group, b->large, 0, LARGE, TRI_F32));
    CHECK(is_sum(group, b->small, 0, SMALL, TRI_F32));
    CHECK(is_sum(group, b->half, 0, LARGE, TRI_BF16));
    CHECK(is_sum(group, b->scatter, b->at[group->rank], b->counts[group->rank], TRI_F32));
    for (int r = 0; r < group->size; r++) {
        CHECK(is_fill(b->gather, b->at[r], b->counts[r], TRI_F32, world_rank(group, r)));
    }
    size_t bytes = (size_t)b->rows_sent * WIDTH * sizeof(float);
    CHECK(bytes == 0 || memcmp(b->recv, b->expected, bytes) == 0);
}

/* The bytes of the six calls, and that only the ends count as exposed. */
static void check_ledger(const struct buffers *b, const struct tri_group *group)
{
    struct tri_ledger *ledger = job_ledger();
    if (group->size == 1) {
        CHECK(tri_ledger_sum(ledger, -1, -1, -1, -1).calls == 0);
        return;
    }
    struct tri_ledger_cell all = tri_ledger_sum(ledger, -1, (int)group->id, -1, -1);
    struct tri_ledger_cell reduce = tri_ledger_sum(ledger, TRI_OP_ALL_REDUCE, -1, -1, -1);
    struct tri_ledger_cell scatter = tri_ledger_sum(ledger, TRI_OP_REDUCE_SCATTER, -1, -1, -1);
    struct tri_ledger_cell gather = tri_ledger_sum(ledger, TRI_OP_ALL_GATHER, -1, -1, -1);
    struct tri_ledger_cell rows = tri_ledger_sum(ledger, TRI_OP_ALL_TO_ALL, -1, -1, -1);
    CHECK(all.calls == CALLS && all.seconds > all.seconds_exposed && all.seconds_exposed > 0);
    CHECK(reduce.calls == 3 && reduce.bytes == LARGE * 4 + SMALL * 4 + LARGE * 2);
    CHECK(scatter.calls == 1 && scatter.bytes == b->n * 4);
    CHECK(gather.calls == 1 && gather.bytes == b->counts[group->rank] * 4);
    CHECK(rows.calls == 1 && rows.bytes == (b->rows_sent - b->rows[group->rank]) * WIDTH * 4);
}

static void check_group(struct tri_group *group)
{
    struct buffers b = {0};
    struct tri_request *request[CALLS];
    create(&b, group);
    int64_t allocated = 0;
    for (int round = 0; round < 3; round++) {
        fill_all(&b, group);
        tri_all_to_all_v(group, here, b.send, b.rows, b.expected, b.rows, WIDTH, TRI_F32);
        tri_ledger_reset(job_ledger());
        begin_all(&b, group, request);
        bool reversed = round == 2;
        for (int i = 0; i < 100 * round; i++) {
            tri_mesh_progress(group->mesh); /* whatever has arrived by now is still to be ended */
        }
        for (int i = 0; i < CALLS; i++) {
            tri_mesh_progress(group->mesh);
            tri_request_end(request[reversed ? CALLS - 1 - i : i]);
        }
        check_ledger(&b, group);
        check_results(&b, group);
        CHECK(round == 0 || tri_memory_get().calls == allocated);
        allocated = tri_memory_get().calls;
    }
    destroy(&b);
}

/* Requests of different groups in flight at once, with a blocking call between begin and end. */
static void check_two_groups(struct tri_group *group)
{
    const struct tri_mesh *mesh = group->mesh;
    enum { N = 3000 };
    static _Thread_local float a[N];
    static _Thread_local float b[N];
    static _Thread_local float c[N];
    int rank = job_rank();
    fill(a, N, TRI_F32, rank);
    fill(b, N, TRI_F32, rank);
    fill(c, N, TRI_F32, rank);
    struct tri_request *first =
        tri_all_reduce_sum_begin(tri_mesh_group(mesh, TRI_ON_TENSOR), here, a, N, TRI_F32);
    struct tri_request *second = tri_all_reduce_sum_begin(
        tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA), here, b, N, TRI_F32);
    tri_all_reduce_sum(group, here, c, N, TRI_F32);
    tri_request_end(first);
    tri_request_end(second);
    CHECK(is_sum(tri_mesh_group(mesh, TRI_ON_TENSOR), a, 0, N, TRI_F32));
    CHECK(is_sum(tri_mesh_group(mesh, TRI_ON_EXPERT | TRI_ON_DATA), b, 0, N, TRI_F32));
    CHECK(is_sum(group, c, 0, N, TRI_F32));
}

static void check_all(struct tri_group *group)
{
    check_group(group);
    check_two_groups(group);
    tri_ledger_reset(job_ledger());
}

int main(int argc, char **argv)
{
    return run_on_groups(argc, argv, check_all);
}
