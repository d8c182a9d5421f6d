#include "moe/peers.h"

#include "model/stream.h"
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
    int64_t all = batch->rows * batch->seq;
    for (int64_t at = 0; at < all; at += batch->window) {
        struct tri_range part =
            tri_range_intersect(tokens, (struct tri_range){at, at + batch->window});
        if (tri_range_size(part) > 0) {
            int64_t before = routes_of(moe, batch, (struct tri_range){at, part.begin}, expert);
            int64_t after = routes_of(moe, batch, (struct tri_range){at, part.end}, expert);
            kept += (after < batch->capacity ? after : batch->capacity) -
                    (before < batch->capacity ? before : batch->capacity);
        }
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

/* Fills [experts] with what comes from these tokens. */
static void count_part(const struct tri_peers *peers, const struct batch *batch,
                       struct tri_range tokens, double load, int64_t *received)
{
    const struct tri_config_moe *moe = &peers->context->config->moe;
    int64_t first = tri_group_rank(peers->homes) / peers->holders * peers->experts;
    int64_t sum = 0;
    for (int64_t e = 0; e < peers->experts; e++) {
        received[e] = kept_of(moe, batch, tokens, first + e);
        sum += received[e];
    }
    int64_t most = tri_range_size(tokens) * tri_config_routes(moe);
    if (batch->capacity > 0) {
        int64_t windows = batch->rows * batch->seq / batch->window;
        int64_t room = windows * batch->capacity * peers->experts;
        most = room < most ? room : most;
    }
    double wanted = ceil((double)sum * load);
    int64_t target = wanted < (double)most ? (int64_t)wanted : most;
    received[0] += target > sum ? target - sum : 0;
}

void tri_peers_counts(const struct tri_peers *peers, const struct tri_pass *pass, double load,
                      int64_t *received)
{
    const struct tri_mesh *mesh = peers->context->mesh;
    int tensor = tri_mesh_grid(mesh);
    bool whole = peers->homes == tri_mesh_group(mesh, TRI_ON_GRID | TRI_ON_EXPERT) && tensor > 1;
    int homes = tri_group_size(peers->homes);
    TRI_REQUIRE(peers->context->config->moe.router->ops->routes_by_place);
    for (int s = 0; s < homes; s++) {
        int expert = whole ? s / tensor : s;
        int replica = expert + mesh->size[TRI_AXIS_EXPERT] * mesh->coord[TRI_AXIS_DATA];
        struct batch batch = batch_of(peers->context, pass, replica);
        for (int p = 0; p < peers->parts; p++) {
            struct tri_range tokens = {0, batch.rows * batch.seq};
            if (whole || peers->parts > 1) {
                tokens = tri_grid_part(mesh, batch.rows, batch.seq, whole ? s % tensor : p);
            }
            count_part(peers, &batch, tokens, load,
                       received + (s * peers->parts + p) * peers->experts);
        }
    }
}
