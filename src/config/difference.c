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
    if (is_key(key, "moe.every") || is_key(key, "moe.layers")) {
        return same_layers(a, b);
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
