/* The way between slots and the experts' rows: one all-to-all over the homes, and where tokens came
 * in parts or experts are cut what goes over tensor. */
#include "moe/routed.h"

static int64_t hidden_of(const struct tri_routed *routed)
{
    return routed->base.context->config->model.hidden_size;
}

/* This part's place among the rows as they arrive. */
static void *own_part(const struct tri_routed *routed, const struct tri_route_plan *plan,
                      void *arrived, enum tri_dtype dtype)
{
    int64_t before = 0;
    for (int p = 0; p < tri_peers_part(&routed->peers); p++) {
        before += plan->part_counts[p];
    }
    return tri_routed_row(routed, arrived, before / hidden_of(routed), dtype);
}

void tri_routed_send(const struct tri_routed *routed, const struct tri_route_plan *plan,
                     enum tri_phase phase, const void *slots, void *rows)
{
    const struct tri_context *context = routed->base.context;
    struct tri_where where = {phase, TRI_KIND_MOE};
    void *arrived =
        plan->row_from ? tri_exchange_take(routed->base.exchange, 1, context, plan->rows) : rows;
    tri_all_to_all_v(routed->peers.homes, where, slots, plan->send_rows,
                     own_part(routed, plan, arrived, context->dt), plan->recv_rows,
                     hidden_of(routed), context->dt);
    if (routed->peers.parts > 1) {
        tri_all_gather_v(tri_mesh_group(context->mesh, TRI_ON_GRID), where, arrived,
                         plan->part_counts, context->dt);
    }
    if (plan->row_from) {
        const struct tri_gather_args args = {
            .src = arrived,
            .index = plan->row_from,
            .dst = rows,
            .n = plan->rows,
            .width = hidden_of(routed),
            .dt = context->dt,
        };
        context->kernels->gather_rows(context->kernels, &args);
    }
}

bool tri_routed_is_alone(const struct tri_routed *routed)
{
    return tri_group_size(routed->peers.homes) == 1 && routed->peers.parts == 1;
}

/* Rows on their way back: in exchange buffer `buffer`, or where the slots are. */
struct returning {
    void *rows;
    int buffer;
};

static void *other_buffer(const struct tri_routed *routed, const struct tri_route_plan *plan,
                          struct returning *r)
{
    r->buffer = 1 - r->buffer;
    return tri_exchange_take(routed->base.exchange, r->buffer, routed->base.context, plan->rows);
}

/* Whole sums become activations. */
static void round_sums(const struct tri_routed *routed, const struct tri_route_plan *plan,
                       struct returning *r, int64_t rows, void *slots)
{
    const struct tri_context *context = routed->base.context;
    if (context->sum_dt != context->dt) {
        void *narrow = tri_routed_is_alone(routed) ? slots : other_buffer(routed, plan, r);
        const struct tri_cast_args args = {
            .src = r->rows,
            .from = context->sum_dt,
            .dst = narrow,
            .to = context->dt,
            .n = rows * hidden_of(routed),
        };
        context->kernels->cast(context->kernels, &args);
        r->rows = narrow;
    }
}

static void add_bias(const struct tri_routed *routed, const int64_t *offsets, void *rows)
{
    tri_networks_add_down_bias(routed->base.context, routed->networks, routed->peers.experts,
                               offsets, rows);
}

void tri_routed_return(const struct tri_routed *routed, const struct tri_route_plan *plan,
                       enum tri_phase phase, void *rows, bool with_bias, void *slots)
{
    const struct tri_context *context = routed->base.context;
    struct tri_where where = {phase, TRI_KIND_MOE};
    struct returning r = {rows, 0};
    bool in_parts = routed->peers.parts > 1;
    if (!in_parts) {
        if (routed->cut) {
            tri_all_reduce_sum(tri_mesh_group(context->mesh, TRI_ON_GRID), where, rows,
                               plan->rows * hidden_of(routed), context->sum_dt);
        }
        round_sums(routed, plan, &r, plan->rows, slots);
        if (with_bias) {
            add_bias(routed, plan->offsets, r.rows);
        }
    }
    if (plan->row_to) {
        const void *ordered = r.rows;
        r.rows = other_buffer(routed, plan, &r);
        const struct tri_gather_args args = {
            .src = ordered,
            .index = plan->row_to,
            .dst = r.rows,
            .n = plan->rows,
            .width = hidden_of(routed),
            .dt = in_parts ? context->sum_dt : context->dt,
        };
        context->kernels->gather_rows(context->kernels, &args);
    }
    if (in_parts) {
        tri_reduce_scatter_v(tri_mesh_group(context->mesh, TRI_ON_GRID), where, r.rows,
                             plan->part_counts, context->sum_dt);
        r.rows = own_part(routed, plan, r.rows, context->sum_dt);
        round_sums(routed, plan, &r, plan->part_rows, slots);
        for (int s = 0; with_bias && s < tri_group_size(routed->peers.homes); s++) {
            add_bias(routed, plan->part_offsets + s * routed->peers.experts, r.rows);
        }
    }
    if (r.rows != slots) {
        tri_all_to_all_v(routed->peers.homes, where, r.rows, plan->recv_rows, slots,
                         plan->send_rows, hidden_of(routed), context->dt);
    }
}

bool tri_routed_is_direct(const struct tri_routed *routed)
{
    return tri_routed_is_alone(routed) && routed->base.context->sum_dt == routed->base.context->dt;
}
