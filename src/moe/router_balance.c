/* Losses that keep the experts busy alike.
 *
 * Balance loss of a window of T tokens: E * sum_e f_e P_e, f_e = count_e / (T k) (a constant to
 * the gradient), P_e the mean probability; 1 at perfect balance. A window counts T / global
 * tokens, so
 *   d / d prob[t, e] = E f_e / global tokens.
 * Sigmoids have any sum: there the probabilities are those divided by their token's sum.
 * Scope model takes counts and probabilities over the tokens of all L layers, and does not divide
 * by k (Hugging Face's load_balancing_loss_func):
 *   d / d prob[t, e] = E count_e / (L T) / (L global tokens). */
#include "moe/router_kind.h"

#include "base/memory.h"

#include <string.h>

static int64_t windows_of(const struct tri_config *config, int64_t rows)
{
    return config->moe.aux_window == TRI_WINDOW_SEQUENCE ? rows : 1;
}

/* There are no probabilities to be measured. */
static bool is_blind(const struct tri_router *router)
{
    return router->config->moe.router->blind;
}

static size_t aligned(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

size_t tri_aux_model_bytes(const struct tri_config *config, int64_t rows)
{
    int64_t cells = windows_of(config, rows) * config->moe.num_experts;
    return 2 * aligned((size_t)cells * sizeof(double));
}

void tri_aux_model_begin(const struct tri_config *config, int64_t rows, void *block,
                         struct tri_aux_model *model)
{
    size_t bytes = tri_aux_model_bytes(config, rows);
    memset(block, 0, bytes);
    *model = (struct tri_aux_model){.rows = windows_of(config, rows),
                                    .experts = config->moe.num_experts,
                                    .counts = block,
                                    .probs = (double *)((char *)block + bytes / 2)};
    for (int64_t layer = 0; layer < config->model.num_layers; layer++) {
        model->layers += tri_config_layer_is_moe(config, layer) ? 1 : 0;
    }
}

/* counts, probs [experts] += those of tokens [begin, begin + n). */
static void add_tokens(const struct tri_router_rules *rules, const struct tri_routes *routes,
                       int64_t choices, struct tri_range tokens, double *counts, double *probs)
{
    for (int64_t t = tokens.begin; t < tokens.end; t++) {
        const float *row = routes->probs + t * rules->experts;
        const double each = rules->sigmoid ? 1 / tri_router_sum(rules, row) : 1;
        for (int64_t e = 0; e < rules->experts; e++) {
            probs[e] += (double)row[e] * each;
        }
        for (int64_t j = 0; j < choices; j++) {
            counts[routes->chosen[t * rules->k + j]] += 1;
        }
    }
}

static double dot(const double *a, const double *b, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        sum += a[i] * b[i];
    }
    return sum;
}

static void measure_model(const struct tri_router *router, const struct tri_router_call *call,
                          const struct tri_routes *routes, struct tri_aux_model *model)
{
    const struct tri_router_rules *rules = &router->rules;
    const int64_t windows = windows_of(router->config, call->rows);
    const int64_t length =
        router->config->moe.aux_window == TRI_WINDOW_SEQUENCE ? call->seq : call->rows * call->seq;
    TRI_REQUIRE(model->rows == windows && model->experts == rules->experts);
    model->tokens += (double)length;
    for (int64_t w = 0; w < windows && !is_blind(router); w++) {
        struct tri_range tokens = {w * length, (w + 1) * length};
        add_tokens(rules, routes, rules->k, tokens, model->counts + w * rules->experts,
                   model->probs + w * rules->experts);
    }
}

/* A layer's windows, one after the other; step exchanges (tokens, counts, sums of
 * probabilities). */
static void measure_layer(struct tri_router *router, const struct tri_router_call *call,
                          struct tri_routes *routes)
{
    const struct tri_router_rules *rules = &router->rules;
    const enum tri_window kind = router->config->moe.aux_window;
    const int64_t experts = rules->experts;
    const int64_t windows = windows_of(router->config, call->rows);
    const int64_t length = kind == TRI_WINDOW_SEQUENCE ? call->seq : call->rows * call->seq;
    struct tri_router_scratch *scratch = &router->balance;
    double *sums = tri_grow(TRI_MEMORY_OTHER, &scratch->block, &scratch->capacity,
                            (size_t)(1 + 2 * experts) * sizeof(double));
    double *counts = sums + 1;
    double *probs = counts + experts;
    for (int64_t w = 0; w < windows; w++) {
        memset(sums, 0, (size_t)(1 + 2 * experts) * sizeof(double));
        sums[0] = (double)length;
        struct tri_range tokens = {w * length, (w + 1) * length};
        if (!is_blind(router)) {
            add_tokens(rules, routes, rules->balance_choices, tokens, counts, probs);
        }
        bool booked = true;
        if (kind == TRI_WINDOW_STEP) {
            struct tri_group *group = tri_mesh_group(router->mesh, TRI_ON_EXPERT | TRI_ON_DATA);
            tri_all_reduce_sum(group, (struct tri_where){call->phase, TRI_KIND_META}, sums,
                               1 + 2 * experts, TRI_F64);
            booked = tri_group_rank(group) == 0;
        }
        const double routed = sums[0] * (double)rules->balance_choices;
        float *fraction = routes->fraction + w * experts;
        for (int64_t e = 0; e < experts; e++) {
            fraction[e] = routed > 0 ? (float)(counts[e] / routed) : 0;
        }
        if (booked && routed > 0) {
            tri_exact_add(&routes->aux_terms, (double)experts * dot(counts, probs, experts) /
                                                  routed / (double)call->global_tokens);
        }
    }
}

