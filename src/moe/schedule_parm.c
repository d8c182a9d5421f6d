/* Parm's two ways (arXiv 2407.00599): tensor parallelism pauses around the experts, so that no
 * collective over tensor stands between a token and its expert. The tensor ranks, which have the
 * same tokens, each send their own part of them, by the fused all-to-all of moe/fused.h.
 *
 *   s1   the pause begins before the gate: a tensor rank makes the logits of its own tokens, which
 *        are told to the others, combines the results of its own tokens, and the outputs are
 *        gathered over tensor at the end
 *   s2   it begins after the gate: every tensor rank makes all logits; the results, k rows a token,
 *        are gathered over tensor while they still return, and every rank combines all tokens
 *
 * The backward is the mirror image: the gradients of results go the tokens' way, those of the
 * experts' inputs the results' way, in s2 with the gather beside their return. With whole experts
 * (expert_tensor = 1) the rows have one holder each, and nothing is added. Of a cut stream no rank
 * has all tokens, nor needs all outputs: there s2 is s1 without the gather; on a tensor grid, where
 * one has a part of them, with that over tensor. Of one tensor rank both are `ted`. */
#include "moe/fused.h"

#include "base/clock.h"
#include "model/stream.h"
#include "moe/routed.h"
#include "moe/strategies.h"

struct parm {
    struct tri_schedule base;
    struct tri_fused fused;
    struct tri_network *networks; /* of the local experts */
};

/* What the forward leaves in a frame. */
struct kept {
    struct tri_fused_plan *plan;
    struct tri_network_saved saved;
    void *results; /* [results, hidden] the experts' outputs */
};

static int64_t hidden_of(const struct parm *parm)
{
    return parm->base.context->config->model.hidden_size;
}

static bool is_alone(const struct parm *parm)
{
    return tri_fused_is_alone(&parm->fused);
}

/* The tokens whose results are here. */
static struct tri_range own(const struct tri_schedule *self, const struct tri_frame *frame)
{
    const struct parm *parm = (const struct parm *)self;
    return parm->fused.gathers ? tri_stream_tokens(frame) : tri_tokens_part(frame);
}

/* `tokens` of a tensor of the stream's. */
static void *of_stream(const struct parm *parm, const struct tri_frame *frame,
                       struct tri_range tokens, const void *stream)
{
    int64_t skipped = (tokens.begin - tri_stream_tokens(frame).begin) * hidden_of(parm);
    return (char *)(uintptr_t)stream + (size_t)skipped * tri_dtype_size(parm->base.context->dt);
}

/* Outputs, or gradients, of own tokens for all of the stream. */
static void make_whole(const struct parm *parm, const struct tri_frame *frame, enum tri_phase phase,
                       void *stream)
{
    const struct tri_context *context = parm->base.context;
    if (!parm->fused.gathers && !tri_stream_is_cut(context->config, context->mesh)) {
        tri_part_gather(frame, (struct tri_where){phase, TRI_KIND_MOE}, stream, hidden_of(parm),
                        context->dt);
    }
}

/* Memory for what the experts' products give: where it stays, or on its way back. */
static void *take_output(const struct parm *parm, const struct tri_route_plan *route, void *results)
{
    const struct tri_context *context = parm->base.context;
    bool stays = is_alone(parm) && context->sum_dt == context->dt;
    return stays ? results : tri_exchange_take(parm->base.exchange, 0, context, route->rows);
}

/* ---- forward --------------------------------------------------------------------------------- */

/* Memory for n rows that came over the homes, or stayed. */
static void *keep_rows(const struct parm *parm, const struct tri_frame *frame, int64_t n,
                       bool *filled)
{
    return tri_keep_result(frame, parm->fused.peers.homes, n * hidden_of(parm),
                           parm->base.context->dt, filled);
}

/* The rows that the local experts take. */
static void *dispatch(const struct parm *parm, const struct tri_fused_plan *plan,
                      const struct tri_frame *frame, const void *x)
{
    const struct tri_context *context = parm->base.context;
    const struct tri_route_plan *route = plan->route;
    bool filled;
    void *rows = keep_rows(parm, frame, route->rows, &filled);
    if (filled) {
        return rows;
    }
    void *slots =
        is_alone(parm) ? rows : tri_exchange_take(parm->base.exchange, 0, context, route->slots);
    const struct tri_gather_args args = {
        .src = of_stream(parm, frame, route->own, x),
        .index = route->token_of,
        .dst = slots,
        .n = route->slots,
        .width = hidden_of(parm),
        .dt = context->dt,
    };
    context->kernels->gather_rows(context->kernels, &args);
    if (!is_alone(parm)) {
        tri_fused_send(&parm->fused, plan, frame->pass.phase, slots, plan->slot_at, rows);
    }
    return rows;
}

