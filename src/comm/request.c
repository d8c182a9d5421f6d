/* Begin and end. Begin posts the messages of a collective; end waits for them, and does the local
 * sum and, for a large all-reduce, the gather. Requests are pooled with their buffers, a pool for
 * each mesh: a step that begins the same calls as the last one allocates nothing. */
#include "comm/internal.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/work.h"

enum { NOTICE_WORDS = sizeof(struct tri_notice) / sizeof(int64_t) };

struct tri_request {
    struct tri_call call;
    /* In one block: what the others sent where it has to be summed, then the messages. */
    void *block;
    size_t capacity;
    struct tri_flight flight;
    void *data;
    int64_t n;             /* elements of the whole */
    int64_t own_at, own_n; /* this rank's part of the sum; own_n = 0 where nothing is summed */
    bool gathers;
    struct tri_request *next;
};

/* The smallest free request whose block suffices, else the largest, which then grows. */
static struct tri_request *take(struct tri_pool *pool, size_t bytes)
{
    struct tri_request **best = NULL;
    for (struct tri_request **at = &pool->free; *at; at = &(*at)->next) {
        size_t capacity = (*at)->capacity;
        size_t held = best ? (*best)->capacity : 0;
        bool better = capacity >= bytes ? held < bytes || capacity < held : capacity > held;
        best = !best || better ? at : best;
    }
    struct tri_request *request = NULL;
    if (best) {
        request = *best;
        *best = request->next;
    } else {
        request = tri_alloc(TRI_MEMORY_BUFFERS, sizeof(*request));
    }
    (void)tri_grow(TRI_MEMORY_BUFFERS, &request->block, &request->capacity, bytes);
    return request;
}

void tri_request_release(struct tri_pool *pool)
{
    while (pool->free) {
        struct tri_request *request = pool->free;
        pool->free = request->next;
        tri_free(request->block);
        tri_free(request);
    }
}

static struct tri_request *set_aside(struct tri_request *request)
{
    request->call.parts = NULL; /* the caller's array need not outlive begin */
    tri_call_pause(&request->call);
    struct tri_request **last = &request->call.group->pool->begun;
    while (*last) {
        last = &(*last)->next;
    }
    *last = request;
    request->next = NULL;
    return request;
}

static void take_off(const struct tri_request *request)
{
    struct tri_request **at = &request->call.group->pool->begun;
    while (*at != request) {
        at = &(*at)->next;
    }
    *at = request->next;
}

static bool has_arrived(struct tri_request *request)
{
    bool arrived =
        request->call.arrived > 0.0 || tri_flight_test(request->call.group, &request->flight);
    if (arrived && request->call.arrived == 0.0) {
        request->call.arrived = tri_clock_now();
    }
    return arrived;
}

static struct tri_pool *pool_of(const struct tri_mesh *mesh)
{
    return tri_mesh_group(mesh, TRI_ON_ALL)->pool;
}

/* A transport looks after all messages whenever it is asked for one that has not arrived: the calls
 * begun later are helped on too, and are seen to have arrived with the next. */
void tri_mesh_progress(const struct tri_mesh *mesh)
{
    struct tri_pool *pool = pool_of(mesh);
    tri_work_progress();
    struct tri_request *request = pool->begun;
    while (request && has_arrived(request)) {
        request = request->next;
    }
    /* A plan knows when its messages will have arrived. */
    struct tri_request *awaited = pool->pending.request;
    if (pool->pending.act &&
        (!awaited || (has_arrived(awaited) && awaited->call.arrived <= tri_clock_now()))) {
        tri_mesh_do_pending(mesh);
    }
}

void tri_mesh_set_pending(const struct tri_mesh *mesh, struct tri_request *request,
                          void (*act)(void *state), void *state)
{
    struct tri_pool *pool = pool_of(mesh);
    TRI_REQUIRE(!pool->pending.act);
    pool->pending = (struct tri_pending){request, act, state};
}

void tri_mesh_do_pending(const struct tri_mesh *mesh)
{
    struct tri_pool *pool = pool_of(mesh);
    const struct tri_pending pending = pool->pending;
    pool->pending = (struct tri_pending){0};
    if (pending.act) {
        pending.act(pending.state);
    }
}

/* Posts what the group's work arrays say. slot: elements of each slot in which a contribution to a
 * sum is received; where nothing is summed, 0, and the messages are received in recv. */
static struct tri_request *begin(struct tri_call call, const void *send, void *recv, int64_t slot)
{
    struct tri_group *group = call.group;
    int64_t max = group->mesh->max_message;
    int64_t messages = tri_exchange_messages(group, group->send_n, group->recv_n, max);
    size_t slots = (size_t)slot * (size_t)(group->size - 1) * tri_dtype_size(call.dtype);
    size_t unit = sizeof(union tri_message);
    slots = (slots + unit - 1) / unit * unit;
    struct tri_request *request = take(group->pool, slots + (size_t)messages * unit);
    request->flight.item = (union tri_message *)(void *)((char *)request->block + slots);
    request->own_at = 0;
    request->own_n = slot;
    request->gathers = false;
    tri_exchange_post(group, call.dtype, max, send,
                      (struct tri_side){group->send_n, group->send_at},
                      recv ? recv : request->block,
                      (struct tri_side){group->recv_n, group->recv_at}, &request->flight);
    request->call = call;
    return request;
}

