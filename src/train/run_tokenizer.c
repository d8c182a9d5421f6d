#include "train/run_tokenizer.h"

#include "base/path.h"
#include "data/tokenizer_files.h"

enum tri_status tri_run_tokenizer_keep(const struct tri_config *config, bool goes_on,
                                       struct tri_error *error)
{
    char shards[TRI_PATH_MAX];
    char folder[TRI_PATH_MAX];
    if (goes_on && tri_tokenizer_files_find(config->run_dir, folder, sizeof(folder))) {
        return TRI_OK;
    }
    tri_path_parent(config->data.train, shards, sizeof(shards));
    bool found = tri_tokenizer_files_find(shards, folder, sizeof(folder)) ||
                 (config->init_from[0] &&
                  tri_tokenizer_files_find(config->init_from, folder, sizeof(folder)));
    return tri_tokenizer_files_put(found ? folder : NULL, config->run_dir, error);
}
