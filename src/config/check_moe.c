/* The section moe: what makes no sense together. */
#include "config/schema.h"
#include "config/value.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

const struct tri_schedule_kind *tri_config_schedule_for(const struct tri_config *config)
{
    const struct tri_strategy *const *list = config->known->schedules;
    for (; *list; list++) {
        const struct tri_schedule_kind *kind = (const struct tri_schedule_kind *)*list;
        if (kind->dense == config->moe.router->dense) {
            return kind;
        }
    }
    return (const struct tri_schedule_kind *)config->known->schedules[0];
}

static enum tri_status check_moe_layers(const struct tri_config *config, struct tri_error *error)
{
    const struct tri_config_moe *moe = &config->moe;
    int64_t blocks = config->model.num_layers;
    if (moe->num_layers == 0 && moe->every > blocks) {
        return tri_key_refuse(config, error, "moe.every", "model.num_layers",
                              "found %" PRId64 ", expected at most model.num_layers (%" PRId64
                              "): no layer would be MoE",
                              moe->every, blocks);
    }
    if (moe->num_layers > 0 && moe->every != 1) {
        return tri_key_refuse(config, error, "moe.every", "moe.layers",
                              "found %" PRId64 ", expected 1 or nothing beside moe.layers",
                              moe->every);
    }
    for (int64_t i = 0; i < moe->num_layers; i++) {
        if (moe->layers[i] >= blocks) {
            return tri_key_refuse(config, error, "moe.layers", "model.num_layers",
                                  "found layer %" PRId64
                                  ", expected less than model.num_layers (%" PRId64
                                  "): layers are counted from 0",
                                  moe->layers[i], blocks);
        }
        if (i > 0 && moe->layers[i] <= moe->layers[i - 1]) {
            return tri_key_refuse(config, error, "moe.layers", NULL,
                                  "found %" PRId64 " after %" PRId64 ", expected rising numbers",
                                  moe->layers[i], moe->layers[i - 1]);
        }
    }
    return TRI_OK;
}

/* A router that drops nothing is not told how to. */
static enum tri_status check_dropless(const struct tri_config *config, struct tri_error *error)
{
    const struct tri_config_moe *moe = &config->moe;
    const char *name = moe->router->strategy.name;
    bool trained = moe->capacity_factor > 0;
    if (!moe->router->dropless) {
        return TRI_OK;
    }
    if (trained || moe->eval_capacity_factor > 0) {
        return tri_key_refuse(config, error,
                              trained ? "moe.capacity_factor" : "moe.eval_capacity_factor",
                              "moe.router", "found %g, expected none: router %s drops no token",
                              trained ? moe->capacity_factor : moe->eval_capacity_factor, name);
    }
    return TRI_OK;
}

static enum tri_status check_router(const struct tri_config *config, struct tri_error *error)
{
    const struct tri_config_moe *moe = &config->moe;
    const struct tri_router_kind *router = moe->router;
    const char *name = router->strategy.name;
    if (moe->top_k > moe->num_experts) {
        return tri_key_refuse(config, error, "moe.top_k", "moe.num_experts",
                              "found %" PRId64 ", expected at most num_experts (%" PRId64 ")",
                              moe->top_k, moe->num_experts);
    }
    if (router->top_k != 0 && moe->top_k != router->top_k) {
        return tri_key_refuse(config, error, "moe.top_k", "moe.router",
                              "found %" PRId64 ", expected %" PRId64 ": router is %s", moe->top_k,
                              router->top_k, name);
    }
    if (moe->aux_scope == TRI_AUX_MODEL && router->layer_scope) {
        return tri_key_refuse(config, error, "moe.aux_scope", "moe.router",
                              "found model, expected layer: router %s balances each layer", name);
    }
    if (moe->bias_balancing > 0 && !router->biased) {
        return tri_key_refuse(config, error, "moe.bias_balancing", "moe.router",
                              "found %g, expected 0: router %s chooses by no bias",
                              moe->bias_balancing, name);
    }
    if (moe->schedule->dense != router->dense) {
        return tri_key_refuse(config, error, "moe.schedule", "moe.router",
                              "found %s, expected %s: router is %s", moe->schedule->strategy.name,
                              tri_config_schedule_for(config)->strategy.name, name);
    }
    if (moe->schedule->drops && !config->train.duplicate_token_dropping) {
        return tri_key_refuse(config, error, "train.duplicate_token_dropping", "moe.schedule",
                              "found false, expected true: schedule %s sends no duplicates",
                              moe->schedule->strategy.name);
    }
    TRI_TRY(check_dropless(config, error));
    if (router->picks && moe->capacity_window != TRI_WINDOW_SEQUENCE) {
        return tri_key_refuse(config, error, "moe.capacity_window", "moe.router",
                              "found %s, expected sequence: router %s has experts choose in each "
                              "row",
                              moe->capacity_window == TRI_WINDOW_STEP ? "step" : "rank", name);
    }
    if (moe->shared_gate && moe->shared_intermediate_size == 0) {
        return tri_key_refuse(config, error, "moe.shared_gate", NULL,
                              "found true, expected a shared_intermediate_size with it");
    }
    return TRI_OK;
}

