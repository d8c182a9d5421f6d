/* TED's way in chunks (MoNTA, arXiv 2411.00662; the authors' code splits the forward alone):
 * duplicate tokens are dropped, and while the rows of one chunk are under way between the homes of
 * the experts, those of the one before are gathered over tensor and go through their experts. What
 * comes back is reduced and scattered over tensor and sent while further experts work, and so is
 * all of the backward. The gathers run beside the experts too: a chunk's begins as soon as it has
 * come, between two products of the experts that work, its scatter beside the next ones.
 *
 *   homes    to 0 | to 1 | to 2 |       back 0 | back 1 | back 2
 *   tensor        | all-gather 0 | all-gather 1 | reduce-scatter 0 | all-gather 2 | …
 *   experts                  | 0, 1 |      | 2 |                         | 3 |
 *
 * Chunks are cut across the experts (moe/route_chunks.h): an expert works once, on all of its rows,
 * in the order that schedule ted has them in, as soon as they are there. So every product is one of
 * ted's, weights' gradients included, and no bit depends on the number of chunks. What is sent is
 * the same, in more calls.
 *
 * All ranks of the homes begin to send all chunks, then send each one back in turn; ranks of one
 * tensor group have the same counts, and gather a chunk before they scatter the one before it,
 * whenever that is. So calls of both kinds come in one order. */
#include "moe/route_chunks.h"
#include "moe/routed.h"

#include "base/clock.h"
#include "model/stream.h"
#include "moe/strategies.h"

#include <string.h>

enum { FORWARD, BACKWARD };

/* What the forward leaves in a frame. */
struct kept {
    struct tri_route_plan *plan;
    struct tri_network_saved
        *saved;     /* [experts] those of experts that work together, at the first */
    void *returned; /* [slots, hidden] the experts' outputs, back in slot order */
};

/* The rows of a layer on their way to the experts and back. */
struct trip {
    const struct tri_routed *routed;
    const struct tri_frame *frame;
    const struct tri_route_plan *plan;
    const struct tri_route_chunks *chunks;
    struct tri_network_group experts;
    struct kept *kept;
    struct tri_where where;
    bool sends, returns; /* in a recompute whose results are there, neither */
    bool with_bias;      /* the down bias is added to whole sums */
    const void *slots;   /* [slots, hidden] that are sent */
    void *rows;          /* [rows, hidden] the experts' */
    void *out;           /* [rows, hidden] sum_dt, what the experts give */
    void *back;          /* [slots, hidden] that return */
    void *arrived;       /* [rows, hidden] by chunk, there and back */
    void *spare;         /* [rows, hidden] where sums are of another type than activations */
    /* [chunks], each NULL where nothing is to be waited for. */
    struct tri_request **going, **gathering, **scattering, **coming;
    int gathered; /* chunks whose gathers have begun */
    double start;
};

static int64_t hidden_of(const struct trip *trip)
{
    return trip->routed->base.context->config->model.hidden_size;
}

static void *row_at(const struct trip *trip, void *rows, int64_t row, enum tri_dtype dtype)
{
    return tri_routed_row(trip->routed, rows, row, dtype);
}

/* ---- one chunk ------------------------------------------------------------------------------- */

static const int64_t *part_counts(const struct trip *trip, int c)
{
    return trip->chunks->part_counts + (int64_t)c * trip->routed->peers.parts;
}

/* This tensor part's first row of a chunk, of those that arrive, and how many it has. */
static struct tri_range own_part(const struct trip *trip, int c)
{
    int64_t begin = trip->chunks->begin[c];
    int part = tri_peers_part(&trip->routed->peers);
    for (int p = 0; p < part; p++) {
        begin += part_counts(trip, c)[p] / hidden_of(trip);
    }
    return (struct tri_range){begin, begin + part_counts(trip, c)[part] / hidden_of(trip)};
}

static void begin_going(struct trip *trip, int c)
{
    const struct tri_route_chunks *chunks = trip->chunks;
    const struct tri_context *context = trip->routed->base.context;
    struct tri_group *homes = trip->routed->peers.homes;
    int64_t at = (int64_t)c * tri_group_size(homes);
    trip->going[c] = tri_all_to_all_at_begin(
        homes, trip->where, trip->slots, chunks->send_rows + at, chunks->send_at + at,
        row_at(trip, trip->arrived, own_part(trip, c).begin, context->dt), chunks->recv_rows + at,
        NULL, hidden_of(trip), context->dt);
}

