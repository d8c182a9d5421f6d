#include "moe/relay.h"

#include "moe/hosts.h"

#include <string.h>

bool tri_relay_sums(const struct tri_routed *routed)
{
    return !routed->base.context->reproducible;
}

static void *keep(const struct tri_frame *frame, int64_t n, size_t size)
{
    return tri_keep_more_routing(frame, (size_t)n * size);
}

static void *scratch(const struct tri_frame *frame, int64_t n, size_t size)
{
    return tri_arena_alloc(frame->arena, (size_t)n * size);
}

static int64_t routes_of(const struct tri_routed *routed)
{
    return tri_config_routes(&routed->base.context->config->moe);
}

static int64_t hidden_of(const struct tri_routed *routed)
{
    return routed->base.context->config->model.hidden_size;
}

/* What only kernels read is written where they are there to read it. */
static void run_once(const struct tri_routed *routed, int64_t n,
                     void (*run)(void *state, int64_t begin, int64_t end), void *state)
{
    const struct tri_kernels *kernels = routed->base.context->kernels;
    kernels->loop(kernels,
                  &(struct tri_loop_args){.n = n, .piece = n + 1, .run = run, .state = state});
}

/* ---- what a source tells with each row ------------------------------------------------------- */

/* Of a row's k choices: the expert's place among those of the relay's host, -1 for an expert
 * elsewhere or none; the weight; where the routes have one, the weight of the way back. */
struct words {
    int64_t k, width;
    bool back;
};

static struct words words_of(const struct tri_routed *routed, const struct tri_routes *routes)
{
    int64_t k = routes_of(routed);
    return (struct words){k, (routes->back ? 3 : 2) * k, routes->back != NULL};
}

/* ---- the source ------------------------------------------------------------------------------ */

struct dealing {
    const struct tri_routed *routed;
    const struct tri_routes *routes;
    struct tri_relay_plan *plan;
    struct words words;
    int32_t *told;                         /* [own rows, words] */
    int64_t *next_row, *next_result, *row; /* [hosts] the next ones; the last row dealt */
    int64_t *last;                         /* [hosts] token of that */
};

static int64_t deal_row(const struct dealing *d, int host, int64_t token)
{
    int64_t row = d->next_row[host]++;
    int32_t *words = d->told + row * d->words.width;
    d->plan->ends.token_of[row] = (int32_t)token;
    for (int64_t i = 0; i < d->words.width; i++) {
        words[i] = i < d->words.k ? -1 : 0;
    }
    d->last[host] = token;
    d->row[host] = row;
    return row;
}

static void deal_rows(void *state, int64_t begin, int64_t end)
{
    const struct dealing *d = state;
    const struct tri_peers *peers = &d->routed->peers;
    const struct tri_hosts *hosts = peers->hosts;
    bool sums = tri_relay_sums(d->routed);
    int64_t k = d->words.k;
    int64_t first = d->plan->ends.own.begin * k;
    for (int64_t i = begin; i < end; i++) {
        int64_t e = d->routes->expert[first + i];
        d->plan->row_of[i] = d->plan->ends.slot_of[i] = -1;
        if (e < 0) {
            continue;
        }
        int64_t home = e / peers->experts;
        int host = hosts->of[home];
        bool fresh = d->last[host] != i / k;
        int64_t row = fresh ? deal_row(d, host, i / k) : d->row[host];
        int32_t *words = d->told + row * d->words.width + i % k;
        words[0] = (int32_t)(hosts->place[home] * peers->experts + e % peers->experts);
        memcpy(words + k, d->routes->weight + first + i, sizeof(float));
        if (d->words.back) {
            memcpy(words + 2 * k, d->routes->back + first + i, sizeof(float));
        }
        d->plan->row_of[i] = (int32_t)row;
        if (!sums) {
            d->plan->ends.slot_of[i] = (int32_t)d->next_result[host]++;
        } else if (fresh) {
            d->plan->ends.slot_of[i] = (int32_t)row;
        }
    }
}

/* Own routes to each host that were not dropped. */
static void count_results(const struct tri_routed *routed, const struct tri_routes *routes,
                          const struct tri_relay_plan *plan, int64_t *results)
{
    const struct tri_peers *peers = &routed->peers;
    int64_t k = routes_of(routed);
    memset(results, 0, (size_t)peers->hosts->hosts * sizeof(*results));
    for (int64_t i = plan->ends.own.begin * k; i < plan->ends.own.end * k; i++) {
        if (routes->expert[i] >= 0) {
            results[peers->hosts->of[routes->expert[i] / peers->experts]]++;
        }
    }
}

