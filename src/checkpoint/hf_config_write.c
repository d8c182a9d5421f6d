/* Sections model and moe -> a family of transformers and its config.json. */
#include "checkpoint/hf.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/path.h"
#include "checkpoint/hf_rope.h"
#include "data/tokenizer_files.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char *const architectures[TRI_HF_FAMILY_COUNT] = {
    "MixtralForCausalLM", "OlmoeForCausalLM", "Qwen2MoeForCausalLM", "Qwen3MoeForCausalLM",
    "GPT2LMHeadModel",    "LlamaForCausalLM", "Qwen3ForCausalLM",    "MistralForCausalLM",
};

/* ---- which family ---------------------------------------------------------------------------- */

static bool every_layer_is_moe(const struct tri_config *config)
{
    for (int64_t i = 0; i < config->model.num_layers; i++) {
        if (!tri_config_layer_is_moe(config, i)) {
            return false;
        }
    }
    return true;
}

static bool has_windows(const struct tri_config_model *m)
{
    return m->sliding_window > 0 && m->sliding_window < m->max_position;
}

/* NULL, or what of the windows the family has no word for. */
static const char *window_obstacle(const struct tri_config_model *m, enum tri_hf_family family)
{
    if (!has_windows(m) || family == TRI_HF_QWEN3 || family == TRI_HF_QWEN2_MOE) {
        return NULL;
    }
    if (family == TRI_HF_OLMOE || family == TRI_HF_LLAMA || family == TRI_HF_GPT2) {
        return "model.sliding_window in a model of this kind";
    }
    return m->num_window_layers > 0 ? "model.window_layers in a model of this kind" : NULL;
}

static bool is_gpt2(const struct tri_config_model *m)
{
    return m->norm == TRI_NORM_LAYER && m->position == TRI_POSITION_LEARNED &&
           m->bias == TRI_BIAS_ALL && m->mlp != TRI_MLP_SWIGLU && m->qk_norm == TRI_QK_NORM_NONE &&
           m->num_kv_heads == m->num_heads && m->num_heads * m->head_dim == m->hidden_size;
}

/* NULL, or what no family of transformers has in a model with experts. */
static const char *moe_family(const struct tri_config *config, enum tri_hf_family *family)
{
    const struct tri_config_model *m = &config->model;
    const struct tri_config_moe *moe = &config->moe;
    bool whole_heads = m->num_heads * m->head_dim == m->hidden_size;
    if (!moe->router->exported) {
        return "this moe.router";
    }
    if (moe->score == TRI_SCORE_SIGMOID) {
        return "moe.score sigmoid";
    }
    if (moe->groups > 1 && moe->groups_top < moe->groups) {
        return "moe.groups";
    }
    if (moe->routed_scaling != 1.0) {
        return "moe.routed_scaling";
    }
    if (moe->bias_balancing > 0) {
        return "moe.bias_balancing";
    }
    if (moe->shared_intermediate_size > 0) {
        *family = TRI_HF_QWEN2_MOE;
        return m->qk_norm != TRI_QK_NORM_NONE ? "model.qk_norm beside a shared expert"
               : m->bias == TRI_BIAS_ALL      ? "model.bias all beside experts"
               : !moe->shared_gate            ? "a shared expert without moe.shared_gate"
               : !whole_heads ? "a shared expert and heads that do not fill hidden_size"
                              : NULL;
    }
    if (m->bias != TRI_BIAS_NONE) {
        return "model.bias beside experts none of which is shared";
    }
    if (m->qk_norm == TRI_QK_NORM_HEAD) {
        *family = TRI_HF_QWEN3_MOE;
        return NULL;
    }
    if (!every_layer_is_moe(config)) {
        return "layers without experts, unless model.qk_norm is head or there is a shared expert";
    }
    if (m->qk_norm == TRI_QK_NORM_FULL) {
        *family = TRI_HF_OLMOE;
        return whole_heads ? NULL : "model.qk_norm full and heads that do not fill hidden_size";
    }
    *family = TRI_HF_MIXTRAL;
    return moe->normalize_top_k ? NULL : "moe.normalize_top_k false without model.qk_norm";
}