/* The next chunk's rows of this part begin to be gathered with those of the others. */
static void begin_gathering(void *state)
{
    struct trip *trip = state;
    const struct tri_context *context = trip->routed->base.context;
    int c = trip->gathered++;
    tri_request_end(trip->going[c]);
    if (trip->routed->peers.parts > 1) {
        trip->gathering[c] =
            tri_all_gather_v_begin(tri_mesh_group(context->mesh, TRI_ON_GRID), trip->where,
                                   row_at(trip, trip->arrived, trip->chunks->begin[c], context->dt),
                                   part_counts(trip, c), context->dt);
    }
}

/* Rows first to first + n of dst, from where index says they are in src. */
static void gather(const struct trip *trip, const void *src, const int32_t *index, void *dst,
                   int64_t first, int64_t n, enum tri_dtype dtype)
{
    const struct tri_kernels *kernels = trip->routed->base.context->kernels;
    const struct tri_gather_args args = {
        .src = src,
        .index = index + first,
        .dst = row_at(trip, dst, first, dtype),
        .n = n,
        .width = hidden_of(trip),
        .dt = dtype,
    };
    kernels->gather_rows(kernels, &args);
}

/* Rows of sum_dt become activations. */
static void round_sums(const struct trip *trip, const void *sums, void *dst, int64_t rows)
{
    const struct tri_context *context = trip->routed->base.context;
    const struct tri_cast_args args = {
        .src = sums,
        .from = context->sum_dt,
        .dst = dst,
        .to = context->dt,
        .n = rows * hidden_of(trip),
    };
    context->kernels->cast(context->kernels, &args);
}

static void add_bias(const struct trip *trip, int64_t first, int64_t count, const int64_t *offsets,
                     void *rows)
{
    const struct tri_routed *routed = trip->routed;
    if (trip->with_bias) {
        tri_networks_add_down_bias(routed->base.context, routed->networks + first, count, offsets,
                                   rows);
    }
}

/* The experts' results for a chunk, as they arrived; partial sums begin to be added over tensor. */
static void begin_scattering(struct trip *trip, int c)
{
    const struct tri_context *context = trip->routed->base.context;
    int64_t first = trip->chunks->begin[c];
    int64_t n = trip->chunks->begin[c + 1] - first;
    if (trip->routed->peers.parts == 1) {
        gather(trip, trip->spare ? trip->spare : trip->out, trip->chunks->row_to, trip->arrived,
               first, n, context->dt);
        return;
    }
    void *sums = trip->spare ? trip->spare : trip->arrived;
    gather(trip, trip->out, trip->chunks->row_to, sums, first, n, context->sum_dt);
    trip->scattering[c] = tri_reduce_scatter_v_begin(
        tri_mesh_group(context->mesh, TRI_ON_GRID), trip->where,
        row_at(trip, sums, first, context->sum_dt), part_counts(trip, c), context->sum_dt);
}

/* A chunk of the experts' sums over tensor: this part of it, in activations. */
static void *complete(const struct trip *trip, int c)
{
    const struct tri_routed *routed = trip->routed;
    const struct tri_context *context = routed->base.context;
    struct tri_range own = own_part(trip, c);
    void *sums = trip->spare ? trip->spare : trip->arrived;
    void *part = row_at(trip, trip->arrived, own.begin, context->dt);
    tri_request_end(trip->scattering[c]);
    if (trip->spare) {
        round_sums(trip, row_at(trip, sums, own.begin, context->sum_dt), part, tri_range_size(own));
    }
    if (trip->with_bias) {
        int homes = tri_group_size(routed->peers.homes);
        size_t mark = tri_arena_mark(trip->frame->arena);
        size_t runs = (size_t)(homes * routed->peers.experts) + 1;
        int64_t *offsets = tri_arena_alloc(trip->frame->arena, runs * sizeof(*offsets));
        tri_route_chunk_offsets(&routed->peers, trip->plan, trip->chunks, c, offsets);
        for (int s = 0; s < homes; s++) {
            add_bias(trip, 0, routed->peers.experts, offsets + s * routed->peers.experts, part);
        }
        tri_arena_rewind(trip->frame->arena, mark);
    }
    return part;
}

