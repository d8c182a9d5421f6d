/* train.lora. */
#include "config/schema.h"

#include <string.h>

const char *tri_lora_target_word(enum tri_lora_target target)
{
    static const char *const words[TRI_LORA_TARGETS] = {
        [TRI_LORA_ATTENTION] = "attention",
        [TRI_LORA_EXPERTS] = "experts",
        [TRI_LORA_SHARED] = "shared",
        [TRI_LORA_MLP] = "mlp",
    };
    return words[target];
}

/* The next word of a list, *length bytes; NULL at the end. */
static const char *next_word(const char **at, size_t *length)
{
    const char *word = *at + strspn(*at, ", ");
    *length = strcspn(word, ", ");
    *at = word + *length;
    return *length > 0 ? word : NULL;
}

static bool is_target(enum tri_lora_target target, const char *word, size_t length)
{
    const char *text = tri_lora_target_word(target);
    return length == strlen(text) && strncmp(word, text, length) == 0;
}

bool tri_config_lora_targets(const struct tri_config *config, enum tri_lora_target target)
{
    size_t length;
    const char *at = config->train.lora.targets, *word;
    while ((word = next_word(&at, &length)) != NULL) {
        if (is_target(target, word, length)) {
            return true;
        }
    }
    return false;
}

static enum tri_status check_targets(const struct tri_config *config, struct tri_error *error)
{
    static const char key[] = "train.lora.targets";
    static const char wanted[] = "expected some of attention, experts, shared and mlp";
    size_t length;
    int words = 0;
    const char *at = config->train.lora.targets, *word;
    while ((word = next_word(&at, &length)) != NULL) {
        int i = 0;
        while (i < TRI_LORA_TARGETS && !is_target((enum tri_lora_target)i, word, length)) {
            i++;
        }
        if (i == TRI_LORA_TARGETS) {
            return tri_config_refuse(config, error, key, "found '%.*s', %s",
                                     (int)(length < 80 ? length : 80), word, wanted);
        }
        words++;
    }
    return words > 0 || config->train.lora.rank == 0
               ? TRI_OK
               : tri_config_refuse(config, error, key, "found none, %s", wanted);
}

enum tri_status tri_config_check_lora(const struct tri_config *config, struct tri_error *error)
{
    TRI_TRY(check_targets(config, error));
    if (config->train.lora.adapter[0] && !config->init_from[0]) {
        return tri_config_refuse(config, error, "train.lora.adapter",
                                 "found '%.300s' without init_from, expected the model that it was "
                                 "made for there",
                                 config->train.lora.adapter);
    }
    return config->train.lora.rank > 0 && config->moe.bias_balancing > 0
               ? tri_key_refuse(config, error, "moe.bias_balancing", "train.lora.rank",
                                "found %g, expected 0 with low-rank pairs: neither an adapter nor "
                                "the merged model has a place for what it learns",
                                config->moe.bias_balancing)
               : TRI_OK;
}