/* Part r goes to rank r; everyone's contribution to this rank's part comes back. */
static struct tri_request *begin_reduce_scatter(struct tri_call call, void *data,
                                                const int64_t *counts)
{
    struct tri_group *group = call.group;
    int64_t own = counts[group->rank];
    int64_t n = tri_places(group->send_at, counts, group->size);
    for (int r = 0; r < group->size; r++) {
        group->send_n[r] = counts[r];
        group->recv_n[r] = own;
        group->recv_at[r] = tri_slot(group, r, own);
    }
    struct tri_request *request = begin(call, data, NULL, own);
    request->data = data;
    request->n = n;
    request->own_at = group->send_at[group->rank];
    return request;
}

/* The n elements at data + at go to every rank. */
static void send_to_all(struct tri_group *group, int64_t at, int64_t n)
{
    for (int r = 0; r < group->size; r++) {
        group->send_n[r] = n;
        group->send_at[r] = at;
    }
}

struct tri_request *tri_all_reduce_sum_begin(struct tri_group *group, struct tri_where where,
                                             void *data, int64_t n, enum tri_dtype dtype)
{
    TRI_REQUIRE(n >= 0);
    if (group->size == 1) {
        return NULL;
    }
    struct tri_call call = {
        .group = group,
        .verb = TRI_VERB_ALL_REDUCE,
        .where = where,
        .dtype = dtype,
        .n = n,
        .bytes = n * (int64_t)tri_dtype_size(dtype),
        .begun = true,
    };
    tri_call_enter(&call);
    if (!tri_all_reduce_is_small(group, n)) {
        tri_even_parts(group->parts, n, group->size);
        struct tri_request *request = begin_reduce_scatter(call, data, group->parts);
        request->gathers = true;
        return set_aside(request);
    }
    for (int r = 0; r < group->size; r++) {
        group->recv_n[r] = n;
        group->recv_at[r] = tri_slot(group, r, n);
    }
    send_to_all(group, 0, n);
    struct tri_request *request = begin(call, data, NULL, n);
    request->data = data;
    return set_aside(request);
}

struct tri_request *tri_reduce_scatter_v_begin(struct tri_group *group, struct tri_where where,
                                               void *data, const int64_t *counts,
                                               enum tri_dtype dtype)
{
    if (group->size == 1) {
        return NULL;
    }
    struct tri_call call = tri_call_of_parts(group, TRI_VERB_REDUCE_SCATTER, where, counts, dtype);
    call.begun = true;
    tri_call_enter(&call);
    return set_aside(begin_reduce_scatter(call, data, counts));
}

struct tri_request *tri_all_gather_v_begin(struct tri_group *group, struct tri_where where,
                                           void *data, const int64_t *counts, enum tri_dtype dtype)
{
    if (group->size == 1) {
        return NULL;
    }
    struct tri_call call = tri_call_of_parts(group, TRI_VERB_ALL_GATHER, where, counts, dtype);
    call.begun = true;
    tri_call_enter(&call);
    (void)tri_places(group->recv_at, counts, group->size);
    for (int r = 0; r < group->size; r++) {
        group->recv_n[r] = counts[r];
    }
    send_to_all(group, group->recv_at[group->rank], counts[group->rank]);
    return set_aside(begin(call, data, data, 0));
}

struct tri_request *tri_all_to_all_at_begin(struct tri_group *group, struct tri_where where,
                                            const void *send, const int64_t *send_rows,
                                            const int64_t *send_at, void *recv,
                                            const int64_t *recv_rows, const int64_t *recv_at,
                                            int64_t width, enum tri_dtype dtype)
{
    struct tri_row_exchange rows = {send,  send_rows, recv,    recv_rows,
                                    width, dtype,     send_at, recv_at};
    if (group->size == 1) {
        tri_all_to_all_copy_own(group, &rows);
        return NULL;
    }
    struct tri_call call = tri_call_of_rows(group, where, send_rows, width, dtype);
    tri_call_note_rows(&call, send_rows, recv_rows);
    call.begun = true;
    tri_call_enter(&call);
    tri_all_to_all_sides(group, &rows);
    struct tri_request *request = begin(call, send, recv, 0);
    tri_all_to_all_copy_own(group, &rows);
    return set_aside(request);
}

struct tri_request *tri_all_to_all_v_begin(struct tri_group *group, struct tri_where where,
                                           const void *send, const int64_t *send_rows, void *recv,
                                           const int64_t *recv_rows, int64_t width,
                                           enum tri_dtype dtype)
{
    return tri_all_to_all_at_begin(group, where, send, send_rows, NULL, recv, recv_rows, NULL,
                                   width, dtype);
}

