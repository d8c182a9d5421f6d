#include "train/alike.h"

#include "base/file.h"
#include "base/memory.h"
#include "config/schema.h"
#include "config/value.h"
#include "train/environment.h"

#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

enum { NAME = 160, LINE = TRI_PATH_MAX + 128 };

/* The key at this place of a comparison: those that follow others come last, for of two keys that
 * differ the one that somebody wrote is to be named. */
static size_t key_in_order(size_t place)
{
    for (int follows = 0; follows < 2; follows++) {
        for (size_t i = 0; i < tri_keys_count; i++) {
            if ((tri_keys[i].initial == NULL) == follows && place-- == 0) {
                return i;
            }
        }
    }
    return tri_keys_count;
}

enum tri_status tri_alike_config(struct tri_group *group, const struct tri_config *config,
                                 struct tri_error *error)
{
    if (tri_group_size(group) == 1) {
        return TRI_OK;
    }
    size_t count = tri_keys_count;
    struct tri_fact *facts = tri_alloc(TRI_MEMORY_OTHER, (count + 1) * sizeof(*facts));
    char(*names)[NAME] = tri_alloc(TRI_MEMORY_OTHER, count * sizeof(*names));
    for (size_t i = 0; i < count; i++) {
        const struct tri_key *key = &tri_keys[key_in_order(i)];
        (void)snprintf(names[i], NAME, "key '%s'", key->name);
        facts[i] = (struct tri_fact){names[i], tri_value_to_text(key, tri_key_view(key, config))};
    }
    char path[TRI_KERNELS_TEXT];
    tri_kernels_path(tri_environment_kernels(), config->reproducible, path);
    facts[count] = (struct tri_fact){"the kernel path", path};
    enum tri_status status = tri_comm_compare(group, (int)count + 1, facts, error);
    for (size_t i = 0; i < count; i++) {
        free((char *)(uintptr_t)facts[i].value);
    }
    tri_free(names);
    tri_free(facts);
    return status;
}

enum tri_status tri_alike_tokens(struct tri_group *group, const char *pattern,
                                 const struct tri_tokens *tokens, struct tri_error *error)
{
    if (tri_group_size(group) == 1) {
        return TRI_OK;
    }
    char name[LINE];
    char number[32];
    size_t count = (size_t)tri_tokens_shards(tokens);
    (void)snprintf(name, sizeof(name), "the number of shards that '%.300s' matches", pattern);
    (void)snprintf(number, sizeof(number), "%zu", count);
    struct tri_fact shards = {name, number};
    TRI_TRY(tri_comm_compare(group, 1, &shards, error));
    struct tri_fact *facts = tri_alloc(TRI_MEMORY_OTHER, count * sizeof(*facts));
    char *lines = tri_alloc(TRI_MEMORY_OTHER, count * LINE);
    for (size_t i = 0; i < count; i++) {
        struct tri_shard_info shard = tri_tokens_shard(tokens, (int)i);
        char *line = lines + i * LINE;
        (void)snprintf(line, LINE, "%.1000s (%lld tokens of %d bytes, contents %016llx)",
                       shard.path, (long long)shard.tokens, shard.bytes_per_token,
                       (unsigned long long)tri_tokens_fingerprint(tokens, (int)i));
        facts[i] = (struct tri_fact){"a shard", line};
    }
    enum tri_status status = tri_comm_compare(group, (int)count, facts, error);
    tri_free(lines);
    tri_free(facts);
    return status;
}

enum tri_status tri_alike_choices(struct tri_group *group, const char *path,
                                  const struct tri_choices *choices, struct tri_error *error)
{
    char line[LINE];
    if (tri_group_size(group) == 1) {
        return TRI_OK;
    }
    (void)snprintf(line, sizeof(line), "%.1000s (%lld questions, contents %016llx)", path,
                   (long long)tri_choices_count(choices),
                   (unsigned long long)tri_choices_contents(choices));
    struct tri_fact fact = {"the file of questions", line};
    return tri_comm_compare(group, 1, &fact, error);
}

enum tri_status tri_alike_checkpoint(struct tri_group *group, const char *path,
                                     struct tri_error *error)
{
    if (tri_group_size(group) == 1) {
        return TRI_OK;
    }
    char name[LINE];
    char line[LINE];
    struct tri_mapping file = {0};
    (void)snprintf(name, sizeof(name), "%s/manifest.json", path);
    /* Where no rank can read it, who loads it says why. */
    if (tri_file_map(name, &file, NULL) == TRI_OK) {
        (void)snprintf(line, sizeof(line), "%s (manifest %016llx)", path,
                       (unsigned long long)XXH3_64bits(file.data, file.size));
    } else {
        (void)snprintf(line, sizeof(line), "%s, which cannot be read there,", path);
    }
    tri_file_unmap(&file);
    struct tri_fact fact = {"the checkpoint", line};
    return tri_comm_compare(group, 1, &fact, error);
}
