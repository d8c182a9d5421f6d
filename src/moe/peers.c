#include "moe/peers.h"

#include "model/stream.h"
#include "moe/hosts.h"
#include "moe/router_kind.h"
#include "shard/rows.h"

#include <math.h>

/* The tokens of one replica's micro-batch. */
struct batch {
    int64_t first; /* place of its first token in the global batch */
    int64_t rows, seq;
    int64_t capacity; /* routes that an expert takes of a window; 0: all */
    int64_t window;   /* tokens of a window */
};

/* Routes of tokens [begin, end) of the batch to one expert. */
static int64_t routes_of(const struct tri_config_moe *moe, const struct batch *batch,
                         struct tri_range tokens, int64_t expert)
{
    const struct tri_places places = {
        .tokens = {batch->first + tokens.begin, batch->first + tokens.end},
        .seq = batch->seq,
        .capacity = batch->capacity,
    };
    return moe->router->ops->routes_by_place(moe, &places, expert);
}

/* Those of them that find room: each window's first ones. */
static int64_t kept_of(const struct tri_config_moe *moe, const struct batch *batch,
                       struct tri_range tokens, int64_t expert)
{
    if (batch->capacity == 0) {
        return routes_of(moe, batch, tokens, expert);
    }
    int64_t kept = 0;
    for (int64_t at = tokens.begin / batch->window * batch->window; at < tokens.end;
         at += batch->window) {
        struct tri_range part =
            tri_range_intersect(tokens, (struct tri_range){at, at + batch->window});
        int64_t before = routes_of(moe, batch, (struct tri_range){at, part.begin}, expert);
        int64_t after = routes_of(moe, batch, (struct tri_range){at, part.end}, expert);
        kept += (after < batch->capacity ? after : batch->capacity) -
                (before < batch->capacity ? before : batch->capacity);
    }
    return kept;
}

