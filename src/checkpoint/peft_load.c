/* PEFT's adapters -> low-rank pairs. */
#include "checkpoint/peft.h"

#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"
#include "checkpoint/hf_alike.h"
#include "checkpoint/safetensors.h"
#include "config/text.h"
#include "model/low_rank.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 2048, RANK_MOST = 1 << 16, BLOCK = 1 << 20 };

#define FILE_NAME "adapter_model.safetensors"

/* ---- adapter_config.json --------------------------------------------------------------------- */

/* Keys that are read here, or change nothing of what the tensors mean. */
static const char *const harmless[] = {
    "auto_mapping",
    "base_model_name_or_path",
    "bias",
    "corda_config",
    "eva_config",
    "exclude_modules",
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
    "revision",
    "target_modules",
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

static enum tri_status read_config(const char *path, const json_t *root,
                                   struct tri_config_lora *lora, struct tri_error *error)
{
    bool rooted = false;
    double alpha = 0.0;
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
    TRI_TRY(tri_json_get_int_in(path, root, "r", 1, RANK_MOST, &lora->rank, error));
    TRI_TRY(tri_json_get_real(path, root, "lora_alpha", true, &alpha, error));
    TRI_TRY(tri_json_get_bool(path, root, "use_rslora", false, &rooted, error));
    lora->alpha = rooted ? alpha * sqrt((double)lora->rank) : alpha;
    return lora->alpha > 0.0 && lora->alpha <= 1e6
               ? TRI_OK
               : tri_fail(error, TRI_BAD_INPUT,
                          "%s: key 'lora_alpha': found %g, expected a number above 0, at most 1e6",
                          path, alpha);
}

/* ---- which weights have pairs ---------------------------------------------------------------- */

static enum tri_status open_set(const char *dir, struct tri_safetensors_set **set,
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
    } parts[] = {{".self_attn.", TRI_LORA_ATTENTION},  {".experts.", TRI_LORA_EXPERTS},
                 {".shared_expert.", TRI_LORA_SHARED}, {".mlp.gate.", TRI_LORA_TARGETS},
                 {".mlp.shared_", TRI_LORA_TARGETS},   {".mlp.", TRI_LORA_MLP}};
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

enum tri_status tri_peft_load_config(const char *dir, struct tri_config_lora *lora,
                                     struct tri_error *error)
{
    char path[PATH_BYTES];
    json_t *root;
    struct tri_safetensors_set *set;
    *lora = (struct tri_config_lora){0};
    TRI_TRY(tri_path_format(path, sizeof(path), error, "%s/adapter_config.json", dir));
    TRI_TRY(tri_json_load(path, &root, error));
    enum tri_status status = read_config(path, root, lora, error);
    json_decref(root);
    TRI_TRY(status);
    TRI_TRY(open_set(dir, &set, error));
    status = find_targets(set, lora, error);
    tri_safetensors_set_close(set);
    return status;
}

/* ---- the pairs ------------------------------------------------------------------------------- */

struct loader {
    const char *dir;
    struct tri_params *params;
    struct tri_safetensors_set *set;
    struct tri_part_file *in;
    bool *used;            /* of the set's tensors */
    int64_t pairs, begins; /* those of the model; those of them that the folder does not have */
    void *raw, *values;
    size_t raw_bytes, values_bytes;
    struct tri_hash *hash; /* of what is read for a half */
    uint64_t *hashes;      /* of all rows */
};

/* This rank's rows of a tensor, as many at once as a block holds. */
static enum tri_status load_rows(struct loader *l, const struct tri_safetensor *tensor,
                                 const struct tri_param *param, struct tri_error *error)
{
    int64_t columns = param->shape[1];
    int64_t step = columns < BLOCK ? BLOCK / columns : 1;
    size_t each = tensor->bytes / (size_t)tensor->count;
    tri_hash_reset(l->hash);
    for (int64_t row = param->local[0].begin; row < param->local[0].end; row += step) {
        struct tri_range rows = {row, row + step < param->local[0].end ? row + step
                                                                       : param->local[0].end};
        size_t n = (size_t)(tri_range_size(rows) * columns);
        struct tri_safetensor here = *tensor;
        here.count = (int64_t)n;
        here.data = tri_grow(TRI_MEMORY_OTHER, &l->raw, &l->raw_bytes, n * each);
        float *values =
            tri_grow(TRI_MEMORY_OTHER, &l->values, &l->values_bytes, n * sizeof(*values));
        TRI_TRY(tri_part_file_read(l->in, tensor->offset + (uint64_t)(row * columns) * each, l->raw,
                                   n * each, error));
        tri_hash_update(l->hash, l->raw, n * each);
        TRI_TRY(tri_safetensor_read_f32(&here, 0, here.count, values, error));
        TRI_TRY(tri_safetensor_expect_finite(tensor, values, here.count, error));
        tri_param_scatter_rows(l->params, param, TRI_FIELD_WEIGHT, rows, values);
    }
    l->hashes[param - l->params->param] = tri_hash_get(l->hash);
    return TRI_OK;
}

static enum tri_status load_half(struct loader *l, const char *name, const struct tri_param *param,
                                 struct tri_error *error)
{
    int64_t at = tri_safetensors_set_find(l->set, name);
    if (at < 0) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: tensor %s is missing, the other of its pair is "
                        "there",
                        l->dir, name);
    }
    const struct tri_safetensor *tensor = l->set->tensor[at];
    bool real = tensor->dtype == TRI_ST_F32 || tensor->dtype == TRI_ST_BF16 ||
                tensor->dtype == TRI_ST_F16 || tensor->dtype == TRI_ST_F64;
    if (!real) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: tensor %s: dtype %s, expected F32, BF16, F16 or F64", tensor->path,
                        tensor->name, tri_safetensors_dtype_name(tensor->dtype));
    }
    TRI_TRY(tri_safetensor_expect_shape(tensor, 2, param->shape, error));
    l->used[at] = true;
    return param->held ? load_rows(l, tensor, param, error) : TRI_OK;
}

