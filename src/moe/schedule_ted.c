/* TED's way (arXiv 2303.06318, figure 3), unpadded: all-to-all over the expert group, experts cut
 * over tensor, one all-reduce over tensor. With duplicate token dropping, or a stream that is cut,
 * each tensor rank sends its own part of the tokens, and the rows are gathered over tensor before
 * the experts. With expert_tensor = 1 the tensor ranks are further expert ranks.
 *
 *   x [own tokens] ── gather ──> slots, by expert ── all-to-all ──> part: rows by (source, expert)
 *        [── all_gather tensor ──> rows by (tensor part, source, expert)]
 *        ── regroup ──> rows by (expert, source, tensor part) ── experts ── and all the way back
 *        ── combine: y[t] = sum over j of weight[t, j] * slot[t, j] [── all_gather tensor]
 *
 * The homes of the experts are the ranks of `homes`: {expert} with tensor-cut experts,
 * {tensor, expert} with whole ones. With one home and no parts the slots are the rows, and nothing
 * is sent or regrouped.
 *
 * Tokens are split over tensor ("parts") by duplicate token dropping, by a cut stream, or because
 * the tensor ranks are homes. Where experts are cut too, what would be an all-reduce of the
 * experts' output followed by the drop is one reduce-scatter, and the gather comes after the
 * combine, where a token is one row and not k of them. Rows reach an expert in the same order
 * whether or not they came in parts. */
#include "moe/routed.h"

#include "base/clock.h"
#include "model/stream.h"
#include "moe/strategies.h"

/* What the forward leaves in a frame. */
struct kept {
    struct tri_route_plan *plan;
    struct tri_network_saved saved;
    void *returned; /* [slots, hidden] the experts' outputs, back in slot order */
};

static int64_t hidden_of(const struct tri_routed *ted)
{
    return ted->base.context->config->model.hidden_size;
}

/* ---- moving rows ----------------------------------------------------------------------------- */

/* This part's place among the rows as they arrive. */
static void *own_part(const struct tri_routed *ted, const struct tri_route_plan *plan,
                      void *arrived, enum tri_dtype dtype)
{
    int64_t before = 0;
    for (int p = 0; p < tri_peers_part(&ted->peers); p++) {
        before += plan->part_counts[p];
    }
    return tri_routed_row(ted, arrived, before / hidden_of(ted), dtype);
}

/* Slots (exchange buffer 0) to the experts' rows. */
static void send_to_experts(const struct tri_routed *ted, const struct tri_route_plan *plan,
                            enum tri_phase phase, const void *slots, void *rows)
{
    const struct tri_context *context = ted->base.context;
    struct tri_where where = {phase, TRI_KIND_MOE};
    void *arrived =
        plan->row_from ? tri_exchange_take(ted->base.exchange, 1, context, plan->rows) : rows;
    tri_all_to_all_v(ted->peers.homes, where, slots, plan->send_rows,
                     own_part(ted, plan, arrived, context->dt), plan->recv_rows, hidden_of(ted),
                     context->dt);
    if (ted->peers.parts > 1) {
        tri_all_gather_v(tri_mesh_group(context->mesh, TRI_ON_GRID), where, arrived,
                         plan->part_counts, context->dt);
    }
    if (plan->row_from) {
        const struct tri_gather_args args = {
            .src = arrived,
            .index = plan->row_from,
            .dst = rows,
            .n = plan->rows,
            .width = hidden_of(ted),
            .dt = context->dt,
        };
        context->kernels->gather_rows(context->kernels, &args);
    }
}

/* One home and one part: slots and rows are the same, and stay here. */
static bool is_alone(const struct tri_routed *ted)
{
    return tri_group_size(ted->peers.homes) == 1 && ted->peers.parts == 1;
}

/* Rows on their way back: in exchange buffer `buffer`, or where the slots are. */
struct returning {
    void *rows;
    int buffer;
};

static void *other_buffer(const struct tri_routed *ted, const struct tri_route_plan *plan,
                          struct returning *r)
{
    r->buffer = 1 - r->buffer;
    return tri_exchange_take(ted->base.exchange, r->buffer, ted->base.context, plan->rows);
}

/* Whole sums become activations. */
static void round_sums(const struct tri_routed *ted, const struct tri_route_plan *plan,
                       struct returning *r, int64_t rows, void *slots)
{
    const struct tri_context *context = ted->base.context;
    if (context->sum_dt != context->dt) {
        void *narrow = is_alone(ted) ? slots : other_buffer(ted, plan, r);
        const struct tri_cast_args args = {
            .src = r->rows,
            .from = context->sum_dt,
            .dst = narrow,
            .to = context->dt,
            .n = rows * hidden_of(ted),
        };
        context->kernels->cast(context->kernels, &args);
        r->rows = narrow;
    }
}

