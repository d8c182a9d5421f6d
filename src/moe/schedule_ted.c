/* TED's way (figure 3 of the paper), unpadded.
 *
 *   x [own tokens] ── gather ──> slots, by expert ── all-to-all ──> part: rows by (source, expert)
 *        [── all_gather tensor ──> rows by (tensor part, source, expert)]
 *        ── regroup ──> rows by (expert, source, tensor part) ── experts ── and all the way back
 *        ── combine: y[t] = sum over j of weight[t, j] * slot[t, j] [── all_gather tensor]
 *
 * A slot is one (token, choice) that was not dropped; slots are ordered by expert, then token. The
 * homes of the experts are the ranks of `homes`: {expert} with tensor-cut experts, {tensor, expert}
 * with whole ones. With one home and no parts the slots are the rows, and nothing is sent or regrouped.
 *
 * Tokens are split over tensor ("parts") by duplicate token dropping, by a cut stream, or because the
 * tensor ranks are homes. Where experts are cut too, what would be an all-reduce of the experts' output
 * followed by the drop is one reduce-scatter, and the gather comes after the combine, where a token is
 * one row and not k of them. Rows reach an expert in the same order whether or not they came in
 * parts. */
#include "moe/schedule.h"

#include "base/clock.h"
#include "model/stream.h"
#include "moe/peers.h"

#include <string.h>

/* Who sends what where, of one micro-batch; a part of the routing. */
struct route_plan {
    struct tri_range own;           /* tokens */
    int64_t slots, part_rows, rows; /* part_rows: those that arrive here; rows: of all parts */
    int32_t *slot_of;               /* [own tokens, k] -> slot, -1 where dropped */
    int32_t *token_of;              /* [slots] -> token, from the first one of `own` */
    int64_t *send_rows, *recv_rows; /* [homes] */
    int64_t *part_offsets; /* [homes * experts + 1] runs of (source, expert) in this part */
    int64_t *part_counts;  /* [parts] elements of each part */
    int64_t *offsets;      /* [experts + 1] rows of each local expert */
    int32_t *row_from;     /* [rows] expert order -> arrival order; NULL when they agree */
    int32_t *row_to;       /* the inverse */
    struct tri_cuts *cuts; /* [experts] of each one's rows, by rows of the global batch */
};

struct ted {
    struct tri_schedule base;
    struct tri_group *homes;
    struct tri_network *networks; /* of the local experts */
    int64_t experts;              /* local ones */
    int parts;                    /* tensor ranks whose rows the experts here take together */
    bool cut;                     /* experts are cut over tensor */
    bool partial; /* what the experts' products give are sums still to be completed */
    bool split;   /* tensor ranks send different tokens */
    /* kept for the backward */
    struct route_plan *plan;
    struct tri_network_saved saved;
    void *returned; /* [slots, hidden] the experts' outputs, back in slot order */
};

static void *scratch(const struct ted *ted, int64_t n, size_t size)
{
    return tri_arena_alloc(ted->base.context->arena, (size_t)n * size);
}

static void *keep(const struct ted *ted, int64_t n, size_t size)
{
    return tri_keep_more_routing(ted->base.context, (size_t)n * size);
}

static int64_t hidden_of(const struct ted *ted)
{
    return ted->base.context->config->model.hidden_size;
}

static int part_of(const struct ted *ted)
{
    return ted->parts > 1 ? ted->base.context->mesh->coord[TRI_AXIS_TENSOR] : 0;
}

static struct tri_range own(const struct tri_schedule *self, const struct tri_pass *pass)
{
    const struct ted *ted = (const struct ted *)self;
    return ted->split ? tri_tokens_part(self->context, pass)
                      : (struct tri_range){0, tri_pass_tokens(pass)};
}

/* ---- planning: who sends what where ----------------------------------------------------------- */

