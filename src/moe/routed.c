#include "moe/routed.h"

#include "base/clock.h"
#include "base/trace.h"
#include "model/stream.h"

struct tri_routed *tri_routed_create(const struct tri_schedule_ops *ops,
                                     const struct tri_context *context,
                                     struct tri_exchange *exchange, int64_t layer, size_t kept)
{
    const struct tri_mesh *mesh = context->mesh;
    const struct tri_config *config = context->config;
    struct tri_routed *routed = tri_alloc(TRI_MEMORY_OTHER, sizeof(*routed));
    routed->base = (struct tri_schedule){ops, context, exchange, layer, kept};
    int tensor = tri_mesh_grid(mesh);
    bool whole = config->parallel.expert_tensor < tensor;
    routed->split = tri_moe_splits_tokens(config, mesh);
    routed->cut = tensor > 1 && !whole;
    routed->partial = routed->cut || context->reproducible;
    struct tri_group *homes = whole ? tri_mesh_group(mesh, TRI_ON_GRID | TRI_ON_EXPERT)
                                    : tri_mesh_group(mesh, TRI_ON_EXPERT);
    routed->peers = (struct tri_peers){
        .context = context,
        .homes = homes,
        .experts = config->moe.num_experts / tri_group_size(homes),
        .holders = 1,
        .parts = routed->split && routed->cut ? tensor : 1,
    };
    routed->networks =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)routed->peers.experts * sizeof(*routed->networks));
    int64_t first = tri_group_rank(routed->peers.homes) * routed->peers.experts;
    for (int64_t e = 0; e < routed->peers.experts; e++) {
        routed->networks[e] = tri_network_get(context, TRI_PLACE_EXPERT, layer, first + e);
    }
    return routed;
}

void tri_routed_destroy(struct tri_schedule *self)
{
    struct tri_routed *routed = (struct tri_routed *)self;
    tri_free(routed->networks);
    tri_free(routed);
}

struct tri_range tri_routed_own(const struct tri_schedule *self, const struct tri_frame *frame)
{
    const struct tri_routed *routed = (const struct tri_routed *)self;
    return routed->split ? tri_tokens_part(frame)
                         : (struct tri_range){0, tri_pass_tokens(&frame->pass)};
}

static int64_t hidden_of(const struct tri_routed *routed)
{
    return routed->base.context->config->model.hidden_size;
}

void *tri_routed_row(const struct tri_routed *routed, void *rows, int64_t row, enum tri_dtype dtype)
{
    return (char *)rows + (size_t)(row * hidden_of(routed)) * tri_dtype_size(dtype);
}

const struct tri_group *tri_routed_widest_group(const struct tri_routed *routed)
{
    const struct tri_group *tensor = tri_mesh_group(routed->base.context->mesh, TRI_ON_GRID);
    return tri_group_size(routed->peers.homes) > 1 ? routed->peers.homes : tensor;
}

/* Own tokens' part of a tensor of the stream's tokens. */
static void *own_of_stream(const struct tri_routed *routed, const struct tri_route_plan *plan,
                           const struct tri_frame *frame, const void *tokens)
{
    struct tri_range stream = tri_stream_tokens(frame);
    return tri_routed_row(routed, (void *)(uintptr_t)tokens, plan->own.begin - stream.begin,
                          routed->base.context->dt);
}

void tri_routed_fill(const struct tri_routed *routed, const struct tri_frame *frame,
                     const struct tri_route_plan *plan, const void *x, void *slots)
{
    const struct tri_context *context = routed->base.context;
    const struct tri_gather_args args = {
        .src = own_of_stream(routed, plan, frame, x),
        .index = plan->token_of,
        .dst = slots,
        .n = plan->slots,
        .width = hidden_of(routed),
        .dt = context->dt,
    };
    context->kernels->gather_rows(context->kernels, &args);
}

void tri_routed_combine(const struct tri_routed *routed, const struct tri_frame *frame,
                        const struct tri_route_plan *plan, const void *slots, const float *weight,
                        void *y)
{
    const struct tri_context *context = routed->base.context;
    int64_t k = tri_config_routes(&context->config->moe);
    const struct tri_combine_args args = {
        .rows = slots,
        .index = plan->slot_of,
        .weight = weight ? weight + plan->own.begin * k : NULL,
        .y = own_of_stream(routed, plan, frame, y),
        .n = tri_range_size(plan->own),
        .k = k,
        .width = hidden_of(routed),
        .dt = context->dt,
    };
    context->kernels->combine_rows(context->kernels, &args);
}

void tri_routed_combine_backward(const struct tri_routed *routed, const struct tri_frame *frame,
                                 const struct tri_route_plan *plan, const struct tri_routes *routes,
                                 const void *dy, const void *slots, void *d_slots, float *dweight)
{
    const struct tri_context *context = routed->base.context;
    int64_t k = tri_config_routes(&context->config->moe);
    int64_t first = plan->own.begin * k;
    const struct tri_combine_args args = {
        .dy = own_of_stream(routed, plan, frame, dy),
        .rows = slots,
        .index = plan->slot_of,
        .weight = (routes->back ? routes->back : routes->weight) + first,
        .drows = d_slots,
        .dweight = dweight + first,
        .n = tri_range_size(plan->own),
        .k = k,
        .width = hidden_of(routed),
        .dt = context->dt,
    };
    context->kernels->combine_rows_backward(context->kernels, &args);
}

void tri_routed_gather(const struct tri_routed *routed, const struct tri_frame *frame,
                       enum tri_phase phase, void *y)
{
    const struct tri_context *context = routed->base.context;
    if (routed->split && !tri_stream_is_cut(context->config, context->mesh)) {
        tri_part_gather(frame, (struct tri_where){phase, TRI_KIND_MOE}, y, hidden_of(routed),
                        context->dt);
    }
}

void tri_routed_finish_backward(const struct tri_schedule *self, const struct tri_frame *frame,
                                void *dx)
{
    tri_routed_gather((const struct tri_routed *)self, frame, TRI_PHASE_BACKWARD, dx);
}

void tri_routed_add_time(const struct tri_frame *frame, double *start, bool experts)
{
    const struct tri_pass *pass = &frame->pass;
    double now = tri_clock_now();
    tri_trace_span(*start, now, experts ? "experts" : "exchange", NULL, 0);
    if (pass->tally) {
        *(experts ? &pass->tally->seconds_experts : &pass->tally->seconds_exchange) += now - *start;
    }
    *start = now;
}
