/* TED's way (figure 3 of the paper), unpadded.
 *
 *   x [own tokens] ── gather ──> slots, by expert ── all-to-all ──> rows, by (source, expert)
 *        ── regroup ──> rows by (expert, source) ── experts ── [all-reduce tensor] ── and all the way back
 *        ── combine: y[t] = sum over j of weight[t, j] * slot[t, j]
 *
 * A slot is one (token, choice) that was not dropped; slots are ordered by expert, then token. The
 * homes of the experts are the ranks of `homes`: {expert} with tensor-cut experts, {tensor, expert}
 * with whole ones. With one home the slots are the rows, and nothing is sent or regrouped. */
#include "moe/schedule.h"

#include "base/clock.h"

#include <string.h>

struct ted {
    struct tri_schedule base;
    struct tri_group *homes;
    struct tri_network *networks; /* of the local experts */
    int64_t experts;              /* local ones */
    bool cut;                     /* experts are cut over tensor */
    bool split;                   /* tensor ranks send different tokens */
    /* kept for the backward */
    struct tri_range own_tokens;
    int64_t slots, rows;
    int32_t *slot_of;               /* [own tokens, k] -> slot, -1 where dropped */
    int32_t *token_of;              /* [slots] -> token */
    int64_t *send_rows, *recv_rows; /* [homes] */
    int64_t *offsets;               /* [experts + 1] rows of each local expert */
    int32_t *row_from; /* [rows] (expert, source) order -> received order; NULL when they agree */
    int32_t *received_to; /* the inverse */
    struct tri_network_saved saved;
    void *returned; /* [slots, hidden] the experts' outputs, back in slot order */
};

static void *take(const struct ted *ted, int64_t n, size_t size)
{
    return tri_arena_alloc(ted->base.context->arena, (size_t)n * size);
}

static int64_t hidden_of(const struct ted *ted)
{
    return ted->base.context->config->model.hidden_size;
}

static struct tri_range own(const struct tri_schedule *self, int64_t tokens)
{
    const struct ted *ted = (const struct ted *)self;
    const struct tri_mesh *mesh = self->context->mesh;
    if (!ted->split) {
        return (struct tri_range){0, tokens};
    }
    return tri_range_part(tokens, mesh->size[TRI_AXIS_TENSOR], mesh->coord[TRI_AXIS_TENSOR]);
}

/* ---- planning: who sends what where ----------------------------------------------------------- */

/* Slots by expert (counting sort, tokens in order); fills counts [num_experts]. */
static void plan_slots(struct ted *ted, const struct tri_routes *routes, int64_t *counts)
{
    const struct tri_config_moe *moe = &ted->base.context->config->moe;
    int64_t k = moe->top_k;
    int64_t n = tri_range_size(ted->own_tokens);
    const int32_t *expert = routes->expert + ted->own_tokens.begin * k;
    memset(counts, 0, (size_t)moe->num_experts * sizeof(*counts));
    for (int64_t i = 0; i < n * k; i++) {
        if (expert[i] >= 0) {
            counts[expert[i]]++;
        }
    }
    size_t mark = tri_arena_mark(ted->base.context->arena);
    int64_t *next = take(ted, moe->num_experts, sizeof(*next));
    int64_t total = 0;
    for (int64_t e = 0; e < moe->num_experts; e++) {
        next[e] = total;
        total += counts[e];
    }
    TRI_REQUIRE(total <= ted->slots);
    ted->slots = total;
    for (int64_t i = 0; i < n * k; i++) {
        int32_t slot = expert[i] >= 0 ? (int32_t)next[expert[i]]++ : -1;
        ted->slot_of[i] = slot;
        if (slot >= 0) {
            ted->token_of[slot] = (int32_t)(ted->own_tokens.begin + i / k);
        }
    }
    tri_arena_rewind(ted->base.context->arena, mark);
}

/* From counts [homes, experts] received from each source: rows by source, rows of each expert. */
static void plan_rows(struct ted *ted, const int64_t *received)
{
    int64_t homes = tri_group_size(ted->homes);
    ted->rows = 0;
    for (int64_t e = 0; e < ted->experts; e++) {
        ted->offsets[e] = ted->rows;
        for (int64_t s = 0; s < homes; s++) {
            ted->rows += received[s * ted->experts + e];
        }
    }
    ted->offsets[ted->experts] = ted->rows;
    for (int64_t s = 0; s < homes; s++) {
        ted->recv_rows[s] = 0;
        for (int64_t e = 0; e < ted->experts; e++) {
            ted->recv_rows[s] += received[s * ted->experts + e];
        }
    }
    ted->row_from = ted->received_to = NULL;
    if (homes == 1 || ted->experts == 1) {
        return; /* received order is expert order already */
    }
    ted->row_from = take(ted, ted->rows, sizeof(*ted->row_from));
    ted->received_to = take(ted, ted->rows, sizeof(*ted->received_to));
    size_t mark = tri_arena_mark(ted->base.context->arena);
    int64_t *next = take(ted, ted->experts, sizeof(*next));
    memcpy(next, ted->offsets, (size_t)ted->experts * sizeof(*next));
    int64_t from = 0;
    for (int64_t s = 0; s < homes; s++) {
        for (int64_t e = 0; e < ted->experts; e++) {
            for (int64_t i = 0; i < received[s * ted->experts + e]; i++, from++) {
                ted->row_from[next[e]] = (int32_t)from;
                ted->received_to[from] = (int32_t)next[e]++;
            }
        }
    }
    tri_arena_rewind(ted->base.context->arena, mark);
}

