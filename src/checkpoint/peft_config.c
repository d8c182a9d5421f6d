/* What PEFT's adapters say of themselves: adapter_config.json and the names of the tensors. */
#include "checkpoint/peft.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"
#include "checkpoint/safetensors.h"
#include "config/text.h"
#include "model/low_rank.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PATH_BYTES = 2048, RANK_MOST = 1 << 16 };

#define FILE_NAME "adapter_model.safetensors"

/* ---- adapter_config.json --------------------------------------------------------------------- */

/* Keys that are read here, or change nothing of what the tensors mean. */
static const char *const harmless[] = {
    "alpha_pattern",
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "eva_config",
    "exclude_modules",
    "fan_in_fan_out",
    "inference_mode",
    "init_lora_weights",
    "layers_pattern",
    "layers_to_transform",
    "loftq_config",
    "lora_alpha",
    "lora_dropout",
    "lora_ga_config",
    "megatron_core",
    "peft_type",
    "peft_version",
    "qalora_group_size",
    "r",
    "rank_pattern",
    "revision",
    "target_modules",
    "target_parameters",
    "task_type",
    "use_rslora",
};

static bool is_harmless(const char *key)
{
    for (size_t i = 0; i < sizeof(harmless) / sizeof(*harmless); i++) {
        if (strcmp(key, harmless[i]) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_nothing(const json_t *value)
{
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0);
}

/* A word that it may have, or nothing. */
static enum tri_status expect_word(const char *path, const json_t *root, const char *key,
                                   const char *const *words, const char *expected,
                                   struct tri_error *error)
{
    const char *text = NULL;
    TRI_TRY(tri_json_get_text(path, root, key, false, &text, error));
    for (int i = 0; text && words[i]; i++) {
        if (strcmp(text, words[i]) == 0) {
            text = NULL;
        }
    }
    return text ? tri_fail(error, TRI_BAD_INPUT, "%s: key '%s': found '%.80s', expected %s", path,
                           key, text, expected)
                : TRI_OK;
}

/* Ways to begin that change the base model as well are as good as another base model. */
static enum tri_status check_words(const char *path, const json_t *root, struct tri_error *error)
{
    static const char *const lora[] = {"LORA", NULL}, *const none[] = {"none", NULL};
    static const char *const plain[] = {"gaussian", "eva", "orthogonal", NULL};
    TRI_TRY(expect_word(path, root, "peft_type", lora, "LORA", error));
    TRI_TRY(expect_word(path, root, "bias", none, "none", error));
    return json_is_string(json_object_get(root, "init_lora_weights"))
               ? expect_word(path, root, "init_lora_weights", plain,
                             "true, gaussian, eva or orthogonal: others change the model too",
                             error)
               : TRI_OK;
}

/* Ranks and alphas of some modules: of matrices that are several weights, with the scale of all. */
static enum tri_status read_patterns(const char *path, const json_t *root, double alpha,
                                     struct tri_peft_form *form, struct tri_error *error)
{
    const json_t *ranks = json_object_get(root, "rank_pattern");
    const json_t *alphas = json_object_get(root, "alpha_pattern");
    json_t *of_ranks = (json_t *)(uintptr_t)ranks, *of_alphas = (json_t *)(uintptr_t)alphas;
    void *x = json_object_iter(of_ranks), *y = json_object_iter(of_alphas);
    form->wide = form->rank;
    for (; x || y;
         x = json_object_iter_next(of_ranks, x), y = json_object_iter_next(of_alphas, y)) {
        int64_t rank = x ? json_integer_value(json_object_iter_value(x)) : 0;
        double scaled = y ? json_number_value(json_object_iter_value(y)) : 0.0;
        bool alike = x && y && strcmp(json_object_iter_key(x), json_object_iter_key(y)) == 0;
        double expected = (double)rank / (double)form->rank * alpha; /* but for rounding */
        bool fits = rank > 0 && rank <= RANK_MOST &&
                    fabs(scaled - expected) <= 1e-12 * fabs(expected) &&
                    (form->wide == form->rank || form->wide == rank);
        if (!alike || !fits) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: keys 'rank_pattern' and 'alpha_pattern': expected one rank, for "
                            "the same modules in both, and lora_alpha / r for all of them",
                            path);
        }
        form->wide = rank;
    }
    return TRI_OK;
}