/* counts[home, part, local expert] of the kept routes; every tensor rank knows those of all parts. */
static void count_routes(const struct ted *ted, const struct tri_pass *pass,
                         const struct tri_routes *routes, int64_t *counts)
{
    const struct tri_context *context = ted->base.context;
    int64_t k = context->config->moe.top_k;
    memset(counts, 0, (size_t)(context->config->moe.num_experts * ted->parts) * sizeof(*counts));
    for (int p = 0; p < ted->parts; p++) {
        struct tri_range tokens = ted->plan->own;
        if (ted->parts > 1) {
            tokens = tri_range_part(tri_pass_tokens(pass), ted->parts, p);
        }
        for (int64_t i = tokens.begin * k; i < tokens.end * k; i++) {
            int64_t e = routes->expert[i];
            if (e >= 0) {
                counts[(e / ted->experts * ted->parts + p) * ted->experts + e % ted->experts]++;
            }
        }
    }
}

/* Own slots by expert (counting sort, tokens in order). */
static void plan_slots(struct ted *ted, const struct tri_routes *routes, const int64_t *counts)
{
    const struct tri_config_moe *moe = &ted->base.context->config->moe;
    struct route_plan *plan = ted->plan;
    int64_t n = tri_range_size(plan->own) * moe->top_k;
    const int32_t *expert = routes->expert + plan->own.begin * moe->top_k;
    size_t mark = tri_arena_mark(ted->base.context->arena);
    int64_t *next = scratch(ted, moe->num_experts, sizeof(*next));
    plan->slots = 0;
    for (int64_t e = 0; e < moe->num_experts; e++) {
        int64_t home = e / ted->experts;
        int64_t count =
            counts[(home * ted->parts + part_of(ted)) * ted->experts + e % ted->experts];
        next[e] = plan->slots;
        plan->slots += count;
        plan->send_rows[home] += count;
    }
    TRI_REQUIRE(plan->slots <= n);
    for (int64_t i = 0; i < n; i++) {
        int32_t slot = expert[i] >= 0 ? (int32_t)next[expert[i]]++ : -1;
        plan->slot_of[i] = slot;
        if (slot >= 0) {
            plan->token_of[slot] = (int32_t)(i / moe->top_k);
        }
    }
    tri_arena_rewind(ted->base.context->arena, mark);
}

/* Rows that come from source s in part p for local expert e: received[s, p, e]. */
static int64_t received_at(const struct ted *ted, const int64_t *received, int64_t s, int64_t p,
                           int64_t e)
{
    return received[(s * ted->parts + p) * ted->experts + e];
}

static void count_rows(struct ted *ted, const int64_t *received)
{
    struct route_plan *plan = ted->plan;
    int64_t homes = tri_group_size(ted->homes);
    for (int64_t s = 0; s < homes; s++) {
        for (int64_t e = 0; e < ted->experts; e++) {
            int64_t count = received_at(ted, received, s, part_of(ted), e);
            plan->part_offsets[s * ted->experts + e] = plan->part_rows;
            plan->part_rows += count;
            plan->recv_rows[s] += count;
        }
    }
    plan->part_offsets[homes * ted->experts] = plan->part_rows;
    for (int64_t e = 0; e < ted->experts; e++) {
        plan->offsets[e] = plan->rows;
        for (int64_t s = 0; s < homes; s++) {
            for (int64_t p = 0; p < ted->parts; p++) {
                int64_t count = received_at(ted, received, s, p, e);
                plan->rows += count;
                plan->part_counts[p] += count * hidden_of(ted);
            }
        }
    }
    plan->offsets[ted->experts] = plan->rows;
}