static void plan(struct ted *ted, const struct tri_pass *pass, const struct tri_routes *routes)
{
    const struct tri_config_moe *moe = &ted->base.context->config->moe;
    int64_t homes = tri_group_size(ted->homes);
    int64_t n = tri_pass_tokens(pass);
    ted->own_tokens = own(&ted->base, n);
    ted->slots = tri_range_size(ted->own_tokens) * moe->top_k;
    ted->slot_of = take(ted, ted->slots, sizeof(*ted->slot_of));
    ted->token_of = take(ted, ted->slots, sizeof(*ted->token_of));
    ted->send_rows = take(ted, homes, sizeof(*ted->send_rows));
    ted->recv_rows = take(ted, homes, sizeof(*ted->recv_rows));
    ted->offsets = take(ted, ted->experts + 1, sizeof(*ted->offsets));
    int64_t *counts = take(ted, moe->num_experts, sizeof(*counts));
    int64_t *received = take(ted, moe->num_experts, sizeof(*received));
    plan_slots(ted, routes, counts);
    for (int64_t h = 0; h < homes; h++) {
        ted->send_rows[h] = 0;
        for (int64_t e = 0; e < ted->experts; e++) {
            ted->send_rows[h] += counts[h * ted->experts + e];
        }
    }
    tri_all_to_all_counts(ted->homes, (struct tri_where){pass->phase, TRI_KIND_META}, counts,
                          received, ted->experts);
    plan_rows(ted, received);
}

/* ---- moving rows ------------------------------------------------------------------------------ */

/* Rows [rows, hidden] grouped by local expert, out of rows in slot order held by their senders:
 * `slots` lies in exchange buffer 0; buffer 1 is overwritten when rows are regrouped. */
static void send_to_experts(const struct ted *ted, enum tri_phase phase, const void *slots,
                            void *rows)
{
    const struct tri_context *context = ted->base.context;
    struct tri_where where = {phase, TRI_KIND_MOE};
    void *received =
        ted->row_from ? tri_exchange_take(ted->base.exchange, 1, context, ted->rows) : rows;
    tri_all_to_all_v(ted->homes, where, slots, ted->send_rows, received, ted->recv_rows,
                     hidden_of(ted), context->dt);
    if (ted->row_from) {
        context->kernels->gather_rows(received, ted->row_from, rows, ted->rows, hidden_of(ted),
                                      context->dt);
    }
}

/* The way back: rows by expert (exchange buffer 0) to slots in their senders' order. */
static void send_back(const struct ted *ted, enum tri_phase phase, const void *rows, void *slots)
{
    const struct tri_context *context = ted->base.context;
    struct tri_where where = {phase, TRI_KIND_MOE};
    if (ted->received_to) {
        void *ordered = tri_exchange_take(ted->base.exchange, 1, context, ted->rows);
        context->kernels->gather_rows(rows, ted->received_to, ordered, ted->rows, hidden_of(ted),
                                      context->dt);
        rows = ordered;
    }
    tri_all_to_all_v(ted->homes, where, rows, ted->recv_rows, slots, ted->send_rows, hidden_of(ted),
                     context->dt);
}

/* Own tokens' part of a [tokens, hidden] tensor. */
static void *own_part(const struct ted *ted, const void *tokens)
{
    size_t row = (size_t)hidden_of(ted) * tri_dtype_size(ted->base.context->dt);
    return (char *)(uintptr_t)tokens + (size_t)ted->own_tokens.begin * row;
}

