#include "checkpoint/peft.h"

#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"
#include "checkpoint/safetensors.h"
#include "model/low_rank.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 2048, PATTERN_BYTES = 512 };

static const struct tri_where where = {TRI_PHASE_CHECKPOINT, TRI_KIND_META};

static int64_t elements(const struct tri_param *param)
{
    return param->shape[0] * param->shape[1];
}

static float *gather(const struct tri_params *params, const struct tri_param *param)
{
    float *values = tri_alloc(TRI_MEMORY_OTHER, (size_t)elements(param) * sizeof(*values));
    tri_param_gather(params, param, TRI_FIELD_WEIGHT, values);
    return values;
}

void tri_peft_merge(int64_t rows, int64_t columns, int64_t rank, double scale, const float *up,
                    const float *down, float *values)
{
    double *line = tri_alloc(TRI_MEMORY_OTHER, (size_t)columns * sizeof(*line));
    for (int64_t i = 0; i < rows; i++) {
        memset(line, 0, (size_t)columns * sizeof(*line));
        for (int64_t r = 0; r < rank; r++) {
            double factor = scale * (double)up[i * rank + r];
            for (int64_t j = 0; j < columns; j++) {
                line[j] += factor * (double)down[r * columns + j];
            }
        }
        for (int64_t j = 0; j < columns; j++) {
            float *value = &values[i * columns + j];
            *value = (float)((double)*value + line[j]);
        }
    }
    tri_free(line);
}

/* ---- adapter_model.safetensors --------------------------------------------------------------- */

/* Whether all weights of each matrix of several have one A between them. Collective. */
static bool share_a(const struct tri_peft_form *form, const struct tri_params *params, bool root)
{
    bool shared = true;
    float *of_first = NULL;
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *a, *b, *weight = &params->param[p];
        int index;
        if (tri_peft_matrix(form, weight, &index) == 1 ||
            !tri_low_rank_find(params, weight, &a, &b)) {
            continue;
        }
        float *values = gather(params, a);
        if (index == 0) {
            tri_free(of_first);
            of_first = values;
            continue;
        }
        TRI_REQUIRE(of_first);
        shared = shared &&
                 !(root && memcmp(values, of_first, (size_t)elements(a) * sizeof(*values)) != 0);
        tri_free(values);
    }
    tri_free(of_first);
    tri_broadcast(tri_mesh_group(params->mesh, TRI_ON_ALL), where, &shared, (int64_t)sizeof(shared),
                  TRI_U8, 0);
    return shared;
}

/* Pieces that lie in one tensor, `count` of all those from the first on. */
static int count_pieces(const struct tri_peft_piece *pieces, int count)
{
    int n = 1;
    while (n < count && strcmp(pieces[0].name, pieces[n].name) == 0) {
        n++;
    }
    return n;
}

static enum tri_status create(const char *path, int count, const struct tri_peft_piece *pieces,
                              struct tri_safetensors_writer **writer, struct tri_error *error)
{
    struct tri_safetensors_spec *specs =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)count * sizeof(*specs));
    int tensors = 0;
    for (int i = 0; i < count; i += count_pieces(&pieces[i], count - i)) {
        specs[tensors++] =
            (struct tri_safetensors_spec){.name = pieces[i].name,
                                          .dtype = TRI_ST_F32,
                                          .dims = 2,
                                          .shape = {pieces[i].shape[0], pieces[i].shape[1]}};
    }
    enum tri_status status = tri_safetensors_writer_create(path, tensors, specs, writer, error);
    tri_free(specs);
    return status;
}

/* A piece's elements into its tensor. */
static void place(const struct tri_peft_piece *piece, const float *values, float *tensor)
{
    for (int64_t i = 0; i < piece->rows; i++) {
        int64_t line = (piece->row + i) * piece->shape[1] + piece->column;
        for (int64_t j = 0; j < piece->columns; j++) {
            tensor[line + j * piece->stride] = values[i * piece->param->shape[1] + j];
        }
    }
}

/* Collective; the status is this rank's own. */
static enum tri_status write_pairs(const char *dir, const struct tri_params *params, int count,
                                   const struct tri_peft_piece *pieces, bool root,
                                   struct tri_error *error)
{
    char path[PATH_BYTES + 64];
    struct tri_safetensors_writer *writer = NULL;
    tri_path_make(path, sizeof(path), "%s/adapter_model.safetensors", dir);
    enum tri_status status = root ? create(path, count, pieces, &writer, error) : TRI_OK;
    for (int i = 0, n; i < count; i += n) {
        size_t bytes = (size_t)(pieces[i].shape[0] * pieces[i].shape[1]) * sizeof(float);
        float *tensor = root ? tri_alloc(TRI_MEMORY_OTHER, bytes) : NULL;
        n = count_pieces(&pieces[i], count - i);
        for (int j = i; j < i + n; j++) {
            float *values = gather(params, pieces[j].param);
            if (root) {
                place(&pieces[j], values, tensor);
            }
            tri_free(values);
        }
        if (root && status == TRI_OK) {
            status = tri_safetensors_writer_write(writer, tensor, bytes, error);
        }
        tri_free(tensor);
    }
    if (writer && status == TRI_OK) {
        return tri_safetensors_writer_close(&writer, error);
    }
    if (writer) {
        tri_safetensors_writer_destroy(writer);
    }
    return status;
}