/* Arrival is by (part, source, expert), the experts' order by (expert, source, part). */
static void order_rows(struct ted *ted, const int64_t *received)
{
    struct route_plan *plan = ted->plan;
    int64_t homes = tri_group_size(ted->homes);
    int sorted = (ted->parts == 1) + (homes == 1) + (ted->experts == 1);
    if (sorted >= 2) {
        return;
    }
    plan->row_from = keep(ted, plan->rows, sizeof(*plan->row_from));
    plan->row_to = keep(ted, plan->rows, sizeof(*plan->row_to));
    size_t mark = tri_arena_mark(ted->base.context->arena);
    int64_t *next = scratch(ted, ted->experts * homes * ted->parts, sizeof(*next));
    int64_t at = 0;
    for (int64_t e = 0; e < ted->experts; e++) {
        for (int64_t s = 0; s < homes; s++) {
            for (int64_t p = 0; p < ted->parts; p++) {
                next[(p * homes + s) * ted->experts + e] = at;
                at += received_at(ted, received, s, p, e);
            }
        }
    }
    int64_t from = 0;
    for (int64_t run = 0; run < ted->parts * homes * ted->experts; run++) {
        int64_t p = run / (homes * ted->experts);
        int64_t count =
            received_at(ted, received, run / ted->experts % homes, p, run % ted->experts);
        for (int64_t i = 0; i < count; i++, from++) {
            plan->row_from[next[run] + i] = (int32_t)from;
            plan->row_to[from] = (int32_t)(next[run] + i);
        }
    }
    tri_arena_rewind(ted->base.context->arena, mark);
}

/* counts[home, local expert, row of the micro-batch] of the kept routes among tokens that arrive
 * together: this rank's, or those of all parts. */
static void count_by_row(const struct ted *ted, const struct tri_pass *pass,
                         const struct tri_routes *routes, int64_t *counts)
{
    const struct tri_config *config = ted->base.context->config;
    int64_t k = config->moe.top_k;
    int64_t most = config->train.micro_batch;
    struct tri_range tokens = ted->plan->own;
    if (ted->parts > 1) {
        tokens = (struct tri_range){0, tri_pass_tokens(pass)};
    }
    memset(counts, 0, (size_t)(config->moe.num_experts * most) * sizeof(*counts));
    for (int64_t i = tokens.begin * k; i < tokens.end * k; i++) {
        if (routes->expert[i] >= 0) {
            counts[routes->expert[i] * most + i / k / pass->seq]++;
        }
    }
}

/* Where the rows of an expert pass from one row of the global batch to the next. They arrive by source,
 * so by replica, then by token: a row whose tokens several tensor ranks sent is still in one piece. */
static void plan_cuts(struct ted *ted, const struct tri_pass *pass, const struct tri_routes *routes)
{
    const struct tri_context *context = ted->base.context;
    int64_t most = context->config->train.micro_batch;
    int64_t homes = tri_group_size(ted->homes);
    int64_t senders = homes / context->mesh->size[TRI_AXIS_EXPERT]; /* of one replica */
    int64_t *counts = scratch(ted, context->config->moe.num_experts * most, sizeof(*counts));
    int64_t *received = scratch(ted, context->config->moe.num_experts * most, sizeof(*received));
    TRI_REQUIRE(pass->rows <= most);
    count_by_row(ted, pass, routes, counts);
    tri_all_to_all_counts(ted->homes, (struct tri_where){pass->phase, TRI_KIND_META}, counts,
                          received, ted->experts * most);
    for (int64_t e = 0; e < ted->experts; e++) {
        int64_t *cut = keep(ted, homes * most + 1, sizeof(*cut));
        int64_t parts = 0;
        int64_t last = -1; /* row of the last part */
        cut[0] = 0;
        for (int64_t i = 0; i < homes * most; i++) {
            int64_t row = i / most / senders * most + i % most;
            int64_t count = received[(i / most * ted->experts + e) * most + i % most];
            if (count > 0) {
                parts += row != last;
                cut[parts] = (row != last ? cut[parts - 1] : cut[parts]) + count;
                last = row;
            }
        }
        ted->plan->cuts[e] = (struct tri_cuts){cut, parts};
    }
}

