#include "moe/route_plan.h"

#include "model/stream.h"
#include "moe/hosts.h"
#include "moe/route_chunks.h"

#include <string.h>

static void *scratch(const struct tri_frame *frame, int64_t n, size_t size)
{
    return tri_arena_alloc(frame->arena, (size_t)n * size);
}

static void *keep(const struct tri_frame *frame, int64_t n, size_t size)
{
    return tri_keep_more_routing(frame, (size_t)n * size);
}

int tri_peers_part(const struct tri_peers *peers)
{
    return peers->parts > 1 ? tri_mesh_grid_rank(peers->context->mesh) : 0;
}

/* Experts of all homes, each as often as it has holders. */
static int64_t all_experts(const struct tri_peers *peers)
{
    return tri_group_size(peers->homes) * peers->experts;
}

/* The first home of an expert; its other holders come next. */
static int64_t home_of(const struct tri_peers *peers, int64_t expert)
{
    return expert / peers->experts * peers->holders;
}

/* What is counted for the first holder of experts, `size` numbers a home, holds for the others. */
static void count_for_holders(const struct tri_peers *peers, int64_t size, int64_t *counts)
{
    int64_t homes = tri_group_size(peers->homes);
    for (int64_t home = 0; home < homes; home++) {
        int64_t first = home / peers->holders * peers->holders;
        memmove(counts + home * size, counts + first * size, (size_t)size * sizeof(*counts));
    }
}

/* counts[home, part, local expert] of the kept routes; every tensor rank knows those of all
 * parts. */
static void count_routes(const struct tri_peers *peers, const struct tri_route_plan *plan,
                         const struct tri_frame *frame, const struct tri_routes *routes,
                         int64_t *counts)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_context *context = peers->context;
    int64_t k = tri_config_routes(&context->config->moe);
    memset(counts, 0, (size_t)(all_experts(peers) * peers->parts) * sizeof(*counts));
    for (int p = 0; p < peers->parts; p++) {
        struct tri_range tokens = plan->own;
        if (peers->parts > 1) {
            tokens = tri_grid_part(context->mesh, pass->rows, pass->seq, p);
        }
        for (int64_t i = tokens.begin * k; i < tokens.end * k; i++) {
            int64_t e = routes->expert[i];
            if (e >= 0) {
                counts[(home_of(peers, e) * peers->parts + p) * peers->experts +
                       e % peers->experts]++;
            }
        }
    }
    count_for_holders(peers, peers->parts * peers->experts, counts);
}

/* What only kernels read is written where they are there to read it. */
static void run_once(const struct tri_peers *peers, int64_t n,
                     void (*run)(void *state, int64_t begin, int64_t end), void *state)
{
    const struct tri_kernels *kernels = peers->context->kernels;
    kernels->loop(kernels,
                  &(struct tri_loop_args){.n = n, .piece = n + 1, .run = run, .state = state});
}

struct slots {
    const struct tri_route_plan *plan;
    const int32_t *expert; /* of own routes */
    int64_t *next;         /* slot of each expert */
    int64_t k;
};

static void deal_slots(void *state, int64_t begin, int64_t end)
{
    const struct slots *s = state;
    for (int64_t i = begin; i < end; i++) {
        int32_t slot = s->expert[i] >= 0 ? (int32_t)s->next[s->expert[i]]++ : -1;
        s->plan->slot_of[i] = slot;
        if (slot >= 0) {
            s->plan->token_of[slot] = (int32_t)(i / s->k);
        }
    }
}

/* Own slots by expert (counting sort, tokens in order). */
static void plan_slots(const struct tri_peers *peers, const struct tri_frame *frame,
                       struct tri_route_plan *plan, const struct tri_routes *routes,
                       const int64_t *counts)
{
    const struct tri_config_moe *moe = &peers->context->config->moe;
    int64_t k = tri_config_routes(moe);
    int64_t n = tri_range_size(plan->own) * k;
    size_t mark = tri_arena_mark(frame->arena);
    int64_t *next = scratch(frame, moe->num_experts, sizeof(*next));
    plan->slots = 0;
    for (int64_t e = 0; e < moe->num_experts; e++) {
        int64_t home = home_of(peers, e);
        int64_t count = counts[(home * peers->parts + tri_peers_part(peers)) * peers->experts +
                               e % peers->experts];
        next[e] = plan->slots;
        plan->slots += count;
        for (int holder = 0; holder < peers->holders; holder++) {
            plan->send_rows[home + holder] += count;
        }
    }
    TRI_REQUIRE(plan->slots <= n);
    struct slots slots = {plan, routes->expert + plan->own.begin * k, next, k};
    run_once(peers, n, deal_slots, &slots);
    tri_arena_rewind(frame->arena, mark);
}

