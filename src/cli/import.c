#include "checkpoint/checkpoint.h"
#include "checkpoint/hf.h"
#include "checkpoint/peft.h"
#include "cli/command.h"
#include "cli/spread.h"
#include "comm/comm.h"
#include "data/tokenizer_files.h"

#include <stdio.h>
#include <stdlib.h>

/* Where the rest of the folder is, for who exports the model one day. */
static void note_origin(const char *from, struct tri_config *config)
{
    char *path = realpath(from, NULL);
    int written = snprintf(config->init_from, sizeof(config->init_from), "%s", path ? path : from);
    if (written < 0 || written > TRI_FOLDER_PATH_MAX) {
        config->init_from[0] = '\0';
    }
    free(path);
}

static enum tri_status copy(const char *from, const char *adapter, const char *to,
                            const struct tri_config *config, const struct tri_spread *spread,
                            struct tri_error *error)
{
    TRI_TRY(tri_hf_load_weights(from, spread->params, error));
    if (adapter) {
        TRI_TRY(tri_peft_load(adapter, config, spread->params, error));
    }
    struct tri_config whole = *config;
    whole.parallel = (struct tri_config_parallel){1, 1, 1, {0}};
    note_origin(from, &whole);
    char tokenizer[TRI_PATH_MAX];
    bool found = tri_tokenizer_files_find(from, tokenizer, sizeof(tokenizer));
    struct tri_checkpoint_state state = {.seed = config->seed,
                                         .config = tri_config_to_yaml(&whole),
                                         .tokenizer = found ? tokenizer : NULL};
    enum tri_status status = tri_checkpoint_write(to, spread->params, &state, false, error);
    tri_checkpoint_state_fini(&state);
    return status;
}

static void say(const char *from, const char *to, enum tri_hf_family family, int64_t total,
                bool json)
{
    if (json) {
        json_t *root = json_object();
        (void)json_object_set_new(root, "family", json_string(tri_hf_family_name(family)));
        (void)json_object_set_new(root, "parameters", json_integer(total));
        (void)json_object_set_new(root, "checkpoint", json_string(to));
        tri_print_json(root);
    } else {
        (void)printf("%s: %s, %lld parameters, now the checkpoint %s\n", from,
                     tri_hf_family_name(family), (long long)total, to);
    }
}

/* The model's config; with the pairs of an adapter unless that is NULL. */
static enum tri_status read_config(const char *from, const char *adapter, struct tri_config *config,
                                   enum tri_hf_family *family, struct tri_error *error)
{
    TRI_TRY(tri_hf_load_config(from, config, family, error));
    if (adapter) {
        TRI_TRY(tri_peft_load_config(adapter, &config->train.lora, NULL, error));
    }
    return tri_params_check_frozen(config, error);
}

/* All ranks read the model, each its share, and write it as a checkpoint of step 0 without an
 * optimizer. */
enum tri_status tri_command_import(const struct tri_arguments *arguments, struct tri_error *error)
{
    const char *from = arguments->words[0], *to = arguments->words[1];
    const char *adapter = tri_arguments_get(arguments, "--adapter");
    bool root = tri_comm_rank(arguments->comm) == 0;
    struct tri_config config;
    enum tri_hf_family family = TRI_HF_LLAMA;
    struct tri_spread spread = {0};
    enum tri_status status = read_config(from, adapter, &config, &family, error);
    if (status == TRI_OK && root) {
        status = tri_checkpoint_check_target(to, error);
    }
    TRI_TRY(tri_agree_everywhere(arguments, status, error));
    if (root && adapter) {
        tri_peft_compare_base(adapter, from);
    }
    status = tri_spread_create("import", arguments->comm, &config, &spread, error);
    if (status == TRI_OK) {
        status = copy(from, adapter, to, &config, &spread, error);
    }
    if (status == TRI_OK) {
        tri_spread_report(&spread);
    }
    if (status == TRI_OK && root) {
        say(from, to, family, spread.params->total, tri_arguments_has(arguments, "--json"));
    }
    tri_spread_destroy(&spread);
    return status;
}