static void make_plan(struct ted *ted, const struct tri_pass *pass, const struct tri_routes *routes)
{
    const struct tri_config_moe *moe = &ted->base.context->config->moe;
    bool filled;
    ted->plan = tri_keep_routing(ted->base.context, sizeof(*ted->plan), &filled);
    if (filled) {
        return;
    }
    int64_t homes = tri_group_size(ted->homes);
    struct route_plan *plan = ted->plan;
    *plan = (struct route_plan){.own = own(&ted->base, pass)};
    int64_t slots = tri_range_size(plan->own) * moe->top_k;
    plan->slot_of = keep(ted, slots, sizeof(*plan->slot_of));
    plan->token_of = keep(ted, slots, sizeof(*plan->token_of));
    int64_t integers = 2 * homes + homes * ted->experts + 1 + ted->parts + ted->experts + 1;
    plan->send_rows = keep(ted, integers, sizeof(int64_t));
    memset(plan->send_rows, 0, (size_t)integers * sizeof(int64_t));
    plan->recv_rows = plan->send_rows + homes;
    plan->part_counts = plan->recv_rows + homes;
    plan->part_offsets = plan->part_counts + ted->parts;
    plan->offsets = plan->part_offsets + homes * ted->experts + 1;
    int64_t *counts = scratch(ted, moe->num_experts * ted->parts, sizeof(*counts));
    int64_t *received = scratch(ted, moe->num_experts * ted->parts, sizeof(*received));
    count_routes(ted, pass, routes, counts);
    plan_slots(ted, routes, counts);
    tri_all_to_all_counts(ted->homes, (struct tri_where){pass->phase, TRI_KIND_META}, counts,
                          received, ted->experts * ted->parts);
    if (ted->base.context->mesh->planned) {
        struct tri_peers peers = {ted->base.context, ted->homes, ted->experts, ted->parts};
        tri_peers_counts(&peers, pass, ted->base.exchange->load, received);
    }
    count_rows(ted, received);
    order_rows(ted, received);
    plan->cuts = keep(ted, ted->experts, sizeof(*plan->cuts));
    memset(plan->cuts, 0, (size_t)ted->experts * sizeof(*plan->cuts));
    if (ted->base.context->reproducible && pass->backward) {
        plan_cuts(ted, pass, routes);
    }
}

/* ---- moving rows ------------------------------------------------------------------------------ */

static void *at_row(const struct ted *ted, void *rows, int64_t row, enum tri_dtype dtype)
{
    return (char *)rows + (size_t)(row * hidden_of(ted)) * tri_dtype_size(dtype);
}

/* This part's place among the rows as they arrive. */
static void *own_part(const struct ted *ted, void *arrived, enum tri_dtype dtype)
{
    int64_t before = 0;
    for (int p = 0; p < part_of(ted); p++) {
        before += ted->plan->part_counts[p];
    }
    return at_row(ted, arrived, before / hidden_of(ted), dtype);
}

/* Slots (exchange buffer 0) to the experts' rows. */
static void send_to_experts(const struct ted *ted, enum tri_phase phase, const void *slots,
                            void *rows)
{
    const struct tri_context *context = ted->base.context;
    const struct route_plan *plan = ted->plan;
    struct tri_where where = {phase, TRI_KIND_MOE};
    void *arrived =
        plan->row_from ? tri_exchange_take(ted->base.exchange, 1, context, plan->rows) : rows;
    tri_all_to_all_v(ted->homes, where, slots, plan->send_rows, own_part(ted, arrived, context->dt),
                     plan->recv_rows, hidden_of(ted), context->dt);
    if (ted->parts > 1) {
        tri_all_gather_v(context->mesh->tensor, where, arrived, plan->part_counts, context->dt);
    }
    if (plan->row_from) {
        context->kernels->gather_rows(arrived, plan->row_from, rows, plan->rows, hidden_of(ted),
                                      context->dt);
    }
}

/* One home and one part: slots and rows are the same, and stay here. */
static bool is_alone(const struct ted *ted)
{
    return tri_group_size(ted->homes) == 1 && ted->parts == 1;
}