/* told <- the words of own rows, of which the plan knows the counts. */
static void deal_source(const struct tri_routed *routed, const struct tri_frame *frame,
                        const struct tri_routes *routes, struct tri_relay_plan *plan, int32_t *told)
{
    const struct tri_hosts *hosts = routed->peers.hosts;
    size_t mark = tri_arena_mark(frame->arena);
    int me = tri_group_rank(hosts->group);
    int64_t *next = scratch(frame, 4 * (int64_t)hosts->hosts, sizeof(*next));
    struct dealing dealing = {
        .routed = routed,
        .routes = routes,
        .plan = plan,
        .words = words_of(routed, routes),
        .told = told,
        .next_row = next,
        .next_result = next + hosts->hosts,
        .row = next + 2 * hosts->hosts,
        .last = next + 3 * hosts->hosts,
    };
    int64_t row = 0, result = 0;
    for (int relay = 0; relay < tri_group_size(hosts->group); relay++) {
        int host = hosts->of[relay];
        if (tri_hosts_relay(hosts, me, host) == relay) {
            dealing.next_row[host] = row;
            dealing.next_result[host] = result;
            dealing.last[host] = -1;
        }
        row += plan->send_rows[relay];
        result += plan->recv_results[relay];
    }
    run_once(routed, tri_range_size(plan->ends.own) * dealing.words.k, deal_rows, &dealing);
    tri_arena_rewind(frame->arena, mark);
}

/* ---- the relay ------------------------------------------------------------------------------- */

struct relaying {
    const struct tri_routed *routed;
    struct tri_relay_plan *plan;
    struct words words;
    const int32_t *heard; /* [rows, words] */
    int64_t *next;        /* [sources, homes of this host, experts] */
};

static void deal_slots(void *state, int64_t begin, int64_t end)
{
    const struct relaying *r = state;
    const struct tri_hosts *hosts = r->routed->peers.hosts;
    struct tri_relay_plan *plan = r->plan;
    int64_t experts = tri_hosts_homes(hosts, hosts->mine) * r->routed->peers.experts;
    int64_t k = r->words.k;
    int64_t row = 0, result = 0;
    for (int64_t i = begin; i < end; i++) {
        int64_t *next = r->next + i * experts;
        for (int64_t n = plan->recv_rows[hosts->source[i]]; n > 0; n--, row++) {
            const int32_t *words = r->heard + row * r->words.width;
            memcpy(plan->weight + row * k, words + k, (size_t)k * sizeof(float));
            if (plan->back) {
                memcpy(plan->back + row * k, words + 2 * k, (size_t)k * sizeof(float));
            }
            for (int64_t j = 0; j < k; j++) {
                int32_t slot = words[j] >= 0 ? (int32_t)next[words[j]]++ : -1;
                plan->slot_of[row * k + j] = slot;
                if (slot >= 0) {
                    plan->passed_of[slot] = (int32_t)row;
                }
                if (slot >= 0 && plan->copy_of) {
                    plan->copy_of[result++] = slot;
                }
            }
        }
    }
}

/* Rows that this relay has from source i for an expert of a home of this host. */
static int64_t passed_at(const struct tri_routed *routed, const struct tri_route_plan *route,
                         int64_t source, int64_t place, int64_t expert)
{
    const struct tri_peers *peers = &routed->peers;
    int64_t here = tri_hosts_homes(peers->hosts, peers->hosts->mine);
    int64_t at = (source * here + place) * peers->parts + tri_peers_part(peers);
    return route->passed[at * peers->experts + expert];
}

/* Slots by (home, source, expert): how many there are, and go to each home. */
static void count_slots(const struct tri_routed *routed, struct tri_relay_plan *plan)
{
    const struct tri_peers *peers = &routed->peers;
    const struct tri_hosts *hosts = peers->hosts;
    struct tri_route_plan *route = plan->route;
    for (int64_t place = 0; place < tri_hosts_homes(hosts, hosts->mine); place++) {
        int home = hosts->member[hosts->begin[hosts->mine] + place];
        for (int64_t s = 0; s < hosts->sources; s++) {
            for (int64_t e = 0; e < peers->experts; e++) {
                int64_t count = passed_at(routed, route, s, place, e);
                route->slots += count;
                route->send_rows[home] += count;
                plan->send_results[hosts->source[s]] += tri_relay_sums(routed) ? 0 : count;
            }
        }
    }
}