/* The i-th source of those whose rows arrive in a tensor part, and who brings them. */
static int64_t source_at(const struct tri_peers *peers, int64_t part, int64_t i)
{
    return peers->hosts ? peers->hosts->order[part * tri_group_size(peers->homes) + i] : i;
}

static int64_t sender_of(const struct tri_peers *peers, int64_t source)
{
    return peers->hosts ? tri_hosts_relay(peers->hosts, (int)source, peers->hosts->mine) : source;
}

static void count_rows(const struct tri_peers *peers, struct tri_route_plan *plan,
                       const int64_t *received)
{
    int64_t homes = tri_group_size(peers->homes);
    for (int64_t i = 0; i < homes; i++) {
        int64_t s = source_at(peers, tri_peers_part(peers), i);
        for (int64_t e = 0; e < peers->experts; e++) {
            int64_t count = tri_peers_at(peers, received, s, tri_peers_part(peers), e);
            plan->part_offsets[i * peers->experts + e] = plan->part_rows;
            plan->part_rows += count;
            plan->recv_rows[sender_of(peers, s)] += count;
        }
    }
    plan->part_offsets[homes * peers->experts] = plan->part_rows;
    for (int64_t e = 0; e < peers->experts; e++) {
        plan->offsets[e] = plan->rows;
        for (int64_t s = 0; s < homes; s++) {
            for (int64_t p = 0; p < peers->parts; p++) {
                int64_t count = tri_peers_at(peers, received, s, p, e);
                plan->rows += count;
                plan->part_counts[p] += count * peers->context->config->model.hidden_size;
            }
        }
    }
    plan->offsets[peers->experts] = plan->rows;
}

struct order {
    const struct tri_peers *peers;
    const struct tri_route_plan *plan;
    const int64_t *received;
    const int64_t *next; /* [parts, homes, experts], in the experts' order */
};

/* Runs of rows in the order in which they arrive. */
static void order_runs(void *state, int64_t begin, int64_t end)
{
    const struct order *o = state;
    const struct tri_peers *peers = o->peers;
    int64_t homes = tri_group_size(peers->homes);
    int64_t from = 0;
    for (int64_t run = begin; run < end; run++) {
        int64_t p = run / (homes * peers->experts);
        int64_t s = source_at(peers, p, run / peers->experts % homes);
        int64_t e = run % peers->experts;
        int64_t next = o->next[(p * homes + s) * peers->experts + e];
        int64_t count = tri_peers_at(peers, o->received, s, p, e);
        for (int64_t i = 0; i < count; i++, from++) {
            o->plan->row_from[next + i] = (int32_t)from;
            o->plan->row_to[from] = (int32_t)(next + i);
        }
    }
}

/* Arrival is by (part, source, expert), with hosts by (part, relay, source, expert), the experts'
 * order by (expert, source, part). */
static void order_rows(const struct tri_peers *peers, const struct tri_frame *frame,
                       struct tri_route_plan *plan, const int64_t *received)
{
    int64_t homes = tri_group_size(peers->homes);
    int sorted = (peers->parts == 1) + (homes == 1) + (peers->experts == 1);
    if (sorted >= 2 && !peers->hosts) {
        return;
    }
    plan->row_from = keep(frame, plan->rows, sizeof(*plan->row_from));
    plan->row_to = keep(frame, plan->rows, sizeof(*plan->row_to));
    size_t mark = tri_arena_mark(frame->arena);
    int64_t *next = scratch(frame, peers->experts * homes * peers->parts, sizeof(*next));
    int64_t at = 0;
    for (int64_t e = 0; e < peers->experts; e++) {
        for (int64_t s = 0; s < homes; s++) {
            for (int64_t p = 0; p < peers->parts; p++) {
                next[(p * homes + s) * peers->experts + e] = at;
                at += tri_peers_at(peers, received, s, p, e);
            }
        }
    }
    struct order order = {peers, plan, received, next};
    run_once(peers, peers->parts * homes * peers->experts, order_runs, &order);
    tri_arena_rewind(frame->arena, mark);
}

/* counts[home, local expert, row of the micro-batch] of the kept routes among tokens that arrive
 * together: this rank's, or those of all parts. */