/* Rows on their way back: in exchange buffer `buffer`, or where the slots are. */
struct returning {
    void *rows;
    int buffer;
};

static void *other_buffer(const struct ted *ted, struct returning *r)
{
    r->buffer = 1 - r->buffer;
    return tri_exchange_take(ted->base.exchange, r->buffer, ted->base.context, ted->plan->rows);
}

/* Whole sums become activations. */
static void round_sums(const struct ted *ted, struct returning *r, int64_t rows, void *slots)
{
    const struct tri_context *context = ted->base.context;
    if (context->sum_dt != context->dt) {
        void *narrow = is_alone(ted) ? slots : other_buffer(ted, r);
        context->kernels->cast(r->rows, context->sum_dt, narrow, context->dt,
                               rows * hidden_of(ted));
        r->rows = narrow;
    }
}

static void add_bias(const struct ted *ted, const int64_t *offsets, void *rows)
{
    tri_networks_add_down_bias(ted->base.context, ted->networks, ted->experts, offsets, rows);
}

/* The experts' rows, in sum_dt and exchange buffer 0 (slots when nothing is sent or rounded), summed over
 * tensor on the way where they are partial, as they arrived: this part of them, then to slots in their
 * senders' order. with_bias: adds the down bias to the sums. */
static void send_back(const struct ted *ted, enum tri_phase phase, void *rows, bool with_bias,
                      void *slots)
{
    const struct tri_context *context = ted->base.context;
    const struct route_plan *plan = ted->plan;
    struct tri_where where = {phase, TRI_KIND_MOE};
    struct returning r = {rows, 0};
    bool in_parts = ted->parts > 1;
    if (!in_parts) {
        if (ted->cut) {
            tri_all_reduce_sum(context->mesh->tensor, where, rows, plan->rows * hidden_of(ted),
                               context->sum_dt);
        }
        round_sums(ted, &r, plan->rows, slots);
        if (with_bias) {
            add_bias(ted, plan->offsets, r.rows);
        }
    }
    if (plan->row_to) {
        const void *ordered = r.rows;
        r.rows = other_buffer(ted, &r);
        context->kernels->gather_rows(ordered, plan->row_to, r.rows, plan->rows, hidden_of(ted),
                                      in_parts ? context->sum_dt : context->dt);
    }
    if (in_parts) {
        tri_reduce_scatter_v(context->mesh->tensor, where, r.rows, plan->part_counts,
                             context->sum_dt);
        r.rows = own_part(ted, r.rows, context->sum_dt);
        round_sums(ted, &r, plan->part_rows, slots);
        for (int s = 0; with_bias && s < tri_group_size(ted->homes); s++) {
            add_bias(ted, plan->part_offsets + s * ted->experts, r.rows);
        }
    }
    if (r.rows != slots) {
        tri_all_to_all_v(ted->homes, where, r.rows, plan->recv_rows, slots, plan->send_rows,
                         hidden_of(ted), context->dt);
    }
}

/* Own tokens' part of a tensor of the stream's tokens. */
static void *own_of_stream(const struct ted *ted, const struct tri_pass *pass, const void *tokens)
{
    struct tri_range stream = tri_stream_tokens(ted->base.context, pass);
    return at_row(ted, (void *)(uintptr_t)tokens, ted->plan->own.begin - stream.begin,
                  ted->base.context->dt);
}

/* Whether own tokens are a part of the stream, to be gathered. */
static bool must_gather(const struct ted *ted)
{
    const struct tri_context *context = ted->base.context;
    return ted->split && !tri_stream_is_cut(context->config, context->mesh);
}

static void gather_over_tensor(const struct ted *ted, const struct tri_pass *pass,
                               enum tri_phase phase, void *data)
{
    if (must_gather(ted)) {
        tri_tokens_gather(ted->base.context, pass, (struct tri_where){phase, TRI_KIND_MOE}, data,
                          hidden_of(ted), ted->base.context->dt);
    }
}

