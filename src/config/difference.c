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

/* The key that it follows is the one that differs. */
static bool is_followed(const struct tri_key *key, const struct tri_config *a,
                        const struct tri_config *b)
{
    return tri_key_is_followed(key, a) && tri_key_is_followed(key, b);
}

/* Weights that nothing has trained yet don't know how they were drawn, nor rows. */
static bool binds(const struct tri_key *key, bool trained)
{
    bool of_weights = (tri_key_in_section(key, "model") || tri_key_in_section(key, "moe")) &&
                      strcmp(key->name, "model.init_std") != 0;
    return key->shapes && (trained || of_weights);
}

const char *tri_config_first_difference(const struct tri_config *a, const struct tri_config *b,
                                        bool trained, char *text, size_t text_bytes)
{
    for (size_t i = 0; i < tri_keys_count; i++) {
        const struct tri_key *key = &tri_keys[i];
        char *of_a, *of_b;
        if (!binds(key, trained) || is_followed(key, a, b) ||
            (is_dense(a, b) && tri_key_in_section(key, "moe"))) {
            continue;
        }
        bool differ = differs(key, a, b, &of_a, &of_b);
        if (differ) {
            (void)snprintf(text, text_bytes, "%s against %s", of_a, of_b);
        }
        free(of_a);
        free(of_b);
        if (differ) {
            return key->name;
        }
    }
    return NULL;
}

int tri_config_list_changes(const struct tri_config *before, const struct tri_config *now,
                            enum tri_key_effect least, char *text, size_t text_bytes)
{
    int count = 0;
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < tri_keys_count; i++) {
        const struct tri_key *key = &tri_keys[i];
        bool absent = is_dense(before, now) && tri_key_in_section(key, "moe");
        char *old, *new;
        if (key->effect < least || is_followed(key, before, now) || absent) {
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
