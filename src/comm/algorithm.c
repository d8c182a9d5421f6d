/* How the blocking collectives move and sum. Sums are in one tree over the ranks always:
 *
 *   reduce-scatter   every rank sends each other rank its part, in segments, and sums its own part
 *                    from what has come while the next segment is under way:
 *                      post 0 | post 1, wait 0, sum 0 | post 2, wait 1, sum 1 | …
 *                    the segments stay in the second-level cache; the buffer is two segments a peer
 *   all-reduce       reduce-scatter of even parts, then all-gather; a small one sends everything to
 *                    everyone and sums all of it everywhere
 *   all-gather       the transport's own, where it knows the network */
#include "comm/internal.h"

#include "base/memory.h"

#include <string.h>

enum { SMALL_ELEMENTS = 2048, SEGMENT_BYTES = 128 << 10 };

static void *grow(struct tri_room *room, int64_t bytes)
{
    return tri_grow(TRI_MEMORY_BUFFERS, &room->block, &room->capacity, (size_t)bytes);
}

void tri_algorithm_release(struct tri_pool *pool)
{
    tri_free(pool->slots.block);
    tri_free(pool->requests[0].block);
    tri_free(pool->requests[1].block);
    *pool = (struct tri_pool){0};
}

/* Posts what the group's work arrays say, as flight number `turn`. */
static void post(const struct tri_group *group, enum tri_dtype dtype, int64_t max, const void *send,
                 void *recv, int turn)
{
    struct tri_flight *flight = &group->pool->flight[turn];
    int64_t messages = tri_exchange_messages(group, group->send_n, group->recv_n, max);
    flight->item = grow(&group->pool->requests[turn], messages * (int64_t)sizeof(*flight->item));
    tri_exchange_post(group, dtype, max, send, (struct tri_side){group->send_n, group->send_at},
                      recv, (struct tri_side){group->recv_n, group->recv_at}, flight);
}

int64_t tri_slot(const struct tri_group *group, int r, int64_t slot)
{
    return slot * (r < group->rank ? r : r - 1);
}

void tri_slots_sum(const struct tri_group *group, void *own, const void *slots, int64_t slot,
                   int64_t n, enum tri_dtype dtype, enum tri_reduction reduction)
{
    int64_t width = (int64_t)tri_dtype_size(dtype);
    for (int r = 0; r < group->size; r++) {
        group->source[r] = (const char *)slots + tri_slot(group, r, slot) * width;
    }
    group->source[group->rank] = own;
    group->mesh->reduce(own, group->source, group->size, n, dtype, reduction);
}

static int64_t clip(int64_t n, int64_t begin, int64_t size)
{
    int64_t left = n - begin;
    return left < 0 ? 0 : left < size ? left : size;
}

void tri_reduce_scatter_run(const struct tri_group *group, void *data, const int64_t *counts,
                            enum tri_dtype dtype, enum tri_reduction reduction)
{
    int64_t width = (int64_t)tri_dtype_size(dtype);
    int64_t segment = SEGMENT_BYTES / width;
    if (segment > group->mesh->max_message) {
        segment = group->mesh->max_message;
    }
    int me = group->rank;
    int peers = group->size - 1;
    (void)tri_places(group->part_at, counts, group->size);
    int64_t longest = 0;
    for (int r = 0; r < group->size; r++) {
        longest = counts[r] > longest ? counts[r] : longest;
    }
    int64_t slot = clip(counts[me], 0, segment);
    int64_t half = slot * peers * width;
    char *slots = grow(&group->pool->slots, 2 * half);
    char *own = (char *)data + group->part_at[me] * width;
    int64_t segments = (longest + segment - 1) / segment;
    if (!group->carries && segments > 2) {
        segments = 2; /* no later one needs more room */
    }
    for (int64_t k = 0; k <= segments; k++) {
        if (k < segments) {
            for (int r = 0; r < group->size; r++) {
                group->send_n[r] = clip(counts[r], k * segment, segment);
                group->send_at[r] = group->part_at[r] + k * segment;
                group->recv_n[r] = clip(counts[me], k * segment, segment);
                group->recv_at[r] = tri_slot(group, r, slot);
            }
            post(group, dtype, segment, data, slots + k % 2 * half, (int)(k % 2));
        }
        if (k > 0) {
            int64_t begin = (k - 1) * segment;
            tri_flight_wait(group, &group->pool->flight[(k - 1) % 2]);
            tri_slots_sum(group, own + begin * width, slots + (k - 1) % 2 * half, slot,
                          clip(counts[me], begin, segment), dtype, reduction);
        }
    }
}