static const char *dense_family(const struct tri_config_model *m, enum tri_hf_family *family)
{
    if (m->bias == TRI_BIAS_QKV || (m->bias == TRI_BIAS_ALL && m->qk_norm != TRI_QK_NORM_NONE)) {
        return "model.bias in a dense model of this kind";
    }
    bool mistral = has_windows(m) && m->bias == TRI_BIAS_NONE;
    *family = m->qk_norm == TRI_QK_NORM_HEAD ? TRI_HF_QWEN3
              : mistral                      ? TRI_HF_MISTRAL
                                             : TRI_HF_LLAMA;
    return m->qk_norm == TRI_QK_NORM_FULL ? "model.qk_norm full in a dense model" : NULL;
}

enum tri_status tri_hf_family_of(const struct tri_config *config, enum tri_hf_family *family,
                                 struct tri_error *error)
{
    const struct tri_config_model *m = &config->model;
    const char *obstacle;
    if (config->moe.num_experts == 0 && is_gpt2(m)) {
        *family = TRI_HF_GPT2;
        obstacle = NULL;
    } else if (m->norm != TRI_NORM_RMS || m->position != TRI_POSITION_ROPE ||
               m->mlp != TRI_MLP_SWIGLU) {
        obstacle = "this mix of model.norm, model.position, model.mlp and model.bias";
    } else {
        obstacle =
            config->moe.num_experts > 0 ? moe_family(config, family) : dense_family(m, family);
    }
    obstacle = obstacle ? obstacle : window_obstacle(m, *family);
    if (obstacle) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "no architecture of transformers that Trident knows has %s: this model "
                        "cannot be exported",
                        obstacle);
    }
    return TRI_OK;
}

/* ---- config.json ----------------------------------------------------------------------------- */

/* update takes from, as json_object_update does but consuming it. */
static void add(json_t *root, json_t *from)
{
    TRI_REQUIRE(from && json_object_update(root, from) == 0);
    json_decref(from);
}

static json_t *gpt2_keys(const struct tri_config_model *m)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:f, s:s, s:f, s:f, s:f, s:b, s:b}", "n_embd",
                     (json_int_t)m->hidden_size, "n_layer", (json_int_t)m->num_layers, "n_head",
                     (json_int_t)m->num_heads, "n_positions", (json_int_t)m->max_position, "n_ctx",
                     (json_int_t)m->max_position, "n_inner", (json_int_t)m->intermediate_size,
                     "layer_norm_epsilon", m->norm_epsilon, "activation_function",
                     m->mlp == TRI_MLP_GELU ? "gelu_new" : "gelu", "attn_pdrop", 0.0, "embd_pdrop",
                     0.0, "resid_pdrop", 0.0, "scale_attn_weights", 1,
                     "scale_attn_by_inverse_layer_idx", 0);
}

static json_t *llama_keys(const struct tri_config_model *m)
{
    /* The base of dynamic grows from what is written here; longer rows are run all the same. */
    int64_t positions = m->rope_scaling == TRI_ROPE_DYNAMIC ? m->rope_original : m->max_position;
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:f, s:b, s:f}", "hidden_size",
                     (json_int_t)m->hidden_size, "num_hidden_layers", (json_int_t)m->num_layers,
                     "num_attention_heads", (json_int_t)m->num_heads, "num_key_value_heads",
                     (json_int_t)m->num_kv_heads, "head_dim", (json_int_t)m->head_dim,
                     "intermediate_size", (json_int_t)m->intermediate_size,
                     "max_position_embeddings", (json_int_t)positions, "hidden_act", "silu",
                     "rms_norm_eps", m->norm_epsilon, "attention_bias", m->bias == TRI_BIAS_ALL,
                     "attention_dropout", 0.0);
}

