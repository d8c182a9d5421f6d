#include "moe/route_chunks.h"

/* Runs of rows as they were sent: run s * parts + p comes from source s in tensor part p. */
struct runs {
    const struct tri_peers *peers;
    struct tri_route_chunks *chunks;
    int64_t count;
    int64_t *before; /* [count, experts + 1] rows of a run before each expert's */
    int64_t *next; /* [count, experts] a run's rows of an expert begin here in the experts' order */
};

static void *keep(const struct tri_frame *frame, int64_t n, size_t size)
{
    return tri_keep_more_routing(frame, (size_t)n * size);
}

static const int64_t *before(const struct runs *runs, int64_t run)
{
    return runs->before + run * (runs->peers->experts + 1);
}

static struct tri_range piece_of(const struct runs *runs, int64_t run, int chunk)
{
    return tri_range_part(before(runs, run)[runs->peers->experts], runs->chunks->count, chunk);
}

static struct runs find_runs(const struct tri_peers *peers, const struct tri_frame *frame,
                             struct tri_route_chunks *chunks, const int64_t *received)
{
    int64_t count = (int64_t)tri_group_size(peers->homes) * peers->parts;
    int64_t experts = peers->experts;
    struct runs runs = {peers, chunks, count, NULL, NULL};
    runs.before =
        tri_arena_alloc(frame->arena, (size_t)(count * (experts + 1)) * sizeof(*runs.before));
    runs.next = tri_arena_alloc(frame->arena, (size_t)(count * experts) * sizeof(*runs.next));
    int64_t at = 0;
    for (int64_t e = 0; e < experts; e++) {
        for (int64_t run = 0; run < count; run++) {
            int64_t n = received[run * experts + e];
            int64_t *rows = runs.before + run * (experts + 1) + e;
            rows[0] = e == 0 ? 0 : rows[0];
            rows[1] = rows[0] + n;
            runs.next[run * experts + e] = at;
            at += n;
        }
    }
    return runs;
}

static void count_chunk(const struct runs *runs, int c)
{
    const struct tri_peers *peers = runs->peers;
    struct tri_route_chunks *chunks = runs->chunks;
    int homes = tri_group_size(peers->homes);
    int64_t hidden = peers->context->config->model.hidden_size;
    chunks->begin[c + 1] = chunks->begin[c];
    for (int p = 0; p < peers->parts; p++) {
        int64_t rows = 0;
        for (int s = 0; s < homes; s++) {
            int64_t n = tri_range_size(piece_of(runs, (int64_t)s * peers->parts + p, c));
            if (p == tri_peers_part(peers)) {
                chunks->recv_rows[(int64_t)c * homes + s] = n;
            }
            rows += n;
        }
        chunks->part_counts[(int64_t)c * peers->parts + p] = rows * hidden;
        chunks->begin[c + 1] += rows;
    }
}

static void find_experts(const struct runs *runs, int c)
{
    struct tri_route_chunks *chunks = runs->chunks;
    int64_t experts = runs->peers->experts;
    int64_t ready = experts;
    int64_t needs = 0;
    for (int64_t run = 0; run < runs->count; run++) {
        const int64_t *rows = before(runs, run);
        int64_t end = piece_of(runs, run, c).end;
        for (int64_t e = 0; e < experts; e++) {
            ready = rows[e + 1] > end && e < ready ? e : ready;
            needs = rows[e + 1] > rows[e] && rows[e] < end && e >= needs ? e + 1 : needs;
        }
    }
    chunks->ready[c] = ready;
    chunks->needs[c] = needs;
}

static void order_rows(void *state, int64_t begin, int64_t end)
{
    const struct runs *runs = state;
    struct tri_route_chunks *chunks = runs->chunks;
    int64_t parts = runs->peers->parts;
    int64_t experts = runs->peers->experts;
    int64_t homes = runs->count / parts;
    int64_t from = 0;
    for (int64_t i = begin; i < end; i++) {
        /* by chunk, tensor part, source */
        int64_t run = i % homes * parts + i / homes % parts;
        const int64_t *rows = before(runs, run);
        struct tri_range piece = piece_of(runs, run, (int)(i / runs->count));
        for (int64_t e = 0; e < experts; e++) {
            struct tri_range of_expert =
                tri_range_intersect(piece, (struct tri_range){rows[e], rows[e + 1]});
            int64_t to = runs->next[run * experts + e] + of_expert.begin - rows[e];
            for (int64_t n = tri_range_size(of_expert); n > 0; n--, from++, to++) {
                chunks->row_from[to] = (int32_t)from;
                chunks->row_to[from] = (int32_t)to;
            }
        }
    }
}

struct tri_route_chunks *tri_route_chunks_make(const struct tri_peers *peers,
                                               const struct tri_frame *frame,
                                               const struct tri_route_plan *plan,
                                               const int64_t *received, int count)
{
    const struct tri_kernels *kernels = peers->context->kernels;
    int64_t homes = tri_group_size(peers->homes);
    struct tri_route_chunks *chunks = keep(frame, 1, sizeof(*chunks));
    int64_t integers = count * (3 * homes + peers->parts + 3) + 1;
    *chunks = (struct tri_route_chunks){.count = count};
    chunks->send_rows = keep(frame, integers, sizeof(int64_t));
    chunks->send_at = chunks->send_rows + count * homes;
    chunks->recv_rows = chunks->send_at + count * homes;
    chunks->part_counts = chunks->recv_rows + count * homes;
    chunks->ready = chunks->part_counts + count * peers->parts;
    chunks->needs = chunks->ready + count;
    chunks->begin = chunks->needs + count;
    chunks->row_from = keep(frame, plan->rows, sizeof(*chunks->row_from));
    chunks->row_to = keep(frame, plan->rows, sizeof(*chunks->row_to));
    size_t mark = tri_arena_mark(frame->arena);
    struct runs runs = find_runs(peers, frame, chunks, received);
    chunks->begin[0] = 0;
    for (int c = 0; c < count; c++) {
        int64_t slot = 0; /* of the first one for a home */
        for (int64_t h = 0; h < homes; h++) {
            struct tri_range piece = tri_range_part(plan->send_rows[h], count, c);
            chunks->send_rows[c * homes + h] = tri_range_size(piece);
            chunks->send_at[c * homes + h] = slot + piece.begin;
            slot += plan->send_rows[h];
        }
        count_chunk(&runs, c);
        find_experts(&runs, c);
    }
    TRI_REQUIRE(chunks->begin[count] == plan->rows);
    int64_t pieces = count * runs.count;
    kernels->loop(kernels, &(struct tri_loop_args){
                               .n = pieces, .piece = pieces, .run = order_rows, .state = &runs});
    tri_arena_rewind(frame->arena, mark);
    return chunks;
}

void tri_route_chunk_offsets(const struct tri_peers *peers, const struct tri_route_plan *plan,
                             const struct tri_route_chunks *chunks, int chunk, int64_t *offsets)
{
    int homes = tri_group_size(peers->homes);
    int64_t at = 0;
    for (int s = 0; s < homes; s++) {
        const int64_t *run = plan->part_offsets + s * peers->experts;
        struct tri_range piece = tri_range_part(plan->recv_rows[s], chunks->count, chunk);
        for (int64_t e = 0; e < peers->experts; e++) {
            const struct tri_range rows = {run[e] - run[0], run[e + 1] - run[0]};
            offsets[s * peers->experts + e] = at;
            at += tri_range_size(tri_range_intersect(piece, rows));
        }
    }
    offsets[homes * peers->experts] = at;
}
