/* What two ranks of a group send each other: it arrives whole and in order, whatever calls of all
 * ranks are under way, and is booked where it is sent. */
#include "fixture.h"

#include "base/memory.h"

#include <string.h>

static const struct tri_where here = {TRI_PHASE_FORWARD, TRI_KIND_MLP};
/* LONG: several messages of the longest length, and a rest. */
enum { LONG = 2500, LARGE = 5001 };
static const int64_t lengths[] = {0, 1, 999, 1000, 1001, LONG};
enum { LENGTHS = sizeof(lengths) / sizeof(lengths[0]) };

static int after(const struct tri_group *group)
{
    return (group->rank + 1) % group->size;
}

static int before(const struct tri_group *group)
{
    return (group->rank + group->size - 1) % group->size;
}

/* What the group's first rank sends goes round. */
static void check_ring(struct tri_group *group, int64_t n, enum tri_dtype dtype)
{
    char data[LONG * sizeof(double)] = {0};
    if (group->rank == 0) {
        fill(data, n, dtype, job_rank());
        tri_send(group, here, after(group), data, n, dtype);
        memset(data, 0, sizeof(data));
    }
    tri_receive(group, here, before(group), data, n, dtype);
    CHECK(is_fill(data, 0, n, dtype, world_rank(group, 0)));
    if (group->rank != 0) {
        tri_send(group, here, after(group), data, n, dtype);
    }
}

/* All ranks send to both neighbours before they receive; ended in any order. */
static void check_both_ways(struct tri_group *group, int64_t n)
{
    float mine[LONG];
    float left[LONG];
    float right[LONG];
    fill(mine, n, TRI_F32, job_rank());
    struct tri_request *up = tri_send_begin(group, here, after(group), mine, n, TRI_F32);
    struct tri_request *down = tri_send_begin(group, here, before(group), mine, n, TRI_F32);
    struct tri_request *from = tri_receive_begin(group, here, after(group), right, n, TRI_F32);
    tri_receive(group, here, before(group), left, n, TRI_F32);
    tri_mesh_progress(group->mesh);
    tri_request_end(from);
    tri_request_end(down);
    tri_request_end(up);
    CHECK(is_fill(left, 0, n, TRI_F32, world_rank(group, before(group))));
    CHECK(is_fill(right, 0, n, TRI_F32, world_rank(group, after(group))));
}

/* Several from one rank to another arrive in the order in which they were begun. */
static void check_order(struct tri_group *group)
{
    float mine[LENGTHS][LONG];
    float other[LONG];
    struct tri_request *request[LENGTHS];
    for (int i = 0; i < LENGTHS; i++) {
        fill(mine[i], lengths[i], TRI_F32, job_rank() + i);
        request[i] = tri_send_begin(group, here, after(group), mine[i], lengths[i], TRI_F32);
    }
    for (int i = 0; i < LENGTHS; i++) {
        tri_receive(group, here, before(group), other, lengths[i], TRI_F32);
        CHECK(is_fill(other, 0, lengths[i], TRI_F32, world_rank(group, before(group)) + i));
    }
    for (int i = 0; i < LENGTHS; i++) {
        tri_request_end(request[i]);
    }
}

/* Beside a begun call of all ranks and across one that blocks; each rank begins to send when it
 * likes. */
static void check_beside(struct tri_group *group)
{
    float sum[LARGE];
    float again[LARGE];
    float mine[LARGE];
    float other[LARGE];
    bool early = group->rank % 2 == 0;
    fill(sum, LARGE, TRI_F32, job_rank());
    fill(again, LARGE, TRI_F32, job_rank());
    fill(mine, LARGE, TRI_F32, job_rank());
    struct tri_request *send = NULL;
    if (early) {
        send = tri_send_begin(group, here, after(group), mine, LARGE, TRI_F32);
    }
    struct tri_request *reduce = tri_all_reduce_sum_begin(group, here, sum, LARGE, TRI_F32);
    if (!early) {
        send = tri_send_begin(group, here, after(group), mine, LARGE, TRI_F32);
    }
    tri_all_reduce_sum(group, here, again, LARGE, TRI_F32);
    tri_receive(group, here, before(group), other, LARGE, TRI_F32);
    tri_request_end(early ? reduce : send);
    tri_request_end(early ? send : reduce);
    CHECK(is_sum(group, sum, 0, LARGE, TRI_F32));
    CHECK(is_sum(group, again, 0, LARGE, TRI_F32));
    CHECK(is_fill(other, 0, LARGE, TRI_F32, world_rank(group, before(group))));
}

