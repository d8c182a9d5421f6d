/* Every token to every expert: no choice says who needs what, so nothing is sorted, every rank has
 * the same work, and two collectives move tokens:
 *
 *   x [own tokens] ── all_gather ──> [all tokens] ── local experts, each on all of them
 *        ── sum over local experts of weight * expert(x) ── reduce_scatter ──> y [own tokens]
 *
 * and the same in the backward, with dy in the place of x. The ranks that meet hold different
 * tokens, and between them every expert once: {expert}, or {tensor, expert} where the tensor ranks
 * have a part of the tokens each (whole experts, a cut stream, duplicate token dropping). The homes
 * of the experts are {expert} with tensor-cut experts, {tensor, expert} with whole ones. Of the
 * weights, and of their gradients on the way back, each home and token exchange only theirs.
 *
 * The sum over the tensor parts of an expert commutes with that over experts and is left to the
 * same reduce_scatter, or comes after it, when a token is one row. Only in reproducible mode it
 * comes first, and the experts are added in one binary tree, of which each rank has a branch
 * (config/check.c sees to it) and which the reduce_scatter completes. */
#include "moe/schedule.h"

#include "base/clock.h"
#include "base/trace.h"
#include "model/gradient.h"
#include "model/stream.h"
#include "moe/expert_sum.h"
#include "moe/gathering.h"
#include "moe/strategies.h"

struct dense {
    struct tri_schedule base;
    struct tri_gathering meeting;
    struct tri_network *networks; /* of the local experts */
};

/* What the forward leaves in a frame. */
struct kept {
    struct tri_met met;
    const void *x;       /* [tokens that meet, hidden] */
    const float *weight; /* [tokens, experts] */
    int64_t *offsets;    /* [experts + 1] rows of each */
    int32_t *index;      /* [tokens, experts] -> row; -1 where the expert does not work */
    bool sparse;         /* each expert has rows of its own, one after the other's */
    struct tri_network_saved *saved; /* [experts]; sparse: the first is of all */
    void *out;                       /* [rows, hidden] what the experts make of x */
};

static struct tri_range own(const struct tri_schedule *self, const struct tri_frame *frame)
{
    return tri_gathering_own(&((const struct dense *)self)->meeting, frame);
}

static int64_t hidden_of(const struct dense *d)
{
    return d->base.context->config->model.hidden_size;
}

static void *at_row(const struct dense *d, const void *rows, int64_t row, enum tri_dtype dtype)
{
    return tri_gathering_row(&d->meeting, rows, row, dtype);
}

static bool is_first_of_tensor(const struct dense *d)
{
    return tri_mesh_grid_rank(d->base.context->mesh) == 0;
}

static void add_time(const struct tri_frame *frame, double *start, bool experts)
{
    struct tri_tally *tally = frame->pass.tally;
    double now = tri_clock_now();
    tri_trace_span(*start, now, experts ? "experts" : "exchange", NULL, 0);
    if (tally) {
        *(experts ? &tally->seconds_experts : &tally->seconds_exchange) += now - *start;
    }
    *start = now;
}

/* ---- experts --------------------------------------------------------------------------------- */

enum { PIECE = 256 };

struct lines {
    int32_t *index;
    int64_t tokens, experts;
};

/* Each expert takes all tokens, in their order. */
static void line_up_tokens(void *state, int64_t begin, int64_t end)
{
    const struct lines *s = state;
    for (int64_t t = begin; t < end; t++) {
        for (int64_t e = 0; e < s->experts; e++) {
            s->index[t * s->experts + e] = (int32_t)(e * s->tokens + t);
        }
    }
}

/* In a plan, where nobody has weights: as many as there can be. */
static void line_up_most(const struct dense *d, const struct kept *kept, int64_t most)
{
    for (int64_t e = 0; e <= d->meeting.experts; e++) {
        kept->offsets[e] = (e < most ? e : most) * kept->met.tokens;
    }
}

/* Of tokens and experts whose weight is not 0; token_of [rows]. */
static void line_up_active(const struct dense *d, const struct kept *kept, int32_t *token_of)
{
    int64_t rows = 0;
    for (int64_t e = 0; e < d->meeting.experts; e++) {
        kept->offsets[e] = rows;
        for (int64_t t = 0; t < kept->met.tokens; t++) {
            int64_t at = t * d->meeting.experts + e;
            bool active = kept->weight[at] != 0;
            kept->index[at] = active ? (int32_t)rows : -1;
            if (active) {
                token_of[rows++] = (int32_t)t;
            }
        }
    }
    kept->offsets[d->meeting.experts] = rows;
}