/* Whether the experts' products go straight to the slots. */
static bool is_direct(const struct ted *ted)
{
    return is_alone(ted) && ted->base.context->sum_dt == ted->base.context->dt;
}

/* The largest group that the experts' rows and results pass through. */
static const struct tri_group *widest_group(const struct ted *ted)
{
    const struct tri_group *tensor = ted->base.context->mesh->tensor;
    return tri_group_size(ted->homes) > 1 ? ted->homes : tensor;
}

/* ---- forward ---------------------------------------------------------------------------------- */

static void add_time(const struct tri_pass *pass, double *start, bool experts)
{
    double now = tri_clock_now();
    if (pass->tally) {
        *(experts ? &pass->tally->seconds_experts : &pass->tally->seconds_exchange) += now - *start;
    }
    *start = now;
}

/* The rows that the local experts take. */
static void *dispatch(struct ted *ted, const struct tri_pass *pass, const void *x)
{
    const struct tri_context *context = ted->base.context;
    const struct route_plan *plan = ted->plan;
    bool filled = false;
    void *rows = is_alone(ted) ? tri_context_take(context, plan->rows * hidden_of(ted))
                               : tri_keep_result(context, widest_group(ted),
                                                 plan->rows * hidden_of(ted), context->dt, &filled);
    if (filled) {
        return rows;
    }
    void *slots =
        is_alone(ted) ? rows : tri_exchange_take(ted->base.exchange, 0, context, plan->slots);
    context->kernels->gather_rows(own_of_stream(ted, pass, x), plan->token_of, slots, plan->slots,
                                  hidden_of(ted), context->dt);
    if (!is_alone(ted)) {
        send_to_experts(ted, pass->phase, slots, rows);
    }
    return rows;
}

/* ted->returned <- the experts' outputs. */
static void compute(struct ted *ted, const struct tri_pass *pass, const void *rows, double *start)
{
    const struct tri_context *context = ted->base.context;
    const struct route_plan *plan = ted->plan;
    bool sent = !is_alone(ted) || ted->cut;
    bool filled = false;
    tri_networks_forward(context, ted->networks, ted->experts, plan->offsets, rows, &ted->saved);
    ted->returned = sent ? tri_keep_result(context, widest_group(ted), plan->slots * hidden_of(ted),
                                           context->dt, &filled)
                         : tri_context_take(context, plan->slots * hidden_of(ted));
    if (!filled) {
        void *out = is_direct(ted) ? ted->returned
                                   : tri_exchange_take(ted->base.exchange, 0, context, plan->rows);
        tri_networks_output(context, ted->networks, ted->experts, plan->offsets, &ted->saved, out,
                            !ted->partial);
        add_time(pass, start, true);
        if (sent || ted->partial) {
            send_back(ted, pass->phase, out, ted->partial, ted->returned);
        }
        add_time(pass, start, false);
    }
}

static void *forward(struct tri_schedule *self, const struct tri_pass *pass,
                     const struct tri_routes *routes, const void *x, bool output)
{
    struct ted *ted = (struct ted *)self;
    const struct tri_context *context = self->context;
    int64_t hidden = hidden_of(ted);
    int64_t k = context->config->moe.top_k;
    double start = tri_clock_now();
    make_plan(ted, pass, routes);
    const void *rows = dispatch(ted, pass, x);
    add_time(pass, &start, false);
    compute(ted, pass, rows, &start);
    if (!output) {
        return NULL;
    }
    void *y = tri_context_take(context, tri_stream_count(context, pass) * hidden);
    context->kernels->combine_rows(
        ted->returned, ted->plan->slot_of, routes->weight + ted->plan->own.begin * k, NULL,
        own_of_stream(ted, pass, y), tri_range_size(ted->plan->own), k, hidden, context->dt);
    gather_over_tensor(ted, pass, pass->phase, y);
    add_time(pass, &start, false);
    return y;
}

