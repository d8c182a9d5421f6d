#include "moe/fused.h"

#include "model/stream.h"

#include <string.h>

struct tri_fused tri_fused_create(const struct tri_context *context, struct tri_exchange *exchange,
                                  bool gathers)
{
    const struct tri_mesh *mesh = context->mesh;
    int tensor = tri_mesh_grid(mesh);
    int holders = context->config->parallel.expert_tensor < tensor ? 1 : tensor;
    struct tri_group *homes = tri_mesh_group(mesh, TRI_ON_GRID | TRI_ON_EXPERT);
    return (struct tri_fused){
        .context = context,
        .exchange = exchange,
        .peers = {.context = context,
                  .homes = homes,
                  .experts = context->config->moe.num_experts / (tri_group_size(homes) / holders),
                  .holders = holders,
                  .parts = 1},
        .gathers = gathers,
    };
}

bool tri_fused_is_alone(const struct tri_fused *fused)
{
    return tri_group_size(fused->peers.homes) == 1;
}

static int64_t hidden_of(const struct tri_fused *f)
{
    return f->context->config->model.hidden_size;
}

static int tensors_of(const struct tri_fused *f)
{
    return tri_mesh_grid(f->context->mesh);
}

static int expert_ranks(const struct tri_fused *f)
{
    return f->context->mesh->size[TRI_AXIS_EXPERT];
}

static char *at_row(const struct tri_fused *f, const void *rows, int64_t row, enum tri_dtype dtype)
{
    return (char *)(uintptr_t)rows + (size_t)(row * hidden_of(f)) * tri_dtype_size(dtype);
}

/* ---- the plan -------------------------------------------------------------------------------- */

static int64_t *keep(const struct tri_frame *frame, int64_t n)
{
    int64_t *numbers = tri_keep_more_routing(frame, (size_t)n * sizeof(*numbers));
    memset(numbers, 0, (size_t)n * sizeof(*numbers));
    return numbers;
}

/* Slots for the homes of one expert rank are the same ones where these are holders. */
static void place_slots(const struct tri_fused *f, struct tri_fused_plan *plan)
{
    int tensors = tensors_of(f);
    int64_t at = 0;
    for (int home = 0; home < tri_group_size(f->peers.homes); home++) {
        bool last = f->peers.holders == 1 || home % tensors == tensors - 1;
        plan->slot_at[home] = at;
        at += last ? plan->route->send_rows[home] : 0;
    }
}

struct places {
    const struct tri_fused *fused;
    const struct tri_fused_plan *plan;
    const int32_t *expert; /* of all routes */
    int64_t *next;         /* [experts] result of each expert's next route in this part */
    struct tri_range tokens;
    int64_t k;
};

static void deal_results(void *state, int64_t begin, int64_t end)
{
    const struct places *s = state;
    for (int64_t i = begin; i < end; i++) {
        int64_t route = s->tokens.begin * s->k + i;
        int32_t e = s->expert[route];
        s->plan->result_of[route] = e >= 0 ? (int32_t)s->next[e]++ : -1;
    }
}

/* counts [tensor ranks, experts] of the routes of each tensor rank's tokens. */
static void count_parts(const struct tri_fused *f, const struct tri_frame *frame,
                        const struct tri_routes *routes, int64_t k, int64_t *counts)
{
    int64_t experts = f->context->config->moe.num_experts;
    for (int t = 0; t < tensors_of(f); t++) {
        struct tri_range tokens =
            tri_grid_part(f->context->mesh, frame->pass.rows, frame->pass.seq, t);
        for (int64_t i = tokens.begin * k; i < tokens.end * k; i++) {
            if (routes->expert[i] >= 0) {
                counts[t * experts + routes->expert[i]]++;
            }
        }
    }
}

