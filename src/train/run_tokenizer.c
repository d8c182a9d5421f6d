#include "train/run_tokenizer.h"

#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"
#include "data/tokenizer_files.h"

#include <string.h>

/* The first folder that has one. */
struct choice {
    char folder[TRI_PATH_MAX];
    bool found;
};

/* The first one stays. */
static void offer(struct choice *choice, const char *place)
{
    choice->found =
        choice->found || tri_tokenizer_files_find(place, choice->folder, sizeof(choice->folder));
}

static void compare(const char *command, const char *model, const char *place)
{
    char folder[TRI_PATH_MAX];
    struct tri_error error;
    bool same = true;
    if (!tri_tokenizer_files_find(place, folder, sizeof(folder))) {
        return;
    }
    if (tri_tokenizer_files_compare(model, folder, &same, &error) != TRI_OK) {
        tri_log_warn("%s: %s", command, error.message);
    } else if (!same) {
        tri_log_warn("%s: %s/tokenizer.json, which is taken, is not the same as the one in "
                     "%s: tokens of one mean nothing to a model of the other",
                     command, model, folder);
    }
}

void tri_run_tokenizer_compare(const char *command, const char *model, const struct tri_sets *sets)
{
    char own[TRI_PATH_MAX];
    if (!tri_tokenizer_files_find(model, own, sizeof(own))) {
        return;
    }
    for (int i = 0; i < sets->count; i++) {
        char shards[TRI_PATH_MAX], other[TRI_PATH_MAX];
        bool told = false; /* of the same folder */
        tri_path_parent(sets->set[i].path, shards, sizeof(shards));
        for (int j = 0; j < i && !told; j++) {
            tri_path_parent(sets->set[j].path, other, sizeof(other));
            told = strcmp(shards, other) == 0;
        }
        if (!told) {
            compare(command, own, shards);
        }
    }
}

/* Of all that a run reads, one after another. */
static void compare_sets(const struct tri_config *config, const char *model)
{
    struct tri_sets *sets = tri_alloc(TRI_MEMORY_OTHER, sizeof(*sets));
    tri_config_sets(config->data.train, sets);
    tri_run_tokenizer_compare("train", model, sets);
    if (config->data.valid[0]) {
        tri_config_sets(config->data.valid, sets);
        tri_run_tokenizer_compare("train", model, sets);
    }
    tri_free(sets);
}

/* In the checkpoint, beside the training shards, set by set, and in init_from. */
static void choose(const struct tri_config *config, const char *checkpoint, struct choice *choice)
{
    if (checkpoint[0]) {
        offer(choice, checkpoint);
    }
    struct tri_sets *sets = tri_alloc(TRI_MEMORY_OTHER, sizeof(*sets));
    tri_config_sets(config->data.train, sets);
    for (int i = 0; i < sets->count; i++) {
        char shards[TRI_PATH_MAX];
        tri_path_parent(sets->set[i].path, shards, sizeof(shards));
        offer(choice, shards);
    }
    tri_free(sets);
    if (config->init_from[0]) {
        offer(choice, config->init_from);
    }
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
        compare_sets(config, choice.folder);
        return TRI_OK;
    }
    choose(config, checkpoint, &choice);
    if (choice.found) {
        say_what_is_kept(config, choice.folder);
        compare_sets(config, choice.folder);
    }
    if (choice.found && config->init_from[0]) {
        compare("train", choice.folder, config->init_from);
    }
    return tri_tokenizer_files_put(choice.found ? choice.folder : NULL, config->run_dir, error);
}
