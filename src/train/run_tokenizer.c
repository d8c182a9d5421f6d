#include "train/run_tokenizer.h"

#include "base/log.h"
#include "base/path.h"
#include "data/tokenizer_files.h"

/* What is beside the shards, else what init_from has; one word where the two are not the same. */
static enum tri_status choose(const struct tri_config *config, char folder[TRI_PATH_MAX],
                              bool *found, struct tri_error *error)
{
    char shards[TRI_PATH_MAX];
    char first[TRI_PATH_MAX];
    bool same = true;
    tri_path_parent(config->data.train, shards, sizeof(shards));
    *found = tri_tokenizer_files_find(shards, folder, TRI_PATH_MAX);
    if (!config->init_from[0] ||
        !tri_tokenizer_files_find(config->init_from, first, sizeof(first))) {
        return TRI_OK;
    }
    if (*found) {
        TRI_TRY(tri_tokenizer_files_compare(folder, first, &same, error));
    } else {
        tri_path_make(folder, TRI_PATH_MAX, "%s", first);
        *found = true;
    }
    if (!same) {
        tri_log_warn("train: %s/tokenizer.json, by which the shards were made, is not the one of "
                     "init_from (%s); the run keeps the shards'",
                     folder, first);
    }
    return TRI_OK;
}

enum tri_status tri_run_tokenizer_keep(const struct tri_config *config, bool goes_on,
                                       struct tri_error *error)
{
    char folder[TRI_PATH_MAX];
    bool found;
    if (goes_on && tri_tokenizer_files_find(config->run_dir, folder, sizeof(folder))) {
        return TRI_OK;
    }
    TRI_TRY(choose(config, folder, &found, error));
    return tri_tokenizer_files_put(found ? folder : NULL, config->run_dir, error);
}
