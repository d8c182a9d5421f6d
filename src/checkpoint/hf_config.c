/* config.json -> sections model and moe. A key that is absent has the default of its family's
 * class in transformers; a key that asks for what Trident does not compute is refused by name. */
#include "checkpoint/hf.h"

#include "base/path.h"
#include "checkpoint/hf_rope.h"
#include "base/json.h"
#include "moe/strategies.h"

#include <stdlib.h>
#include <string.h>

struct source {
    char path[TRI_PATH_MAX + 48]; /* as messages name it: with the family, once it is known */
    json_t *root;
    enum tri_hf_family family;
    struct tri_config *config;
    struct tri_error *error;
};

static const struct {
    const char *architecture;
    double norm_epsilon, rope_theta, aux_loss;
} families[TRI_HF_FAMILY_COUNT] = {
    [TRI_HF_MIXTRAL] = {"MixtralForCausalLM", 1e-5, 1e6, 0.001},
    [TRI_HF_OLMOE] = {"OlmoeForCausalLM", 1e-5, 1e4, 0.01},
    [TRI_HF_QWEN2_MOE] = {"Qwen2MoeForCausalLM", 1e-6, 1e4, 0.001},
    [TRI_HF_QWEN3_MOE] = {"Qwen3MoeForCausalLM", 1e-6, 1e4, 0.001},
    [TRI_HF_GPT2] = {"GPT2LMHeadModel", 1e-5, 1e4, 0},
    [TRI_HF_LLAMA] = {"LlamaForCausalLM", 1e-6, 1e4, 0},
    [TRI_HF_QWEN3] = {"Qwen3ForCausalLM", 1e-6, 1e4, 0},
    [TRI_HF_MISTRAL] = {"MistralForCausalLM", 1e-6, 1e4, 0},
};

static enum tri_status get_int(const struct source *s, const char *key, bool required,
                               int64_t *value)
{
    return tri_json_get_int(s->path, s->root, key, required, value, s->error);
}

static enum tri_status get_real(const struct source *s, const char *key, double *value)
{
    return tri_json_get_real(s->path, s->root, key, false, value, s->error);
}

static enum tri_status get_bool(const struct source *s, const char *key, bool *value)
{
    return tri_json_get_bool(s->path, s->root, key, false, value, s->error);
}

static enum tri_status get_text(const struct source *s, const char *key, const char **value)
{
    return tri_json_get_text(s->path, s->root, key, false, value, s->error);
}

/* "PATH: KEY: VALUE: why". */
static enum tri_status refuse(const struct source *s, const char *key, const char *why)
{
    char *text = json_dumps(json_object_get(s->root, key), JSON_ENCODE_ANY | JSON_COMPACT);
    enum tri_status status = tri_fail(s->error, TRI_BAD_INPUT, "%s: %s: %.100s: %s", s->path, key,
                                      text ? text : "absent", why);
    free(text);
    return status;
}

/* Refuses a key that is present with anything but null and false. */
static enum tri_status expect_unset(const struct source *s, const char *key, const char *why)
{
    const json_t *value = json_object_get(s->root, key);
    return !value || json_is_null(value) || json_is_false(value) ? TRI_OK : refuse(s, key, why);
}

static bool has(const struct source *s, const char *key)
{
    const json_t *value = json_object_get(s->root, key);
    return value && !json_is_null(value);
}

/* Where the config has a 0 for a size that is not given. */
static enum tri_status get_size(const struct source *s, const char *key, bool required,
                                int64_t *value)
{
    TRI_TRY(get_int(s, key, required, value));
    return has(s, key) && *value < 1 ? refuse(s, key, "expected at least one") : TRI_OK;
}