static json_t *moe_keys(const struct tri_config *config, enum tri_hf_family family)
{
    const struct tri_config_moe *moe = &config->moe;
    json_t *keys = json_pack("{s:I, s:f, s:b}", "num_experts_per_tok", (json_int_t)moe->top_k,
                             "router_aux_loss_coef", moe->aux_loss, "output_router_logits", 0);
    if (family == TRI_HF_MIXTRAL || family == TRI_HF_OLMOE) {
        add(keys, json_pack("{s:I}", "intermediate_size", (json_int_t)moe->intermediate_size));
    }
    if (family == TRI_HF_MIXTRAL) {
        add(keys, json_pack("{s:I, s:f}", "num_local_experts", (json_int_t)moe->num_experts,
                            "router_jitter_noise", moe->jitter));
        return keys;
    }
    add(keys, json_pack("{s:I, s:b}", "num_experts", (json_int_t)moe->num_experts, "norm_topk_prob",
                        moe->normalize_top_k));
    if (family == TRI_HF_OLMOE) {
        add(keys, json_pack("{s:n}", "clip_qkv"));
        return keys;
    }
    json_t *dense = json_array();
    for (int64_t i = 0; i < config->model.num_layers && moe->num_layers > 0; i++) {
        if (!tri_config_layer_is_moe(config, i)) {
            (void)json_array_append_new(dense, json_integer(i));
        }
    }
    add(keys,
        json_pack("{s:I, s:I, s:o}", "moe_intermediate_size", (json_int_t)moe->intermediate_size,
                  "decoder_sparse_step", (json_int_t)(moe->num_layers > 0 ? 1 : moe->every),
                  "mlp_only_layers", dense));
    if (family == TRI_HF_QWEN2_MOE) {
        add(keys, json_pack("{s:I, s:b}", "shared_expert_intermediate_size",
                            (json_int_t)moe->shared_intermediate_size, "qkv_bias",
                            config->model.bias == TRI_BIAS_QKV));
    }
    return keys;
}

/* Of layers that have it and others: layer_types, and for older versions how many. */
static json_t *window_keys(const struct tri_config *config, enum tri_hf_family family)
{
    const struct tri_config_model *m = &config->model;
    bool on = has_windows(m);
    json_t *keys =
        json_pack("{s:o}", "sliding_window", on ? json_integer(m->sliding_window) : json_null());
    if (family == TRI_HF_QWEN2_MOE || family == TRI_HF_QWEN3_MOE || family == TRI_HF_QWEN3) {
        add(keys, json_pack("{s:b}", "use_sliding_window", on));
    }
    if (on && (family == TRI_HF_QWEN2_MOE || family == TRI_HF_QWEN3)) {
        json_t *types = json_array();
        for (int64_t i = 0; i < m->num_layers; i++) {
            bool windowed = tri_config_layer_window(config, i) > 0;
            (void)json_array_append_new(
                types, json_string(windowed ? "sliding_attention" : "full_attention"));
        }
        int64_t first = m->num_window_layers > 0 ? m->window_layers[0] : 0;
        add(keys, json_pack("{s:o, s:I}", "layer_types", types, "max_window_layers",
                            (json_int_t)(family == TRI_HF_QWEN3 ? first : m->num_layers)));
    }
    return keys;
}

static void copy_ids(const json_t *from, json_t *to)
{
    static const char *const keys[] = {"bos_token_id", "eos_token_id", "pad_token_id"};
    for (size_t i = 0; i < sizeof(keys) / sizeof(*keys); i++) {
        json_t *id = json_object_get(from, keys[i]);
        if (json_is_integer(id) || json_is_array(id)) {
            (void)json_object_set(to, keys[i], id);
        }
    }
}

/* The tokens that end a text, as a tokenizer's folder says it. */
static enum tri_status read_stops(const char *folder, json_t *root, struct tri_error *error)
{
    char path[2048];
    struct tri_tokenizer *tokenizer;
    int32_t stop[TRI_STOPS];
    int count = 0;
    TRI_TRY(tri_path_format(path, sizeof(path), error, "%s/tokenizer.json", folder));
    TRI_TRY(tri_tokenizer_create(path, &tokenizer, error));
    enum tri_status status = tri_tokenizer_read_stops(folder, tokenizer, stop, &count, error);
    tri_tokenizer_destroy(tokenizer);
    TRI_TRY(status);
    json_t *ids = json_array();
    for (int i = 0; i < count; i++) {
        (void)json_array_append_new(ids, json_integer(stop[i]));
    }
    if (count > 0) {
        (void)json_object_set(root, "eos_token_id", count > 1 ? ids : json_array_get(ids, 0));
    }
    json_decref(ids);
    return TRI_OK;
}

/* The config.json of the folder that a model began with; NULL: there is none to be read. */
static json_t *read_origin(const char *folder)
{
    char path[2048];
    json_t *root;
    struct tri_error ignored;
    bool read = folder && folder[0] &&
                tri_path_format(path, sizeof(path), &ignored, "%s/config.json", folder) == TRI_OK &&
                tri_file_exists(path) && tri_json_load(path, &root, &ignored) == TRI_OK;
    return read ? root : NULL;
}

