/* Messages between the ranks of a group, pair by pair.
 *
 * Everything but the gathers goes through here. Both ends of a pair know how long their message is,
 * so each pair cuts its own at the longest length a transport is given, without asking the others:
 * counts past 2^31 need no agreement, and a displacement is a pointer, never an int. All ranks
 * begin in the same order, so messages of several calls in flight match by their order alone; those
 * between two ranks have a lane of their own, since no other rank knows when they begin. On
 * shared memory this is as fast as MPI_Alltoallv or faster; the non-blocking form costs nothing
 * extra. */
#include "comm/internal.h"

#include "base/clock.h"
#include "base/trace.h"
#include "shard/range.h"

int64_t tri_places(int64_t *at, const int64_t *counts, int size)
{
    int64_t sum = 0;
    for (int r = 0; r < size; r++) {
        TRI_REQUIRE(counts[r] >= 0);
        at[r] = sum;
        sum += counts[r];
    }
    return sum;
}

void tri_even_parts(int64_t *counts, int64_t n, int size)
{
    for (int r = 0; r < size; r++) {
        counts[r] = tri_range_size(tri_range_part(n, size, r));
    }
}

static int64_t pieces(const struct tri_group *group, const int64_t *counts, int64_t max)
{
    int64_t sum = 0;
    for (int r = 0; r < group->size; r++) {
        sum += r == group->rank ? 0 : (counts[r] + max - 1) / max;
    }
    return sum;
}

int64_t tri_exchange_messages(const struct tri_group *group, const int64_t *send_counts,
                              const int64_t *recv_counts, int64_t max)
{
    return pieces(group, send_counts, max) + pieces(group, recv_counts, max);
}

void tri_flight_receive(const struct tri_group *group, struct tri_way way, void *data, int64_t n,
                        enum tri_dtype dtype, struct tri_flight *flight)
{
    int64_t width = (int64_t)tri_dtype_size(dtype);
    char *place = data;
    for (int64_t left = n; left > 0; left -= way.max) {
        group->ops->receive(group->end, way.lane, way.peer, place, left < way.max ? left : way.max,
                            dtype, &flight->item[flight->count++]);
        place += way.max * width;
    }
}

void tri_flight_send(const struct tri_group *group, struct tri_way way, const void *data, int64_t n,
                     enum tri_dtype dtype, struct tri_flight *flight)
{
    int64_t width = (int64_t)tri_dtype_size(dtype);
    const char *place = data;
    for (int64_t left = n; left > 0; left -= way.max) {
        group->ops->send(group->end, way.lane, way.peer, place, left < way.max ? left : way.max,
                         dtype, &flight->item[flight->count++]);
        place += way.max * width;
    }
}

void tri_exchange_post(const struct tri_group *group, enum tri_dtype dtype, int64_t max,
                       const void *send, struct tri_side send_side, void *recv,
                       struct tri_side recv_side, struct tri_flight *flight)
{
    int64_t width = (int64_t)tri_dtype_size(dtype);
    int size = group->size;
    TRI_REQUIRE(flight->count == 0);
    if (!group->carries) {
        return;
    }
    for (int step = 1; step < size; step++) {
        int from = (group->rank - step + size) % size;
        tri_flight_receive(group, (struct tri_way){TRI_LANE_GROUP, from, max},
                           (char *)recv + recv_side.at[from] * width, recv_side.counts[from], dtype,
                           flight);
    }
    for (int step = 1; step < size; step++) {
        int to = (group->rank + step) % size;
        tri_flight_send(group, (struct tri_way){TRI_LANE_GROUP, to, max},
                        (const char *)send + send_side.at[to] * width, send_side.counts[to], dtype,
                        flight);
    }
}

bool tri_flight_test(const struct tri_group *group, struct tri_flight *flight)
{
    while (flight->count > 0) {
        if (!group->ops->test(group->end, &flight->item[flight->count - 1])) {
            return false;
        }
        flight->count--;
    }
    return true;
}

/* Since then this rank has waited for others, where somebody traces. */
static void tell_wait(double began)
{
    if (began > 0.0) {
        tri_trace_tell(&(struct tri_trace_event){
            .sort = TRI_TRACE_WAIT, .began = began, .ended = tri_clock_now(), .name = "wait"});
    }
}

void tri_flight_wait(const struct tri_group *group, struct tri_flight *flight)
{
    if (flight->count > 0) {
        double began = tri_trace_begin();
        group->ops->wait(group->end, flight->item, flight->count);
        flight->count = 0;
        tell_wait(began);
    }
}

void tri_flight_doze(const struct tri_group *group, struct tri_flight *flight)
{
    if (flight->count > 0 && group->ops->doze) {
        double began = tri_trace_begin();
        group->ops->doze(group->end, flight->item, flight->count);
        flight->count = 0;
        tell_wait(began);
    }
    tri_flight_wait(group, flight);
}

/* ---- what a transport may have of its own ---------------------------------------------------- */

void tri_end_all_gather(const struct tri_group *group, void *data, const int64_t *counts,
                        const int64_t *at, enum tri_dtype dtype)
{
    if (!group->carries) {
        return;
    }
    double began = tri_trace_begin();
    if (group->ops->all_gather) {
        group->ops->all_gather(group->end, data, counts, at, dtype);
    } else {
        tri_messages_all_gather(group, data, counts, at, dtype);
    }
    tell_wait(began);
}

void tri_end_all_gather_even(const struct tri_group *group, const void *mine, void *all, int64_t n,
                             enum tri_dtype dtype)
{
    if (!group->carries) {
        return;
    }
    double began = tri_trace_begin();
    if (group->ops->all_gather_even) {
        group->ops->all_gather_even(group->end, mine, all, n, dtype);
    } else {
        tri_messages_all_gather_even(group, mine, all, n, dtype);
    }
    tell_wait(began);
}

void tri_end_broadcast(const struct tri_group *group, void *data, int64_t n, enum tri_dtype dtype,
                       int root)
{
    if (!group->carries) {
        return;
    }
    double began = tri_trace_begin();
    if (group->ops->broadcast) {
        group->ops->broadcast(group->end, data, n, dtype, root);
    } else {
        tri_messages_broadcast(group, data, n, dtype, root);
    }
    tell_wait(began);
}

void tri_end_all_to_all(const struct tri_group *group, const void *send, void *recv, int64_t n,
                        enum tri_dtype dtype)
{
    if (!group->carries) {
        return;
    }
    double began = tri_trace_begin();
    if (group->ops->all_to_all) {
        group->ops->all_to_all(group->end, send, recv, n, dtype);
    } else {
        tri_messages_all_to_all(group, send, recv, n, dtype);
    }
    tell_wait(began);
}

void tri_end_barrier(const struct tri_group *group)
{
    if (!group->carries) {
        return;
    }
    double began = tri_trace_begin();
    if (group->ops->barrier) {
        group->ops->barrier(group->end);
    } else {
        tri_messages_barrier(group);
    }
    tell_wait(began);
}