static enum tri_status find_family(struct source *s)
{
    const char *type = NULL;
    TRI_TRY(tri_json_get_text(s->path, s->root, "model_type", true, &type, s->error));
    for (int i = 0; i < TRI_HF_FAMILY_COUNT; i++) {
        if (strcmp(type, tri_hf_family_name((enum tri_hf_family)i)) != 0) {
            continue;
        }
        s->family = (enum tri_hf_family)i;
        tri_path_make(s->path, sizeof(s->path), "%s (%s)", s->config->path, type);
        const json_t *architectures = json_object_get(s->root, "architectures");
        const char *first = json_string_value(json_array_get(architectures, 0));
        if (first && strcmp(first, families[i].architecture) != 0) {
            return refuse(s, "architectures", "only causal language models are read");
        }
        return TRI_OK;
    }
    return refuse(s, "model_type",
                  "not known; known are mixtral, olmoe, qwen2_moe, qwen3_moe, gpt2, llama, qwen3, "
                  "mistral");
}

/* ---- windows --------------------------------------------------------------------------------- */

/* Whether the family has a window in this layer where config.json does not list them. */
static bool usual_window(const struct source *s, int64_t layer, int64_t most)
{
    switch (s->family) {
    case TRI_HF_QWEN3:
        return layer >= most;
    case TRI_HF_QWEN2_MOE:
        return layer % 2 == 0 && layer < most;
    default:
        return true;
    }
}

/* Qwen's lists of layers. */
static bool lists_windows(const struct source *s)
{
    return s->family == TRI_HF_QWEN3 || s->family == TRI_HF_QWEN2_MOE;
}

/* layer_types says of each layer whether it has the window. */
static enum tri_status has_window(const struct source *s, int64_t layer, int64_t most,
                                  bool *windowed)
{
    const json_t *types = json_object_get(s->root, "layer_types");
    *windowed = usual_window(s, layer, most);
    if (!types || json_is_null(types)) {
        return TRI_OK;
    }
    const char *type = json_string_value(json_array_get(types, (size_t)layer));
    bool full = type && strcmp(type, "full_attention") == 0;
    if (!full && (!type || strcmp(type, "sliding_attention") != 0)) {
        return refuse(s, "layer_types",
                      "expected full_attention or sliding_attention for each layer");
    }
    *windowed = lists_windows(s) ? !full : *windowed;
    return TRI_OK;
}

static enum tri_status list_windows(const struct source *s, int64_t most)
{
    struct tri_config_model *model = &s->config->model;
    if (model->num_layers > TRI_LAYERS_MAX) {
        return refuse(s, "num_hidden_layers", "too many layers");
    }
    model->num_window_layers = 0;
    for (int64_t i = 0; i < model->num_layers; i++) {
        bool windowed;
        TRI_TRY(has_window(s, i, most, &windowed));
        if (windowed) {
            model->window_layers[model->num_window_layers++] = i;
        }
    }
    model->sliding_window = model->num_window_layers > 0 ? model->sliding_window : 0;
    if (model->num_window_layers == model->num_layers) {
        model->num_window_layers = 0; /* all */
    }
    return TRI_OK;
}

static enum tri_status expect_no_windows(const struct source *s)
{
    const json_t *types = json_object_get(s->root, "layer_types");
    for (size_t i = 0; i < json_array_size(types); i++) {
        const char *type = json_string_value(json_array_get(types, i));
        if (!type || strcmp(type, "full_attention") != 0) {
            return refuse(s, "layer_types", "without a window only full_attention is computed");
        }
    }
    return TRI_OK;
}