static void add_bias(const struct tri_routed *ted, const int64_t *offsets, void *rows)
{
    tri_networks_add_down_bias(ted->base.context, ted->networks, ted->peers.experts, offsets, rows);
}

/* The experts' rows, in sum_dt and exchange buffer 0 (slots when nothing is sent or rounded),
 * summed over tensor on the way where they are partial, as they arrived: this part of them, then to
 * slots in their senders' order. with_bias: adds the down bias to the sums. */
static void send_back(const struct tri_routed *ted, const struct tri_route_plan *plan,
                      enum tri_phase phase, void *rows, bool with_bias, void *slots)
{
    const struct tri_context *context = ted->base.context;
    struct tri_where where = {phase, TRI_KIND_MOE};
    struct returning r = {rows, 0};
    bool in_parts = ted->peers.parts > 1;
    if (!in_parts) {
        if (ted->cut) {
            tri_all_reduce_sum(tri_mesh_group(context->mesh, TRI_ON_GRID), where, rows,
                               plan->rows * hidden_of(ted), context->sum_dt);
        }
        round_sums(ted, plan, &r, plan->rows, slots);
        if (with_bias) {
            add_bias(ted, plan->offsets, r.rows);
        }
    }
    if (plan->row_to) {
        const void *ordered = r.rows;
        r.rows = other_buffer(ted, plan, &r);
        const struct tri_gather_args args = {
            .src = ordered,
            .index = plan->row_to,
            .dst = r.rows,
            .n = plan->rows,
            .width = hidden_of(ted),
            .dt = in_parts ? context->sum_dt : context->dt,
        };
        context->kernels->gather_rows(context->kernels, &args);
    }
    if (in_parts) {
        tri_reduce_scatter_v(tri_mesh_group(context->mesh, TRI_ON_GRID), where, r.rows,
                             plan->part_counts, context->sum_dt);
        r.rows = own_part(ted, plan, r.rows, context->sum_dt);
        round_sums(ted, plan, &r, plan->part_rows, slots);
        for (int s = 0; with_bias && s < tri_group_size(ted->peers.homes); s++) {
            add_bias(ted, plan->part_offsets + s * ted->peers.experts, r.rows);
        }
    }
    if (r.rows != slots) {
        tri_all_to_all_v(ted->peers.homes, where, r.rows, plan->recv_rows, slots, plan->send_rows,
                         hidden_of(ted), context->dt);
    }
}

/* Whether the experts' products go straight to the slots. */
static bool is_direct(const struct tri_routed *ted)
{
    return is_alone(ted) && ted->base.context->sum_dt == ted->base.context->dt;
}

/* ---- forward --------------------------------------------------------------------------------- */

/* The rows that the local experts take. */
static void *dispatch(const struct tri_routed *ted, const struct tri_route_plan *plan,
                      const struct tri_frame *frame, const void *x)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_context *context = ted->base.context;
    bool filled = false;
    void *rows = is_alone(ted) ? tri_frame_take(frame, plan->rows * hidden_of(ted))
                               : tri_keep_result(frame, tri_routed_widest_group(ted),
                                                 plan->rows * hidden_of(ted), context->dt, &filled);
    if (filled) {
        return rows;
    }
    void *slots =
        is_alone(ted) ? rows : tri_exchange_take(ted->base.exchange, 0, context, plan->slots);
    tri_routed_fill(ted, frame, plan, x, slots);
    if (!is_alone(ted)) {
        send_to_experts(ted, plan, pass->phase, slots, rows);
    }
    return rows;
}

/* kept->returned <- the experts' outputs. */
static void compute(const struct tri_routed *ted, const struct tri_frame *frame, struct kept *kept,
                    const void *rows, double *start)
{
    const struct tri_route_plan *plan = kept->plan;
    const struct tri_pass *pass = &frame->pass;
    const struct tri_context *context = ted->base.context;
    bool sent = !is_alone(ted) || ted->cut;
    bool filled = false;
    tri_networks_forward(frame, ted->networks, ted->peers.experts, plan->offsets, NULL, rows,
                         &kept->saved);
    kept->returned = sent ? tri_keep_result(frame, tri_routed_widest_group(ted),
                                            plan->slots * hidden_of(ted), context->dt, &filled)
                          : tri_frame_take(frame, plan->slots * hidden_of(ted));
    if (!filled) {
        void *out = is_direct(ted) ? kept->returned
                                   : tri_exchange_take(ted->base.exchange, 0, context, plan->rows);
        tri_networks_output(frame, ted->networks, ted->peers.experts, plan->offsets, NULL,
                            &kept->saved, out, !ted->partial);
        tri_routed_add_time(frame, start, true);
        if (sent || ted->partial) {
            send_back(ted, plan, pass->phase, out, ted->partial, kept->returned);
        }
        tri_routed_add_time(frame, start, false);
    }
}