static enum tri_status read_numbers(const char *path, const json_t *root,
                                    struct tri_config_lora *lora, struct tri_peft_form *form,
                                    struct tri_error *error)
{
    bool rooted = false;
    double alpha = 0.0;
    TRI_TRY(tri_json_get_int_in(path, root, "r", 1, RANK_MOST, &form->rank, error));
    TRI_TRY(tri_json_get_real(path, root, "lora_alpha", true, &alpha, error));
    TRI_TRY(tri_json_get_bool(path, root, "use_rslora", false, &rooted, error));
    TRI_TRY(tri_json_get_real(path, root, "lora_dropout", false, &form->dropout, error));
    TRI_TRY(read_patterns(path, root, alpha, form, error));
    if (rooted && form->wide != form->rank) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: key 'use_rslora': found true beside rank_pattern, expected one rank",
                        path);
    }
    lora->rank = form->rank;
    lora->alpha = rooted ? alpha * sqrt((double)form->rank) : alpha;
    return lora->alpha > 0.0 && lora->alpha <= 1e6
               ? TRI_OK
               : tri_fail(error, TRI_BAD_INPUT,
                          "%s: key 'lora_alpha': found %g, expected a number above 0, at most 1e6",
                          path, alpha);
}

static enum tri_status read_config(const char *path, const json_t *root,
                                   struct tri_config_lora *lora, struct tri_peft_form *form,
                                   struct tri_error *error)
{
    TRI_TRY(check_words(path, root, error));
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)root, key, value)
    {
        if (!is_harmless(key) && !is_nothing(value)) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: key '%.80s': in use and not read, expected null or false", path,
                            key);
        }
    }
    return read_numbers(path, root, lora, form, error);
}

/* ---- whose they are -------------------------------------------------------------------------- */

void tri_peft_compare_base(const char *dir, const char *model)
{
    char path[PATH_BYTES];
    json_t *root = NULL;
    struct tri_error ignored;
    if (tri_path_format(path, sizeof(path), &ignored, "%s/adapter_config.json", dir) != TRI_OK ||
        tri_json_load(path, &root, &ignored) != TRI_OK) {
        return;
    }
    const char *base = json_string_value(json_object_get(root, "base_model_name_or_path"));
    char *theirs = base ? realpath(base, NULL) : NULL;
    char *ours = realpath(model, NULL);
    if (theirs && ours && strcmp(theirs, ours) != 0) {
        tri_log_warn("%s: its adapter_config.json says that its base is %.300s, and it is put on "
                     "%.300s: beside other weights pairs mean nothing",
                     dir, base, model);
    }
    free(ours);
    free(theirs);
    json_decref(root);
}

/* ---- which weights have pairs ---------------------------------------------------------------- */

enum tri_status tri_peft_open_set(const char *dir, struct tri_safetensors_set **set,
                                  struct tri_error *error)
{
    char path[PATH_BYTES];
    TRI_TRY(tri_path_format(path, sizeof(path), error, "%s/" FILE_NAME, dir));
    if (!tri_file_exists(path)) {
        TRI_TRY(tri_path_format(path, sizeof(path), error, "%s/adapter_model.bin", dir));
        return tri_fail(error, TRI_BAD_INPUT, "%s: holds no " FILE_NAME "%s", dir,
                        tri_file_exists(path) ? "; adapter_model.bin is not read" : "");
    }
    static const char *const names[] = {FILE_NAME};
    return tri_safetensors_set_open_files(dir, 1, names, false, set, error);
}