/* A bias is added by one holder. */
static bool adds_bias(const struct parm *parm)
{
    return parm->fused.peers.holders == 1 || tri_mesh_grid_rank(parm->base.context->mesh) == 0;
}

/* kept->results <- the experts' outputs. */
static void compute(const struct parm *parm, const struct tri_frame *frame, struct kept *kept,
                    const void *rows, double *start)
{
    const struct tri_route_plan *route = kept->plan->route;
    int64_t experts = parm->fused.peers.experts;
    bool filled;
    tri_networks_forward(frame, parm->networks, experts, route->offsets, NULL, rows, &kept->saved);
    kept->results = keep_rows(parm, frame, kept->plan->results, &filled);
    if (filled) {
        return;
    }
    void *out = take_output(parm, route, kept->results);
    tri_networks_output(frame, parm->networks, experts, route->offsets, NULL, &kept->saved, out,
                        adds_bias(parm));
    tri_routed_add_time(frame, start, true);
    tri_fused_return(&parm->fused, frame, kept->plan, frame->pass.phase, out, kept->results);
    tri_routed_add_time(frame, start, false);
}

static void *forward(const struct tri_schedule *self, const struct tri_frame *frame, void *left,
                     const struct tri_routes *routes, const void *x, bool output)
{
    const struct parm *parm = (const struct parm *)self;
    const struct tri_context *context = self->context;
    struct kept *kept = left;
    int64_t k = tri_config_routes(&context->config->moe);
    struct tri_range tokens = own(self, frame);
    double start = tri_clock_now();
    kept->plan = tri_fused_plan_make(&parm->fused, frame, routes, tri_tokens_part(frame));
    const void *rows = dispatch(parm, kept->plan, frame, x);
    tri_routed_add_time(frame, &start, false);
    compute(parm, frame, kept, rows, &start);
    if (!output) {
        return NULL;
    }
    void *y = tri_frame_take(frame, tri_stream_count(frame) * hidden_of(parm));
    const struct tri_combine_args args = {
        .rows = kept->results,
        .index = kept->plan->result_of,
        .weight = routes->weight + tokens.begin * k,
        .y = of_stream(parm, frame, tokens, y),
        .n = tri_range_size(tokens),
        .k = k,
        .width = hidden_of(parm),
        .dt = context->dt,
    };
    context->kernels->combine_rows(context->kernels, &args);
    make_whole(parm, frame, frame->pass.phase, y);
    tri_routed_add_time(frame, &start, false);
    return y;
}

/* ---- backward -------------------------------------------------------------------------------- */

/* d_results, dweight <- from dy, of the tokens whose results are here. */
static void combine_backward(const struct parm *parm, const struct tri_frame *frame,
                             const struct kept *kept, const struct tri_routes *routes,
                             const void *dy, void *d_results, float *dweight)
{
    const struct tri_context *context = parm->base.context;
    struct tri_range tokens = own(&parm->base, frame);
    int64_t k = tri_config_routes(&context->config->moe);
    int64_t first = tokens.begin * k;
    const struct tri_combine_args args = {
        .dy = of_stream(parm, frame, tokens, dy),
        .rows = kept->results,
        .index = kept->plan->result_of,
        .weight = (routes->back ? routes->back : routes->weight) + first,
        .drows = d_results,
        .dweight = dweight + first,
        .n = tri_range_size(tokens),
        .k = k,
        .width = hidden_of(parm),
        .dt = context->dt,
    };
    context->kernels->combine_rows_backward(context->kernels, &args);
}