/* next [sources, homes of this host, experts] <- the first slot of each. */
static void place_slots(const struct tri_routed *routed, const struct tri_relay_plan *plan,
                        int64_t *next)
{
    const struct tri_peers *peers = &routed->peers;
    int64_t here = tri_hosts_homes(peers->hosts, peers->hosts->mine);
    int64_t slot = 0;
    for (int64_t place = 0; place < here; place++) {
        for (int64_t s = 0; s < peers->hosts->sources; s++) {
            for (int64_t e = 0; e < peers->experts; e++) {
                next[(s * here + place) * peers->experts + e] = slot;
                slot += passed_at(routed, plan->route, s, place, e);
            }
        }
    }
}

/* ---- the plan -------------------------------------------------------------------------------- */

/* How many rows and results go where, as far as the route plan knows. */
static void count_ends(const struct tri_routed *routed, const struct tri_frame *frame,
                       const struct tri_routes *routes, struct tri_relay_plan *plan)
{
    const struct tri_hosts *hosts = routed->peers.hosts;
    const struct tri_route_plan *route = plan->route;
    int me = tri_group_rank(hosts->group);
    size_t mark = tri_arena_mark(frame->arena);
    int64_t *results = scratch(frame, hosts->hosts, sizeof(*results));
    count_results(routed, routes, plan, results);
    for (int host = 0; host < hosts->hosts; host++) {
        int relay = tri_hosts_relay(hosts, me, host);
        plan->send_rows[relay] = route->host_rows[host];
        plan->recv_results[relay] = tri_relay_sums(routed) ? route->host_rows[host] : results[host];
        plan->ends.slots += route->host_rows[host];
        plan->results += plan->recv_results[relay];
    }
    for (int i = 0; i < hosts->sources; i++) {
        plan->recv_rows[hosts->source[i]] = route->heard[i];
        plan->send_results[hosts->source[i]] = tri_relay_sums(routed) ? route->heard[i] : 0;
        plan->rows += route->heard[i];
    }
    tri_arena_rewind(frame->arena, mark);
}

struct tri_relay_plan *tri_relay_plan_make(const struct tri_routed *routed,
                                           const struct tri_frame *frame,
                                           const struct tri_routes *routes, struct tri_range own)
{
    const struct tri_hosts *hosts = routed->peers.hosts;
    struct tri_route_plan *route =
        tri_route_plan_make(&routed->peers, frame, routes, own, routed->base.exchange->load);
    bool filled;
    struct tri_relay_plan *plan = tri_keep_routing(frame, sizeof(*plan), &filled);
    if (filled) {
        return plan;
    }
    struct words words = words_of(routed, routes);
    int64_t homes = tri_group_size(hosts->group);
    int64_t n = tri_range_size(own) * words.k;
    *plan = (struct tri_relay_plan){.route = route, .ends = {.own = own}};
    plan->send_rows = keep(frame, 4 * homes, sizeof(int64_t));
    memset(plan->send_rows, 0, 4 * (size_t)homes * sizeof(int64_t));
    plan->recv_rows = plan->send_rows + homes;
    plan->send_results = plan->recv_rows + homes;
    plan->recv_results = plan->send_results + homes;
    count_ends(routed, frame, routes, plan);
    count_slots(routed, plan);
    plan->ends.token_of = keep(frame, plan->ends.slots, sizeof(int32_t));
    plan->ends.slot_of = keep(frame, n, sizeof(int32_t));
    plan->row_of = keep(frame, n, sizeof(int32_t));
    plan->passed_of = keep(frame, route->slots, sizeof(int32_t));
    plan->slot_of = keep(frame, plan->rows * words.k, sizeof(int32_t));
    if (!tri_relay_sums(routed)) {
        plan->copy_of = keep(frame, route->slots, sizeof(int32_t));
    }
    plan->weight = keep(frame, plan->rows * words.k, sizeof(float));
    if (words.back) {
        plan->back = keep(frame, plan->rows * words.k, sizeof(float));
    }
    size_t mark = tri_arena_mark(frame->arena);
    int64_t here = tri_hosts_homes(hosts, hosts->mine);
    int64_t *next = scratch(frame, hosts->sources * here * routed->peers.experts, sizeof(*next));
    int32_t *told = scratch(frame, plan->ends.slots * words.width, sizeof(*told));
    int32_t *heard = scratch(frame, plan->rows * words.width, sizeof(*heard));
    place_slots(routed, plan, next);
    deal_source(routed, frame, routes, plan, told);
    tri_all_to_all_v(hosts->group, (struct tri_where){frame->pass.phase, TRI_KIND_META}, told,
                     plan->send_rows, heard, plan->recv_rows, words.width, TRI_I32);
    struct relaying relaying = {routed, plan, words, heard, next};
    run_once(routed, hosts->sources, deal_slots, &relaying);
    tri_arena_rewind(frame->arena, mark);
    return plan;
}

