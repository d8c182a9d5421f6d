/* The blocking collectives as the rest of Trident sees them. */
#include "comm/internal.h"

#include <string.h>

static int64_t bytes_of(int64_t n, enum tri_dtype dtype)
{
    return n * (int64_t)tri_dtype_size(dtype);
}

static void all_reduce(struct tri_group *group, struct tri_where where, void *data, int64_t n,
                       enum tri_dtype dtype, enum tri_reduction reduction)
{
    TRI_REQUIRE(n >= 0);
    if (group->size == 1) {
        return;
    }
    struct tri_call call = {
        .group = group,
        .verb = reduction == TRI_REDUCE_SUM ? TRI_VERB_ALL_REDUCE : TRI_VERB_ALL_REDUCE_MAX,
        .where = where,
        .dtype = dtype,
        .n = n,
        .bytes = bytes_of(n, dtype),
    };
    tri_call_enter(&call);
    tri_all_reduce_run(group, data, n, dtype, reduction);
    tri_call_leave(&call);
}

void tri_all_reduce_sum(struct tri_group *group, struct tri_where where, void *data, int64_t n,
                        enum tri_dtype dtype)
{
    all_reduce(group, where, data, n, dtype, TRI_REDUCE_SUM);
}

void tri_all_reduce_max(struct tri_group *group, struct tri_where where, void *data, int64_t n,
                        enum tri_dtype dtype)
{
    all_reduce(group, where, data, n, dtype, TRI_REDUCE_MAX);
}

void tri_all_gather_v(struct tri_group *group, struct tri_where where, void *data,
                      const int64_t *counts, enum tri_dtype dtype)
{
    if (group->size == 1) {
        return;
    }
    struct tri_call call = tri_call_of_parts(group, TRI_VERB_ALL_GATHER, where, counts, dtype);
    tri_call_enter(&call);
    tri_all_gather_run(group, data, counts, dtype);
    tri_call_leave(&call);
}

void tri_reduce_scatter_v(struct tri_group *group, struct tri_where where, void *data,
                          const int64_t *counts, enum tri_dtype dtype)
{
    if (group->size == 1) {
        return;
    }
    struct tri_call call = tri_call_of_parts(group, TRI_VERB_REDUCE_SCATTER, where, counts, dtype);
    tri_call_enter(&call);
    tri_reduce_scatter_run(group, data, counts, dtype, TRI_REDUCE_SUM);
    tri_call_leave(&call);
}

void tri_all_to_all_v(struct tri_group *group, struct tri_where where, const void *send,
                      const int64_t *send_rows, void *recv, const int64_t *recv_rows, int64_t width,
                      enum tri_dtype dtype)
{
    struct tri_row_exchange rows = {send, send_rows, recv, recv_rows, width, dtype, NULL, NULL};
    if (group->size == 1) {
        tri_all_to_all_copy_own(group, &rows);
        return;
    }
    struct tri_call call = tri_call_of_rows(group, where, send_rows, width, dtype);
    tri_call_note_rows(&call, send_rows, recv_rows);
    tri_call_enter(&call);
    tri_all_to_all_run(group, &rows);
    tri_call_leave(&call);
}

void tri_all_to_all_counts(struct tri_group *group, struct tri_where where, const int64_t *send,
                           int64_t *recv, int64_t count)
{
    TRI_REQUIRE(count >= 0 && count <= INT32_MAX);
    if (group->size == 1) {
        memcpy(recv, send, (size_t)count * sizeof(*send));
        return;
    }
    struct tri_call call = {
        .group = group,
        .verb = TRI_VERB_COUNTS,
        .where = {where.phase, TRI_KIND_META},
        .dtype = TRI_I64,
        .n = count,
        .bytes = bytes_of(count * (group->size - 1), TRI_I64),
    };
    for (int r = 0; r < group->size; r++) {
        call.messages_between += tri_group_is_near(group, r) ? 0 : 1;
    }
    call.bytes_between = bytes_of(call.messages_between * count, TRI_I64);
    tri_call_enter(&call);
    tri_end_all_to_all(group, send, recv, count, TRI_I64);
    tri_call_leave(&call);
}

void tri_broadcast(struct tri_group *group, struct tri_where where, void *data, int64_t n,
                   enum tri_dtype dtype, int root)
{
    TRI_REQUIRE(n >= 0 && root >= 0 && root < group->size);
    if (group->size == 1) {
        return;
    }
    struct tri_call call = {
        .group = group,
        .verb = TRI_VERB_BROADCAST,
        .where = where,
        .dtype = dtype,
        .n = n,
        .peer = root,
        .bytes = bytes_of(n, dtype),
    };
    tri_call_enter(&call);
    int64_t max = group->mesh->max_message;
    char *place = data;
    for (int64_t left = group->carries ? n : 0; left > 0; left -= max) {
        int64_t piece = left < max ? left : max;
        tri_end_broadcast(group, place, piece, dtype, root);
        place += bytes_of(piece, dtype);
    }
    tri_call_leave(&call);
}

void tri_barrier(struct tri_group *group)
{
    if (group->size == 1 || !group->carries) {
        return;
    }
    struct tri_call call = {.group = group, .verb = TRI_VERB_BARRIER};
    tri_call_enter(&call);
    tri_end_barrier(group);
    tri_call_leave(&call);
}