/* The experts' rows; NULL: they all take x as it is. */
static const int32_t *line_up(const struct dense *d, const struct tri_frame *frame,
                              const struct tri_routes *routes, struct kept *kept)
{
    const struct tri_context *context = d->base.context;
    size_t visits = (size_t)(kept->met.tokens * d->meeting.experts);
    kept->offsets =
        tri_arena_alloc(frame->arena, (size_t)(d->meeting.experts + 1) * sizeof(*kept->offsets));
    kept->index = tri_arena_alloc(frame->arena, visits * sizeof(*kept->index));
    if (routes->sparse) {
        int32_t *token_of = tri_arena_alloc(frame->arena, visits * sizeof(*token_of));
        if (context->config->moe.router->blind) {
            line_up_most(d, kept, routes->most);
        } else {
            line_up_active(d, kept, token_of);
        }
        return token_of;
    }
    for (int64_t e = 0; e <= d->meeting.experts; e++) {
        kept->offsets[e] = e * kept->met.tokens;
    }
    struct lines state = {kept->index, kept->met.tokens, d->meeting.experts};
    context->kernels->loop(context->kernels, &(struct tri_loop_args){.n = kept->met.tokens,
                                                                     .piece = PIECE,
                                                                     .run = line_up_tokens,
                                                                     .state = &state});
    return NULL;
}

/* What the experts take: rows [rows, hidden], each expert's behind those of the one before. */
static const void *gather_rows(const struct dense *d, const struct tri_frame *frame,
                               const struct kept *kept, const int32_t *token_of)
{
    const struct tri_context *context = d->base.context;
    int64_t n = kept->offsets[d->meeting.experts];
    void *rows = tri_frame_take(frame, n * hidden_of(d));
    const struct tri_gather_args args = {
        .src = kept->x,
        .index = token_of,
        .dst = rows,
        .n = n,
        .width = hidden_of(d),
        .dt = context->dt,
    };
    context->kernels->gather_rows(context->kernels, &args);
    return rows;
}

static void add_down_bias(const struct dense *d, const struct kept *kept)
{
    tri_networks_add_down_bias(d->base.context, d->networks, d->meeting.experts, kept->offsets,
                               kept->out);
}

/* out <- what the experts make of the rows: the whole, or this tensor rank's part of it. */
static void finish_outputs(const struct dense *d, const struct tri_frame *frame,
                           const struct kept *kept)
{
    const struct tri_context *context = d->base.context;
    bool reproducible = context->reproducible;
    int64_t rows = kept->offsets[d->meeting.experts];
    size_t mark = tri_arena_mark(frame->arena);
    void *out = reproducible ? tri_frame_take_f32(frame, rows * hidden_of(d)) : kept->out;
    bool whole = !d->meeting.cut && !reproducible;
    if (kept->sparse) {
        tri_networks_output(frame, d->networks, d->meeting.experts, kept->offsets, NULL,
                            kept->saved, out, whole);
    }
    for (int64_t e = 0; e < d->meeting.experts && !kept->sparse; e++) {
        const int64_t offsets[2] = {0, kept->met.tokens};
        tri_networks_output(frame, d->networks + e, 1, offsets, NULL, kept->saved + e,
                            at_row(d, out, kept->offsets[e], context->sum_dt), whole);
    }
    if (reproducible) {
        if (d->meeting.cut) {
            tri_all_reduce_sum(tri_mesh_group(context->mesh, TRI_ON_GRID),
                               (struct tri_where){frame->pass.phase, TRI_KIND_MOE}, out,
                               rows * hidden_of(d), TRI_F32);
        }
        tri_gathering_copy(&d->meeting, out, TRI_F32, kept->out, context->dt, rows);
        add_down_bias(d, kept);
    } else if (d->meeting.cut && is_first_of_tensor(d)) {
        add_down_bias(d, kept);
    }
    tri_arena_rewind(frame->arena, mark);
}