/* A window that reaches over the whole context changes nothing; Qwen's has a switch beside it. */
static enum tri_status read_windows(const struct source *s)
{
    struct tri_config_model *model = &s->config->model;
    bool qwen = lists_windows(s) || s->family == TRI_HF_QWEN3_MOE;
    bool has_windows = qwen || s->family == TRI_HF_MIXTRAL || s->family == TRI_HF_MISTRAL;
    bool on = !qwen;
    int64_t most = 28;
    int64_t window = qwen || s->family == TRI_HF_MISTRAL ? 4096 : model->max_position;
    model->sliding_window = 0;
    model->num_window_layers = 0;
    TRI_TRY(get_bool(s, "use_sliding_window", &on));
    TRI_TRY(get_int(s, "max_window_layers", false, &most));
    TRI_TRY(get_int(s, "sliding_window", false, &window));
    on = on && !json_is_null(json_object_get(s->root, "sliding_window"));
    if (!on || !has_windows) {
        TRI_TRY(expect_no_windows(s));
    }
    if (!on || window >= model->max_position) {
        return TRI_OK;
    }
    if (!has_windows || window < 1) {
        return refuse(s, "sliding_window",
                      has_windows ? "expected at least one" : "this architecture has no windows");
    }
    model->sliding_window = window;
    return list_windows(s, most);
}

static enum tri_status read_biases(const struct source *s)
{
    struct tri_config_model *model = &s->config->model;
    bool attention = false, mlp = false, qkv = s->family == TRI_HF_QWEN2_MOE;
    TRI_TRY(get_bool(s, "attention_bias", &attention));
    TRI_TRY(get_bool(s, "mlp_bias", &mlp));
    TRI_TRY(get_bool(s, "qkv_bias", &qkv));
    if (attention != mlp || (attention && s->family != TRI_HF_LLAMA)) {
        return refuse(s, attention ? "attention_bias" : "mlp_bias",
                      "biases are read on q, k, v alone or on every product of a dense model");
    }
    model->bias = attention ? TRI_BIAS_ALL : qkv ? TRI_BIAS_QKV : TRI_BIAS_NONE;
    return TRI_OK;
}

/* What the families that descend from LLaMA share. */
static enum tri_status read_llama(const struct source *s)
{
    struct tri_config_model *model = &s->config->model;
    const char *activation = "silu";
    TRI_TRY(get_int(s, "vocab_size", true, &model->vocab_size));
    TRI_TRY(get_int(s, "num_hidden_layers", true, &model->num_layers));
    TRI_TRY(get_int(s, "hidden_size", true, &model->hidden_size));
    TRI_TRY(get_int(s, "num_attention_heads", true, &model->num_heads));
    model->num_kv_heads = model->num_heads;
    TRI_TRY(get_size(s, "num_key_value_heads", false, &model->num_kv_heads));
    TRI_TRY(get_size(s, "intermediate_size", true, &model->intermediate_size));
    TRI_TRY(get_size(s, "max_position_embeddings", true, &model->max_position));
    if (model->num_heads < 1) {
        return refuse(s, "num_attention_heads", "expected at least one");
    }
    model->head_dim = s->family == TRI_HF_QWEN3 ? 128 : model->hidden_size / model->num_heads;
    TRI_TRY(get_size(s, "head_dim", false, &model->head_dim));
    model->norm = TRI_NORM_RMS;
    model->norm_epsilon = families[s->family].norm_epsilon;
    TRI_TRY(get_real(s, "rms_norm_eps", &model->norm_epsilon));
    model->position = TRI_POSITION_ROPE;
    model->mlp = TRI_MLP_SWIGLU;
    TRI_TRY(get_text(s, "hidden_act", &activation));
    if (strcmp(activation, "silu") != 0) {
        return refuse(s, "hidden_act", "only silu is computed");
    }
    model->qk_norm = s->family == TRI_HF_OLMOE ? TRI_QK_NORM_FULL
                     : s->family == TRI_HF_QWEN3_MOE || s->family == TRI_HF_QWEN3
                         ? TRI_QK_NORM_HEAD
                         : TRI_QK_NORM_NONE;
    model->tie_embeddings = false;
    TRI_TRY(get_bool(s, "tie_word_embeddings", &model->tie_embeddings));
    TRI_TRY(get_real(s, "initializer_range", &model->init_std));
    TRI_TRY(expect_unset(s, "clip_qkv", "clipping of q, k, v is not computed"));
    TRI_TRY(read_biases(s));
    model->rope_theta = families[s->family].rope_theta;
    TRI_TRY(tri_hf_rope_read(s->path, s->root, model, s->error));
    return read_windows(s);
}

