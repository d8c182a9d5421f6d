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

/* ---- forward --------------------------------------------------------------------------------- */

/* The rows that the local experts take. */
static void *dispatch(const struct tri_routed *ted, const struct tri_route_plan *plan,
                      const struct tri_frame *frame, const void *x)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_context *context = ted->base.context;
    bool filled = false;
    void *rows = tri_routed_is_alone(ted)
                     ? tri_frame_take(frame, plan->rows * hidden_of(ted))
                     : tri_keep_result(frame, tri_routed_widest_group(ted),
                                       plan->rows * hidden_of(ted), context->dt, &filled);
    if (filled) {
        return rows;
    }
    void *slots = tri_routed_is_alone(ted)
                      ? rows
                      : tri_exchange_take(ted->base.exchange, 0, context, plan->slots);
    tri_routed_fill(ted, frame, plan, x, slots);
    if (!tri_routed_is_alone(ted)) {
        tri_routed_send(ted, plan, pass->phase, slots, rows);
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
    bool sent = !tri_routed_is_alone(ted) || ted->cut;
    bool filled = false;
    tri_networks_forward(frame, ted->networks, ted->peers.experts, plan->offsets, NULL, rows,
                         &kept->saved);
    kept->returned = sent ? tri_keep_result(frame, tri_routed_widest_group(ted),
                                            plan->slots * hidden_of(ted), context->dt, &filled)
                          : tri_frame_take(frame, plan->slots * hidden_of(ted));
    if (!filled) {
        void *out = tri_routed_is_direct(ted)
                        ? kept->returned
                        : tri_exchange_take(ted->base.exchange, 0, context, plan->rows);
        tri_networks_output(frame, ted->networks, ted->peers.experts, plan->offsets, NULL,
                            &kept->saved, out, !ted->partial);
        tri_routed_add_time(frame, start, true);
        if (sent || ted->partial) {
            tri_routed_return(ted, plan, pass->phase, out, ted->partial, kept->returned);
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
    bool alone = tri_routed_is_alone(ted);
    double start = tri_clock_now();
    size_t mark = tri_arena_mark(frame->arena);
    void *d_rows = tri_frame_take(frame, plan->rows * hidden);
    void *d_slots = alone ? d_rows : tri_exchange_take(self->exchange, 0, context, plan->slots);
    void *d_back = kept->returned; /* free once the weights' gradients are known */
    tri_routed_combine_backward(ted, frame, plan, routes, dy, kept->returned, d_slots, dweight);
    if (!alone) {
        tri_routed_send(ted, plan, TRI_PHASE_BACKWARD, d_slots, d_rows);
    }
    tri_routed_add_time(frame, &start, false);
    void *d_in = tri_routed_is_direct(ted)
                     ? d_back
                     : tri_exchange_take(self->exchange, 0, context, plan->rows);
    tri_networks_backward(frame, ted->networks, ted->peers.experts, plan->offsets, NULL, plan->cuts,
                          &kept->saved, d_rows, d_in);
    tri_routed_add_time(frame, &start, true);
    if (!alone || ted->partial) {
        tri_routed_return(ted, plan, TRI_PHASE_BACKWARD, d_in, false, d_back);
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