/* The experts' results for a chunk begin to go back to their senders' slots. */
static void begin_coming(struct trip *trip, int c)
{
    const struct tri_route_chunks *chunks = trip->chunks;
    const struct tri_context *context = trip->routed->base.context;
    struct tri_group *homes = trip->routed->peers.homes;
    int64_t at = (int64_t)c * tri_group_size(homes);
    const void *rows = trip->routed->peers.parts > 1
                           ? complete(trip, c)
                           : row_at(trip, trip->arrived, chunks->begin[c], context->dt);
    trip->coming[c] = tri_all_to_all_at_begin(homes, trip->where, rows, chunks->recv_rows + at,
                                              NULL, trip->back, chunks->send_rows + at,
                                              chunks->send_at + at, hidden_of(trip), context->dt);
}

/* ---- experts --------------------------------------------------------------------------------- */

/* Experts that work together, one or more. */
struct team {
    int64_t first, count;
    int64_t row;      /* the first of theirs */
    int64_t *offsets; /* [count + 1] from there */
};

/* Those from `first` on that become complete at once, there and back: what a forward leaves for
 * them is for the backward what it has at once, too. */
static int64_t team_end(const struct tri_route_plan *plan, int64_t first, int64_t experts)
{
    int64_t end = experts;
    for (int way = FORWARD; way <= BACKWARD; way++) {
        const struct tri_route_chunks *chunks = plan->chunks[way];
        for (int c = 0; c < chunks->count; c++) {
            end = chunks->ready[c] > first && chunks->ready[c] < end ? chunks->ready[c] : end;
        }
    }
    return end;
}

static struct team make_team(const struct trip *trip, int64_t first)
{
    const int64_t *offsets = trip->plan->offsets + first;
    struct team team = {first, team_end(trip->plan, first, trip->routed->peers.experts) - first,
                        *offsets, NULL};
    team.offsets =
        tri_arena_alloc(trip->frame->arena, (size_t)(team.count + 1) * sizeof(*team.offsets));
    for (int64_t e = 0; e <= team.count; e++) {
        team.offsets[e] = offsets[e] - team.row;
    }
    return team;
}

typedef void (*team_work)(const struct trip *trip, const struct team *team);

static void work_forward(const struct trip *trip, const struct team *team)
{
    const struct tri_routed *routed = trip->routed;
    const struct tri_context *context = routed->base.context;
    const struct tri_network *networks = routed->networks + team->first;
    struct tri_network_saved *saved = trip->kept->saved + team->first;
    tri_networks_forward(trip->frame, networks, team->count, team->offsets, &trip->experts,
                         row_at(trip, trip->rows, team->row, context->dt), saved);
    if (trip->returns) {
        tri_networks_output(trip->frame, networks, team->count, team->offsets, &trip->experts,
                            saved, row_at(trip, trip->out, team->row, context->sum_dt),
                            !routed->partial);
    }
}

static void work_backward(const struct trip *trip, const struct team *team)
{
    const struct tri_routed *routed = trip->routed;
    const struct tri_context *context = routed->base.context;
    tri_networks_backward(trip->frame, routed->networks + team->first, team->count, team->offsets,
                          &trip->experts, trip->plan->cuts + team->first,
                          trip->kept->saved + team->first,
                          row_at(trip, trip->rows, team->row, context->dt),
                          row_at(trip, trip->out, team->row, context->sum_dt));
}

/* Sums that no other rank has a part in. */
static void finish(const struct trip *trip, const struct team *team)
{
    const struct tri_context *context = trip->routed->base.context;
    void *sums = row_at(trip, trip->out, team->row, context->sum_dt);
    void *whole = trip->spare ? row_at(trip, trip->spare, team->row, context->dt) : sums;
    if (trip->spare) {
        round_sums(trip, sums, whole, team->offsets[team->count]);
    }
    add_bias(trip, team->first, team->count, team->offsets, whole);
}

