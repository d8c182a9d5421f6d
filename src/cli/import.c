#include "checkpoint/checkpoint.h"
#include "checkpoint/hf.h"
#include "cli/command.h"
#include "comm/comm.h"
#include "data/tokenizer_files.h"
#include "plan/memory.h"

#include <stdio.h>

/* Weights into params, which are not allocated yet, and those into a checkpoint. */
static enum tri_status copy(const char *from, const char *to, enum tri_hf_family family,
                            const struct tri_config *config, struct tri_params *params,
                            struct tri_error *error)
{
    TRI_TRY(tri_memory_check_whole("import", params->total * (int64_t)sizeof(float),
                                   tri_hf_buffer_bytes(family, params, config->moe.num_experts),
                                   error));
    tri_params_allocate(params, false);
    TRI_TRY(tri_hf_load_weights(from, params, error));
    char tokenizer[TRI_PATH_MAX];
    bool found = tri_tokenizer_files_find(from, tokenizer, sizeof(tokenizer));
    struct tri_checkpoint_state state = {.seed = config->seed,
                                         .config = tri_config_to_yaml(config),
                                         .tokenizer = found ? tokenizer : NULL};
    enum tri_status status = tri_checkpoint_write(to, params, &state, false, error);
    tri_checkpoint_state_fini(&state);
    return status;
}

/* Reads the whole model on one rank and writes it as a checkpoint of step 0 without an
 * optimizer. */
static enum tri_status import(const char *from, const char *to, struct tri_mesh *mesh, bool json,
                              struct tri_error *error)
{
    struct tri_config config;
    enum tri_hf_family family;
    TRI_TRY(tri_hf_load_config(from, &config, &family, error));
    TRI_TRY(tri_checkpoint_check_target(to, error));
    struct tri_params *params = tri_params_create(&config, mesh);
    enum tri_status status = copy(from, to, family, &config, params, error);
    if (status == TRI_OK && json) {
        json_t *root = json_object();
        (void)json_object_set_new(root, "family", json_string(tri_hf_family_name(family)));
        (void)json_object_set_new(root, "parameters", json_integer(params->total));
        (void)json_object_set_new(root, "checkpoint", json_string(to));
        tri_print_json(root);
    } else if (status == TRI_OK) {
        (void)printf("%s: %s, %lld parameters, now the checkpoint %s\n", from,
                     tri_hf_family_name(family), (long long)params->total, to);
    }
    tri_params_destroy(params);
    return status;
}

enum tri_status tri_command_import(const struct tri_arguments *arguments, struct tri_error *error)
{
    enum tri_status status = TRI_OK;
    if (tri_comm_rank(arguments->comm) == 0) {
        struct tri_mesh *mesh = tri_mesh_create_serial();
        status = import(arguments->words[0], arguments->words[1], mesh,
                        tri_arguments_has(arguments, "--json"), error);
        tri_mesh_destroy(mesh);
    }
    return tri_agree_everywhere(arguments, status, error);
}