static void gather_over_tensor(const struct ted *ted, const struct tri_pass *pass,
                               enum tri_phase phase, void *data)
{
    if (!ted->split) {
        return;
    }
    struct tri_group *tensor = ted->base.context->mesh->tensor;
    int ranks = tri_group_size(tensor);
    size_t mark = tri_arena_mark(ted->base.context->arena);
    int64_t *counts = take(ted, ranks, sizeof(*counts));
    for (int r = 0; r < ranks; r++) {
        counts[r] =
            tri_range_size(tri_range_part(tri_pass_tokens(pass), ranks, r)) * hidden_of(ted);
    }
    tri_all_gather_v(tensor, (struct tri_where){phase, TRI_KIND_MOE}, data, counts,
                     ted->base.context->dt);
    tri_arena_rewind(ted->base.context->arena, mark);
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

static void forward(struct tri_schedule *self, const struct tri_pass *pass,
                    const struct tri_routes *routes, const void *x, void *y)
{
    struct ted *ted = (struct ted *)self;
    const struct tri_context *context = self->context;
    const struct tri_kernels *kernels = context->kernels;
    int64_t hidden = hidden_of(ted);
    int64_t k = context->config->moe.top_k;
    double start = tri_clock_now();
    plan(ted, pass, routes);
    bool alone = tri_group_size(ted->homes) == 1;
    void *rows = tri_context_take(context, ted->rows * hidden);
    ted->returned = tri_context_take(context, ted->slots * hidden);
    void *slots = alone ? rows : tri_exchange_take(self->exchange, 0, context, ted->slots);
    kernels->gather_rows(x, ted->token_of, slots, ted->slots, hidden, context->dt);
    if (!alone) {
        send_to_experts(ted, pass->phase, slots, rows);
    }
    add_time(pass, &start, false);
    void *out = alone ? ted->returned : tri_exchange_take(self->exchange, 0, context, ted->rows);
    tri_networks_forward(context, ted->networks, ted->experts, ted->offsets, rows, out, !ted->cut,
                         &ted->saved);
    if (ted->cut) {
        tri_all_reduce_sum(context->mesh->tensor, (struct tri_where){pass->phase, TRI_KIND_MOE},
                           out, ted->rows * hidden, context->dt);
        tri_networks_add_down_bias(context, ted->networks, ted->experts, ted->offsets, out);
    }
    add_time(pass, &start, true);
    if (!alone) {
        send_back(ted, pass->phase, out, ted->returned);
    }
    kernels->combine_rows(ted->returned, ted->slot_of, routes->weight + ted->own_tokens.begin * k,
                          NULL, own_part(ted, y), tri_range_size(ted->own_tokens), k, hidden,
                          context->dt);
    gather_over_tensor(ted, pass, pass->phase, y);
    add_time(pass, &start, false);
}

/* ---- backward --------------------------------------------------------------------------------- */

static void backward(struct tri_schedule *self, const struct tri_pass *pass,
                     const struct tri_routes *routes, const void *dy, void *dx, float *dweight)
{
    struct ted *ted = (struct ted *)self;
    const struct tri_context *context = self->context;
    const struct tri_kernels *kernels = context->kernels;
    int64_t hidden = hidden_of(ted);
    int64_t k = context->config->moe.top_k;
    int64_t first = ted->own_tokens.begin * k;
    int64_t n = tri_range_size(ted->own_tokens);
    bool alone = tri_group_size(ted->homes) == 1;
    double start = tri_clock_now();
    size_t mark = tri_arena_mark(context->arena);
    void *d_rows = tri_context_take(context, ted->rows * hidden);
    void *d_slots = alone ? d_rows : tri_exchange_take(self->exchange, 0, context, ted->slots);
    kernels->combine_rows_backward(own_part(ted, dy), ted->returned, ted->slot_of,
                                   routes->weight + first, d_slots, dweight + first, n, k, hidden,
                                   context->dt);
    if (!alone) {
        send_to_experts(ted, TRI_PHASE_BACKWARD, d_slots, d_rows);
    }
    add_time(pass, &start, false);
    void *d_in = alone ? ted->returned : tri_exchange_take(self->exchange, 0, context, ted->rows);
    tri_networks_backward(context, ted->networks, ted->experts, ted->offsets, &ted->saved, d_rows,
                          d_in);
    if (ted->cut) {
        tri_all_reduce_sum(context->mesh->tensor,
                           (struct tri_where){TRI_PHASE_BACKWARD, TRI_KIND_MOE}, d_in,
                           ted->rows * hidden, context->dt);
    }
    add_time(pass, &start, true);
    if (!alone) {
        send_back(ted, TRI_PHASE_BACKWARD, d_in, ted->returned);
    }
    kernels->combine_rows(ted->returned, ted->slot_of, NULL, NULL, own_part(ted, dx), n, k, hidden,
                          context->dt);
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
    ted->split = config->parallel.expert_tensor < tensor;
    ted->cut = tensor > 1 && !ted->split;
    ted->homes = ted->split ? mesh->tensor_expert : mesh->expert;
    ted->experts = config->moe.num_experts / tri_group_size(ted->homes);
    ted->networks = tri_alloc(TRI_MEMORY_OTHER, (size_t)ted->experts * sizeof(*ted->networks));
    int64_t first = tri_group_rank(ted->homes) * ted->experts;
    for (int64_t e = 0; e < ted->experts; e++) {
        ted->networks[e] = tri_network_get(context, TRI_PLACE_EXPERT, layer, first + e);
    }
    return &ted->base;
}