/* ---- backward --------------------------------------------------------------------------------- */

static void backward(struct tri_schedule *self, const struct tri_pass *pass,
                     const struct tri_routes *routes, const void *dy, void *dx, float *dweight)
{
    struct ted *ted = (struct ted *)self;
    const struct tri_context *context = self->context;
    const struct tri_kernels *kernels = context->kernels;
    const struct route_plan *plan = ted->plan;
    int64_t hidden = hidden_of(ted);
    int64_t k = context->config->moe.top_k;
    int64_t first = plan->own.begin * k;
    int64_t n = tri_range_size(plan->own);
    bool alone = is_alone(ted);
    double start = tri_clock_now();
    size_t mark = tri_arena_mark(context->arena);
    void *d_rows = tri_context_take(context, plan->rows * hidden);
    void *d_slots = alone ? d_rows : tri_exchange_take(self->exchange, 0, context, plan->slots);
    void *d_back = ted->returned; /* free once the weights' gradients are known */
    kernels->combine_rows_backward(own_of_stream(ted, pass, dy), ted->returned, plan->slot_of,
                                   routes->weight + first, d_slots, dweight + first, n, k, hidden,
                                   context->dt);
    if (!alone) {
        send_to_experts(ted, TRI_PHASE_BACKWARD, d_slots, d_rows);
    }
    add_time(pass, &start, false);
    void *d_in =
        is_direct(ted) ? d_back : tri_exchange_take(self->exchange, 0, context, plan->rows);
    tri_networks_backward(context, ted->networks, ted->experts, plan->offsets, plan->cuts,
                          &ted->saved, d_rows, d_in);
    add_time(pass, &start, true);
    if (!alone || ted->partial) {
        send_back(ted, TRI_PHASE_BACKWARD, d_in, false, d_back);
    }
    kernels->combine_rows(d_back, plan->slot_of, NULL, NULL, own_of_stream(ted, pass, dx), n, k,
                          hidden, context->dt);
    tri_arena_rewind(context->arena, mark);
    add_time(pass, &start, false);
}

static void finish_backward(struct tri_schedule *self, const struct tri_pass *pass, void *dx)
{
    gather_over_tensor((struct ted *)self, pass, TRI_PHASE_BACKWARD, dx);
}

/* ---- setup ------------------------------------------------------------------------------------ */

static void destroy(struct tri_schedule *self)
{
    struct ted *ted = (struct ted *)self;
    tri_free(ted->networks);
    tri_free(ted);
}

static const struct tri_schedule_ops ops = {own, forward, backward, finish_backward, destroy};

struct tri_schedule *tri_schedule_ted_create(const struct tri_context *context,
                                             struct tri_exchange *exchange, int64_t layer)
{
    const struct tri_mesh *mesh = context->mesh;
    const struct tri_config *config = context->config;
    struct ted *ted = tri_alloc(TRI_MEMORY_OTHER, sizeof(*ted));
    ted->base = (struct tri_schedule){&ops, context, exchange, layer};
    int tensor = mesh->size[TRI_AXIS_TENSOR];
    bool whole = config->parallel.expert_tensor < tensor;
    ted->split = tri_moe_splits_tokens(config, mesh);
    ted->cut = tensor > 1 && !whole;
    ted->partial = ted->cut || context->reproducible;
    ted->parts = ted->split && ted->cut ? tensor : 1;
    ted->homes = whole ? mesh->tensor_expert : mesh->expert;
    ted->experts = config->moe.num_experts / tri_group_size(ted->homes);
    ted->networks = tri_alloc(TRI_MEMORY_OTHER, (size_t)ted->experts * sizeof(*ted->networks));
    int64_t first = tri_group_rank(ted->homes) * ted->experts;
    for (int64_t e = 0; e < ted->experts; e++) {
        ted->networks[e] = tri_network_get(context, TRI_PLACE_EXPERT, layer, first + e);
    }
    return &ted->base;
}
