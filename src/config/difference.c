/* What differs between two configs. */
#include "config/schema.h"
#include "config/value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Whether the key's values differ; both as text, for free(). */
static bool differs(const struct tri_key *key, const struct tri_config *a,
                    const struct tri_config *b, char **of_a, char **of_b)
{
    *of_a = tri_value_to_text(key, tri_key_view(key, a));
    *of_b = tri_value_to_text(key, tri_key_view(key, b));
    return strcmp(*of_a, *of_b) != 0;
}

static bool is_dense(const struct tri_config *a, const struct tri_config *b)
{
    return a->moe.num_experts == 0 && b->moe.num_experts == 0;
}

/* Whether the same layers are MoE, however that is said. */
static bool same_layers(const struct tri_config *a, const struct tri_config *b)
{
    bool same = a->model.num_layers == b->model.num_layers;
    for (int64_t i = 0; same && i < a->model.num_layers; i++) {
        same = tri_config_layer_is_moe(a, i) == tri_config_layer_is_moe(b, i);
    }
    return same;
}

/* Whether the same weights have low-rank pairs, in whatever order that is said. */
static bool same_targets(const struct tri_config *a, const struct tri_config *b)
{
    bool same = true;
    for (int i = 0; i < TRI_LORA_TARGETS; i++) {
        enum tri_lora_target target = (enum tri_lora_target)i;
        same = same && tri_config_lora_targets(a, target) == tri_config_lora_targets(b, target);
    }
    return same;
}

static bool all_moe(const struct tri_config *config)
{
    int64_t layer = 0;
    while (layer < config->model.num_layers && tri_config_layer_is_moe(config, layer)) {
        layer++;
    }
    return layer == config->model.num_layers;
}

static bool is_key(const struct tri_key *key, const char *name)
{
    return strcmp(key->name, name) == 0;
}

/* Whether neither model has a weight or a result that the key makes another one. */
static bool is_idle(const struct tri_key *key, const struct tri_config *a,
                    const struct tri_config *b)
{
    bool same_position = a->model.position == b->model.position;
    bool rope = a->model.position == TRI_POSITION_ROPE;
    if (is_key(key, "model.intermediate_size")) {
        return all_moe(a) && all_moe(b);
    }
    if (is_key(key, "model.max_position")) {
        return same_position && rope;
    }
    if (is_key(key, "model.rope_theta")) {
        return same_position && !rope;
    }
    if (strncmp(key->name, "model.rope_", strlen("model.rope_")) == 0 &&
        !is_key(key, "model.rope_scaling")) {
        return a->model.rope_scaling == TRI_ROPE_PLAIN && b->model.rope_scaling == TRI_ROPE_PLAIN;
    }
    if (is_key(key, "moe.every") || is_key(key, "moe.layers")) {
        return same_layers(a, b);
    }
    if (is_key(key, "train.lora.alpha") || is_key(key, "train.lora.targets")) {
        bool none = a->train.lora.rank == 0 && b->train.lora.rank == 0;
        return none || (is_key(key, "train.lora.targets") && same_targets(a, b));
    }
    return is_dense(a, b) && tri_key_in_section(key, "moe");
}

/* The key that it follows is the one that differs, and is to be named if it binds. */
static bool is_followed(const struct tri_key *key, const struct tri_config *a,
                        const struct tri_config *b)
{
    return tri_key_is_followed(key, a) && tri_key_is_followed(key, b);
}

/* Weights that nothing has trained yet don't know how they were drawn, nor rows. */
static bool binds(const struct tri_key *key, bool trained)
{
    bool of_weights = (tri_key_in_section(key, "model") || tri_key_in_section(key, "moe")) &&
                      !is_key(key, "model.init_std");
    return key->shapes && (trained || of_weights);
}

const char *tri_config_first_difference(const struct tri_config *a, const struct tri_config *b,
                                        bool trained, char *text, size_t text_bytes)
{
    const char *found = NULL;
    for (size_t i = 0; i < tri_keys_count; i++) {
        const struct tri_key *key = &tri_keys[i];
        bool followed = is_followed(key, a, b);
        char *of_a, *of_b;
        if (!binds(key, trained) || is_idle(key, a, b) || (found && followed)) {
            continue;
        }
        bool differ = differs(key, a, b, &of_a, &of_b);
        if (differ) {
            (void)snprintf(text, text_bytes, "%s against %s", of_a, of_b);
            found = key->name;
        }
        free(of_a);
        free(of_b);
        if (differ && !followed) {
            return found;
        }
    }
    return found;
}

/* ---- a config for weights that there are ----------------------------------------------------- */

static bool is_given(const struct tri_config *config, const char *name)
{
    return config->lines[tri_key_find(name)] != 0;
}

/* Two ways to say the same thing are given, or taken, together. */
static bool is_taken(const struct tri_key *key, const struct tri_config *config)
{
    if (is_key(key, "moe.every") || is_key(key, "moe.layers")) {
        return !is_given(config, "moe.every") && !is_given(config, "moe.layers");
    }
    return config->lines[key - tri_keys] == 0;
}

/* What else is of the weights: they were trained for so many experts a token, weighed so. */
static bool is_of_model(const struct tri_key *key)
{
    return binds(key, false) || is_key(key, "moe.top_k") || is_key(key, "moe.normalize_top_k");
}

/* Low-rank pairs, where the weights have some. */
static bool is_of_pairs(const struct tri_key *key, const struct tri_config *source)
{
    return strncmp(key->name, "train.lora.", strlen("train.lora.")) == 0 && key->shapes &&
           source->train.lora.rank > 0;
}

