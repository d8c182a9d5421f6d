/* The hierarchical way (MoESys, arXiv 2205.10034; one copy a host: X-MoE, arXiv 2508.13337): a row
 * of a token goes to a host once, however many of its experts are there, to one rank, which hands
 * it on inside.
 *
 *   x [own tokens] ── gather ──> rows: (token, host) ── all-to-all between hosts ──> relay's rows
 *        ── gather ──> its slots: (row, choice) ── as ted, inside the host ──> experts and back
 *        ── sum over choices on this host, weighted ── all-to-all between hosts ──> results
 *        ── sum over hosts ──> y [── all_gather tensor]
 *
 * The backward is the mirror image: dy crosses once for each (token, host), the relay has the
 * outputs of its slots and makes from it their gradients and those of the weights, which it tells
 * the source, and one sum of gradients comes back.
 *
 * MoESys goes inside the host first, so that one message carries what all its ranks have for a rank
 * elsewhere: as many messages between hosts, and a third stage (between two all-to-alls inside
 * hosts) to get copies that one host needs once together. Here a rank's own rows are its message:
 * two stages, and the copies are one before they leave. What the first stage of theirs brings
 * together is several ranks' copies of other tokens, which saves no bytes.
 *
 * On one host it is `ted`. */
#include "moe/hosts.h"
#include "moe/relay.h"

#include "base/clock.h"
#include "model/stream.h"
#include "moe/strategies.h"

/* What the forward leaves in a frame. */
struct kept {
    struct tri_relay_plan *plan;
    struct tri_network_saved saved;
    void *outputs; /* [slots, hidden] the experts' outputs for this relay's slots */
};

static int64_t hidden_of(const struct tri_routed *routed)
{
    return routed->base.context->config->model.hidden_size;
}

/* ---- forward --------------------------------------------------------------------------------- */

/* Memory for n rows that come over the homes. */
static void *keep_rows(const struct tri_routed *routed, const struct tri_frame *frame, int64_t n,
                       bool *filled)
{
    return tri_keep_result(frame, tri_routed_widest_group(routed), n * hidden_of(routed),
                           routed->base.context->dt, filled);
}

/* The rows that the local experts take. */
static void *dispatch(const struct tri_routed *routed, const struct tri_relay_plan *plan,
                      const struct tri_frame *frame, const void *x)
{
    const struct tri_context *context = routed->base.context;
    enum tri_phase phase = frame->pass.phase;
    bool filled;
    void *rows = keep_rows(routed, frame, plan->route->rows, &filled);
    if (filled) {
        return rows;
    }
    const void *passed = tri_relay_send(routed, frame, plan, phase, x);
    void *slots = tri_exchange_take(routed->base.exchange, 0, context, plan->route->slots);
    const struct tri_gather_args args = {
        .src = passed,
        .index = plan->passed_of,
        .dst = slots,
        .n = plan->route->slots,
        .width = hidden_of(routed),
        .dt = context->dt,
    };
    context->kernels->gather_rows(context->kernels, &args);
    tri_routed_send(routed, plan->route, phase, slots, rows);
    return rows;
}

/* kept->outputs <- the experts' outputs. */
static void compute(const struct tri_routed *routed, const struct tri_frame *frame,
                    struct kept *kept, const void *rows, double *start)
{
    const struct tri_route_plan *route = kept->plan->route;
    int64_t experts = routed->peers.experts;
    bool filled;
    tri_networks_forward(frame, routed->networks, experts, route->offsets, NULL, rows,
                         &kept->saved);
    kept->outputs = keep_rows(routed, frame, route->slots, &filled);
    if (filled) {
        return;
    }
    void *out = tri_exchange_take(routed->base.exchange, 0, routed->base.context, route->rows);
    tri_networks_output(frame, routed->networks, experts, route->offsets, NULL, &kept->saved, out,
                        !routed->partial);
    tri_routed_add_time(frame, start, true);
    tri_routed_return(routed, route, frame->pass.phase, out, routed->partial, kept->outputs);
    tri_routed_add_time(frame, start, false);
}

/* Weights that are still to be applied where results are added up. */
static const float *weights_left(const struct tri_routed *routed, const float *weight)
{
    return tri_relay_sums(routed) ? NULL : weight;
}

static void *forward(const struct tri_schedule *self, const struct tri_frame *frame, void *left,
                     const struct tri_routes *routes, const void *x, bool output)
{
    const struct tri_routed *routed = (const struct tri_routed *)self;
    struct kept *kept = left;
    double start = tri_clock_now();
    const struct tri_relay_plan *plan = kept->plan =
        tri_relay_plan_make(routed, frame, routes, tri_routed_own(self, frame));
    const void *rows = dispatch(routed, plan, frame, x);
    tri_routed_add_time(frame, &start, false);
    compute(routed, frame, kept, rows, &start);
    void *y = output ? tri_frame_take(frame, tri_stream_count(frame) * hidden_of(routed)) : NULL;
    size_t mark = tri_arena_mark(frame->arena);
    bool filled;
    void *results = keep_rows(routed, frame, plan->results, &filled);
    if (output && !filled) {
        tri_relay_return(routed, plan, frame->pass.phase, kept->outputs, plan->weight, results);
    }
    if (output) {
        tri_routed_combine(routed, frame, &plan->ends, results,
                           weights_left(routed, routes->weight), y);
        tri_routed_gather(routed, frame, frame->pass.phase, y);
    }
    tri_arena_rewind(frame->arena, mark);
    tri_routed_add_time(frame, &start, false);
    return y;
}