/* What moe.score, moe.groups and moe.routed_scaling ask of each other and of the router. */
static enum tri_status check_scores(const struct tri_config *config, struct tri_error *error)
{
    const struct tri_config_moe *moe = &config->moe;
    bool sigmoid = moe->score == TRI_SCORE_SIGMOID;
    int64_t open = moe->groups_top * (moe->num_experts / moe->groups);
    if (!moe->router->scored && (sigmoid || moe->groups > 1 || moe->routed_scaling != 1.0)) {
        const char *key = sigmoid           ? "moe.score"
                          : moe->groups > 1 ? "moe.groups"
                                            : "moe.routed_scaling";
        return tri_key_refuse(config, error, key, "moe.router",
                              "expected its default: router %s scores and weighs in its own way",
                              moe->router->strategy.name);
    }
    if (sigmoid && moe->z_loss > 0) {
        return tri_key_refuse(
            config, error, "moe.z_loss", "moe.score",
            "found %g, expected 0: it keeps the sum of a softmax small, and score "
            "is sigmoid",
            moe->z_loss);
    }
    if (moe->groups > 1 && (moe->num_experts % moe->groups != 0 || open == moe->groups_top)) {
        return tri_key_refuse(config, error, "moe.groups", "moe.num_experts",
                              "found %" PRId64 ", expected a divisor of num_experts (%" PRId64
                              ") that leaves two experts or more to a group",
                              moe->groups, moe->num_experts);
    }
    if (moe->groups_top > moe->groups || open < moe->top_k) {
        return tri_key_refuse(config, error, "moe.groups_top", "moe.groups",
                              "found %" PRId64 ", expected at most groups (%" PRId64
                              "), and top_k (%" PRId64 ") experts or more in so many groups",
                              moe->groups_top, moe->groups, moe->top_k);
    }
    return TRI_OK;
}

/* ---- keys of other routers ------------------------------------------------------------------- */

static bool lists(const struct tri_strategy *strategy, const struct tri_key *key)
{
    for (size_t i = 0; strategy->keys && strategy->keys[i]; i++) {
        if (strcmp(strategy->keys[i], key->name) == 0) {
            return true;
        }
    }
    return false;
}

/* The first router that says that it reads the key; NULL: whoever reads it does not say so. */
static const struct tri_strategy *reader_of(const struct tri_key *key,
                                            const struct tri_strategies *known)
{
    for (size_t i = 0; known->routers[i]; i++) {
        if (lists(known->routers[i], key)) {
            return known->routers[i];
        }
    }
    return NULL;
}

bool tri_key_is_unread(const struct tri_key *key, const struct tri_router_kind *router,
                       const struct tri_strategies *known)
{
    return reader_of(key, known) != NULL && !lists(&router->strategy, key);
}

static enum tri_status refuse_unread(const struct tri_config *config,
                                     const struct tri_config *initial, const struct tri_key *key,
                                     struct tri_error *error)
{
    char *found = tri_value_to_text(key, tri_key_view(key, config));
    char *expected = tri_value_to_text(key, tri_key_view(key, initial));
    enum tri_status status = tri_key_refuse(
        config, error, key->name, "moe.router",
        "found %s, expected %s: router %s does not read it, as %s does", found, expected,
        config->moe.router->strategy.name, reader_of(key, config->known)->name);
    free(found);
    free(expected);
    return status;
}

/* What is not the default, and would change nothing. */
static enum tri_status check_read(const struct tri_config *config, struct tri_error *error)
{
    struct tri_config initial;
    tri_config_init(config->known, &initial);
    for (size_t i = 0; i < tri_keys_count; i++) {
        const struct tri_key *key = &tri_keys[i];
        if (!key->follows && tri_key_is_unread(key, config->moe.router, config->known) &&
            memcmp(tri_key_view(key, config), tri_key_view(key, &initial), tri_key_bytes(key)) !=
                0) {
            return refuse_unread(config, &initial, key, error);
        }
    }
    return TRI_OK;
}

/* ---- the whole ------------------------------------------------------------------------------- */

enum tri_status tri_config_check_moe(const struct tri_config *config, struct tri_error *error)
{
    TRI_TRY(check_moe_layers(config, error));
    TRI_TRY(check_router(config, error));
    TRI_TRY(check_scores(config, error));
    return check_read(config, error);
}

int64_t tri_config_routes(const struct tri_config_moe *moe)
{
    return moe->router->dense ? 0 : tri_config_visits(moe);
}

int64_t tri_config_choices(const struct tri_config_moe *moe)
{
    return moe->sharpen_step > 0 ? moe->top_k : tri_config_routes(moe);
}

bool tri_config_is_sharp(const struct tri_config_moe *moe, int64_t step)
{
    return moe->sharpen_step > 0 && step >= moe->sharpen_step;
}

int64_t tri_config_visits(const struct tri_config_moe *moe)
{
    return moe->router->dense || moe->router->picks ? moe->num_experts : moe->top_k;
}