static enum tri_status read_gpt2(const struct source *s)
{
    struct tri_config_model *model = &s->config->model;
    const char *activation = "gelu_new";
    TRI_TRY(get_int(s, "vocab_size", true, &model->vocab_size));
    TRI_TRY(get_int(s, "n_layer", true, &model->num_layers));
    TRI_TRY(get_int(s, "n_embd", true, &model->hidden_size));
    TRI_TRY(get_int(s, "n_head", true, &model->num_heads));
    TRI_TRY(get_size(s, "n_positions", true, &model->max_position));
    if (model->num_heads < 1) {
        return refuse(s, "n_head", "expected at least one");
    }
    model->num_kv_heads = model->num_heads;
    model->head_dim = model->hidden_size / model->num_heads;
    model->intermediate_size = 4 * model->hidden_size;
    TRI_TRY(get_size(s, "n_inner", false, &model->intermediate_size));
    model->norm = TRI_NORM_LAYER;
    model->norm_epsilon = families[s->family].norm_epsilon;
    TRI_TRY(get_real(s, "layer_norm_epsilon", &model->norm_epsilon));
    model->position = TRI_POSITION_LEARNED;
    model->qk_norm = TRI_QK_NORM_NONE;
    model->bias = TRI_BIAS_ALL;
    model->tie_embeddings = true;
    TRI_TRY(get_bool(s, "tie_word_embeddings", &model->tie_embeddings));
    TRI_TRY(get_real(s, "initializer_range", &model->init_std));
    TRI_TRY(get_text(s, "activation_function", &activation));
    if (strcmp(activation, "gelu_new") == 0 || strcmp(activation, "gelu_pytorch_tanh") == 0) {
        model->mlp = TRI_MLP_GELU;
    } else if (strcmp(activation, "gelu") == 0) {
        model->mlp = TRI_MLP_GELU_ERF;
    } else {
        return refuse(s, "activation_function",
                      "only gelu_new, gelu_pytorch_tanh and gelu are computed");
    }
    bool scaled = true;
    TRI_TRY(get_bool(s, "scale_attn_weights", &scaled));
    if (!scaled) {
        return refuse(s, "scale_attn_weights", "attention is always scaled by head_dim^-0.5");
    }
    TRI_TRY(expect_unset(s, "scale_attn_by_inverse_layer_idx", "not computed"));
    return expect_unset(s, "add_cross_attention", "not computed");
}

/* ---- the experts ----------------------------------------------------------------------------- */

static bool listed(const json_t *array, int64_t value)
{
    for (size_t i = 0; i < json_array_size(array); i++) {
        if (json_integer_value(json_array_get(array, i)) == value) {
            return true;
        }
    }
    return false;
}

static enum tri_status check_dense_list(const struct source *s, const json_t *dense)
{
    bool good = !dense || json_is_null(dense) || json_is_array(dense);
    for (size_t i = 0; good && i < json_array_size(dense); i++) {
        good = json_is_integer(json_array_get(dense, i));
    }
    return good ? TRI_OK : refuse(s, "mlp_only_layers", "expected an array of layer numbers");
}

/* Qwen: layer i (from 0) has experts when decoder_sparse_step divides i + 1 and mlp_only_layers
 * does not list it. */