/* ---- backward -------------------------------------------------------------------------------- */

/* d_slots in exchange buffer 0, and dweight of own tokens, from dy. */
static void *start_backward(const struct tri_routed *routed, const struct tri_frame *frame,
                            const struct kept *kept, const void *dy, float *dweight)
{
    const struct tri_context *context = routed->base.context;
    const struct tri_relay_plan *plan = kept->plan;
    int64_t k = tri_config_routes(&context->config->moe);
    size_t mark = tri_arena_mark(frame->arena);
    float *of_rows = tri_frame_take_f32(frame, plan->rows * k);
    const void *passed = tri_relay_send(routed, frame, plan, TRI_PHASE_BACKWARD, dy);
    void *d_slots = tri_exchange_take(routed->base.exchange, 0, context, plan->route->slots);
    const struct tri_combine_args args = {
        .dy = passed,
        .rows = kept->outputs,
        .index = plan->slot_of,
        .weight = plan->back ? plan->back : plan->weight,
        .drows = d_slots,
        .dweight = of_rows,
        .n = plan->rows,
        .k = k,
        .width = hidden_of(routed),
        .dt = context->dt,
    };
    context->kernels->combine_rows_backward(context->kernels, &args);
    tri_relay_return_weights(routed, frame, plan, of_rows, dweight);
    tri_arena_rewind(frame->arena, mark);
    return d_slots;
}

static void backward(const struct tri_schedule *self, const struct tri_frame *frame,
                     const void *left, const struct tri_routes *routes, const void *dy, void *dx,
                     float *dweight)
{
    const struct tri_routed *routed = (const struct tri_routed *)self;
    const struct tri_context *context = self->context;
    const struct kept *kept = left;
    const struct tri_relay_plan *plan = kept->plan;
    const struct tri_route_plan *route = plan->route;
    double start = tri_clock_now();
    size_t mark = tri_arena_mark(frame->arena);
    void *d_rows = tri_frame_take(frame, route->rows * hidden_of(routed));
    void *d_back = kept->outputs; /* free once the weights' gradients are known */
    (void)routes;
    const void *d_slots = start_backward(routed, frame, kept, dy, dweight);
    tri_routed_send(routed, route, TRI_PHASE_BACKWARD, d_slots, d_rows);
    tri_routed_add_time(frame, &start, false);
    void *d_in = tri_exchange_take(self->exchange, 0, context, route->rows);
    tri_networks_backward(frame, routed->networks, routed->peers.experts, route->offsets, NULL,
                          route->cuts, &kept->saved, d_rows, d_in);
    tri_routed_add_time(frame, &start, true);
    tri_routed_return(routed, route, TRI_PHASE_BACKWARD, d_in, false, d_back);
    void *results = tri_exchange_take(self->exchange, 1, context, plan->results);
    tri_relay_return(routed, plan, TRI_PHASE_BACKWARD, d_back, NULL, results);
    tri_routed_combine(routed, frame, &plan->ends, results, NULL, dx);
    tri_arena_rewind(frame->arena, mark);
    tri_routed_add_time(frame, &start, false);
}

/* ---- setup ----------------------------------------------------------------------------------- */

static const struct tri_schedule_ops ops;

static struct tri_schedule *create(const struct tri_context *context, struct tri_exchange *exchange,
                                   int64_t layer)
{
    const struct tri_mesh *mesh = context->mesh;
    struct tri_routed *routed =
        tri_routed_create(&ops, context, exchange, layer, sizeof(struct kept));
    struct tri_peers *peers = &routed->peers;
    if (tri_group_size(peers->homes) == 1 || tri_hosts_is_one(mesh)) {
        tri_routed_destroy(&routed->base);
        return tri_schedule_ted.ops->create(context, exchange, layer);
    }
    bool whole = peers->homes == tri_mesh_group(mesh, TRI_ON_GRID | TRI_ON_EXPERT);
    peers->hosts = tri_hosts_create(mesh, peers->homes, whole, peers->parts);
    return &routed->base;
}

static void destroy(struct tri_schedule *self)
{
    tri_hosts_destroy((struct tri_hosts *)(uintptr_t)((struct tri_routed *)self)->peers.hosts);
    tri_routed_destroy(self);
}

static bool splits_tokens(const struct tri_config *config, int tensor, int expert)
{
    return tri_schedule_ted.splits_tokens(config, tensor, expert);
}

static const struct tri_schedule_ops ops = {
    create, tri_routed_own, forward, backward, tri_routed_finish_backward, destroy};

static const char *const keys[] = {"moe.headroom", "train.duplicate_token_dropping", NULL};

const struct tri_schedule_kind tri_schedule_hierarchical = {
    .strategy = {"hierarchical",
                 "as ted, but a token goes to a host once and on from there (MoESys, X-MoE)", keys},
    .by_host = true,
    .deep = true,
    .splits_tokens = splits_tokens,
    .ops = &ops,
};
