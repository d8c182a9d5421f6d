/* A row of the parameter table -> a tensor of a GGUF file, for the architectures of llama.cpp. */
#include "checkpoint/gguf.h"
#include "checkpoint/weight_names.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* What llama.cpp has arrays of. */
enum { LAYERS_MOST = 512, EXPERTS_MOST = 1024 };

const char *tri_gguf_architecture(enum tri_hf_family family)
{
    static const char *const names[TRI_HF_FAMILY_COUNT] = {
        [TRI_HF_MIXTRAL] = "llama",      [TRI_HF_OLMOE] = "olmoe",  [TRI_HF_QWEN2_MOE] = "qwen2moe",
        [TRI_HF_QWEN3_MOE] = "qwen3moe", [TRI_HF_GPT2] = "gpt2",    [TRI_HF_LLAMA] = "llama",
        [TRI_HF_QWEN3] = "qwen3",        [TRI_HF_MISTRAL] = "llama"};
    return names[family];
}

static bool is_llama(enum tri_hf_family family)
{
    return strcmp(tri_gguf_architecture(family), "llama") == 0;
}

/* ---- what it does not know ------------------------------------------------------------------- */

static const char *rope_obstacle(const struct tri_config_model *m, enum tri_hf_family family)
{
    switch (m->rope_scaling) {
    case TRI_ROPE_DYNAMIC:
        return "model.rope_scaling dynamic";
    case TRI_ROPE_LLAMA3:
        return is_llama(family) ? NULL : "model.rope_scaling llama3 in a model of this kind";
    case TRI_ROPE_YARN:
        if (fabs(m->rope_attention - (1.0 + 0.1 * log(m->rope_factor))) > 1e-6) {
            return "another rope_attention than that of model.rope_scaling yarn itself";
        }
        return m->rope_truncate ? NULL : "model.rope_truncate false";
    default:
        return NULL;
    }
}

/* Whether weights are normalised is fixed for each of its architectures. */
static const char *moe_obstacle(const struct tri_config *config, enum tri_hf_family family)
{
    const struct tri_config_moe *moe = &config->moe;
    bool normalized = family == TRI_HF_MIXTRAL || family == TRI_HF_QWEN3_MOE;
    for (int64_t i = 0; i < config->model.num_layers; i++) {
        if (!tri_config_layer_is_moe(config, i)) {
            return "layers without experts among others";
        }
    }
    if (moe->normalize_top_k != normalized) {
        return normalized ? "moe.normalize_top_k false in a model of this kind"
                          : "moe.normalize_top_k in a model of this kind";
    }
    if (config->model.tie_embeddings && !normalized) {
        return "model.tie_embeddings in a model of this kind";
    }
    if (family == TRI_HF_OLMOE && config->model.num_kv_heads != config->model.num_heads) {
        return "fewer KV heads than heads in a model of this kind";
    }
    return moe->num_experts > EXPERTS_MOST ? "more than 1024 experts" : NULL;
}

enum tri_status tri_gguf_family_of(const struct tri_config *config, enum tri_hf_family *family,
                                   struct tri_error *error)
{
    const struct tri_config_model *m = &config->model;
    const char *obstacle = NULL;
    TRI_TRY(tri_hf_family_of(config, family, error));
    if (m->sliding_window > 0 && m->sliding_window < m->max_position) {
        obstacle = "model.sliding_window in a model of this kind";
    } else if (m->num_layers > LAYERS_MOST) {
        obstacle = "more than 512 layers";
    } else if (m->mlp == TRI_MLP_GELU_ERF) {
        obstacle = "model.mlp gelu_erf";
    } else if (*family != TRI_HF_GPT2) {
        obstacle = rope_obstacle(m, *family);
    }
    if (!obstacle && config->moe.num_experts > 0) {
        obstacle = moe_obstacle(config, *family);
    }
    return obstacle ? tri_fail(error, TRI_BAD_INPUT,
                               "no architecture of llama.cpp that Trident knows has %s: this "
                               "model cannot be exported as GGUF",
                               obstacle)
                    : TRI_OK;
}

/* ---- names ----------------------------------------------------------------------------------- */

/* A layer's experts are one tensor, one matrix behind the other. */
static void stack(const struct tri_param *param, int64_t num_experts, struct tri_hf_source *source)
{
    source->dims = 3;
    source->shape[0] = num_experts;
    source->shape[1] = param->shape[0];
    source->shape[2] = param->shape[1];
    source->index = param->expert;
}

/* GPT-2's q, k and v are one matrix. */
static const char *join_qkv(const struct tri_param *param, struct tri_hf_source *source)
{
    bool bias = param->role >= TRI_ROLE_Q_BIAS && param->role <= TRI_ROLE_V_BIAS;
    if (!bias && (param->role < TRI_ROLE_Q || param->role > TRI_ROLE_V)) {
        return NULL;
    }
    source->first = (param->role - (bias ? TRI_ROLE_Q_BIAS : TRI_ROLE_Q)) * param->shape[0];
    source->shape[0] = 3 * param->shape[0];
    return bias ? "attn_qkv.bias" : "attn_qkv.weight";
}

bool tri_gguf_source_get(enum tri_hf_family family, const struct tri_param *param,
                         int64_t num_experts, struct tri_hf_source *source)
{
    const char *text = tri_weight_names[param->role].gguf, *kind = "";
    *source = (struct tri_hf_source){.dims = param->dims};
    source->shape[0] = param->shape[0];
    source->shape[1] = param->dims == 2 ? param->shape[1] : 0;
    if (family == TRI_HF_GPT2) {
        const char *joined = join_qkv(param, source);
        text = joined ? joined : text;
    }
    if (!text) {
        return false;
    }
    if (param->place == TRI_PLACE_EXPERT) {
        kind = "_exps";
        stack(param, num_experts, source);
    } else if (param->place == TRI_PLACE_SHARED && param->role != TRI_ROLE_SHARED_GATE) {
        kind = "_shexp";
    }
    int stem = (int)strcspn(text, ".");
    if (param->layer < 0) {
        (void)snprintf(source->name, sizeof(source->name), "%s", text);
    } else {
        (void)snprintf(source->name, sizeof(source->name), "blk.%" PRId64 ".%.*s%s%s", param->layer,
                       stem, text, kind, text + stem);
    }
    return true;
}