/* ---- adapter_config.json --------------------------------------------------------------------- */

/* Adds an alternative to a pattern of module names. */
static void add_modules(char pattern[PATTERN_BYTES], const char *modules)
{
    size_t used = strlen(pattern);
    (void)snprintf(pattern + used, PATTERN_BYTES - used, "%s%s", used > 0 ? "|" : "", modules);
}

/* A pattern of the modules with pairs. */
static json_t *name_by_pattern(const struct tri_config *config, enum tri_hf_family family)
{
    bool gated = config->model.mlp == TRI_MLP_SWIGLU;
    char pattern[PATTERN_BYTES] = "";
    if (tri_config_lora_targets(config, TRI_LORA_ATTENTION)) {
        add_modules(pattern, "self_attn\\.(q|k|v|o)_proj");
    }
    if (tri_config_lora_targets(config, TRI_LORA_MLP)) {
        add_modules(pattern, gated ? "mlp\\.(gate|up|down)_proj" : "mlp\\.(up|down)_proj");
    }
    if (tri_config_lora_targets(config, TRI_LORA_SHARED)) {
        add_modules(pattern, "mlp\\.shared_expert\\.(gate|up|down)_proj");
    }
    if (tri_config_lora_targets(config, TRI_LORA_EXPERTS)) {
        add_modules(pattern, family == TRI_HF_MIXTRAL
                                 ? "block_sparse_moe\\.experts\\.\\d+\\.w[123]"
                                 : "mlp\\.experts\\.\\d+\\.(gate|up|down)_proj");
    }
    return json_sprintf(".*\\.layers\\.\\d+\\.(%s)", pattern);
}

/* Kinds of MLP that the model has. */
static int count_networks(const struct tri_config *config)
{
    int64_t sparse = 0;
    for (int64_t layer = 0; layer < config->model.num_layers; layer++) {
        sparse += tri_config_layer_is_moe(config, layer);
    }
    bool shared = sparse > 0 && config->moe.shared_intermediate_size > 0;
    return (sparse < config->model.num_layers) + (sparse > 0) + shared;
}

static void add_names(json_t *names, const char *const *words)
{
    for (int i = 0; words[i]; i++) {
        (void)json_array_append_new(names, json_string(words[i]));
    }
}

/* Names alone, which PEFT also finds in transformers 5, where a layer's experts are one module.
 * Where experts, shared experts and MLPs stand beside each other they would be those of all. */
static json_t *name_modules(const struct tri_config *config, enum tri_hf_family family, bool fused)
{
    static const char *const attention[] = {"q_proj", "k_proj", "v_proj", "o_proj", NULL};
    static const char *const gated[] = {"gate_proj", "up_proj", "down_proj", NULL};
    static const char *const mixtral[] = {"w1", "w2", "w3", NULL};
    static const char *const gpt2[] = {"c_attn", "attn.c_proj", NULL};
    static const char *const gpt2_mlp[] = {"c_fc", "mlp.c_proj", NULL};
    bool networks = false;
    for (int i = 0; i < TRI_LORA_TARGETS; i++) {
        networks = networks || (i != TRI_LORA_ATTENTION &&
                                tri_config_lora_targets(config, (enum tri_lora_target)i));
    }
    networks = networks && !fused;
    bool with_attention = tri_config_lora_targets(config, TRI_LORA_ATTENTION);
    if (family != TRI_HF_GPT2 && networks &&
        (count_networks(config) > 1 || config->model.mlp != TRI_MLP_SWIGLU)) {
        return name_by_pattern(config, family);
    }
    json_t *names = json_array();
    if (with_attention) {
        add_names(names, family == TRI_HF_GPT2 ? gpt2 : attention);
    }
    if (networks) {
        add_names(names, family == TRI_HF_GPT2      ? gpt2_mlp
                         : family == TRI_HF_MIXTRAL ? mixtral
                                                    : gated);
    }
    return names;
}

/* Matrices of several weights have a higher rank, and with it alpha, where they are in blocks. */
static void add_patterns(json_t *root, const struct tri_config_lora *lora,
                         const struct tri_peft_form *form)
{
    if (form->wide == form->rank) {
        return;
    }
    const char *modules = form->fused ? "gate_up_proj" : "c_attn";
    double times = (double)form->wide / (double)form->rank;
    (void)json_object_set_new(root, "rank_pattern",
                              json_pack("{s:I}", modules, (json_int_t)form->wide));
    (void)json_object_set_new(root, "alpha_pattern",
                              json_pack("{s:f}", modules, lora->alpha * times));
}

