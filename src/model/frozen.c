#include "model/frozen.h"

#include "model/param.h"

#include <fnmatch.h>
#include <string.h>

/* The next pattern of the list, without the spaces around it, into `pattern`; false at the end.
 * *at moves behind it. */
static bool next_pattern(const char **at, char pattern[TRI_PATH_MAX])
{
    const char *begin = *at + strspn(*at, ", ");
    size_t length = strcspn(begin, ",");
    *at = begin + length;
    while (length > 0 && begin[length - 1] == ' ') {
        length--;
    }
    memcpy(pattern, begin, length);
    pattern[length] = '\0';
    return length > 0;
}

bool tri_name_is_frozen(const struct tri_config *config, const char *name)
{
    char pattern[TRI_PATH_MAX];
    if (config->train.lora.rank > 0 && !strstr(name, ".lora_")) {
        return true;
    }
    for (const char *at = config->train.freeze; next_pattern(&at, pattern);) {
        if (fnmatch(pattern, name, 0) == 0) {
            return true;
        }
    }
    return false;
}

/* Whether the row behind this one is read by the same product, or norm. */
static bool is_joined(const struct tri_param *row, const struct tri_param *next)
{
    bool same = row->layer == next->layer && row->place == next->place &&
                row->expert == next->expert && next->role == row->role + 1;
    switch (row->role) {
    case TRI_ROLE_Q:
    case TRI_ROLE_K:
    case TRI_ROLE_Q_BIAS:
    case TRI_ROLE_K_BIAS:
    case TRI_ROLE_GATE:
    case TRI_ROLE_GATE_BIAS:
    case TRI_ROLE_Q_A:
    case TRI_ROLE_K_A:
    case TRI_ROLE_GATE_A:
    case TRI_ROLE_NORM1:
    case TRI_ROLE_NORM2:
    case TRI_ROLE_FINAL_NORM:
        return same;
    default:
        return false;
    }
}

static enum tri_status check_patterns(const struct tri_config *config,
                                      const struct tri_params *params, struct tri_error *error)
{
    char pattern[TRI_PATH_MAX];
    for (const char *at = config->train.freeze; next_pattern(&at, pattern);) {
        int p = 0;
        while (p < params->count && fnmatch(pattern, params->param[p].name, 0) != 0) {
            p++;
        }
        if (p == params->count) {
            return tri_config_refuse(config, error, "train.freeze",
                                     "found '%.100s', expected patterns of the names of this "
                                     "model's weights, from %s to %s (trident inspect lists them)",
                                     pattern, params->param[0].name,
                                     params->param[params->count - 1].name);
        }
    }
    return TRI_OK;
}

static bool has_pairs(const struct tri_params *params, enum tri_lora_target target)
{
    int p = 0;
    while (p < params->count &&
           !(tri_role_is_low(params->param[p].role) &&
             tri_role_target(params->param[p].role, params->param[p].place) == target)) {
        p++;
    }
    return p < params->count;
}

static enum tri_status check_targets(const struct tri_config *config,
                                     const struct tri_params *params, struct tri_error *error)
{
    for (int i = 0; i < TRI_LORA_TARGETS && config->train.lora.rank > 0; i++) {
        enum tri_lora_target target = (enum tri_lora_target)i;
        if (tri_config_lora_targets(config, target) && !has_pairs(params, target)) {
            return tri_config_refuse(config, error, "train.lora.targets",
                                     "found %s, expected targets that this model has",
                                     tri_lora_target_word(target));
        }
    }
    return TRI_OK;
}

static enum tri_status check_rows(const struct tri_config *config, const struct tri_params *params,
                                  struct tri_error *error)
{
    for (int p = 0; p + 1 < params->count; p++) {
        const struct tri_param *row = &params->param[p], *next = row + 1;
        if (is_joined(row, next) && row->trained != next->trained) {
            return tri_config_refuse(config, error, "train.freeze",
                                     "found %s frozen and %s not, expected both or neither: they "
                                     "are read as one",
                                     row->trained ? next->name : row->name,
                                     row->trained ? row->name : next->name);
        }
    }
    return params->trained > 0
               ? TRI_OK
               : tri_config_refuse(config, error, "train.freeze",
                                   "found all weights frozen, expected some to be trained");
}

enum tri_status tri_params_check_frozen(const struct tri_config *config, struct tri_error *error)
{
    if (!config->train.freeze[0] && config->train.lora.rank == 0) {
        return TRI_OK;
    }
    struct tri_config alone = *config;
    alone.parallel = (struct tri_config_parallel){1, 1, 1, {0}};
    struct tri_mesh *mesh = tri_mesh_create_view(1, 1, 1, 1, 1, 0);
    struct tri_params *params = tri_params_create(&alone, mesh);
    enum tri_status status = check_targets(config, params, error);
    if (status == TRI_OK) {
        status = check_patterns(config, params, error);
    }
    if (status == TRI_OK) {
        status = check_rows(config, params, error);
    }
    tri_params_destroy(params);
    tri_mesh_destroy(mesh);
    return tri_config_hint_shape(config, status, error);
}