static void compute(const struct dense *d, const struct tri_frame *frame,
                    const struct tri_routes *routes, struct kept *kept)
{
    const struct tri_context *context = d->base.context;
    kept->sparse = routes->sparse;
    const int32_t *token_of = line_up(d, frame, routes, kept);
    int64_t elements_out = kept->offsets[d->meeting.experts] * hidden_of(d);
    bool filled = false;
    bool sent = context->reproducible && d->meeting.cut;
    kept->saved = tri_arena_alloc(frame->arena, (size_t)d->meeting.experts * sizeof(*kept->saved));
    kept->out = sent ? tri_keep_result(frame, tri_mesh_group(context->mesh, TRI_ON_GRID),
                                       elements_out, context->dt, &filled)
                     : tri_frame_take(frame, elements_out);
    if (kept->sparse) {
        tri_networks_forward(frame, d->networks, d->meeting.experts, kept->offsets, NULL,
                             gather_rows(d, frame, kept, token_of), kept->saved);
    }
    for (int64_t e = 0; e < d->meeting.experts && !kept->sparse; e++) {
        const int64_t offsets[2] = {0, kept->met.tokens};
        tri_networks_forward(frame, d->networks + e, 1, offsets, NULL, kept->x, kept->saved + e);
    }
    if (!filled) {
        finish_outputs(d, frame, kept);
    }
}

/* sums [tokens, hidden] sum_dt <- over the local experts; rows in dtype. */
static void add_experts(const struct dense *d, const struct kept *kept, const void *rows,
                        enum tri_dtype dtype, const float *weight, void *sums)
{
    const struct tri_context *context = d->base.context;
    if (context->reproducible) {
        const struct tri_expert_sum sum = {
            rows,         dtype, kept->index, weight, kept->met.tokens, d->meeting.experts,
            hidden_of(d), sums};
        tri_expert_sum(context->kernels, &sum);
        return;
    }
    const struct tri_combine_args args = {
        .rows = rows,
        .index = kept->index,
        .weight = weight,
        .y = sums,
        .n = kept->met.tokens,
        .k = d->meeting.experts,
        .width = hidden_of(d),
        .dt = dtype,
    };
    context->kernels->combine_rows(context->kernels, &args);
}

/* ---- forward and backward -------------------------------------------------------------------- */

static void *forward(const struct tri_schedule *self, const struct tri_frame *frame, void *left,
                     const struct tri_routes *routes, const void *x, bool output)
{
    const struct dense *d = (const struct dense *)self;
    const struct tri_context *context = self->context;
    const enum tri_phase phase = frame->pass.phase;
    struct kept *kept = left;
    double start = tri_clock_now();
    bool filled;
    tri_gathering_count(&d->meeting, frame, &kept->met);
    kept->weight = tri_gathering_weights(&d->meeting, frame, &kept->met, routes);
    kept->x = x;
    if (tri_group_size(d->meeting.ranks) > 1) {
        void *all = tri_keep_result(frame, d->meeting.ranks, kept->met.tokens * hidden_of(d),
                                    context->dt, &filled);
        if (!filled) {
            tri_gathering_gather(&d->meeting, frame, &kept->met, phase, x, all);
        }
        kept->x = all;
    }
    add_time(frame, &start, false);
    compute(d, frame, routes, kept);
    add_time(frame, &start, true);
    if (!output) {
        return NULL;
    }
    void *y = tri_frame_take(frame, tri_stream_count(frame) * hidden_of(d));
    size_t mark = tri_arena_mark(frame->arena);
    void *sums = tri_gathering_take_sums(&d->meeting, frame, &kept->met, y);
    add_experts(d, kept, kept->out, context->dt, kept->weight, sums);
    tri_gathering_send_home(&d->meeting, frame, &kept->met, phase, sums, y);
    tri_arena_rewind(frame->arena, mark);
    tri_gathering_make_whole(&d->meeting, frame, phase, y);
    add_time(frame, &start, false);
    return y;
}

/* d_rows [rows, hidden] of the experts' outputs, in their place; dweight of own tokens. */
static void through_weights(const struct dense *d, const struct tri_frame *frame,
                            const struct kept *kept, const void *dy, float *dweight)
{
    const struct tri_context *context = d->base.context;
    size_t mark = tri_arena_mark(frame->arena);
    bool here = tri_group_size(d->meeting.homes) == 1;
    float *slopes =
        here ? dweight : tri_frame_take_f32(frame, kept->met.tokens * d->meeting.experts);
    if (tri_group_size(d->meeting.ranks) > 1) {
        void *all = tri_frame_take(frame, kept->met.tokens * hidden_of(d));
        tri_gathering_gather(&d->meeting, frame, &kept->met, TRI_PHASE_BACKWARD, dy, all);
        dy = all;
    }
    const struct tri_combine_args args = {
        .dy = dy,
        .rows = kept->out,
        .index = kept->index,
        .weight = kept->weight,
        .drows = kept->out,
        .dweight = slopes,
        .n = kept->met.tokens,
        .k = d->meeting.experts,
        .width = hidden_of(d),
        .dt = context->dt,
    };
    context->kernels->combine_rows_backward(context->kernels, &args);
    if (d->meeting.cut && !context->reproducible) {
        tri_all_reduce_sum(tri_mesh_group(context->mesh, TRI_ON_GRID),
                           (struct tri_where){TRI_PHASE_BACKWARD, TRI_KIND_MOE}, slopes,
                           kept->met.tokens * d->meeting.experts, TRI_F32);
    }
    if (!here) {
        tri_gathering_return(&d->meeting, frame, &kept->met, slopes, dweight);
    }
    tri_arena_rewind(frame->arena, mark);
}