static enum tri_status read_layers(const struct source *s)
{
    struct tri_config_moe *moe = &s->config->moe;
    int64_t layers = s->config->model.num_layers;
    moe->every = 1;
    moe->num_layers = 0;
    if (s->family != TRI_HF_QWEN2_MOE && s->family != TRI_HF_QWEN3_MOE) {
        return TRI_OK;
    }
    TRI_TRY(get_int(s, "decoder_sparse_step", false, &moe->every));
    if (moe->every < 1 || moe->every > layers) {
        return refuse(s, "decoder_sparse_step", "leaves no layer with experts");
    }
    const json_t *dense = json_object_get(s->root, "mlp_only_layers");
    TRI_TRY(check_dense_list(s, dense));
    if (json_array_size(dense) == 0) {
        return TRI_OK;
    }
    if (layers > TRI_LAYERS_MAX) {
        return refuse(s, "num_hidden_layers", "too many layers");
    }
    for (int64_t i = 0; i < layers; i++) {
        if ((i + 1) % moe->every == 0 && !listed(dense, i)) {
            moe->layers[moe->num_layers++] = i;
        }
    }
    moe->every = 1;
    return moe->num_layers ? TRI_OK : refuse(s, "mlp_only_layers", "leaves no layer with experts");
}

static enum tri_status read_experts(const struct source *s)
{
    struct tri_config_moe *moe = &s->config->moe;
    bool qwen = s->family == TRI_HF_QWEN2_MOE || s->family == TRI_HF_QWEN3_MOE;
    const char *key =
        json_object_get(s->root, "num_local_experts") ? "num_local_experts" : "num_experts";
    TRI_TRY(get_int(s, key, true, &moe->num_experts));
    if (moe->num_experts < 1) {
        return refuse(s, key, "expected at least one");
    }
    TRI_TRY(get_int(s, "num_experts_per_tok", true, &moe->top_k));
    moe->intermediate_size = s->config->model.intermediate_size;
    if (qwen) {
        TRI_TRY(get_size(s, "moe_intermediate_size", true, &moe->intermediate_size));
    }
    moe->shared_intermediate_size = 0;
    moe->shared_gate = false;
    if (s->family == TRI_HF_QWEN2_MOE) {
        TRI_TRY(
            get_int(s, "shared_expert_intermediate_size", true, &moe->shared_intermediate_size));
        moe->shared_gate = moe->shared_intermediate_size > 0;
    }
    moe->normalize_top_k = s->family == TRI_HF_MIXTRAL;
    if (s->family == TRI_HF_MIXTRAL) {
        moe->jitter = 0;
        TRI_TRY(get_real(s, "router_jitter_noise", &moe->jitter));
    } else {
        TRI_TRY(get_bool(s, "norm_topk_prob", &moe->normalize_top_k));
    }
    moe->aux_loss = families[s->family].aux_loss;
    TRI_TRY(get_real(s, "router_aux_loss_coef", &moe->aux_loss));
    moe->aux_scope = TRI_AUX_MODEL;
    moe->aux_window = TRI_WINDOW_STEP;
    return read_layers(s);
}

static enum tri_status read_config(struct source *s)
{
    TRI_TRY(find_family(s));
    TRI_TRY(expect_unset(s, "quantization_config", "quantised weights are not read"));
    TRI_TRY(s->family == TRI_HF_GPT2 ? read_gpt2(s) : read_llama(s));
    if (s->family <= TRI_HF_QWEN3_MOE) {
        TRI_TRY(read_experts(s));
    } else {
        s->config->moe.num_experts = 0;
    }
    if (s->config->data.sequence_length > s->config->model.max_position) {
        s->config->data.sequence_length = s->config->model.max_position;
    }
    return tri_config_finish(s->config, s->error);
}

enum tri_status tri_hf_load_config(const char *dir, struct tri_config *config,
                                   enum tri_hf_family *family, struct tri_error *error)
{
    struct source s = {.config = config, .error = error};
    tri_config_init(&tri_strategies, config);
    tri_path_make(s.path, sizeof(s.path), "%s/config.json", dir);
    tri_path_make(config->path, sizeof(config->path), "%s/config.json", dir);
    config->precision = TRI_PRECISION_F32;
    TRI_TRY(tri_json_load(s.path, &s.root, error));
    enum tri_status status = read_config(&s);
    json_decref(s.root);
    if (status == TRI_OK && family) {
        *family = s.family;
    }
    return status;
}