void tri_hf_keep_name(const struct tri_config *config, const char *folder,
                      enum tri_hf_family *family)
{
    if (*family != TRI_HF_LLAMA || config->model.bias != TRI_BIAS_NONE) {
        return;
    }
    json_t *root = read_origin(folder);
    const char *type = json_string_value(json_object_get(root, "model_type"));
    if (type && strcmp(type, tri_hf_family_name(TRI_HF_MISTRAL)) == 0) {
        *family = TRI_HF_MISTRAL;
    }
    json_decref(root);
}

/* The ids of special tokens: those of the config.json that the model began with, but what ends a
 * text as the checkpoint's own tokenizer says it, where it does: the model may have learned another
 * end since. What cannot be read stays null. */
static void take_ids(const struct tri_hf_origin *origin, json_t *root)
{
    char path[2048];
    struct tri_error ignored;
    json_t *before = read_origin(origin->folder);
    copy_ids(before, root);
    json_decref(before);
    if (origin->checkpoint && tri_tokenizer_files_find(origin->checkpoint, path, sizeof(path)) &&
        read_stops(path, root, &ignored) != TRI_OK &&
        json_is_null(json_object_get(root, "eos_token_id"))) {
        tri_log_warn("%s", ignored.message);
    }
}

static enum tri_status save(const char *dir, const char *name, json_t *root,
                            struct tri_error *error)
{
    char path[2048];
    char *text = json_dumps(root, JSON_INDENT(2) | JSON_SORT_KEYS | JSON_REAL_PRECISION(16));
    TRI_REQUIRE(text);
    tri_path_make(path, sizeof(path), "%s/%s", dir, name);
    enum tri_status status = tri_file_save(path, text, strlen(text), error);
    free(text);
    return status;
}

/* As transformers makes it of a config.json. */
static enum tri_status save_generation(const char *dir, const json_t *config,
                                       struct tri_error *error)
{
    json_t *root = json_pack("{s:b}", "_from_model_config", 1);
    TRI_REQUIRE(root);
    copy_ids(config, root);
    enum tri_status status = save(dir, "generation_config.json", root, error);
    json_decref(root);
    return status;
}

enum tri_status tri_hf_save_config(const char *dir, const struct tri_config *config,
                                   enum tri_hf_family family, enum tri_safetensors_dtype dtype,
                                   const struct tri_hf_origin *origin, struct tri_error *error)
{
    const struct tri_config_model *m = &config->model;
    const char *type = dtype == TRI_ST_BF16  ? "bfloat16"
                       : dtype == TRI_ST_F16 ? "float16"
                                             : "float32";
    tri_hf_keep_name(config, origin ? origin->folder : NULL, &family);
    json_t *root =
        json_pack("{s:[s], s:s, s:s, s:s, s:I, s:f, s:b, s:b, s:n, s:n, s:n}", "architectures",
                  architectures[family], "model_type", tri_hf_family_name(family), "torch_dtype",
                  type, "dtype", type, "vocab_size", (json_int_t)m->vocab_size, "initializer_range",
                  m->init_std, "tie_word_embeddings", m->tie_embeddings, "use_cache", 1,
                  "bos_token_id", "eos_token_id", "pad_token_id");
    add(root, family == TRI_HF_GPT2 ? gpt2_keys(m) : llama_keys(m));
    if (family == TRI_HF_LLAMA) {
        add(root, json_pack("{s:b}", "mlp_bias", m->bias == TRI_BIAS_ALL));
    }
    if (config->moe.num_experts > 0) {
        add(root, moe_keys(config, family));
    }
    if (family != TRI_HF_GPT2) {
        add(root, tri_hf_rope_keys(m));
    }
    if (family != TRI_HF_GPT2 && family != TRI_HF_OLMOE && family != TRI_HF_LLAMA) {
        add(root, window_keys(config, family));
    }
    if (origin) {
        take_ids(origin, root);
    }
    enum tri_status status = save(dir, "config.json", root, error);
    if (status == TRI_OK) {
        status = save_generation(dir, root, error);
    }
    json_decref(root);
    return status;
}