/* ---- moving rows ----------------------------------------------------------------------------- */

void *tri_relay_send(const struct tri_routed *routed, const struct tri_frame *frame,
                     const struct tri_relay_plan *plan, enum tri_phase phase, const void *stream)
{
    const struct tri_context *context = routed->base.context;
    void *own = tri_exchange_take(routed->base.exchange, 0, context, plan->ends.slots);
    void *rows = tri_exchange_take(routed->base.exchange, 1, context, plan->rows);
    tri_routed_fill(routed, frame, &plan->ends, stream, own);
    tri_all_to_all_v(routed->peers.homes, (struct tri_where){phase, TRI_KIND_MOE}, own,
                     plan->send_rows, rows, plan->recv_rows, hidden_of(routed), context->dt);
    return rows;
}

static void add_up(const struct tri_routed *routed, const struct tri_relay_plan *plan,
                   const void *slots, const float *weight, void *sums)
{
    const struct tri_context *context = routed->base.context;
    const struct tri_combine_args args = {
        .rows = slots,
        .index = plan->slot_of,
        .weight = weight,
        .y = sums,
        .n = plan->rows,
        .k = routes_of(routed),
        .width = hidden_of(routed),
        .dt = context->dt,
    };
    context->kernels->combine_rows(context->kernels, &args);
}

void tri_relay_return(const struct tri_routed *routed, const struct tri_relay_plan *plan,
                      enum tri_phase phase, const void *slots, const float *weight, void *results)
{
    const struct tri_context *context = routed->base.context;
    int64_t n = plan->copy_of ? plan->route->slots : plan->rows;
    void *own = tri_exchange_take(routed->base.exchange, 0, context, n);
    if (plan->copy_of) {
        const struct tri_gather_args args = {
            .src = slots,
            .index = plan->copy_of,
            .dst = own,
            .n = n,
            .width = hidden_of(routed),
            .dt = context->dt,
        };
        context->kernels->gather_rows(context->kernels, &args);
    } else {
        add_up(routed, plan, slots, weight, own);
    }
    tri_all_to_all_v(routed->peers.homes, (struct tri_where){phase, TRI_KIND_MOE}, own,
                     plan->send_results, results, plan->recv_results, hidden_of(routed),
                     context->dt);
}

struct weights {
    const struct tri_relay_plan *plan;
    const float *from; /* [own rows, k] */
    float *to;         /* [own tokens, k] */
    int64_t k;
};

static void take_weights(void *state, int64_t begin, int64_t end)
{
    const struct weights *w = state;
    for (int64_t i = begin; i < end; i++) {
        int64_t row = w->plan->row_of[i];
        w->to[i] = row >= 0 ? w->from[row * w->k + i % w->k] : 0.0F;
    }
}

void tri_relay_return_weights(const struct tri_routed *routed, const struct tri_frame *frame,
                              const struct tri_relay_plan *plan, const float *of_rows,
                              float *dweight)
{
    int64_t k = routes_of(routed);
    size_t mark = tri_arena_mark(frame->arena);
    float *own = tri_frame_take_f32(frame, plan->ends.slots * k);
    tri_all_to_all_v(routed->peers.homes, (struct tri_where){TRI_PHASE_BACKWARD, TRI_KIND_MOE},
                     of_rows, plan->recv_rows, own, plan->send_rows, k, TRI_F32);
    struct weights state = {plan, own, dweight + plan->ends.own.begin * k, k};
    run_once(routed, tri_range_size(plan->ends.own) * k, take_weights, &state);
    tri_arena_rewind(frame->arena, mark);
}