/* Where the results of all tokens are: every tensor rank knows all routes. */
static void place_gathered(const struct tri_fused *f, const struct tri_frame *frame,
                           const struct tri_routes *routes, struct tri_fused_plan *plan)
{
    const struct tri_kernels *kernels = f->context->kernels;
    int64_t experts = f->context->config->moe.num_experts;
    int64_t k = tri_config_routes(&f->context->config->moe);
    int64_t tokens = tri_pass_tokens(&frame->pass);
    int tensors = tensors_of(f);
    int64_t of_rank = experts / expert_ranks(f);
    plan->block_at = keep(frame, expert_ranks(f));
    plan->parts = keep(frame, (int64_t)expert_ranks(f) * tensors);
    plan->result_of = tri_keep_more_routing(frame, (size_t)(tokens * k) * sizeof(int32_t));
    size_t mark = tri_arena_mark(frame->arena);
    int64_t *next = tri_arena_alloc(frame->arena, (size_t)(tensors * experts) * sizeof(*next));
    memset(next, 0, (size_t)(tensors * experts) * sizeof(*next));
    count_parts(f, frame, routes, k, next);
    for (int64_t rank = 0; rank < expert_ranks(f); rank++) {
        plan->block_at[rank] = plan->results;
        for (int t = 0; t < tensors; t++) {
            int64_t first = plan->results;
            for (int64_t e = rank * of_rank; e < (rank + 1) * of_rank; e++) {
                int64_t count = next[t * experts + e];
                next[t * experts + e] = plan->results;
                plan->results += count;
            }
            plan->parts[rank * tensors + t] = (plan->results - first) * hidden_of(f);
            for (int64_t i = 0; t == tri_mesh_grid_rank(f->context->mesh) && i < tensors; i++) {
                int64_t home = rank * tensors + i;
                plan->result_at[home] = first + plan->slot_at[home] - plan->slot_at[rank * tensors];
            }
        }
    }
    for (int t = 0; t < tensors; t++) {
        struct tri_range part =
            tri_grid_part(f->context->mesh, frame->pass.rows, frame->pass.seq, t);
        struct places state = {f, plan, routes->expert, next + t * experts, part, k};
        int64_t n = tri_range_size(part) * k;
        kernels->loop(kernels, &(struct tri_loop_args){
                                   .n = n, .piece = n + 1, .run = deal_results, .state = &state});
    }
    tri_arena_rewind(frame->arena, mark);
}

struct tri_fused_plan *tri_fused_plan_make(const struct tri_fused *fused,
                                           const struct tri_frame *frame,
                                           const struct tri_routes *routes, struct tri_range own)
{
    const struct tri_route_plan *route =
        tri_route_plan_make(&fused->peers, frame, routes, own, fused->exchange->load);
    bool filled;
    struct tri_fused_plan *plan = tri_keep_routing(frame, sizeof(*plan), &filled);
    if (filled) {
        return plan;
    }
    *plan = (struct tri_fused_plan){.route = route};
    plan->slot_at = keep(frame, tri_group_size(fused->peers.homes));
    place_slots(fused, plan);
    if (fused->gathers) {
        plan->result_at = keep(frame, tri_group_size(fused->peers.homes));
        place_gathered(fused, frame, routes, plan);
    } else {
        plan->results = route->slots;
        plan->result_at = plan->slot_at;
        plan->result_of = route->slot_of;
    }
    return plan;
}

/* ---- moving rows ----------------------------------------------------------------------------- */

static void regroup(const struct tri_fused *f, const struct tri_route_plan *route,
                    const int32_t *index, const void *from, void *to, enum tri_dtype dtype)
{
    const struct tri_gather_args args = {
        .src = from,
        .index = index,
        .dst = to,
        .n = route->rows,
        .width = hidden_of(f),
        .dt = dtype,
    };
    f->context->kernels->gather_rows(f->context->kernels, &args);
}

static void *buffer(const struct tri_fused *f, int i, int64_t rows)
{
    return tri_exchange_take(f->exchange, i, f->context, rows);
}