static void count_by_row(const struct tri_peers *peers, const struct tri_route_plan *plan,
                         const struct tri_frame *frame, const struct tri_routes *routes,
                         int64_t *counts)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_config *config = peers->context->config;
    int64_t k = tri_config_routes(&config->moe);
    int64_t most = config->train.micro_batch;
    struct tri_range tokens = plan->own;
    if (peers->parts > 1) {
        tokens = (struct tri_range){0, tri_pass_tokens(pass)};
    }
    memset(counts, 0, (size_t)(all_experts(peers) * most) * sizeof(*counts));
    for (int64_t i = tokens.begin * k; i < tokens.end * k; i++) {
        int64_t e = routes->expert[i];
        if (e >= 0) {
            int64_t place = home_of(peers, e) * peers->experts + e % peers->experts;
            counts[place * most + i / k / pass->seq]++;
        }
    }
    count_for_holders(peers, peers->experts * most, counts);
}

static void exchange_counts(const struct tri_peers *peers, const struct tri_frame *frame,
                            const int64_t *counts, int64_t *received, int64_t size)
{
    const struct tri_hosts *hosts = peers->hosts;
    if (!hosts) {
        tri_all_to_all_counts(peers->homes, (struct tri_where){frame->pass.phase, TRI_KIND_META},
                              counts, received, size);
        return;
    }
    size_t mark = tri_arena_mark(frame->arena);
    int64_t here = tri_hosts_homes(hosts, hosts->mine);
    const struct tri_host_counts passing = {
        .size = size,
        .send = counts,
        .told = tri_context_zero(peers->context, scratch(frame, hosts->hosts, sizeof(int64_t)),
                                 (size_t)hosts->hosts * sizeof(int64_t)),
        .received = received,
        .passed = scratch(frame, hosts->sources * here * size, sizeof(int64_t)),
        .heard = scratch(frame, hosts->sources, sizeof(int64_t)),
    };
    tri_hosts_exchange_counts(hosts, frame, &passing, tri_peers_part(peers));
    tri_arena_rewind(frame->arena, mark);
}

/* Where the rows of an expert pass from one row of the global batch to the next. They arrive by
 * source, so by replica, then by token: a row whose tokens several tensor ranks sent is still in
 * one piece. */
static void plan_cuts(const struct tri_peers *peers, struct tri_route_plan *plan,
                      const struct tri_frame *frame, const struct tri_routes *routes, double load)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_context *context = peers->context;
    int64_t most = context->config->train.micro_batch;
    int64_t homes = tri_group_size(peers->homes);
    int64_t senders = homes / context->mesh->size[TRI_AXIS_EXPERT]; /* of one replica */
    int64_t *counts = scratch(frame, all_experts(peers) * most, sizeof(*counts));
    int64_t *received = scratch(frame, all_experts(peers) * most, sizeof(*received));
    TRI_REQUIRE(pass->rows <= most);
    count_by_row(peers, plan, frame, routes, counts);
    exchange_counts(peers, frame, counts, received, peers->experts * most);
    if (load > 0) {
        /* Nobody is there to say. Memory does not depend on how many parts there are. */
        memset(received, 0, (size_t)(all_experts(peers) * most) * sizeof(*received));
        for (int64_t e = 0; e < peers->experts; e++) {
            received[e * most] = plan->offsets[e + 1] - plan->offsets[e];
        }
    }
    for (int64_t e = 0; e < peers->experts; e++) {
        int64_t *cut = keep(frame, homes * most + 1, sizeof(*cut));
        int64_t parts = 0;
        int64_t last = -1; /* row of the last part */
        cut[0] = 0;
        for (int64_t i = 0; i < homes * most; i++) {
            int64_t row = i / most / senders * most + i % most;
            int64_t count = received[(i / most * peers->experts + e) * most + i % most];
            if (count > 0) {
                parts += row != last;
                cut[parts] = (row != last ? cut[parts - 1] : cut[parts]) + count;
                last = row;
            }
        }
        plan->cuts[e] = (struct tri_cuts){cut, parts};
    }
}

/* Own tokens that have kept routes to each host. */
static void count_for_hosts(const struct tri_peers *peers, const struct tri_frame *frame,
                            const struct tri_route_plan *plan, const struct tri_routes *routes)
{
    const struct tri_hosts *hosts = peers->hosts;
    int64_t k = tri_config_routes(&peers->context->config->moe);
    size_t mark = tri_arena_mark(frame->arena);
    int64_t *last = scratch(frame, hosts->hosts, sizeof(*last)); /* token counted for it */
    for (int host = 0; host < hosts->hosts; host++) {
        last[host] = -1;
        plan->host_rows[host] = 0;
    }
    for (int64_t i = plan->own.begin * k; i < plan->own.end * k; i++) {
        int64_t e = routes->expert[i];
        int host = e >= 0 ? hosts->of[home_of(peers, e)] : -1;
        if (host >= 0 && last[host] != i / k) {
            last[host] = i / k;
            plan->host_rows[host]++;
        }
    }
    tri_arena_rewind(frame->arena, mark);
}

