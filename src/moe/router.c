/* The router: choice, balance, queues, weights, in this order; and the way back. Each of them is
 * the config's router's. */
#include "moe/router_kind.h"

#include "base/memory.h"

#include <float.h>

struct tri_router *tri_router_create(const struct tri_config *config, const struct tri_mesh *mesh,
                                     int threads)
{
    const struct tri_config_moe *moe = &config->moe;
    struct tri_router *router = tri_alloc(TRI_MEMORY_OTHER, sizeof(*router));
    TRI_REQUIRE(moe->num_experts > 0 && moe->top_k > 0 && moe->top_k <= moe->num_experts);
    TRI_REQUIRE(moe->router->top_k == 0 || moe->router->top_k == moe->top_k);
    router->config = config;
    router->mesh = mesh;
    router->threads = threads;
    router->ops = moe->router->ops;
    router->rules = (struct tri_router_rules){
        .experts = moe->num_experts,
        .k = tri_config_routes(moe),
        .share = moe->normalize_top_k ? TRI_SHARE_OF_CHOSEN : TRI_SHARE_NONE,
        .share_floor = FLT_MIN,
        .scaling = 1,
        .balance_choices = moe->top_k,
        .policy = moe->drop_policy,
    };
    if (router->ops->set_rules) {
        router->ops->set_rules(moe, &router->rules);
    }
    return router;
}

void tri_router_destroy(struct tri_router *router)
{
    if (!router) {
        return;
    }
    tri_free(router->queue.block);
    tri_free(router->gather.block);
    tri_free(router->entries.block);
    tri_free(router->balance.block);
    tri_free(router->slopes.block);
    tri_free(router);
}

static void *take(char *block, size_t *used, size_t bytes)
{
    void *array = block ? block + *used : NULL;
    *used += (bytes + 63) / 64 * 64;
    return array;
}

/* Hands out the arrays of routes from block (NULL: only counts). Returns the bytes. */
static size_t place(const struct tri_config *config, int64_t rows, int64_t seq, char *block,
                    struct tri_routes *routes)
{
    const size_t tokens = (size_t)(rows * seq);
    const size_t experts = (size_t)config->moe.num_experts;
    const size_t chosen = tokens * (size_t)tri_config_choices(&config->moe);
    const bool sharpens = config->moe.sharpen_step > 0;
    const bool apart = config->moe.router->apart;
    const size_t windows = config->moe.aux_window == TRI_WINDOW_SEQUENCE ? (size_t)rows : 1;
    size_t used = 0;
    *routes = (struct tri_routes){0};
    routes->chosen = take(block, &used, chosen * sizeof(*routes->chosen));
    routes->expert = sharpens ? routes->chosen : take(block, &used, chosen * sizeof(int32_t));
    routes->weight = take(block, &used, (sharpens ? tokens * experts : chosen) * sizeof(float));
    routes->probs = take(block, &used, tokens * experts * sizeof(*routes->probs));
    routes->lse = take(block, &used, tokens * sizeof(*routes->lse));
    routes->gap = take(block, &used, tokens * sizeof(*routes->gap));
    routes->fraction = take(block, &used, windows * experts * sizeof(*routes->fraction));
    routes->load = take(block, &used, experts * sizeof(*routes->load));
    if (apart) {
        routes->back = take(block, &used, chosen * sizeof(*routes->back));
        routes->logits = take(block, &used, tokens * experts * sizeof(*routes->logits));
    }
    return used;
}

size_t tri_routes_bytes(const struct tri_config *config, int64_t rows, int64_t seq)
{
    struct tri_routes none;
    return place(config, rows, seq, NULL, &none);
}

void tri_routes_place(const struct tri_config *config, int64_t rows, int64_t seq, void *block,
                      struct tri_routes *routes)
{
    (void)place(config, rows, seq, block, routes);
}

void tri_router_forward(struct tri_router *router, const struct tri_router_call *call,
                        struct tri_routes *routes, struct tri_aux_model *model)
{
    router->ops->choose(router, call, routes);
    router->ops->measure(router, call, routes, model);
    router->ops->fill(router, call, routes);
    router->ops->weigh(router, call, routes);
}

void tri_router_backward(struct tri_router *router, const struct tri_router_call *call,
                         const struct tri_routes *routes, const struct tri_aux_model *model,
                         struct tri_range own, const float *dweight, float *dlogits)
{
    TRI_REQUIRE(own.begin >= 0 && own.end <= call->rows * call->seq);
    router->ops->backward(router, call, routes, model, own, dweight, dlogits);
}