/* One rank sends, and another receives, while the others are in a call of all. */
static void check_few(struct tri_group *group)
{
    float data[LONG];
    float sum[LARGE];
    fill(sum, LARGE, TRI_F32, job_rank());
    if (group->rank == 0) {
        fill(data, LONG, TRI_F32, job_rank());
        tri_send(group, here, 1, data, LONG, TRI_F32);
    } else if (group->rank == 1) {
        tri_receive(group, here, 0, data, LONG, TRI_F32);
        CHECK(is_fill(data, 0, LONG, TRI_F32, world_rank(group, 0)));
    }
    tri_all_reduce_sum(group, here, sum, LARGE, TRI_F32);
    CHECK(is_sum(group, sum, 0, LARGE, TRI_F32));
}

static void exchange(struct tri_group *group, float *mine, float *other, int64_t n)
{
    struct tri_request *send = tri_send_begin(group, here, after(group), mine, n, TRI_F32);
    tri_receive(group, here, before(group), other, n, TRI_F32);
    tri_request_end(send);
}

/* A send's bytes, a receive's none, and the same in a view of this rank, which leaves the data as
 * it is. */
static void check_ledger(struct tri_group *group)
{
    static _Thread_local struct tri_ledger planned;
    const struct tri_mesh *mesh = group->mesh;
    float mine[LONG] = {0};
    float other[LONG] = {0};
    tri_ledger_reset(job_ledger());
    exchange(group, mine, other, LONG);
    int id = group->id;
    const struct tri_ledger_cell *cell =
        &job_ledger()->cell[TRI_OP_SEND][id][here.phase][here.kind];
    CHECK(cell->calls == 2 && cell->bytes == LONG * 4 && cell->seconds > 0);
    CHECK(tri_ledger_sum(job_ledger(), -1, -1, -1, -1).calls == 2);
    struct tri_mesh *view =
        tri_mesh_create_view(mesh->size[TRI_AXIS_TENSOR], 1, 1, mesh->size[TRI_AXIS_EXPERT],
                             mesh->size[TRI_AXIS_DATA], mesh->rank);
    tri_ledger_reset(&planned);
    view->ledger = &planned;
    mine[0] = 1;
    exchange(tri_mesh_group(view, tri_groups[id].axes), mine, other, LONG);
    const struct tri_ledger_cell *plan = &planned.cell[TRI_OP_SEND][id][here.phase][here.kind];
    CHECK(plan->calls == cell->calls && plan->bytes == cell->bytes && other[0] == 0);
    tri_mesh_destroy(view);
}

/* Whoever gets on with its messages gets on with all of them: what waits for a late rank keeps none
 * from arriving. */
static void check_progress(struct tri_group *group)
{
    float late = 0;
    float there = 0;
    float mine = 7;
    if (group->size < 3) {
        return;
    }
    struct tri_request *request[2] = {NULL, NULL};
    if (group->rank == 0) {
        request[0] = tri_receive_begin(group, here, 2, &late, 1, TRI_F32);
        request[1] = tri_receive_begin(group, here, 1, &there, 1, TRI_F32);
    } else if (group->rank == 1) {
        request[0] = tri_send_begin(group, here, 0, &mine, 1, TRI_F32);
    }
    tri_barrier(group);
    for (int i = 0; i < 1000 && group->rank == 0; i++) {
        tri_mesh_progress(group->mesh);
    }
    tri_barrier(group);
    CHECK(group->rank != 0 || (there == 7 && late == 0));
    tri_barrier(group);
    if (group->rank == 2) {
        tri_send(group, here, 0, &mine, 1, TRI_F32);
    }
    tri_request_end(request[0]);
    tri_request_end(request[1]);
    CHECK(group->rank != 0 || late == 7);
}

static void check_group(struct tri_group *group)
{
    static const enum tri_dtype types[] = {TRI_F32, TRI_BF16, TRI_I64, TRI_U8};
    if (group->size == 1) {
        return;
    }
    uint64_t sequence = group->sequence;
    for (int i = 0; i < LENGTHS; i++) {
        for (size_t t = 0; t < sizeof(types) / sizeof(types[0]); t++) {
            check_ring(group, lengths[i], types[t]);
        }
        check_both_ways(group, lengths[i]);
    }
    check_order(group);
    CHECK(group->sequence == sequence);
    check_few(group);
    check_progress(group);
    int64_t allocated = 0;
    for (int round = 0; round < 3; round++) {
        check_beside(group);
        CHECK(round < 2 || tri_memory_get().calls == allocated);
        allocated = tri_memory_get().calls;
    }
    check_ledger(group);
}

int main(int argc, char **argv)
{
    return run_on_groups(argc, argv, check_group);
}
