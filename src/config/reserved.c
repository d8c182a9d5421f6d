/* Words that the plan gives a meaning and no code yet has: keys, and words of keys that there are.
 * One is taken from here by the change that builds it. */
#include "config/schema.h"

#include <string.h>

static const char *const keys[] = {
    "parallel.zero",  "parallel.pipe",    "model.share_layers", "moe.store",
    "moe.store_dir",  "moe.cache_memory", "moe.cache_decay",    "train.activation_memory",
    "train.swap_dir", "train.delink_at",
};

static const struct {
    const char *key, *word;
} words[] = {
    {"train.recompute", "auto"},
};

bool tri_key_is_reserved(const char *name)
{
    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        if (strcmp(keys[i], name) == 0) {
            return true;
        }
    }
    return false;
}

bool tri_word_is_reserved(const struct tri_key *key, const char *word)
{
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        if (strcmp(words[i].key, key->name) == 0 && strcmp(words[i].word, word) == 0) {
            return true;
        }
    }
    return false;
}