/* The target of a tensor, by its module's name; TRI_LORA_TARGETS: of none. */
static enum tri_lora_target target_of(const char *name)
{
    static const struct {
        const char *part;
        enum tri_lora_target target;
    } parts[] = {{".self_attn.", TRI_LORA_ATTENTION},
                 {".attn.", TRI_LORA_ATTENTION},
                 {".experts.", TRI_LORA_EXPERTS},
                 {".shared_expert.", TRI_LORA_SHARED},
                 {".mlp.gate.", TRI_LORA_TARGETS},
                 {".mlp.shared_", TRI_LORA_TARGETS},
                 {".mlp.", TRI_LORA_MLP}};
    if (!tri_text_ends_with(name, ".lora_A.weight") &&
        !tri_text_ends_with(name, ".lora_B.weight")) {
        return TRI_LORA_TARGETS;
    }
    for (size_t i = 0; i < sizeof(parts) / sizeof(*parts); i++) {
        if (strstr(name, parts[i].part)) {
            return parts[i].target;
        }
    }
    return TRI_LORA_TARGETS;
}

static enum tri_status find_targets(const struct tri_safetensors_set *set,
                                    struct tri_config_lora *lora, struct tri_error *error)
{
    bool found[TRI_LORA_TARGETS + 1] = {false};
    size_t used = 0;
    for (int64_t i = 0; i < set->count; i++) {
        const struct tri_safetensor *tensor = set->tensor[i];
        found[target_of(tensor->name)] = true;
        if (found[TRI_LORA_TARGETS]) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: tensor %.200s: expected lora_A and lora_B of attention, of each "
                            "expert, of shared experts and MLPs alone",
                            tensor->path, tensor->name);
        }
    }
    for (int i = 0; i < TRI_LORA_TARGETS; i++) {
        const char *word = tri_lora_target_word((enum tri_lora_target)i);
        if (found[i]) {
            used += (size_t)snprintf(lora->targets + used, sizeof(lora->targets) - used, "%s%s",
                                     used > 0 ? ", " : "", word);
        }
    }
    return used > 0 ? TRI_OK
                    : tri_fail(error, TRI_BAD_INPUT,
                               "%s: holds no tensors, expected lora_A and "
                               "lora_B of some weights",
                               set->file[0]->path);
}

/* ---- ranks ----------------------------------------------------------------------------------- */

static bool is_fused(const char *name)
{
    return strstr(name, ".experts.base_layer.lora_") || strstr(name, ".experts.lora_");
}

/* Weights of the matrix that a tensor is of. */
static int count_weights(const char *name)
{
    return strstr(name, ".attn.c_attn.") ? 3 : strstr(name, ".experts.base_layer.lora_") ? 2 : 1;
}

static enum tri_status check_ranks(const struct tri_safetensors_set *set,
                                   struct tri_peft_form *form, struct tri_error *error)
{
    for (int64_t i = 0; i < set->count; i++) {
        const struct tri_safetensor *tensor = set->tensor[i];
        bool last = tri_text_ends_with(tensor->name, ".lora_B.weight");
        bool fused = is_fused(tensor->name);
        int64_t rank = count_weights(tensor->name) > 1 ? form->wide : form->rank;
        int64_t found = tensor->dims == 2 ? tensor->shape[last] : 0;
        if (found != rank && !(fused && found > 0 && found % rank == 0)) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: tensor %.200s: shape [%" PRId64 ", %" PRId64
                            "], expected %s%" PRId64
                            " as its %s dimension, the rank of adapter_config.json",
                            tensor->path, tensor->name, tensor->dims > 0 ? tensor->shape[0] : 0,
                            tensor->dims > 1 ? tensor->shape[1] : 0, fused ? "a multiple of " : "",
                            rank, last ? "last" : "first");
        }
        form->fused = form->fused || fused;
    }
    return TRI_OK;
}

/* Of fused experts, one parameter's pair has the name that with another's is the second one's. */
static enum tri_status check_fused(const struct tri_safetensors_set *set, struct tri_error *error)
{
    int64_t excess = 0;
    for (int64_t i = 0; i < set->count; i++) {
        const char *name = set->tensor[i]->name;
        excess += is_fused(name) ? (count_weights(name) > 1 ? 1 : -1) : 0;
    }
    return excess == 0 ? TRI_OK
                       : tri_fail(error, TRI_BAD_INPUT,
                                  "%s: has one pair for the experts of a layer, expected pairs of "
                                  "gate_up_proj and of down_proj",
                                  set->file[0]->path);
}

