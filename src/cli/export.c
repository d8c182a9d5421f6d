#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/gguf.h"
#include "checkpoint/hf.h"
#include "checkpoint/peft.h"
#include "cli/command.h"
#include "cli/spread.h"
#include "comm/comm.h"

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

/* Whether the weights at `given`, of this config, are others than those that it began with: it is a
 * run or one of its checkpoints, whose weights are not all frozen. */
static bool is_trained(const char *given, const struct tri_checkpoint_choice *choice,
                       const struct tri_config *config)
{
    const char *slash = strrchr(given, '/');
    const char *name = slash ? slash + 1 : given;
    bool of_run = strcmp(choice->path, given) != 0 || strncmp(name, "step_", 5) == 0;
    return of_run && config->train.lora.rank == 0;
}

/* What a run began with or goes on from. */
static const char *source_of(const struct tri_config *config)
{
    return config->init_from[0] ? config->init_from : config->resume;
}

/* folder: the Hugging Face folder that a model began with, or that what it began with began with;
 * base: the same, or the first of these on the way whose weights are no longer that folder's. On
 * one rank; "" when it is not found. */
static void find_origin(const struct tri_config *config, char folder[TRI_PATH_MAX],
                        char base[TRI_PATH_MAX])
{
    enum { MOST = 8 };
    base[0] = '\0';
    struct tri_config *before = tri_alloc(TRI_MEMORY_OTHER, sizeof(*before));
    struct tri_error ignored;
    (void)snprintf(folder, TRI_PATH_MAX, "%s", source_of(config));
    for (int i = 0; i < MOST && folder[0]; i++) {
        struct tri_checkpoint_choice choice = {0};
        char path[TRI_PATH_MAX + 16];
        tri_path_make(path, sizeof(path), "%s/config.json", folder);
        if (tri_file_exists(path)) {
            break;
        }
        bool read =
            tri_checkpoint_resolve(folder, &choice, &ignored) == TRI_OK &&
            tri_checkpoint_read_config(choice.path, config->known, before, &ignored) == TRI_OK;
        if (read && !base[0] && is_trained(folder, &choice, before)) {
            (void)snprintf(base, TRI_PATH_MAX, "%s", folder);
        }
        (void)snprintf(folder, TRI_PATH_MAX, "%s", read ? source_of(before) : "");
    }
    if (!base[0]) {
        (void)snprintf(base, TRI_PATH_MAX, "%s", folder);
    }
    tri_free(before);
}

/* What is written, and how. */
struct form {
    bool gguf; /* one file for llama.cpp, else a folder for transformers */
    enum tri_hf_family family;
    enum tri_hf_number number;
    bool pairs; /* the low-rank pairs alone, as an adapter; */
    bool fused; /* those of experts as transformers 5 has them */
};

/* Weights of a checkpoint, and those into a folder. */
static enum tri_status copy(struct tri_checkpoint_choice *choice, const char *to,
                            const struct tri_config *config, const struct tri_spread *spread,
                            struct form *form, struct tri_error *error)
{
    struct tri_checkpoint_state state = {0};
    char folder[TRI_PATH_MAX] = "", base[TRI_PATH_MAX] = "";
    if (spread->mesh->rank == 0) {
        find_origin(config, folder, base);
        tri_hf_keep_name(config, folder, &form->family);
        if (form->pairs && strcmp(folder, base) != 0) {
            tri_log_warn(
                "%s: its pairs belong to the weights of %s: export that, and give PEFT the "
                "folder as its base",
                choice->path, base);
        }
    }
    const struct tri_hf_origin origin = {choice->path, folder};
    TRI_TRY(tri_checkpoint_load_choice(choice, spread->params, &state, error));
    enum tri_status status = refuse_bias(choice->path, &state, error);
    tri_checkpoint_state_fini(&state);
    TRI_TRY(status);
    const struct tri_peft_target target = {form->family, form->fused, base};
    static const enum tri_safetensors_dtype dtypes[] = {
        [TRI_HF_F32] = TRI_ST_F32, [TRI_HF_BF16] = TRI_ST_BF16, [TRI_HF_F16] = TRI_ST_F16};
    if (form->gguf) {
        return tri_gguf_save(to, config, spread->params, form->number, &origin, error);
    }
    return form->pairs
               ? tri_peft_save(to, config, &target, spread->params, error)
               : tri_hf_save(to, config, spread->params, dtypes[form->number], &origin, error);
}

/* Parameters of low-rank pairs, or of all else. */
static int64_t count_written(const struct tri_params *params, bool pairs)
{
    int64_t count = 0;
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        count += tri_role_is_low(param->role) == pairs ? param->shape[0] * param->shape[1] : 0;
    }
    return count;
}