static void backward(const struct tri_schedule *self, const struct tri_frame *frame,
                     const void *left, const struct tri_routes *routes, const void *dy, void *dx,
                     float *dweight)
{
    const struct dense *d = (const struct dense *)self;
    const struct kept *kept = left;
    const struct tri_context *context = self->context;
    const int64_t offsets[2] = {0, kept->met.tokens};
    int64_t rows = d->meeting.experts * kept->met.tokens;
    double start = tri_clock_now();
    size_t mark = tri_arena_mark(frame->arena);
    TRI_REQUIRE(!routes->sparse);
    through_weights(d, frame, kept, dy, dweight);
    add_time(frame, &start, false);
    const struct tri_cuts cuts =
        tri_cuts_by_rows(frame, kept->met.tokens / frame->pass.seq, frame->pass.seq);
    void *d_in = tri_arena_alloc(frame->arena,
                                 (size_t)(rows * hidden_of(d)) * tri_dtype_size(context->sum_dt));
    for (int64_t e = 0; e < d->meeting.experts; e++) {
        tri_networks_backward(frame, d->networks + e, 1, offsets, NULL, &cuts, kept->saved + e,
                              at_row(d, kept->out, kept->offsets[e], context->dt),
                              at_row(d, d_in, kept->offsets[e], context->sum_dt));
    }
    add_time(frame, &start, true);
    if (context->reproducible && d->meeting.cut) {
        tri_all_reduce_sum(tri_mesh_group(context->mesh, TRI_ON_GRID),
                           (struct tri_where){TRI_PHASE_BACKWARD, TRI_KIND_MOE}, d_in,
                           rows * hidden_of(d), TRI_F32);
    }
    void *sums = tri_gathering_take_sums(&d->meeting, frame, &kept->met, dx);
    add_experts(d, kept, d_in, context->sum_dt, NULL, sums);
    tri_gathering_send_home(&d->meeting, frame, &kept->met, TRI_PHASE_BACKWARD, sums, dx);
    tri_arena_rewind(frame->arena, mark);
    add_time(frame, &start, false);
}

static void finish_backward(const struct tri_schedule *self, const struct tri_frame *frame,
                            void *dx)
{
    tri_gathering_make_whole(&((const struct dense *)self)->meeting, frame, TRI_PHASE_BACKWARD, dx);
}

/* ---- setup ----------------------------------------------------------------------------------- */

static void destroy(struct tri_schedule *self)
{
    tri_free(((struct dense *)self)->networks);
    tri_free(self);
}

static const struct tri_schedule_ops ops;

static struct tri_schedule *create(const struct tri_context *context, struct tri_exchange *exchange,
                                   int64_t layer)
{
    struct dense *d = tri_alloc(TRI_MEMORY_OTHER, sizeof(*d));
    d->base = (struct tri_schedule){&ops, context, exchange, layer, sizeof(struct kept)};
    d->meeting = tri_gathering_create(context);
    d->networks = tri_alloc(TRI_MEMORY_OTHER, (size_t)d->meeting.experts * sizeof(*d->networks));
    int64_t first = tri_group_rank(d->meeting.homes) * d->meeting.experts;
    for (int64_t e = 0; e < d->meeting.experts; e++) {
        d->networks[e] = tri_network_get(context, TRI_PLACE_EXPERT, layer, first + e);
    }
    return &d->base;
}

/* As with all-to-all. */
static bool splits_tokens(const struct tri_config *config, int tensor, int expert)
{
    return tri_schedule_ted.splits_tokens(config, tensor, expert);
}

static const struct tri_schedule_ops ops = {create,          own,    forward, backward,
                                            finish_backward, destroy};

static const char *const keys[] = {"train.duplicate_token_dropping", NULL};

const struct tri_schedule_kind tri_schedule_dense = {
    .strategy = {"dense",
                 "all-gather over the expert ranks, every expert on every token, "
                 "reduce-scatter",
                 keys},
    .dense = true,
    .deep = true,
    .splits_tokens = splits_tokens,
    .ops = &ops,
};