/* Parts too long for one all-gather go as broadcasts, which need no displacements. */
static void gather_by_broadcasts(const struct tri_group *group, char *data, const int64_t *counts,
                                 enum tri_dtype dtype)
{
    int64_t max = group->mesh->max_message;
    int64_t width = (int64_t)tri_dtype_size(dtype);
    for (int r = 0; r < group->size; r++) {
        for (int64_t left = counts[r]; left > 0; left -= max) {
            int64_t n = left < max ? left : max;
            tri_end_broadcast(group, data, n, dtype, r);
            data += n * width;
        }
    }
}

void tri_all_gather_run(const struct tri_group *group, void *data, const int64_t *counts,
                        enum tri_dtype dtype)
{
    int64_t total = tri_places(group->part_at, counts, group->size);
    if (!group->carries) {
        return;
    }
    if (total > group->mesh->max_message) {
        gather_by_broadcasts(group, data, counts, dtype);
        return;
    }
    tri_end_all_gather(group, data, counts, group->part_at, dtype);
}

bool tri_all_reduce_is_small(const struct tri_group *group, int64_t n)
{
    return n <= SMALL_ELEMENTS && n <= group->mesh->max_message;
}

void tri_all_reduce_run(const struct tri_group *group, void *data, int64_t n, enum tri_dtype dtype,
                        enum tri_reduction reduction)
{
    if (!tri_all_reduce_is_small(group, n)) {
        tri_even_parts(group->parts, n, group->size);
        tri_reduce_scatter_run(group, data, group->parts, dtype, reduction);
        tri_all_gather_run(group, data, group->parts, dtype);
        return;
    }
    int64_t bytes = n * (int64_t)tri_dtype_size(dtype);
    char *all = grow(&group->pool->slots, bytes * group->size);
    tri_end_all_gather_even(group, data, all, n, dtype);
    for (int r = 0; r < group->size; r++) {
        group->source[r] = all + r * bytes;
    }
    group->mesh->reduce(data, group->source, group->size, n, dtype, reduction);
}

static void scale(int64_t *counts, const int64_t *rows, int64_t width, int size)
{
    for (int r = 0; r < size; r++) {
        counts[r] = rows[r] * width;
    }
}

void tri_all_to_all_sides(const struct tri_group *group, const struct tri_row_exchange *rows)
{
    TRI_REQUIRE(rows->width >= 0);
    tri_check_rows(group, rows->send_rows, rows->recv_rows);
    scale(group->send_n, rows->send_rows, rows->width, group->size);
    scale(group->recv_n, rows->recv_rows, rows->width, group->size);
    (void)tri_places(group->send_at, group->send_n, group->size);
    (void)tri_places(group->recv_at, group->recv_n, group->size);
    if (rows->send_at) {
        scale(group->send_at, rows->send_at, rows->width, group->size);
    }
    if (rows->recv_at) {
        scale(group->recv_at, rows->recv_at, rows->width, group->size);
    }
}

/* Rows before those of rank r. */
static int64_t row_at(const int64_t *at, const int64_t *rows, int r)
{
    int64_t before = 0;
    for (int i = 0; i < r && !at; i++) {
        before += rows[i];
    }
    return at ? at[r] : before;
}

void tri_all_to_all_copy_own(const struct tri_group *group, const struct tri_row_exchange *rows)
{
    int me = group->rank;
    if (!group->carries) {
        return;
    }
    TRI_REQUIRE(rows->width >= 0 && rows->send_rows[me] == rows->recv_rows[me]);
    size_t row = (size_t)rows->width * tri_dtype_size(rows->dtype);
    size_t from = (size_t)row_at(rows->send_at, rows->send_rows, me) * row;
    size_t to = (size_t)row_at(rows->recv_at, rows->recv_rows, me) * row;
    size_t own = (size_t)rows->send_rows[me] * row;
    if (own > 0) {
        memcpy((char *)rows->recv + to, (const char *)rows->send + from, own);
    }
}

void tri_all_to_all_run(const struct tri_group *group, const struct tri_row_exchange *rows)
{
    tri_all_to_all_sides(group, rows);
    post(group, rows->dtype, group->mesh->max_message, rows->send, rows->recv, 0);
    tri_all_to_all_copy_own(group, rows);
    tri_flight_wait(group, &group->pool->flight[0]);
}
