#include "checkpoint/checkpoint.h"
#include "checkpoint/hf.h"
#include "cli/command.h"
#include "comm/comm.h"
#include "data/tokenizer_files.h"
#include "moe/strategies.h"
#include "plan/memory.h"

#include <stdio.h>
#include <string.h>

/* A bias that was learned chooses experts, and no architecture of transformers has a place for
 * it. */
static enum tri_status refuse_bias(const char *path, const struct tri_checkpoint_state *state,
                                   struct tri_error *error)
{
    for (int64_t i = 0; state->bias && i < state->bias_layers * state->bias_experts; i++) {
        if (state->bias[i] != 0.0F) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: chooses experts by the bias that moe.bias_balancing learned: this "
                            "model cannot be exported",
                            path);
        }
    }
    return TRI_OK;
}

/* Weights of a checkpoint into params, which are not allocated yet, and those into a folder. */
static enum tri_status copy(struct tri_checkpoint_choice *choice, const char *to,
                            enum tri_hf_family family, const struct tri_config *config,
                            struct tri_params *params, enum tri_dtype dtype,
                            struct tri_error *error)
{
    struct tri_checkpoint_state state = {0};
    char tokenizer[TRI_PATH_MAX];
    TRI_TRY(tri_memory_check_whole("export", params->total * (int64_t)sizeof(float),
                                   tri_hf_buffer_bytes(family, params, config->moe.num_experts),
                                   error));
    tri_params_allocate(params, false);
    TRI_TRY(tri_checkpoint_load_choice(choice, params, &state, error));
    enum tri_status status = refuse_bias(choice->path, &state, error);
    tri_checkpoint_state_fini(&state);
    TRI_TRY(status);
    TRI_TRY(tri_hf_save(to, config, params, dtype, error));
    return tri_tokenizer_files_find(choice->path, tokenizer, sizeof(tokenizer))
               ? tri_tokenizer_files_add(tokenizer, to, error)
               : TRI_OK;
}

/* Reads the whole model on one rank and writes it as a Hugging Face folder. */
static enum tri_status export_choice(const char *from, struct tri_checkpoint_choice *choice,
                                     const char *to, enum tri_dtype dtype, bool json,
                                     struct tri_error *error)
{
    const char *path = choice->path;
    struct tri_config config;
    enum tri_hf_family family;
    TRI_TRY(tri_checkpoint_resolve(from, choice, error));
    enum tri_status status = tri_checkpoint_read_config(path, &tri_strategies, &config, error);
    if (status != TRI_OK) {
        if (choice->of_run) {
            tri_checkpoint_refuse(choice, error);
        }
        return status;
    }
    config.precision = TRI_PRECISION_F32;
    config.parallel = (struct tri_config_parallel){1, 1, 1};
    TRI_TRY(tri_hf_family_of(&config, &family, error));
    TRI_TRY(tri_hf_check_target(to, error));
    struct tri_mesh *mesh = tri_mesh_create_serial();
    struct tri_params *params = tri_params_create(&config, mesh);
    status = copy(choice, to, family, &config, params, dtype, error);
    if (status == TRI_OK && json) {
        tri_print_json(json_pack("{ss sI ss}", "family", tri_hf_family_name(family), "parameters",
                                 (json_int_t)params->total, "folder", to));
    } else if (status == TRI_OK) {
        (void)printf("%s: %lld parameters as %s, now in %s\n", path, (long long)params->total,
                     tri_hf_family_name(family), to);
    }
    tri_params_destroy(params);
    tri_mesh_destroy(mesh);
    return status;
}

static enum tri_status export_model(const char *from, const char *to, enum tri_dtype dtype,
                                    bool json, struct tri_error *error)
{
    struct tri_checkpoint_choice choice = {0};
    enum tri_status status;
    do {
        status = export_choice(from, &choice, to, dtype, json, error);
    } while (status != TRI_OK && choice.again);
    return status;
}

static enum tri_status read_dtype(const struct tri_arguments *arguments, enum tri_dtype *dtype,
                                  struct tri_error *error)
{
    const char *text = tri_arguments_get(arguments, "--dtype");
    *dtype = TRI_F32;
    if (text && strcmp(text, "bf16") == 0) {
        *dtype = TRI_BF16;
    } else if (text && strcmp(text, "f32") != 0) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: option '--dtype': found '%s', expected f32 or bf16", text);
    }
    return TRI_OK;
}

enum tri_status tri_command_export(const struct tri_arguments *arguments, struct tri_error *error)
{
    enum tri_dtype dtype;
    enum tri_status status = read_dtype(arguments, &dtype, error);
    if (status == TRI_OK && tri_comm_rank(arguments->comm) == 0) {
        status = export_model(arguments->words[0], arguments->words[1], dtype,
                              tri_arguments_has(arguments, "--json"), error);
    }
    return tri_agree_everywhere(arguments, status, error);
}