/* The two ends of a message between two ranks: a notice of it where there is one, then the data. In
 * the block the notice is followed by the messages. */
static struct tri_request *begin_pair(struct tri_call call, const void *send, void *recv)
{
    struct tri_group *group = call.group;
    TRI_REQUIRE(call.n >= 0);
    TRI_REQUIRE(call.peer >= 0 && call.peer < group->size && call.peer != group->rank);
    uint32_t *begun = call.verb == TRI_VERB_SEND ? group->sent : group->received;
    call.message = begun[call.peer]++;
    tri_call_enter(&call);
    struct tri_way way = {TRI_LANE_PAIR, call.peer, group->mesh->max_message};
    struct tri_way ahead = {TRI_LANE_PAIR, call.peer, NOTICE_WORDS};
    int64_t words = TRI_NOTICE_MESSAGES * NOTICE_WORDS;
    int64_t messages = TRI_NOTICE_MESSAGES + (call.n + way.max - 1) / way.max;
    struct tri_request *request =
        take(group->pool, sizeof(struct tri_notice) + (size_t)messages * sizeof(union tri_message));
    struct tri_notice *notice = request->block;
    request->flight.item = (union tri_message *)(void *)(notice + 1);
    request->own_n = 0;
    request->gathers = false;
    request->call = call;
    if (group->carries && call.verb == TRI_VERB_SEND) {
        *notice = (struct tri_notice){call.n, (int64_t)call.dtype};
        tri_flight_send(group, ahead, notice, words, TRI_I64, &request->flight);
        tri_flight_send(group, way, send, call.n, call.dtype, &request->flight);
    } else if (group->carries) {
        tri_flight_receive(group, ahead, notice, words, TRI_I64, &request->flight);
        tri_flight_receive(group, way, recv, call.n, call.dtype, &request->flight);
    }
    return set_aside(request);
}

struct tri_request *tri_send_begin(struct tri_group *group, struct tri_where where, int to,
                                   const void *data, int64_t n, enum tri_dtype dtype)
{
    struct tri_call call = {
        .group = group,
        .verb = TRI_VERB_SEND,
        .where = where,
        .dtype = dtype,
        .n = n,
        .peer = to,
        .bytes = n * (int64_t)tri_dtype_size(dtype),
    };
    if (n > 0 && !tri_group_is_near(group, to)) {
        call.bytes_between = call.bytes;
        call.messages_between = 1;
    }
    return begin_pair(call, data, NULL);
}

struct tri_request *tri_receive_begin(struct tri_group *group, struct tri_where where, int from,
                                      void *data, int64_t n, enum tri_dtype dtype)
{
    struct tri_call call = {
        .group = group,
        .verb = TRI_VERB_RECEIVE,
        .where = where,
        .dtype = dtype,
        .n = n,
        .peer = from,
    };
    return begin_pair(call, NULL, data);
}

void tri_send(struct tri_group *group, struct tri_where where, int to, const void *data, int64_t n,
              enum tri_dtype dtype)
{
    tri_request_end(tri_send_begin(group, where, to, data, n, dtype));
}

void tri_receive(struct tri_group *group, struct tri_where where, int from, void *data, int64_t n,
                 enum tri_dtype dtype)
{
    tri_request_end(tri_receive_begin(group, where, from, data, n, dtype));
}

/* Who reads or writes files beside the others leaves them the cores while it waits. */
static void wait_for_flight(struct tri_request *request)
{
    if (request->call.where.phase == TRI_PHASE_CHECKPOINT) {
        tri_flight_doze(request->call.group, &request->flight);
    } else {
        tri_flight_wait(request->call.group, &request->flight);
    }
}

/* The notice is looked at before the data is waited for, which may not fit. */
static void wait_for_pair(struct tri_request *request)
{
    const struct tri_group *group = request->call.group;
    struct tri_flight *flight = &request->flight;
    if (TRI_NOTICE_MESSAGES && group->carries) {
        if (flight->count > 0) {
            group->ops->wait(group->end, flight->item, 1);
            flight->item++;
            flight->count--;
        }
        tri_check_notice(&request->call, request->block);
    }
    wait_for_flight(request);
}

void tri_request_end(struct tri_request *request)
{
    if (!request) {
        return;
    }
    struct tri_group *group = request->call.group;
    enum tri_dtype dtype = request->call.dtype;
    take_off(request);
    tri_call_resume(&request->call);
    if (request->call.verb == TRI_VERB_RECEIVE) {
        wait_for_pair(request);
    } else {
        wait_for_flight(request);
    }
    if (request->own_n > 0) {
        char *own = (char *)request->data + request->own_at * (int64_t)tri_dtype_size(dtype);
        tri_slots_sum(group, own, request->block, request->own_n, request->own_n, dtype,
                      TRI_REDUCE_SUM);
    }
    if (request->gathers) {
        tri_even_parts(group->parts, request->n, group->size);
        tri_all_gather_run(group, request->data, group->parts, dtype);
    }
    tri_call_leave(&request->call);
    request->next = group->pool->free;
    group->pool->free = request;
}
