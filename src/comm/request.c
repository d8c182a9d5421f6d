/* Begin and end. Begin posts the messages of a collective; end waits for them, and does the local sum
 * and, for a large all-reduce, the gather. Requests are pooled with their buffers: a step that begins
 * the same calls as the last one allocates nothing. */
#include "comm/internal.h"

#include "base/memory.h"
#include "shard/range.h"

struct tri_request {
    struct tri_call call;
    struct tri_flight flight;
    void *slots; /* what the others sent, where it has to be summed */
    size_t capacity;
    void *data;
    int64_t n;             /* elements of the whole */
    int64_t own_at, own_n; /* this rank's part of the sum; own_n = 0 where nothing is summed */
    bool gathers;
    struct tri_request *next;
};

static struct tri_request *pool; /* free ones */
/* What calls of groups of one return: they have nothing to wait for. */
static struct tri_request nothing;

/* The smallest free request whose buffer suffices, else the largest, which then grows. */
static struct tri_request *take(size_t bytes)
{
    struct tri_request **best = NULL;
    for (struct tri_request **at = &pool; *at; at = &(*at)->next) {
        bool better = !best || ((*at)->capacity >= bytes ? (*best)->capacity < bytes ||
                                                               (*at)->capacity < (*best)->capacity
                                                         : (*at)->capacity > (*best)->capacity);
        best = better ? at : best;
    }
    struct tri_request *request = NULL;
    if (best) {
        request = *best;
        *best = request->next;
    } else {
        request = tri_alloc(TRI_MEMORY_BUFFERS, sizeof(*request));
    }
    if (bytes > 0) {
        (void)tri_grow(TRI_MEMORY_BUFFERS, &request->slots, &request->capacity, bytes);
    }
    return request;
}

void tri_request_release(void)
{
    while (pool) {
        struct tri_request *request = pool;
        pool = request->next;
        tri_flight_release(&request->flight);
        tri_free(request->slots);
        tri_free(request);
    }
}

static struct tri_request *begin(const struct tri_call *call, size_t slot_bytes)
{
    struct tri_request *request = take(slot_bytes);
    request->call = *call;
    request->call.begun = true;
    request->own_at = 0;
    request->own_n = 0;
    request->gathers = false;
    tri_call_enter(&request->call);
    return request;
}

static struct tri_request *begun(struct tri_request *request)
{
    request->call.parts = NULL; /* the caller's array need not outlive begin */
    tri_call_pause(&request->call);
    return request;
}

/* Sends part r of data to rank r, and receives everyone's contribution to this rank's part. */
static void post_reduce_scatter(struct tri_request *request, const int64_t *counts)
{
    struct tri_group *group = request->call.group;
    request->n = tri_places(group->part_at, counts, group->size);
    request->own_at = group->part_at[group->rank];
    request->own_n = counts[group->rank];
    for (int r = 0; r < group->size; r++) {
        group->recv_n[r] = request->own_n;
        group->recv_at[r] = tri_slot(group, r, request->own_n);
    }
    tri_exchange_post(group, request->call.dtype, tri_process_max_message(), request->data,
                      (struct tri_side){counts, group->part_at}, request->slots,
                      (struct tri_side){group->recv_n, group->recv_at}, &request->flight);
}

/* Sends n elements at own_at of data to everyone; receives from rank r recv_n[r] at recv_at[r]. */
static void post_to_all(struct tri_request *request, int64_t own_at, int64_t own_n, void *recv)
{
    struct tri_group *group = request->call.group;
    for (int r = 0; r < group->size; r++) {
        group->send_n[r] = own_n;
        group->send_at[r] = own_at;
    }
    tri_exchange_post(group, request->call.dtype, tri_process_max_message(), request->data,
                      (struct tri_side){group->send_n, group->send_at}, recv,
                      (struct tri_side){group->recv_n, group->recv_at}, &request->flight);
}

static size_t slots_bytes(const struct tri_group *group, int64_t slot, enum tri_dtype dtype)
{
    return (size_t)slot * (size_t)(group->size - 1) * tri_dtype_size(dtype);
}

