/* What a config leaves to the planner. */
#include "config/schema.h"

#include <string.h>

static const char parallel[] = "parallel";

void tri_config_open_section(struct tri_config *config, const struct tri_section *section, int line)
{
    for (size_t i = 0; i < tri_keys_count; i++) {
        if (tri_key_in_section(&tri_keys[i], section->name) && config->lines[i] > 0) {
            tri_key_reset(&tri_keys[i], config);
            config->lines[i] = 0;
        }
    }
    config->autos |= section->autos;
    config->parallel_line = line;
}

enum tri_status tri_config_check_auto(struct tri_config *config, struct tri_error *error)
{
    for (size_t i = 0; (config->autos & TRI_AUTO_LAYOUT) && i < tri_keys_count; i++) {
        if (tri_key_in_section(&tri_keys[i], parallel) && config->lines[i] != 0) {
            return tri_config_refuse(config, error, tri_keys[i].name,
                                     "found a value beside parallel: auto, expected one of them");
        }
    }
    /* Chunks that nobody gives follow those of the forward, which are to be found. */
    if ((config->autos & TRI_AUTO_CHUNKS) &&
        config->lines[tri_key_find("moe.chunks_backward")] == 0) {
        config->autos |= TRI_AUTO_CHUNKS_BACKWARD;
    }
    return TRI_OK;
}

/* The line that leaves the key to the planner. */
static int32_t line_of(const struct tri_config *config, size_t i)
{
    if (tri_key_in_section(&tri_keys[i], parallel)) {
        return config->parallel_line;
    }
    return config->lines[i] != 0 ? config->lines[i] : config->lines[tri_key_find("moe.chunks")];
}

static bool is_auto(const struct tri_config *config, const struct tri_key *key)
{
    return (config->autos & key->autos) ||
           ((config->autos & TRI_AUTO_LAYOUT) && tri_key_in_section(key, parallel));
}

void tri_config_settle(struct tri_config *config, const struct tri_config *from)
{
    for (size_t i = 0; i < tri_keys_count; i++) {
        const struct tri_key *key = &tri_keys[i];
        const void *value = tri_key_view(key, from);
        if (is_auto(config, key)) {
            memcpy(tri_key_at(key, config), value, tri_key_bytes(key));
            config->lines[i] = tri_key_is_unset(key, value) ? 0 : line_of(config, i);
        }
    }
    config->autos = 0;
}

enum tri_status tri_config_refuse_auto(const struct tri_config *config, const char *why,
                                       struct tri_error *error)
{
    size_t i = 0;
    while (i < tri_keys_count && !(tri_keys[i].autos & config->autos)) {
        i++;
    }
    return tri_config_refuse(config, error, i < tri_keys_count ? tri_keys[i].name : parallel,
                             "found auto, %s", why);
}