/* The same as the all-to-all of counts, by way of relays, which keep what they are told. */
static void pass_counts(const struct tri_peers *peers, const struct tri_frame *frame,
                        struct tri_route_plan *plan, const struct tri_routes *routes,
                        const int64_t *counts, int64_t *received)
{
    const struct tri_hosts *hosts = peers->hosts;
    int64_t size = peers->parts * peers->experts;
    int64_t here = tri_hosts_homes(hosts, hosts->mine);
    plan->host_rows = keep(frame, hosts->hosts, sizeof(int64_t));
    plan->heard = keep(frame, hosts->sources, sizeof(int64_t));
    plan->passed = keep(frame, hosts->sources * here * size, sizeof(int64_t));
    count_for_hosts(peers, frame, plan, routes);
    const struct tri_host_counts passing = {
        .size = size,
        .send = counts,
        .told = plan->host_rows,
        .received = received,
        .passed = plan->passed,
        .heard = plan->heard,
    };
    tri_hosts_exchange_counts(hosts, frame, &passing, tri_peers_part(peers));
}

struct tri_route_plan *tri_route_plan_make(const struct tri_peers *peers,
                                           const struct tri_frame *frame,
                                           const struct tri_routes *routes, struct tri_range own,
                                           double load)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_config_moe *moe = &peers->context->config->moe;
    bool filled;
    struct tri_route_plan *plan = tri_keep_routing(frame, sizeof(*plan), &filled);
    if (filled) {
        return plan;
    }
    int64_t homes = tri_group_size(peers->homes);
    *plan = (struct tri_route_plan){.own = own};
    if (!peers->hosts) {
        int64_t slots = tri_range_size(plan->own) * tri_config_routes(moe);
        plan->slot_of = keep(frame, slots, sizeof(*plan->slot_of));
        plan->token_of = keep(frame, slots, sizeof(*plan->token_of));
    }
    int64_t integers = 2 * homes + homes * peers->experts + 1 + peers->parts + peers->experts + 1;
    plan->send_rows = keep(frame, integers, sizeof(int64_t));
    memset(plan->send_rows, 0, (size_t)integers * sizeof(int64_t));
    plan->recv_rows = plan->send_rows + homes;
    plan->part_counts = plan->recv_rows + homes;
    plan->part_offsets = plan->part_counts + peers->parts;
    plan->offsets = plan->part_offsets + homes * peers->experts + 1;
    int64_t *counts = scratch(frame, all_experts(peers) * peers->parts, sizeof(*counts));
    int64_t *received = scratch(frame, all_experts(peers) * peers->parts, sizeof(*received));
    count_routes(peers, plan, frame, routes, counts);
    if (peers->hosts) {
        pass_counts(peers, frame, plan, routes, counts, received);
    } else {
        plan_slots(peers, frame, plan, routes, counts);
        tri_all_to_all_counts(peers->homes, (struct tri_where){pass->phase, TRI_KIND_META}, counts,
                              received, peers->experts * peers->parts);
    }
    if (load > 0) {
        tri_peers_counts(peers, &frame->pass, load, received);
    }
    if (load > 0 && peers->hosts) {
        tri_peers_told(peers, tri_range_size(plan->own), load, plan->host_rows);
        tri_peers_passed(peers, &frame->pass, load, plan->passed, plan->heard);
    }
    count_rows(peers, plan, received);
    if (peers->chunks[0] == 0) {
        order_rows(peers, frame, plan, received);
    } else {
        plan->chunks[0] = tri_route_chunks_make(peers, frame, plan, received, peers->chunks[0]);
        plan->chunks[1] = plan->chunks[0];
        if (pass->backward && peers->chunks[1] != peers->chunks[0]) {
            plan->chunks[1] = tri_route_chunks_make(peers, frame, plan, received, peers->chunks[1]);
        }
    }
    plan->cuts = keep(frame, peers->experts, sizeof(*plan->cuts));
    memset(plan->cuts, 0, (size_t)peers->experts * sizeof(*plan->cuts));
    if (peers->context->reproducible && pass->backward) {
        plan_cuts(peers, plan, frame, routes, load);
    }
    return plan;
}