static enum tri_status load_pairs(struct loader *l, enum tri_hf_family family, int64_t experts,
                                  struct tri_error *error)
{
    tri_params_settle(l->params);
    for (int p = 0; p < l->params->count; p++) {
        const struct tri_param *a, *b, *weight = &l->params->param[p];
        struct tri_hf_source source;
        if (!tri_low_rank_find(l->params, weight, &a, &b)) {
            continue;
        }
        char down[TRI_PEFT_NAME], up[TRI_PEFT_NAME];
        bool named = tri_hf_source_get(family, weight, experts, TRI_HF_PER_EXPERT, &source);
        TRI_REQUIRE(named);
        tri_peft_name(&source, 'A', down);
        tri_peft_name(&source, 'B', up);
        l->pairs++;
        if (tri_safetensors_set_find(l->set, down) < 0 &&
            tri_safetensors_set_find(l->set, up) < 0) {
            l->begins++;
            continue;
        }
        TRI_TRY(load_half(l, down, a, error));
        TRI_TRY(load_half(l, up, b, error));
    }
    for (int64_t i = 0; i < l->set->count; i++) {
        if (!l->used[i]) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s: tensor %.200s: the model has no place for it: expected an adapter "
                            "of this model",
                            l->set->tensor[i]->path, l->set->tensor[i]->name);
        }
    }
    return TRI_OK;
}

static enum tri_status open_folder(struct loader *l, const struct tri_config *config,
                                   enum tri_hf_family *family, struct tri_error *error)
{
    TRI_TRY(tri_hf_family_of(config, family, error));
    TRI_TRY(tri_peft_check(config, *family, error));
    return open_set(l->dir, &l->set, error);
}

static enum tri_status load_local(struct loader *l, const struct tri_config *config,
                                  enum tri_hf_family family, struct tri_error *error)
{
    TRI_TRY(tri_part_file_open(l->set->file[0]->path, &l->in, error));
    l->used = tri_alloc(TRI_MEMORY_OTHER, (size_t)l->set->count * sizeof(*l->used));
    l->hash = tri_hash_create();
    l->hashes = tri_alloc(TRI_MEMORY_OTHER, (size_t)l->params->count * sizeof(*l->hashes));
    return load_pairs(l, family, config->moe.num_experts, error);
}

/* Collective; the status is agreed. */
static enum tri_status load(struct loader *l, const struct tri_config *config,
                            struct tri_error *error)
{
    struct tri_group *world = tri_mesh_group(l->params->mesh, TRI_ON_ALL);
    enum tri_hf_family family = TRI_HF_MIXTRAL;
    struct tri_error why;
    enum tri_status status = open_folder(l, config, &family, &why);
    TRI_TRY(tri_hf_compare_sets(l->params->mesh, l->dir, l->set, &why, error));
    if (status != TRI_OK) { /* on all ranks */
        *error = why;
        return tri_comm_agree(world, status, error);
    }
    TRI_TRY(tri_comm_agree(world, load_local(l, config, family, error), error));
    return tri_hf_compare_rows(l->params, l->dir, l->hashes, error);
}

enum tri_status tri_peft_load(const char *dir, const struct tri_config *config,
                              struct tri_params *params, struct tri_error *error)
{
    bool root = params->mesh->rank == 0;
    struct loader l = {.dir = dir, .params = params};
    enum tri_status status = load(&l, config, error);
    if (status == TRI_OK && root) {
        tri_log_info("the pairs of %s", dir);
    }
    if (status == TRI_OK && root && l.begins > 0) {
        tri_log_warn("%s: has pairs of %" PRId64 " of %" PRId64
                     " weights; those of the others begin anew",
                     dir, l.pairs - l.begins, l.pairs);
    }
    tri_hash_destroy(l.hash);
    tri_free(l.hashes);
    tri_part_file_destroy(l.in);
    tri_safetensors_set_close(l.set);
    tri_free(l.used);
    tri_free(l.raw);
    tri_free(l.values);
    return status;
}