void tri_fused_send(const struct tri_fused *fused, const struct tri_fused_plan *plan,
                    enum tri_phase phase, const void *from, const int64_t *at, void *rows)
{
    const struct tri_route_plan *route = plan->route;
    enum tri_dtype dt = fused->context->dt;
    void *arrived = route->row_from ? buffer(fused, 1, route->rows) : rows;
    tri_request_end(tri_all_to_all_at_begin(
        fused->peers.homes, (struct tri_where){phase, TRI_KIND_MOE}, from, route->send_rows, at,
        arrived, route->recv_rows, NULL, hidden_of(fused), dt));
    if (route->row_from) {
        regroup(fused, route, route->row_from, arrived, rows, dt);
    }
}

static void narrow(const struct tri_fused *f, const void *from, void *to, int64_t rows)
{
    const struct tri_cast_args args = {
        .src = from,
        .from = f->context->sum_dt,
        .dst = to,
        .to = f->context->dt,
        .n = rows * hidden_of(f),
    };
    f->context->kernels->cast(f->context->kernels, &args);
}

/* Rows on their way back. */
struct returning {
    const struct tri_fused *fused;
    const struct tri_frame *frame;
    const struct tri_fused_plan *plan;
    struct tri_where where;
    enum tri_dtype dtype; /* of rows: partial sums, or activations where nothing is to be added */
    const void *rows;     /* by source */
    void *received;       /* [expert rank, holder, slots]; where nothing is added, the results */
    void *results;
};

/* Where the rows for the slots of an expert rank arrive. */
static void *arrival(const struct returning *r, int rank)
{
    const struct tri_fused *f = r->fused;
    int home = rank * tensors_of(f);
    if (f->peers.holders == 1) {
        return at_row(f, r->results, r->plan->result_at[home], r->dtype);
    }
    return at_row(f, r->received, f->peers.holders * r->plan->slot_at[home], r->dtype);
}

/* The holders' sums for the slots of an expert rank become results. */
static void add_up(const struct returning *r, int rank)
{
    const struct tri_fused *f = r->fused;
    const struct tri_context *context = f->context;
    int holders = f->peers.holders;
    int64_t rows = r->plan->route->send_rows[rank * holders];
    if (holders == 1) {
        return;
    }
    size_t mark = tri_arena_mark(r->frame->arena);
    const void **source = tri_arena_alloc(r->frame->arena, (size_t)holders * sizeof(*source));
    char *arrived = arrival(r, rank);
    void *result = at_row(f, r->results, r->plan->result_at[rank * holders], context->dt);
    bool whole = context->sum_dt == context->dt;
    for (int holder = 0; holder < holders; holder++) {
        source[holder] = at_row(f, arrived, holder * rows, context->sum_dt);
    }
    context->mesh->reduce(whole ? result : arrived, source, holders, rows * hidden_of(f),
                          context->sum_dt, TRI_REDUCE_SUM);
    if (!whole) {
        narrow(f, arrived, result, rows);
    }
    tri_arena_rewind(r->frame->arena, mark);
}

/* ---- results of all tensor ranks: all-to-all and all-gather at once -------------------------- */

/* Step i: rows of the slots of the ranks at place + i along expert go there, and those of own slots
 * come from the ranks at place - i, the results' block `from`. */
struct step {
    int to, from;
    int64_t *send, *receive; /* [homes] rows; 0 for all others */
};

static struct step step_at(const struct returning *r, int i)
{
    const struct tri_fused *f = r->fused;
    const struct tri_route_plan *route = r->plan->route;
    int ranks = expert_ranks(f);
    int place = f->context->mesh->coord[TRI_AXIS_EXPERT];
    int homes = tri_group_size(f->peers.homes);
    size_t bytes = (size_t)homes * sizeof(int64_t);
    struct step step = {(place + i) % ranks, (place - i + ranks) % ranks,
                        tri_arena_alloc(r->frame->arena, bytes),
                        tri_arena_alloc(r->frame->arena, bytes)};
    for (int home = 0; home < homes; home++) {
        step.send[home] = home / tensors_of(f) == step.to ? route->recv_rows[home] : 0;
        step.receive[home] = home / tensors_of(f) == step.from ? route->send_rows[home] : 0;
    }
    return step;
}