static void *forward(const struct tri_schedule *self, const struct tri_frame *frame, void *left,
                     const struct tri_routes *routes, const void *x, bool output)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_routed *ted = (const struct tri_routed *)self;
    struct kept *kept = left;
    int64_t hidden = hidden_of(ted);
    double start = tri_clock_now();
    const struct tri_route_plan *plan = kept->plan = tri_route_plan_make(
        &ted->peers, frame, routes, tri_routed_own(self, frame), self->exchange->load);
    const void *rows = dispatch(ted, plan, frame, x);
    tri_routed_add_time(frame, &start, false);
    compute(ted, frame, kept, rows, &start);
    if (!output) {
        return NULL;
    }
    void *y = tri_frame_take(frame, tri_stream_count(frame) * hidden);
    tri_routed_combine(ted, frame, plan, kept->returned, routes->weight, y);
    tri_routed_gather(ted, frame, pass->phase, y);
    tri_routed_add_time(frame, &start, false);
    return y;
}

/* ---- backward -------------------------------------------------------------------------------- */

static void backward(const struct tri_schedule *self, const struct tri_frame *frame,
                     const void *left, const struct tri_routes *routes, const void *dy, void *dx,
                     float *dweight)
{
    const struct tri_routed *ted = (const struct tri_routed *)self;
    const struct kept *kept = left;
    const struct tri_route_plan *plan = kept->plan;
    const struct tri_context *context = self->context;
    int64_t hidden = hidden_of(ted);
    bool alone = is_alone(ted);
    double start = tri_clock_now();
    size_t mark = tri_arena_mark(frame->arena);
    void *d_rows = tri_frame_take(frame, plan->rows * hidden);
    void *d_slots = alone ? d_rows : tri_exchange_take(self->exchange, 0, context, plan->slots);
    void *d_back = kept->returned; /* free once the weights' gradients are known */
    tri_routed_combine_backward(ted, frame, plan, routes, dy, kept->returned, d_slots, dweight);
    if (!alone) {
        send_to_experts(ted, plan, TRI_PHASE_BACKWARD, d_slots, d_rows);
    }
    tri_routed_add_time(frame, &start, false);
    void *d_in =
        is_direct(ted) ? d_back : tri_exchange_take(self->exchange, 0, context, plan->rows);
    tri_networks_backward(frame, ted->networks, ted->peers.experts, plan->offsets, NULL, plan->cuts,
                          &kept->saved, d_rows, d_in);
    tri_routed_add_time(frame, &start, true);
    if (!alone || ted->partial) {
        send_back(ted, plan, TRI_PHASE_BACKWARD, d_in, false, d_back);
    }
    tri_routed_combine(ted, frame, plan, d_back, NULL, dx);
    tri_arena_rewind(frame->arena, mark);
    tri_routed_add_time(frame, &start, false);
}

/* ---- setup ----------------------------------------------------------------------------------- */

static const struct tri_schedule_ops ops;

static struct tri_schedule *create(const struct tri_context *context, struct tri_exchange *exchange,
                                   int64_t layer)
{
    return &tri_routed_create(&ops, context, exchange, layer, sizeof(struct kept))->base;
}

/* Whole experts, a cut stream, or duplicate token dropping, which has nothing to drop without
 * expert parallelism. */
static bool splits_tokens(const struct tri_config *config, int tensor, int expert)
{
    bool drops = config->train.duplicate_token_dropping && expert > 1;
    return tensor > 1 &&
           (config->parallel.expert_tensor < tensor || config->train.sequence_parallel || drops);
}

static const struct tri_schedule_ops ops = {
    create, tri_routed_own, forward, backward, tri_routed_finish_backward, tri_routed_destroy};

static const char *const keys[] = {"moe.headroom", "train.duplicate_token_dropping", NULL};

const struct tri_schedule_kind tri_schedule_ted = {
    .strategy = {"ted", "all-to-all over the expert ranks, experts cut over tensor (DeepSpeed-TED)",
                 keys},
    .deep = true,
    .splits_tokens = splits_tokens,
    .ops = &ops,
};