static struct batch batch_of(const struct tri_context *context, const struct tri_pass *pass,
                             int replica)
{
    const struct tri_config *config = context->config;
    int replicas = tri_group_size(tri_mesh_group(context->mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    struct tri_range rows = tri_rows_micro(pass->batch_rows, replicas, replica,
                                           config->train.micro_batch, pass->micro_step);
    struct batch batch = {.first = rows.begin * pass->seq,
                          .rows = tri_range_size(rows),
                          .seq = pass->seq,
                          .window = pass->seq};
    if (config->moe.capacity_window != TRI_WINDOW_SEQUENCE) {
        batch.window = batch.rows * pass->seq;
    }
    if (config->moe.capacity_window != TRI_WINDOW_STEP && batch.window > 0) {
        batch.capacity = tri_router_capacity(config, pass->training, batch.window);
    }
    return batch;
}

/* How many more than `sum` routes these tokens may have for so many experts. */
static int64_t excess_of(const struct tri_config_moe *moe, const struct batch *batch,
                         struct tri_range tokens, double load, int64_t experts, int64_t sum)
{
    int64_t most = tri_range_size(tokens) * tri_config_routes(moe);
    if (batch->capacity > 0) {
        int64_t windows = batch->rows * batch->seq / batch->window;
        int64_t room = windows * batch->capacity * experts;
        most = room < most ? room : most;
    }
    double wanted = ceil((double)sum * load);
    int64_t target = wanted < (double)most ? (int64_t)wanted : most;
    return target > sum ? target - sum : 0;
}

/* Fills [experts] with what comes from these tokens to a home. Returns the sum. */
static int64_t count_home(const struct tri_peers *peers, const struct batch *batch,
                          struct tri_range tokens, int64_t home, int64_t *received)
{
    const struct tri_config_moe *moe = &peers->context->config->moe;
    int64_t first = home / peers->holders * peers->experts;
    int64_t sum = 0;
    for (int64_t e = 0; e < peers->experts; e++) {
        received[e] = kept_of(moe, batch, tokens, first + e);
        sum += received[e];
    }
    return sum;
}

static void count_part(const struct tri_peers *peers, const struct batch *batch,
                       struct tri_range tokens, double load, int64_t *received)
{
    const struct tri_config_moe *moe = &peers->context->config->moe;
    int64_t sum = count_home(peers, batch, tokens, tri_group_rank(peers->homes), received);
    received[0] += excess_of(moe, batch, tokens, load, peers->experts, sum);
}

/* The tokens of source s, or a tensor part of them. */
static struct batch source_of(const struct tri_peers *peers, const struct tri_pass *pass, int s,
                              int part, struct tri_range *tokens)
{
    const struct tri_mesh *mesh = peers->context->mesh;
    int tensor = tri_mesh_grid(mesh);
    bool whole = peers->homes == tri_mesh_group(mesh, TRI_ON_GRID | TRI_ON_EXPERT) && tensor > 1;
    int expert = whole ? s / tensor : s;
    int replica = expert + mesh->size[TRI_AXIS_EXPERT] * mesh->coord[TRI_AXIS_DATA];
    struct batch batch = batch_of(peers->context, pass, replica);
    *tokens = (struct tri_range){0, batch.rows * batch.seq};
    if (whole || peers->parts > 1) {
        *tokens = tri_grid_part(mesh, batch.rows, batch.seq, whole ? s % tensor : part);
    }
    return batch;
}

void tri_peers_counts(const struct tri_peers *peers, const struct tri_pass *pass, double load,
                      int64_t *received)
{
    TRI_REQUIRE(peers->context->config->moe.router->ops->routes_by_place);
    for (int s = 0; s < tri_group_size(peers->homes); s++) {
        for (int p = 0; p < peers->parts; p++) {
            struct tri_range tokens;
            struct batch batch = source_of(peers, pass, s, p, &tokens);
            count_part(peers, &batch, tokens, load,
                       received + (s * peers->parts + p) * peers->experts);
        }
    }
}

/* ---- relays ---------------------------------------------------------------------------------- */

static bool goes_to_host(const struct tri_peers *peers, const struct batch *batch, int64_t token)
{
    const struct tri_config_moe *moe = &peers->context->config->moe;
    const struct tri_hosts *hosts = peers->hosts;
    for (int i = hosts->begin[hosts->mine]; i < hosts->begin[hosts->mine + 1]; i++) {
        int64_t first = hosts->member[i] * peers->experts;
        for (int64_t e = first; e < first + peers->experts; e++) {
            if (kept_of(moe, batch, (struct tri_range){token, token + 1}, e) > 0) {
                return true;
            }
        }
    }
    return false;
}

static bool drops_some(const struct tri_peers *peers, const struct batch *batch)
{
    const struct tri_config_moe *moe = &peers->context->config->moe;
    const struct tri_range all = {0, batch->rows * batch->seq};
    bool drops = false;
    for (int64_t e = 0; e < moe->num_experts && !drops; e++) {
        drops = kept_of(moe, batch, all, e) < routes_of(moe, batch, all, e);
    }
    return drops;
}

/* Tokens after which choices by place begin again, and with them, where some are dropped, windows;
 * else all. */
static int64_t cycle_of(const struct tri_peers *peers, const struct batch *batch, int64_t tokens)
{
    const struct tri_config_moe *moe = &peers->context->config->moe;
    int64_t cycle = moe->num_experts;
    if (moe->router->picks) {
        return tokens;
    }
    if (batch->capacity > 0 && drops_some(peers, batch)) {
        cycle = batch->window;
        while (cycle < tokens && cycle % moe->num_experts != 0) {
            cycle += batch->window;
        }
    }
    return cycle < tokens ? cycle : tokens;
}

/* Those of the tokens with routes to this host. */
static int64_t count_tokens(const struct tri_peers *peers, const struct batch *batch,
                            struct tri_range tokens)
{
    int64_t n = tri_range_size(tokens);
    int64_t cycle = cycle_of(peers, batch, n);
    int64_t whole = 0, rest = 0;
    for (int64_t i = 0; i < cycle; i++) {
        bool goes = goes_to_host(peers, batch, tokens.begin + i);
        whole += goes;
        rest += goes && i < n % cycle;
    }
    return cycle > 0 ? n / cycle * whole + rest : 0;
}

void tri_peers_told(const struct tri_peers *peers, int64_t tokens, double load, int64_t *rows)
{
    int64_t hosts = peers->hosts->hosts;
    int64_t k = tri_config_routes(&peers->context->config->moe);
    int64_t left = tokens * (k < hosts ? k : hosts);
    for (int64_t host = 0; host < hosts; host++) {
        left -= rows[host];
    }
    for (int64_t host = 0; host < hosts; host++) {
        double wanted = ceil((double)rows[host] * load);
        int64_t most = tokens - rows[host] < left ? tokens : rows[host] + left;
        int64_t target = wanted < (double)most ? (int64_t)wanted : most;
        left -= target - rows[host];
        rows[host] = target;
    }
}

void tri_peers_passed(const struct tri_peers *peers, const struct tri_pass *pass, double load,
                      int64_t *passed, int64_t *heard)
{
    const struct tri_config_moe *moe = &peers->context->config->moe;
    const struct tri_hosts *hosts = peers->hosts;
    int64_t here = tri_hosts_homes(hosts, hosts->mine);
    int part = peers->parts > 1 ? tri_mesh_grid_rank(peers->context->mesh) : 0;
    for (int i = 0; i < hosts->sources; i++) {
        struct tri_range tokens;
        struct batch batch = source_of(peers, pass, hosts->source[i], part, &tokens);
        int64_t *rows = passed + (i * here * peers->parts + part) * peers->experts;
        int64_t sum = 0;
        for (int64_t h = 0; h < here; h++) {
            sum += count_home(peers, &batch, tokens, hosts->member[hosts->begin[hosts->mine] + h],
                              rows + h * peers->parts * peers->experts);
        }
        rows[0] += excess_of(moe, &batch, tokens, load, here * peers->experts, sum);
        int64_t count = count_tokens(peers, &batch, tokens);
        double wanted = ceil((double)count * load);
        int64_t most = tri_range_size(tokens);
        heard[i] = wanted < (double)most ? (int64_t)wanted : most;
    }
}