struct tri_request *tri_all_reduce_sum_begin(struct tri_group *group, struct tri_where where,
                                             void *data, int64_t n, enum tri_dtype dtype)
{
    TRI_REQUIRE(n >= 0);
    if (group->size == 1) {
        return &nothing;
    }
    struct tri_call call = {
        .group = group,
        .verb = TRI_VERB_ALL_REDUCE,
        .where = where,
        .dtype = dtype,
        .n = n,
        .bytes = n * (int64_t)tri_dtype_size(dtype),
    };
    bool small = tri_all_reduce_is_small(n);
    int64_t slot = small ? n : tri_range_size(tri_range_part(n, group->size, group->rank));
    struct tri_request *request = begin(&call, slots_bytes(group, slot, dtype));
    request->data = data;
    if (small) {
        request->n = n;
        request->own_n = n;
        for (int r = 0; r < group->size; r++) {
            group->recv_n[r] = n;
            group->recv_at[r] = tri_slot(group, r, n);
        }
        post_to_all(request, 0, n, request->slots);
    } else {
        tri_even_parts(group->parts, n, group->size);
        post_reduce_scatter(request, group->parts);
        request->gathers = true;
    }
    return begun(request);
}

struct tri_request *tri_reduce_scatter_v_begin(struct tri_group *group, struct tri_where where,
                                               void *data, const int64_t *counts,
                                               enum tri_dtype dtype)
{
    if (group->size == 1) {
        return &nothing;
    }
    struct tri_call call = tri_call_of_parts(group, TRI_VERB_REDUCE_SCATTER, where, counts, dtype);
    struct tri_request *request = begin(&call, slots_bytes(group, counts[group->rank], dtype));
    request->data = data;
    post_reduce_scatter(request, counts);
    return begun(request);
}

struct tri_request *tri_all_gather_v_begin(struct tri_group *group, struct tri_where where,
                                           void *data, const int64_t *counts, enum tri_dtype dtype)
{
    if (group->size == 1) {
        return &nothing;
    }
    struct tri_call call = tri_call_of_parts(group, TRI_VERB_ALL_GATHER, where, counts, dtype);
    struct tri_request *request = begin(&call, 0);
    request->data = data;
    request->n = tri_places(group->recv_at, counts, group->size);
    for (int r = 0; r < group->size; r++) {
        group->recv_n[r] = counts[r];
    }
    post_to_all(request, group->recv_at[group->rank], counts[group->rank], data);
    return begun(request);
}

struct tri_request *tri_all_to_all_v_begin(struct tri_group *group, struct tri_where where,
                                           const void *send, const int64_t *send_rows, void *recv,
                                           const int64_t *recv_rows, int64_t width,
                                           enum tri_dtype dtype)
{
    struct tri_rows rows = {send, send_rows, recv, recv_rows, width, dtype};
    if (group->size == 1) {
        tri_all_to_all_post(group, &rows, NULL);
        return &nothing;
    }
    struct tri_call call = tri_call_of_rows(group, where, send_rows, width, dtype);
    struct tri_request *request = begin(&call, 0);
    tri_all_to_all_post(group, &rows, &request->flight);
    return begun(request);
}

void tri_request_end(struct tri_request *request)
{
    if (request == &nothing) {
        return;
    }
    struct tri_group *group = request->call.group;
    enum tri_dtype dtype = request->call.dtype;
    tri_call_resume(&request->call);
    tri_flight_wait(&request->flight);
    if (request->own_n > 0) {
        char *own = (char *)request->data + request->own_at * (int64_t)tri_dtype_size(dtype);
        tri_slots_sum(group, own, request->slots, request->own_n, request->own_n, dtype,
                      TRI_REDUCE_SUM);
    }
    if (request->gathers) {
        tri_even_parts(group->parts, request->n, group->size);
        tri_all_gather_run(group, request->data, group->parts, dtype);
    }
    tri_call_leave(&request->call);
    request->next = pool;
    pool = request;
}