void tri_router_measure_z(const struct tri_router *router, const struct tri_router_call *call,
                          struct tri_routes *routes)
{
    routes->z_terms = (struct tri_exact){0};
    for (int64_t t = 0; t < call->rows * call->seq && !is_blind(router); t++) {
        double lse = (double)routes->lse[t];
        tri_exact_add(&routes->z_terms, lse * lse / (double)call->global_tokens);
    }
    routes->z_loss = tri_exact_get(&routes->z_terms);
}

void tri_router_measure_balance(struct tri_router *router, const struct tri_router_call *call,
                                struct tri_routes *routes, struct tri_aux_model *model)
{
    const struct tri_router_rules *rules = &router->rules;
    const int64_t tokens = call->rows * call->seq;
    memset(routes->load, 0, (size_t)rules->experts * sizeof(*routes->load));
    for (int64_t r = 0; r < tokens * rules->k; r++) {
        routes->load[routes->chosen[r]]++;
    }
    routes->aux_terms = (struct tri_exact){0};
    tri_router_measure_z(router, call, routes);
    if (router->config->moe.aux_scope == TRI_AUX_LAYER) {
        TRI_REQUIRE(!model);
        measure_layer(router, call, routes);
    } else if (model) {
        measure_model(router, call, routes, model);
    }
    routes->aux_loss = tri_exact_get(&routes->aux_terms);
}

double tri_aux_model_finish(struct tri_router *router, struct tri_aux_model *model,
                            enum tri_phase phase, int64_t global_tokens)
{
    const int64_t cells = model->rows * model->experts;
    if (router->config->moe.aux_window == TRI_WINDOW_STEP) {
        const struct tri_where where = {phase, TRI_KIND_META};
        struct tri_group *group = tri_mesh_group(router->mesh, TRI_ON_EXPERT | TRI_ON_DATA);
        tri_all_reduce_sum(group, where, &model->tokens, 1, TRI_F64);
        tri_all_reduce_sum(group, where, model->counts, cells, TRI_F64);
        tri_all_reduce_sum(group, where, model->probs, cells, TRI_F64);
        if (tri_group_rank(group) != 0) {
            return 0;
        }
    }
    if (!(model->tokens > 0)) {
        return 0;
    }
    const double weight = model->tokens / (double)model->layers / (double)global_tokens;
    return weight * (double)model->experts * dot(model->counts, model->probs, cells) /
           (model->tokens * model->tokens);
}

const float *tri_router_balance_slopes(struct tri_router *router,
                                       const struct tri_router_call *call,
                                       const struct tri_routes *routes,
                                       const struct tri_aux_model *model)
{
    const struct tri_config_moe *moe = &router->config->moe;
    const int64_t cells = windows_of(router->config, call->rows) * router->rules.experts;
    if (!(moe->aux_loss > 0) || call->rows == 0) {
        return NULL;
    }
    struct tri_router_scratch *scratch = &router->slopes;
    float *slopes = tri_grow(TRI_MEMORY_OTHER, &scratch->block, &scratch->capacity,
                             (size_t)cells * sizeof(float));
    double scale = moe->aux_loss * (double)router->rules.experts / (double)call->global_tokens;
    if (moe->aux_scope == TRI_AUX_MODEL) {
        TRI_REQUIRE(model && model->tokens > 0);
        scale /= model->tokens * (double)model->layers;
    }
    for (int64_t i = 0; i < cells; i++) {
        double share =
            moe->aux_scope == TRI_AUX_MODEL ? model->counts[i] : (double)routes->fraction[i];
        slopes[i] = (float)(scale * share);
    }
    return slopes;
}

void tri_router_update_bias(float *bias, const int64_t *load, int64_t experts, double rate)
{
    int64_t total = 0;
    for (int64_t e = 0; e < experts; e++) {
        total += load[e];
    }
    for (int64_t e = 0; e < experts; e++) {
        int64_t excess = load[e] * experts - total;
        if (excess != 0) {
            bias[e] = (float)((double)bias[e] + (excess < 0 ? rate : -rate));
        }
    }
}