/* All rows of experts first to end are there. */
static void let_work(struct trip *trip, int64_t first, int64_t end, team_work work)
{
    const struct tri_routed *routed = trip->routed;
    const struct tri_context *context = routed->base.context;
    while (first < end) {
        struct team team = make_team(trip, first);
        int64_t rows = team.offsets[team.count];
        if (trip->sends) {
            gather(trip, trip->arrived, trip->chunks->row_from, trip->rows, team.row, rows,
                   context->dt);
        }
        tri_routed_add_time(trip->frame, &trip->start, false);
        work(trip, &team);
        tri_routed_add_time(trip->frame, &trip->start, true);
        if (trip->returns && routed->peers.parts == 1) {
            finish(trip, &team);
        }
        first += team.count;
    }
}

/* ---- there and back -------------------------------------------------------------------------- */

static void take_buffers(struct trip *trip)
{
    const struct tri_context *context = trip->routed->base.context;
    struct tri_exchange *exchange = trip->routed->base.exchange;
    int64_t rows = trip->plan->rows;
    size_t count = (size_t)trip->chunks->count;
    trip->arrived = tri_exchange_take(exchange, 1, context, rows);
    trip->out = tri_exchange_take(exchange, 2, context, rows);
    trip->spare =
        context->sum_dt != context->dt ? tri_exchange_take(exchange, 3, context, rows) : NULL;
    trip->going = tri_arena_alloc(trip->frame->arena, 4 * count * sizeof(*trip->going));
    memset(trip->going, 0, 4 * count * sizeof(*trip->going));
    trip->gathering = trip->going + count;
    trip->scattering = trip->gathering + count;
    trip->coming = trip->scattering + count;
}

static void go(struct trip *trip, team_work work)
{
    const struct tri_route_chunks *chunks = trip->chunks;
    const struct tri_mesh *mesh = trip->routed->base.context->mesh;
    int beside = trip->routed->peers.parts > 1 ? 1 : 0; /* scattered while experts work */
    int64_t done = 0;                                   /* experts */
    int scattered = 0, sent = 0;                        /* chunks that have begun to be */
    for (int c = 0; c < chunks->count && trip->sends; c++) {
        begin_going(trip, c);
    }
    for (int c = 0; c < chunks->count; c++) {
        if (trip->sends && c == 0) {
            begin_gathering(trip);
        }
        if (trip->sends) {
            tri_request_end(trip->gathering[c]);
        }
        if (trip->sends && c + 1 < chunks->count) {
            tri_mesh_set_pending(mesh, trip->going[c + 1], begin_gathering, trip);
        }
        let_work(trip, done, chunks->ready[c], work);
        tri_mesh_do_pending(mesh);
        done = chunks->ready[c];
        while (sent < scattered) {
            begin_coming(trip, sent++);
        }
        while (trip->returns && scattered <= c && chunks->needs[scattered] <= done) {
            begin_scattering(trip, scattered++);
            while (scattered - sent > beside) {
                begin_coming(trip, sent++);
            }
        }
    }
    while (sent < scattered) {
        begin_coming(trip, sent++);
    }
    for (int c = 0; c < sent; c++) {
        tri_request_end(trip->coming[c]);
    }
    tri_routed_add_time(trip->frame, &trip->start, false);
}