static void say(const char *path, const char *to, const struct form *form, int64_t total, bool json)
{
    const char *family =
        form->gguf ? tri_gguf_architecture(form->family) : tri_hf_family_name(form->family);
    if (json) {
        tri_print_json(json_pack("{ss sI ss}", "family", family, "parameters", (json_int_t)total,
                                 form->gguf ? "file" : "folder", to));
    } else {
        (void)printf("%s: %lld parameters as %s, now in %s\n", path, (long long)total,
                     form->pairs ? "an adapter of PEFT's" : family, to);
    }
}

/* Whether the model can be written so, there. */
static enum tri_status check_form(const struct tri_arguments *arguments, const char *path,
                                  const struct tri_config *config, struct form *form,
                                  struct tri_error *error)
{
    bool merge = tri_arguments_has(arguments, "--merge"), has = config->train.lora.rank > 0;
    form->pairs = has && !merge;
    form->fused = tri_arguments_has(arguments, "--fused");
    TRI_TRY(form->gguf ? tri_gguf_family_of(config, &form->family, error)
                       : tri_hf_family_of(config, &form->family, error));
    if (form->gguf && form->pairs) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: has low-rank pairs (train.lora), and a GGUF file holds a whole model: "
                        "give --merge",
                        path);
    }
    if (merge && !has) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: has no low-rank pairs (train.lora) to --merge",
                        path);
    }
    if (form->fused && !form->pairs) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: no adapter is written here, whose pairs could be --fused", path);
    }
    if (form->fused) {
        TRI_TRY(tri_peft_check_fused(config, error));
    }
    return tri_comm_rank(arguments->comm) == 0 ? tri_hf_check_target(arguments->words[1], error)
                                               : TRI_OK;
}

/* All ranks read the model, each its share, and write it. */
static enum tri_status export_choice(const struct tri_arguments *arguments,
                                     struct tri_checkpoint_choice *choice, struct form form,
                                     struct tri_error *error)
{
    const char *to = arguments->words[1];
    struct tri_config config;
    struct tri_spread spread = {0};
    TRI_TRY(tri_config_of_checkpoint(arguments->words[0], arguments, &config, choice, error));
    enum tri_status status = check_form(arguments, choice->path, &config, &form, error);
    TRI_TRY(tri_agree_everywhere(arguments, status, error));
    status = tri_spread_create("export", arguments->comm, &config, &spread, error);
    if (status == TRI_OK) {
        status = copy(choice, to, &config, &spread, &form, error);
    }
    if (status == TRI_OK) {
        tri_spread_report(&spread);
    }
    if (status == TRI_OK && tri_comm_rank(arguments->comm) == 0) {
        say(choice->path, to, &form, count_written(spread.params, form.pairs),
            tri_arguments_has(arguments, "--json"));
    }
    tri_spread_destroy(&spread);
    return status;
}

static bool ends_in_gguf(const char *path)
{
    size_t length = strlen(path);
    return length > 5 && strcmp(path + length - 5, ".gguf") == 0;
}

static enum tri_status read_form(const struct tri_arguments *arguments, struct form *form,
                                 struct tri_error *error)
{
    static const struct {
        const char *word;
        enum tri_hf_number number;
    } words[] = {
        {"f32", TRI_HF_F32}, {"bf16", TRI_HF_BF16}, {"f16", TRI_HF_F16}, {"q8_0", TRI_HF_Q8_0}};
    const char *text = tri_arguments_get(arguments, "--dtype");
    const char *format = tri_arguments_get(arguments, "--format");
    *form = (struct form){.gguf = format && strcmp(format, "gguf") == 0, .number = TRI_HF_F32};
    if (format && !form->gguf && strcmp(format, "hf") != 0) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: option '--format': found '%s', expected hf or gguf", format);
    }
    if (!format && ends_in_gguf(arguments->words[1])) {
        return tri_fail(
            error, TRI_BAD_INPUT,
            "command line: %s: --format is missing: gguf writes such a file, hf a folder "
            "of this name",
            arguments->words[1]);
    }
    for (size_t i = 0; text && i < sizeof(words) / sizeof(*words); i++) {
        if (strcmp(text, words[i].word) == 0 && (form->gguf || words[i].number != TRI_HF_Q8_0)) {
            form->number = words[i].number;
            return TRI_OK;
        }
    }
    return !text ? TRI_OK
                 : tri_fail(error, TRI_BAD_INPUT,
                            "command line: option '--dtype': found '%s', expected f32, bf16%s",
                            text, form->gguf ? ", f16 or q8_0" : " or f16");
}

enum tri_status tri_command_export(const struct tri_arguments *arguments, struct tri_error *error)
{
    struct form form;
    struct tri_checkpoint_choice choice = {0};
    enum tri_status status = read_form(arguments, &form, error);
    TRI_TRY(tri_agree_everywhere(arguments, status, error));
    do {
        status = export_choice(arguments, &choice, form, error);
    } while (status != TRI_OK && choice.again);
    return status;
}