/* Whether B, of a matrix of several weights, has in its first row what the first of them alone has.
 * All the rest of it is looked at when it is loaded. */
static enum tri_status begins_with_block(const struct tri_safetensor *tensor,
                                         const struct tri_peft_form *form, bool *block,
                                         struct tri_error *error)
{
    int64_t columns = tensor->shape[1], own = columns / form->wide * form->rank;
    if (tensor->count == 0) { /* its shape is refused when it is loaded */
        *block = false;
        return TRI_OK;
    }
    size_t each = tensor->bytes / (size_t)tensor->count;
    struct tri_part_file *in;
    struct tri_safetensor row = *tensor;
    TRI_TRY(tri_part_file_open(tensor->path, &in, error));
    unsigned char *raw = tri_alloc(TRI_MEMORY_OTHER, (size_t)columns * each);
    float *values = tri_alloc(TRI_MEMORY_OTHER, (size_t)columns * sizeof(*values));
    row.count = columns;
    row.data = raw;
    enum tri_status status =
        tri_part_file_read(in, tensor->offset, raw, (size_t)columns * each, error);
    if (status == TRI_OK) {
        status = tri_safetensor_read_f32(&row, 0, columns, values, error);
    }
    *block = true;
    for (int64_t j = own; status == TRI_OK && j < columns; j++) {
        *block = *block && values[j] == 0.0F;
    }
    tri_free(values);
    tri_free(raw);
    tri_part_file_destroy(in);
    return status;
}

/* In blocks, each weight has the rank of the others; not in blocks, that of the matrix, and so has
 * every other weight. */
static enum tri_status find_form(const struct tri_safetensors_set *set,
                                 struct tri_config_lora *lora, struct tri_peft_form *form,
                                 struct tri_error *error)
{
    int64_t i = 0;
    bool block = false;
    TRI_TRY(check_ranks(set, form, error));
    TRI_TRY(check_fused(set, error));
    form->shared = true;
    if (form->wide == form->rank) {
        return TRI_OK;
    }
    while (i < set->count && !(count_weights(set->tensor[i]->name) > 1 &&
                               tri_text_ends_with(set->tensor[i]->name, ".lora_B.weight"))) {
        i++;
    }
    if (i == set->count || form->wide != count_weights(set->tensor[i]->name) * form->rank) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: key 'rank_pattern' of adapter_config.json: found rank %" PRId64
                        ", expected r (%" PRId64
                        "), or 3 r of GPT-2's c_attn, or 2 r of experts' gate_up_proj",
                        set->file[0]->path, form->wide, form->rank);
    }
    TRI_TRY(begins_with_block(set->tensor[i], form, &block, error));
    form->shared = !block;
    if (form->shared) {
        lora->alpha *= (double)(form->wide / form->rank);
        lora->rank = form->wide;
    }
    return TRI_OK;
}

enum tri_status tri_peft_load_config(const char *dir, struct tri_config_lora *lora,
                                     struct tri_peft_form *form, struct tri_error *error)
{
    char path[PATH_BYTES];
    json_t *root;
    struct tri_safetensors_set *set;
    struct tri_peft_form found = {0};
    *lora = (struct tri_config_lora){0};
    TRI_TRY(tri_path_format(path, sizeof(path), error, "%s/adapter_config.json", dir));
    TRI_TRY(tri_json_load(path, &root, error));
    enum tri_status status = read_config(path, root, lora, &found, error);
    json_decref(root);
    TRI_TRY(status);
    TRI_TRY(tri_peft_open_set(dir, &set, error));
    status = find_targets(set, lora, error);
    if (status == TRI_OK) {
        status = find_form(set, lora, &found, error);
    }
    tri_safetensors_set_close(set);
    if (form) {
        *form = found;
    }
    return status;
}