static void backward(const struct tri_schedule *self, const struct tri_frame *frame,
                     const void *left, const struct tri_routes *routes, const void *dy, void *dx,
                     float *dweight)
{
    const struct parm *parm = (const struct parm *)self;
    const struct tri_context *context = self->context;
    const struct kept *kept = left;
    const struct tri_fused_plan *plan = kept->plan;
    const struct tri_route_plan *route = plan->route;
    struct tri_range tokens = own(self, frame);
    double start = tri_clock_now();
    size_t mark = tri_arena_mark(frame->arena);
    void *d_rows = tri_frame_take(frame, route->rows * hidden_of(parm));
    void *d_results =
        is_alone(parm) ? d_rows : tri_exchange_take(self->exchange, 0, context, plan->results);
    void *d_back = kept->results; /* free once the weights' gradients are known */
    combine_backward(parm, frame, kept, routes, dy, d_results, dweight);
    if (!is_alone(parm)) {
        tri_fused_send(&parm->fused, plan, TRI_PHASE_BACKWARD, d_results, plan->result_at, d_rows);
    }
    tri_routed_add_time(frame, &start, false);
    void *d_in = take_output(parm, route, d_back);
    tri_networks_backward(frame, parm->networks, parm->fused.peers.experts, route->offsets, NULL,
                          route->cuts, &kept->saved, d_rows, d_in);
    tri_routed_add_time(frame, &start, true);
    tri_fused_return(&parm->fused, frame, plan, TRI_PHASE_BACKWARD, d_in, d_back);
    const struct tri_combine_args sum = {
        .rows = d_back,
        .index = plan->result_of,
        .y = of_stream(parm, frame, tokens, dx),
        .n = tri_range_size(tokens),
        .k = tri_config_routes(&context->config->moe),
        .width = hidden_of(parm),
        .dt = context->dt,
    };
    context->kernels->combine_rows(context->kernels, &sum);
    tri_arena_rewind(frame->arena, mark);
    tri_routed_add_time(frame, &start, false);
}

static void finish_backward(const struct tri_schedule *self, const struct tri_frame *frame,
                            void *dx)
{
    make_whole((const struct parm *)self, frame, TRI_PHASE_BACKWARD, dx);
}

/* ---- setup ----------------------------------------------------------------------------------- */

static void destroy(struct tri_schedule *self)
{
    struct parm *parm = (struct parm *)self;
    tri_free(parm->networks);
    tri_free(parm);
}

/* s1: wherever there is something to split. */
static bool splits_before_gate(const struct tri_config *config, int tensor, int expert)
{
    (void)config;
    (void)expert;
    return tensor > 1;
}

/* s2: every tensor rank has the results of all tokens, and so the router's whole gradient, but of
 * a cut stream. */
static bool splits_after_gate(const struct tri_config *config, int tensor, int expert)
{
    (void)expert;
    return tensor > 1 && config->train.sequence_parallel;
}

static const struct tri_schedule_ops ops;

static struct tri_schedule *create(const struct tri_context *context, struct tri_exchange *exchange,
                                   int64_t layer)
{
    const struct tri_mesh *mesh = context->mesh;
    struct parm *parm = tri_alloc(TRI_MEMORY_OTHER, sizeof(*parm));
    parm->base = (struct tri_schedule){&ops, context, exchange, layer, sizeof(struct kept)};
    bool gathers = tri_mesh_grid(mesh) > 1 && !tri_moe_splits_tokens(context->config, mesh);
    parm->fused = tri_fused_create(context, exchange, gathers);
    const struct tri_peers *peers = &parm->fused.peers;
    parm->networks = tri_alloc(TRI_MEMORY_OTHER, (size_t)peers->experts * sizeof(*parm->networks));
    int64_t first = tri_group_rank(peers->homes) / peers->holders * peers->experts;
    for (int64_t e = 0; e < peers->experts; e++) {
        parm->networks[e] = tri_network_get(context, TRI_PLACE_EXPERT, layer, first + e);
    }
    return &parm->base;
}

static const struct tri_schedule_ops ops = {create,          own,    forward, backward,
                                            finish_backward, destroy};

static const char *const keys[] = {"moe.headroom", NULL};

const struct tri_schedule_kind tri_schedule_s1 = {
    .strategy =
        {"s1", "one all-to-all over tensor x expert, tensor ranks gate and send own tokens (Parm)",
         keys},
    .deep = true,
    .gates_part = true,
    .adds_at_owner = true,
    .splits_tokens = splits_before_gate,
    .ops = &ops,
};

const struct tri_schedule_kind tri_schedule_s2 = {
    .strategy = {"s2",
                 "the same, all tensor ranks gate all tokens; results are gathered as they return",
                 keys},
    .deep = true,
    .adds_at_owner = true,
    .splits_tokens = splits_after_gate,
    .ops = &ops,
};