static void *forward(const struct tri_schedule *self, const struct tri_frame *frame, void *left,
                     const struct tri_routes *routes, const void *x, bool output)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_routed *routed = (const struct tri_routed *)self;
    const struct tri_context *context = self->context;
    const struct tri_group *widest = tri_routed_widest_group(routed);
    int64_t hidden = context->config->model.hidden_size;
    struct kept *kept = left;
    double start = tri_clock_now();
    const struct tri_route_plan *plan = kept->plan = tri_route_plan_make(
        &routed->peers, frame, routes, tri_routed_own(self, frame), self->exchange->load);
    struct trip trip = {
        .routed = routed,
        .frame = frame,
        .plan = plan,
        .chunks = plan->chunks[FORWARD],
        .experts = {routed->networks, routed->peers.experts, plan->offsets},
        .kept = kept,
        .where = {pass->phase, TRI_KIND_MOE},
        .with_bias = routed->partial,
        .start = start,
    };
    bool rows_there, results_there;
    trip.rows = tri_keep_result(frame, widest, plan->rows * hidden, context->dt, &rows_there);
    kept->returned =
        tri_keep_result(frame, widest, plan->slots * hidden, context->dt, &results_there);
    TRI_REQUIRE(rows_there == results_there);
    trip.sends = trip.returns = !rows_there;
    trip.back = kept->returned;
    kept->saved =
        tri_arena_alloc(frame->arena, (size_t)routed->peers.experts * sizeof(*kept->saved));
    if (trip.sends) {
        void *slots = tri_exchange_take(self->exchange, 0, context, plan->slots);
        tri_routed_fill(routed, frame, plan, x, slots);
        trip.slots = slots;
        take_buffers(&trip);
    }
    go(&trip, work_forward);
    if (!output) {
        return NULL;
    }
    void *y = tri_frame_take(frame, tri_stream_count(frame) * hidden);
    tri_routed_combine(routed, frame, plan, kept->returned, routes->weight, y);
    tri_routed_gather(routed, frame, pass->phase, y);
    tri_routed_add_time(frame, &trip.start, false);
    return y;
}

static void backward(const struct tri_schedule *self, const struct tri_frame *frame,
                     const void *left, const struct tri_routes *routes, const void *dy, void *dx,
                     float *dweight)
{
    const struct tri_routed *routed = (const struct tri_routed *)self;
    const struct tri_context *context = self->context;
    struct kept kept = *(const struct kept *)left;
    const struct tri_route_plan *plan = kept.plan;
    double start = tri_clock_now();
    size_t mark = tri_arena_mark(frame->arena);
    void *d_slots = tri_exchange_take(self->exchange, 0, context, plan->slots);
    tri_routed_combine_backward(routed, frame, plan, routes, dy, kept.returned, d_slots, dweight);
    struct trip trip = {
        .routed = routed,
        .frame = frame,
        .plan = plan,
        .chunks = plan->chunks[BACKWARD],
        .experts = {routed->networks, routed->peers.experts, plan->offsets},
        .kept = &kept,
        .where = {TRI_PHASE_BACKWARD, TRI_KIND_MOE},
        .sends = true,
        .returns = true,
        .slots = d_slots,
        .rows = tri_frame_take(frame, plan->rows * context->config->model.hidden_size),
        .back = kept.returned, /* free once the weights' gradients are known */
        .start = start,
    };
    take_buffers(&trip);
    go(&trip, work_backward);
    tri_routed_combine(routed, frame, plan, kept.returned, NULL, dx);
    tri_arena_rewind(frame->arena, mark);
    tri_routed_add_time(frame, &trip.start, false);
}

/* ---- setup ----------------------------------------------------------------------------------- */

static const struct tri_schedule_ops ops;

/* Where all experts are here no link has to be hidden. */
static struct tri_schedule *create(const struct tri_context *context, struct tri_exchange *exchange,
                                   int64_t layer)
{
    const struct tri_config_moe *moe = &context->config->moe;
    struct tri_routed *routed =
        tri_routed_create(&ops, context, exchange, layer, sizeof(struct kept));
    if (tri_group_size(routed->peers.homes) == 1) {
        tri_routed_destroy(&routed->base);
        return tri_schedule_ted.ops->create(context, exchange, layer);
    }
    routed->peers.chunks[FORWARD] = (int)moe->chunks;
    routed->peers.chunks[BACKWARD] = (int)moe->chunks_backward;
    return &routed->base;
}

static bool splits_tokens(const struct tri_config *config, int tensor, int expert)
{
    return tri_schedule_ted.splits_tokens(config, tensor, expert);
}

static const struct tri_schedule_ops ops = {
    create, tri_routed_own, forward, backward, tri_routed_finish_backward, tri_routed_destroy};

static const char *const keys[] = {"moe.chunks", "moe.chunks_backward", "moe.headroom", NULL};

const struct tri_schedule_kind tri_schedule_overlapped = {
    .strategy = {"overlapped",
                 "as ted with duplicate token dropping, in chunks: one is under way while the "
                 "experts work on others (MoNTA)",
                 keys},
    .deep = true,
    .drops = true,
    .splits_tokens = splits_tokens,
    .ops = &ops,
};
