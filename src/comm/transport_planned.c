/* The transport of a plan: no other rank is there. comm/ books what a call would send and takes the
 * buffers that it would take, and since nothing is carried never asks this for a message. Its ends
 * of groups are the listener's, where there is one. */
#include "comm/internal.h"

/* It holds nothing of any group: one end is as good as another. */
static struct tri_endpoint *open_end(struct tri_transport *self, int size, int rank, int first,
                                     const char *name)
{
    (void)self;
    (void)size;
    (void)rank;
    (void)first;
    (void)name;
    return NULL;
}

static void close_end(struct tri_transport *self, struct tri_endpoint *end)
{
    (void)self;
    (void)end;
}

void tri_transport_init_planned(struct tri_transport *transport)
{
    static const struct tri_transport_ops ops = {.open = open_end, .close = close_end};
    *transport = (struct tri_transport){&ops, false};
}

void tri_mesh_listen(struct tri_mesh *mesh, struct tri_call_listener *listener)
{
    for (int id = 0; id < TRI_GROUP_COUNT; id++) {
        struct tri_group *group = tri_mesh_group(mesh, tri_groups[id].axes);
        TRI_REQUIRE(!group->carries);
        group->end = group->size > 1 ? &listener->end : NULL;
    }
}

void tri_call_tell(struct tri_call *call, enum tri_op op, enum tri_call_stage stage)
{
    const struct tri_group *group = call->group;
    if (group->carries || !group->end) {
        return;
    }
    struct tri_call_listener *listener = (struct tri_call_listener *)(void *)group->end;
    bool rows = call->verb == TRI_VERB_ALL_TO_ALL;
    int64_t width = (int64_t)tri_dtype_size(call->dtype);
    struct tri_call_note note = {
        .group = group,
        .op = op,
        .stage = stage,
        .where = call->where,
        .bytes = call->verb == TRI_VERB_RECEIVE ? call->n * width : call->bytes,
        .peer = tri_verb_is_pair(call->verb) ? call->peer : -1,
        .small = op == TRI_OP_ALL_REDUCE && tri_all_reduce_is_small(group, call->bytes / width),
        .sent = rows ? group->send_n : NULL,
        .width = width,
        .arrival = call->arrived,
    };
    listener->call(listener->state, &note);
    call->arrived = note.arrival;
}