static enum tri_status write_config(const char *dir, const struct tri_config *config,
                                    const struct tri_peft_form *form, const char *base,
                                    struct tri_error *error)
{
    char path[PATH_BYTES + 64];
    json_t *root = json_pack(
        "{s:s, s:s, s:s?, s:I, s:f, s:f, s:o, s:s, s:b, s:b, s:b, s:b, s:b, s:n}", "peft_type",
        "LORA", "task_type", "CAUSAL_LM", "base_model_name_or_path", base[0] ? base : NULL, "r",
        (json_int_t)form->rank, "lora_alpha", config->train.lora.alpha, "lora_dropout", 0.0,
        "target_modules", name_modules(config, form->family, form->fused), "bias", "none",
        "fan_in_fan_out", form->family == TRI_HF_GPT2, "inference_mode", 1, "init_lora_weights", 1,
        "use_rslora", 0, "use_dora", 0, "modules_to_save");
    if (root && form->fused) {
        (void)json_object_set_new(
            root, "target_parameters",
            json_pack("[s, s]", "mlp.experts.gate_up_proj", "mlp.experts.down_proj"));
    }
    if (root) {
        add_patterns(root, &config->train.lora, form);
    }
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS) : NULL;
    json_decref(root);
    TRI_REQUIRE(text);
    tri_path_make(path, sizeof(path), "%s/adapter_config.json", dir);
    enum tri_status status = tri_file_save(path, text, strlen(text), error);
    free(text);
    return status;
}

/* ---- the folder ------------------------------------------------------------------------------ */

static enum tri_status begin(const char *dir, const char *temporary, struct tri_error *error)
{
    TRI_TRY(tri_hf_check_target(dir, error));
    TRI_TRY(tri_file_remove_tree(temporary, error));
    return tri_file_make_dirs(temporary, error);
}

static enum tri_status finish(const char *dir, const char *temporary,
                              const struct tri_config *config, const struct tri_peft_form *form,
                              const char *base, struct tri_error *error)
{
    TRI_TRY(write_config(temporary, config, form, base, error));
    TRI_TRY(tri_file_sync_dir(temporary, error));
    TRI_TRY(tri_file_rename(temporary, dir, error));
    return tri_file_sync_parent(dir, error);
}

/* Collective. */
static struct tri_peft_form form_of(const struct tri_config *config,
                                    const struct tri_peft_target *target,
                                    const struct tri_params *params, bool root)
{
    int64_t rank = config->train.lora.rank;
    struct tri_peft_form form = {.family = target->family,
                                 .fused = target->fused,
                                 .experts = config->moe.num_experts,
                                 .rank = rank,
                                 .wide = rank};
    form.shared = share_a(&form, params, root);
    if (!form.shared) {
        form.wide = (form.fused ? 2 : 3) * rank;
    }
    return form;
}

enum tri_status tri_peft_check_fused(const struct tri_config *config, struct tri_error *error)
{
    if (config->moe.num_experts > 0 && tri_config_lora_targets(config, TRI_LORA_EXPERTS) &&
        !tri_config_lora_targets(config, TRI_LORA_SHARED) &&
        !tri_config_lora_targets(config, TRI_LORA_MLP)) {
        return TRI_OK;
    }
    return tri_config_refuse(config, error, "train.lora.targets",
                             "found '%.80s', expected experts, and attention alone beside them: "
                             "PEFT takes other MLPs for experts too (--fused)",
                             config->train.lora.targets);
}

enum tri_status tri_peft_save(const char *dir, const struct tri_config *config,
                              const struct tri_peft_target *target, const struct tri_params *params,
                              struct tri_error *error)
{
    struct tri_group *world = tri_mesh_group(params->mesh, TRI_ON_ALL);
    bool root = tri_group_rank(world) == 0;
    char temporary[PATH_BYTES];
    TRI_TRY(tri_path_format(temporary, sizeof(temporary), error, "%s" TRI_TEMPORARY, dir));
    TRI_TRY(tri_comm_agree(world, root ? begin(dir, temporary, error) : TRI_OK, error));
    const struct tri_peft_form form = form_of(config, target, params, root);
    struct tri_peft_piece *pieces =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)params->count * sizeof(*pieces));
    int count = tri_peft_pieces(&form, params, pieces);
    enum tri_status status =
        tri_comm_agree(world, write_pairs(temporary, params, count, pieces, root, error), error);
    tri_free(pieces);
    if (status == TRI_OK) {
        status = tri_comm_agree(
            world, root ? finish(dir, temporary, config, &form, target->base, error) : TRI_OK,
            error);
    }
    struct tri_error second;
    if (status != TRI_OK && root && tri_file_remove_tree(temporary, &second) != TRI_OK) {
        tri_log_warn("%s", second.message);
    }
    return status;
}
