/* What somebody gives and nothing reads. A run's own config has all keys, and older ones what was
 * not asked about then: so this is of configs that people write, not of those that runs keep. */
#include "config/schema.h"

#include <string.h>

/* Written on the command line, or with another value than the default. */
static bool is_given(const struct tri_config *config, const char *name)
{
    struct tri_config initial;
    const int at = tri_key_find(name);
    const struct tri_key *key = &tri_keys[at];
    tri_config_init(config->known, &initial);
    return config->lines[at] == TRI_LINE_COMMAND ||
           (config->lines[at] != 0 && memcmp(tri_key_view(key, config), tri_key_view(key, &initial),
                                             tri_key_bytes(key)) != 0);
}

static enum tri_status check_pairs(const struct tri_config *config, struct tri_error *error)
{
    static const char *const keys[] = {"train.lora.alpha", "train.lora.targets"};
    for (size_t i = 0; i < 2 && config->train.lora.rank == 0; i++) {
        if (is_given(config, keys[i])) {
            return tri_config_refuse(
                config, error, keys[i],
                "found a value without train.lora.rank, expected both: without "
                "a rank there are no pairs, and all weights are trained");
        }
    }
    return TRI_OK;
}

static enum tri_status check_router(const struct tri_config *config, struct tri_error *error)
{
    static const char *const of_drops[] = {"moe.min_capacity", "moe.capacity_window"};
    const struct tri_router_kind *router = config->moe.router;
    for (size_t i = 0; i < 2 && router->dropless; i++) {
        if (is_given(config, of_drops[i])) {
            return tri_config_refuse(config, error, of_drops[i],
                                     "found a value, expected none: router %s drops no token",
                                     router->strategy.name);
        }
    }
    /* Nothing is as good as 0. */
    return router->unbalanced && config->moe.aux_loss > 0 && is_given(config, "moe.aux_loss")
               ? tri_config_refuse(config, error, "moe.aux_loss",
                                   "found %g, expected 0 or nothing: router %s has no balance loss",
                                   config->moe.aux_loss, router->strategy.name)
               : TRI_OK;
}

enum tri_status tri_config_check_given(const struct tri_config *config, struct tri_error *error)
{
    TRI_TRY(check_pairs(config, error));
    return config->moe.num_experts > 0 ? check_router(config, error) : TRI_OK;
}
