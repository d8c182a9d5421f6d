#include "train/run_tokenizer.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"
#include "data/tokenizer_files.h"

/* The first folder that has one. */
struct choice {
    char folder[TRI_PATH_MAX];
    bool found;
};

/* The first one stays; another that comes later is told where it is another tokenizer. */
static enum tri_status offer(struct choice *choice, const char *place, struct tri_error *error)
{
    char folder[TRI_PATH_MAX];
    bool same = true;
    if (!tri_tokenizer_files_find(place, folder, sizeof(folder))) {
        return TRI_OK;
    }
    if (!choice->found) {
        tri_path_make(choice->folder, sizeof(choice->folder), "%s", folder);
        choice->found = true;
        return TRI_OK;
    }
    TRI_TRY(tri_tokenizer_files_compare(choice->folder, folder, &same, error));
    if (!same) {
        tri_log_warn("train: the run keeps %s/tokenizer.json, which is not the same as the one in "
                     "%s: tokens of one mean nothing to a model of the other",
                     choice->folder, folder);
    }
    return TRI_OK;
}

/* In the checkpoint, beside the training shards, set by set, and in init_from. */
static enum tri_status choose(const struct tri_config *config, const char *checkpoint,
                              struct choice *choice, struct tri_error *error)
{
    enum tri_status status = checkpoint[0] ? offer(choice, checkpoint, error) : TRI_OK;
    TRI_TRY(status);
    struct tri_sets *sets = tri_alloc(TRI_MEMORY_OTHER, sizeof(*sets));
    tri_config_sets(config->data.train, sets);
    for (int i = 0; i < sets->count && status == TRI_OK; i++) {
        char shards[TRI_PATH_MAX];
        tri_path_parent(sets->set[i].path, shards, sizeof(shards));
        status = offer(choice, shards, error);
    }
    tri_free(sets);
    TRI_TRY(status);
    return config->init_from[0] ? offer(choice, config->init_from, error) : TRI_OK;
}

/* What generate and eval would find out: that it is of a kind, or in a state, not read here.
 * Who trains on tokens needs none. */
static void say_what_is_kept(const struct tri_config *config, const char *folder)
{
    struct tri_error error;
    struct tri_tokenizer *tokenizer = NULL;
    int32_t stops[TRI_STOPS];
    int count;
    enum tri_status status = tri_tokenizer_create(folder, &tokenizer, &error);
    if (status == TRI_OK) {
        status = tri_tokenizer_read_stops(folder, tokenizer, stops, &count, &error);
    }
    if (status != TRI_OK) {
        tri_log_warn("train: the run keeps a tokenizer that cannot be used: %s", error.message);
    } else if (tokenizer->vocab_size > config->model.vocab_size) {
        tri_log_warn(
            "train: the run keeps a tokenizer with ids below %lld, and model.vocab_size is "
            "%lld: %s",
            (long long)tokenizer->vocab_size, (long long)config->model.vocab_size, folder);
    }
    tri_tokenizer_destroy(tokenizer);
}

enum tri_status tri_run_tokenizer_keep(const struct tri_config *config, const char *checkpoint,
                                       bool own, struct tri_error *error)
{
    struct choice choice = {.found = false};
    if (own && tri_tokenizer_files_find(config->run_dir, choice.folder, sizeof(choice.folder))) {
        return TRI_OK;
    }
    TRI_TRY(choose(config, checkpoint, &choice, error));
    if (choice.found) {
        say_what_is_kept(config, choice.folder);
    }
    return tri_tokenizer_files_put(choice.found ? choice.folder : NULL, config->run_dir, error);
}