static enum tri_status check_adopted(const struct tri_config *config,
                                     const struct tri_config *source, const struct tri_key *key,
                                     struct tri_error *error)
{
    char *given, *wanted;
    enum tri_status status = TRI_OK;
    const char *adapter = config->train.lora.adapter;
    const char *path = is_of_pairs(key, source) && adapter[0] ? adapter : source->path;
    bool layers = is_key(key, "moe.every") || is_key(key, "moe.layers"); /* not the same ones */
    if (differs(key, config, source, &given, &wanted) || layers) {
        status = tri_config_refuse(config, error, key->name,
                                   "found %s, expected %s or nothing: so it is of the weights of "
                                   "%.300s",
                                   given, wanted, path);
    }
    free(given);
    free(wanted);
    return status;
}

/* Experts that are copies of a dense MLP. */
static enum tri_status check_upcycled(const struct tri_config *config,
                                      const struct tri_config *source, struct tri_error *error)
{
    const struct tri_config_moe *moe = &config->moe;
    int64_t size = source->model.intermediate_size;
    if (moe->intermediate_size != 0 && moe->intermediate_size != size) {
        return tri_config_refuse(config, error, "moe.intermediate_size",
                                 "found %lld, expected %lld or nothing: each expert is a copy of "
                                 "the MLP of %.300s",
                                 (long long)moe->intermediate_size, (long long)size, source->path);
    }
    if (moe->shared_intermediate_size > 0) {
        return tri_config_refuse(config, error, "moe.shared_intermediate_size",
                                 "found %lld, expected 0: %.300s has no such expert",
                                 (long long)moe->shared_intermediate_size, source->path);
    }
    if (config->train.lora.rank > 0) {
        return tri_config_refuse(config, error, "train.lora.rank",
                                 "found %lld, expected 0: the experts are copies of the MLP of "
                                 "%.300s, beside routers that pairs would leave as drawn, and an "
                                 "adapter would have no base",
                                 (long long)config->train.lora.rank, source->path);
    }
    return TRI_OK;
}

/* What a given value must agree with. A run that goes on may choose and weigh other experts. */
static bool is_binding(const struct tri_key *key, const struct tri_config *config,
                       const struct tri_config *source)
{
    bool goes_on = !config->init_from[0];
    bool of_experts = tri_key_in_section(key, "moe") && source->moe.num_experts == 0;
    if (is_of_pairs(key, source)) {
        return true;
    }
    return !is_idle(key, config, source) &&
           (goes_on ? binds(key, false) : is_of_model(key) && !of_experts);
}

/* What the weights' own router reads and this one does not is nobody's. */
static bool is_unread(const struct tri_key *key, const struct tri_config *config,
                      const struct tri_config *source)
{
    bool given = is_given(config, "moe.router");
    const struct tri_router_kind *router = given ? config->moe.router : source->moe.router;
    bool of_drops = is_key(key, "moe.capacity_factor") || is_key(key, "moe.eval_capacity_factor") ||
                    is_key(key, "moe.min_capacity") || is_key(key, "moe.capacity_window");
    return tri_key_is_unread(key, router, config->known) || (router->dropless && of_drops) ||
           (router->unbalanced && is_key(key, "moe.aux_loss"));
}

/* Of another router than the weights' these are its own: how it moves tokens and balances. */
static bool goes_with_router(const struct tri_key *key, const struct tri_config *config,
                             const struct tri_config *source)
{
    return is_given(config, "moe.router") && config->moe.router != source->moe.router &&
           (is_key(key, "moe.schedule") || is_key(key, "moe.aux_scope") ||
            is_key(key, "moe.aux_window"));
}

enum tri_status tri_config_adopt(struct tri_config *config, const struct tri_config *source,
                                 struct tri_error *error)
{
    bool goes_on = !config->init_from[0];
    bool upcycled = source->moe.num_experts == 0 && config->moe.num_experts > 0;
    memcpy(config->source, source->path, sizeof(config->source));
    for (size_t i = 0; i < tri_keys_count; i++) {
        const struct tri_key *key = &tri_keys[i];
        bool of_moe = tri_key_in_section(key, "moe");
        bool of_source =
            tri_key_in_section(key, "model") || (of_moe && !upcycled) || is_of_pairs(key, source);
        /* What followed other keys follows them here, as positions do a longer sequence. */
        bool follows = goes_on && tri_key_is_followed(key, source);
        bool of_router = is_unread(key, config, source) || goes_with_router(key, config, source);
        if (of_source && !follows && is_taken(key, config) && !of_router) {
            memcpy(tri_key_at(key, config), tri_key_view(key, source), tri_key_bytes(key));
            config->adopted[i] = true;
        }
    }
    for (size_t i = 0; i < tri_keys_count; i++) {
        if (config->lines[i] != 0 && is_binding(&tri_keys[i], config, source) &&
            !is_unread(&tri_keys[i], config, source)) {
            TRI_TRY(check_adopted(config, source, &tri_keys[i], error));
        }
    }
    return upcycled && !goes_on ? check_upcycled(config, source, error) : TRI_OK;
}

int tri_config_list_changes(const struct tri_config *before, const struct tri_config *now,
                            enum tri_key_effect least, char *text, size_t text_bytes)
{
    int count = 0;
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < tri_keys_count; i++) {
        const struct tri_key *key = &tri_keys[i];
        char *old, *new;
        if (key->effect < least || is_followed(key, before, now) || is_idle(key, before, now)) {
            continue;
        }
        if (differs(key, before, now, &old, &new) && used < text_bytes) {
            int written = snprintf(text + used, text_bytes - used, "%s%s %s → %s",
                                   count > 0 ? ", " : "", key->name, old, new);
            used += written > 0 ? (size_t)written : 0;
            count++;
        }
        free(old);
        free(new);
    }
    return count;
}