static struct tri_request *exchange_begin(const struct returning *r, int i)
{
    const struct tri_fused *f = r->fused;
    size_t mark = tri_arena_mark(r->frame->arena);
    struct step step = step_at(r, i);
    int64_t before = 0;
    for (int home = 0; home < step.to * tensors_of(f); home++) {
        before += r->plan->route->recv_rows[home];
    }
    struct tri_request *request = tri_all_to_all_v_begin(
        f->peers.homes, r->where, at_row(f, r->rows, before, r->dtype), step.send,
        arrival(r, step.from), step.receive, hidden_of(f), r->dtype);
    tri_arena_rewind(r->frame->arena, mark);
    return request;
}

static struct tri_request *gather_begin(const struct returning *r, int rank)
{
    const struct tri_fused *f = r->fused;
    const struct tri_context *context = f->context;
    return tri_all_gather_v_begin(tri_mesh_group(context->mesh, TRI_ON_GRID), r->where,
                                  at_row(f, r->results, r->plan->block_at[rank], context->dt),
                                  r->plan->parts + (int64_t)rank * tensors_of(f), context->dt);
}

/* SAA, the simultaneous all-to-all and all-gather of the authors' kernel: while step i + 1 of the
 * exchange is under way, what step i brought is gathered over tensor. Theirs goes rank by rank;
 * here a step is one expert rank's T ranks, since a result is whole when all its holders have
 * sent. */
static void exchange_and_gather(const struct returning *r)
{
    int ranks = expert_ranks(r->fused);
    int place = r->fused->context->mesh->coord[TRI_AXIS_EXPERT];
    struct tri_request *arriving = exchange_begin(r, 0);
    struct tri_request *gathering = NULL;
    for (int i = 0; i < ranks; i++) {
        int from = (place - i + ranks) % ranks;
        struct tri_request *next = i + 1 < ranks ? exchange_begin(r, i + 1) : NULL;
        tri_request_end(arriving);
        add_up(r, from);
        tri_request_end(gathering);
        gathering = gather_begin(r, from);
        arriving = next;
    }
    tri_request_end(gathering);
}

void tri_fused_return(const struct tri_fused *fused, const struct tri_frame *frame,
                      const struct tri_fused_plan *plan, enum tri_phase phase, const void *rows,
                      void *results)
{
    const struct tri_context *context = fused->context;
    const struct tri_route_plan *route = plan->route;
    int holders = fused->peers.holders;
    bool rounds = holders == 1 && context->sum_dt != context->dt;
    int spare = 1; /* the buffer that rows is not in */
    struct returning r = {
        .fused = fused,
        .frame = frame,
        .plan = plan,
        .where = {phase, TRI_KIND_MOE},
        .dtype = holders == 1 ? context->dt : context->sum_dt,
        .rows = rows,
        .received = results,
        .results = results,
    };
    if (rounds) {
        void *rounded = tri_fused_is_alone(fused) ? results : buffer(fused, spare, route->rows);
        narrow(fused, rows, rounded, route->rows);
        r.rows = rounded;
        spare = 1 - spare;
    }
    if (tri_fused_is_alone(fused)) {
        return;
    }
    if (route->row_to) {
        void *ordered = buffer(fused, spare, route->rows);
        regroup(fused, route, route->row_to, r.rows, ordered, r.dtype);
        r.rows = ordered;
        spare = 1 - spare;
    }
    if (holders > 1) {
        r.received = buffer(fused, spare, holders * route->slots);
    }
    if (fused->gathers) {
        exchange_and_gather(&r);
        return;
    }
    tri_all_to_all_v(fused->peers.homes, r.where, r.rows, route->recv_rows, r.received,
                     route->send_rows, hidden_of(fused), r.dtype);
    for (int rank = 0; rank < expert_ranks(fused); rank++) {
        add_up(&r, rank);
    }
}
