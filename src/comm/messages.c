/* Collectives made of messages, for a transport that has none of its own: pair by pair, in steps in
 * which rank r sends to r + step and hears from r - step, some steps at a time. */
#include "comm/internal.h"

#include <string.h>

enum { AT_ONCE = 16 };

struct batch {
    const struct tri_group *group;
    enum tri_dtype dtype;
    int count;
    union tri_message message[2 * AT_ONCE];
};

static void receive(struct batch *batch, int from, void *data, int64_t n)
{
    const struct tri_group *group = batch->group;
    if (n > 0) {
        group->ops->receive(group->end, TRI_LANE_GROUP, from, data, n, batch->dtype,
                            &batch->message[batch->count++]);
    }
}

static void send(struct batch *batch, int to, const void *data, int64_t n)
{
    const struct tri_group *group = batch->group;
    if (n > 0) {
        group->ops->send(group->end, TRI_LANE_GROUP, to, data, n, batch->dtype,
                         &batch->message[batch->count++]);
    }
}

static void wait_for(struct batch *batch)
{
    batch->group->ops->wait(batch->group->end, batch->message, batch->count);
    batch->count = 0;
}

static void end_step(struct batch *batch, int step)
{
    if (step % AT_ONCE == 0 || step == batch->group->size - 1) {
        wait_for(batch);
    }
}

static int before(const struct tri_group *group, int step)
{
    return (group->rank - step + group->size) % group->size;
}

static int after(const struct tri_group *group, int step)
{
    return (group->rank + step) % group->size;
}

void tri_messages_all_gather(const struct tri_group *group, void *data, const int64_t *counts,
                             const int64_t *at, enum tri_dtype dtype)
{
    struct batch batch = {.group = group, .dtype = dtype};
    int64_t width = (int64_t)tri_dtype_size(dtype);
    char *bytes = data;
    for (int step = 1; step < group->size; step++) {
        int from = before(group, step);
        receive(&batch, from, bytes + at[from] * width, counts[from]);
        send(&batch, after(group, step), bytes + at[group->rank] * width, counts[group->rank]);
        end_step(&batch, step);
    }
}

/* Part `to` of send, or all of it, to rank `to`. */
static void swap(const struct tri_group *group, const void *send_data, int64_t send_stride,
                 void *recv, int64_t n, enum tri_dtype dtype)
{
    struct batch batch = {.group = group, .dtype = dtype};
    size_t width = tri_dtype_size(dtype);
    const char *from_here = send_data;
    char *to_here = recv;
    memcpy(to_here + (size_t)(group->rank * n) * width,
           from_here + (size_t)(group->rank * send_stride) * width, (size_t)n * width);
    for (int step = 1; step < group->size; step++) {
        int from = before(group, step);
        int to = after(group, step);
        receive(&batch, from, to_here + (size_t)(from * n) * width, n);
        send(&batch, to, from_here + (size_t)(to * send_stride) * width, n);
        end_step(&batch, step);
    }
}

void tri_messages_all_gather_even(const struct tri_group *group, const void *mine, void *all,
                                  int64_t n, enum tri_dtype dtype)
{
    swap(group, mine, 0, all, n, dtype);
}

void tri_messages_all_to_all(const struct tri_group *group, const void *send_data, void *recv,
                             int64_t n, enum tri_dtype dtype)
{
    swap(group, send_data, n, recv, n, dtype);
}

void tri_messages_broadcast(const struct tri_group *group, void *data, int64_t n,
                            enum tri_dtype dtype, int root)
{
    struct batch batch = {.group = group, .dtype = dtype};
    if (group->rank != root) {
        receive(&batch, root, data, n);
        wait_for(&batch);
        return;
    }
    for (int step = 1; step < group->size; step++) {
        send(&batch, after(group, step), data, n);
        end_step(&batch, step);
    }
}

/* After the step with distance d every rank has heard, by way of others, of the 2 d ranks before
 * it. */
void tri_messages_barrier(const struct tri_group *group)
{
    for (int distance = 1; distance < group->size; distance *= 2) {
        struct batch batch = {.group = group, .dtype = TRI_U8};
        char here = 0;
        char there = 0;
        receive(&batch, before(group, distance), &there, 1);
        send(&batch, after(group, distance), &here, 1);
        wait_for(&batch);
    }
}
