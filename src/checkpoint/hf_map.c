/* Names: a row of the parameter table -> a tensor of a Hugging Face file. */
#include "checkpoint/hf.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *tri_hf_family_name(enum tri_hf_family family)
{
    static const char *const names[TRI_HF_FAMILY_COUNT] = {
        "mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "gpt2", "llama", "qwen3", "mistral"};
    return names[family];
}

/* What follows "model." or "model.layers.N." where the role alone decides. */
static const char *const llama_names[TRI_ROLE_COUNT] = {
    [TRI_ROLE_EMBEDDING] = "embed_tokens.weight",
    [TRI_ROLE_NORM1] = "input_layernorm.weight",
    [TRI_ROLE_Q] = "self_attn.q_proj.weight",
    [TRI_ROLE_K] = "self_attn.k_proj.weight",
    [TRI_ROLE_V] = "self_attn.v_proj.weight",
    [TRI_ROLE_O] = "self_attn.o_proj.weight",
    [TRI_ROLE_Q_BIAS] = "self_attn.q_proj.bias",
    [TRI_ROLE_K_BIAS] = "self_attn.k_proj.bias",
    [TRI_ROLE_V_BIAS] = "self_attn.v_proj.bias",
    [TRI_ROLE_O_BIAS] = "self_attn.o_proj.bias",
    [TRI_ROLE_Q_NORM] = "self_attn.q_norm.weight",
    [TRI_ROLE_K_NORM] = "self_attn.k_norm.weight",
    [TRI_ROLE_NORM2] = "post_attention_layernorm.weight",
    [TRI_ROLE_GATE] = "mlp.gate_proj.weight",
    [TRI_ROLE_UP] = "mlp.up_proj.weight",
    [TRI_ROLE_DOWN] = "mlp.down_proj.weight",
    [TRI_ROLE_GATE_BIAS] = "mlp.gate_proj.bias",
    [TRI_ROLE_UP_BIAS] = "mlp.up_proj.bias",
    [TRI_ROLE_DOWN_BIAS] = "mlp.down_proj.bias",
    [TRI_ROLE_ROUTER] = "mlp.gate.weight",
    [TRI_ROLE_SHARED_GATE] = "mlp.shared_expert_gate.weight",
    [TRI_ROLE_FINAL_NORM] = "norm.weight",
};

/* What follows "transformer." or "transformer.h.N."; q, k, v share c_attn. */
static const char *const gpt2_names[TRI_ROLE_COUNT] = {
    [TRI_ROLE_EMBEDDING] = "wte.weight",    [TRI_ROLE_POSITION] = "wpe.weight",
    [TRI_ROLE_NORM1] = "ln_1.weight",       [TRI_ROLE_NORM1_BIAS] = "ln_1.bias",
    [TRI_ROLE_Q] = "attn.c_attn.weight",    [TRI_ROLE_K] = "attn.c_attn.weight",
    [TRI_ROLE_V] = "attn.c_attn.weight",    [TRI_ROLE_O] = "attn.c_proj.weight",
    [TRI_ROLE_Q_BIAS] = "attn.c_attn.bias", [TRI_ROLE_K_BIAS] = "attn.c_attn.bias",
    [TRI_ROLE_V_BIAS] = "attn.c_attn.bias", [TRI_ROLE_O_BIAS] = "attn.c_proj.bias",
    [TRI_ROLE_NORM2] = "ln_2.weight",       [TRI_ROLE_NORM2_BIAS] = "ln_2.bias",
    [TRI_ROLE_UP] = "mlp.c_fc.weight",      [TRI_ROLE_DOWN] = "mlp.c_proj.weight",
    [TRI_ROLE_UP_BIAS] = "mlp.c_fc.bias",   [TRI_ROLE_DOWN_BIAS] = "mlp.c_proj.bias",
    [TRI_ROLE_FINAL_NORM] = "ln_f.weight",  [TRI_ROLE_FINAL_NORM_BIAS] = "ln_f.bias",
};

/* A row that is a whole tensor of its own shape. */
static void whole(const struct tri_param *param, struct tri_hf_source *source)
{
    *source = (struct tri_hf_source){.dims = param->dims};
    source->shape[0] = param->shape[0];
    source->shape[1] = param->dims == 2 ? param->shape[1] : 0;
}

static bool gpt2_source(const struct tri_param *param, struct tri_hf_source *source)
{
    const char *text = gpt2_names[param->role];
    whole(param, source);
    if (param->role == TRI_ROLE_HEAD) {
        (void)snprintf(source->name, sizeof(source->name), "lm_head.weight");
        return true;
    }
    if (!text || param->place != TRI_PLACE_DENSE) {
        return false;
    }
    if (param->layer < 0) {
        (void)snprintf(source->name, sizeof(source->name), "transformer.%s", text);
        return true;
    }
    (void)snprintf(source->name, sizeof(source->name), "transformer.h.%" PRId64 ".%s", param->layer,
                   text);
    int64_t parts = 1;
    if (param->role >= TRI_ROLE_Q && param->role <= TRI_ROLE_V) {
        parts = 3;
        source->first = (param->role - TRI_ROLE_Q) * param->shape[0];
    } else if (param->role >= TRI_ROLE_Q_BIAS && param->role <= TRI_ROLE_V_BIAS) {
        parts = 3;
        source->first = (param->role - TRI_ROLE_Q_BIAS) * param->shape[0];
    }
    source->shape[0] = parts * param->shape[0];
    if (param->dims == 2) {
        source->transposed = true;
        source->shape[0] = param->shape[1];
        source->shape[1] = parts * param->shape[0];
    }
    return true;
}

static void fused_expert(const struct tri_param *param, int64_t num_experts,
                         struct tri_hf_source *source)
{
    bool down = param->role == TRI_ROLE_DOWN;
    (void)snprintf(source->name, sizeof(source->name), "model.layers.%" PRId64 ".mlp.experts.%s",
                   param->layer, down ? "down_proj" : "gate_up_proj");
    source->dims = 3;
    source->shape[0] = num_experts;
    source->shape[1] = (down ? 1 : 2) * param->shape[0];
    source->shape[2] = param->shape[1];
    source->index = param->expert;
    source->first = param->role == TRI_ROLE_UP ? param->shape[0] : 0;
}

static bool expert_source(enum tri_hf_family family, const struct tri_param *param,
                          int64_t num_experts, enum tri_hf_spelling spelling,
                          struct tri_hf_source *source)
{
    if (param->role < TRI_ROLE_GATE || param->role > TRI_ROLE_DOWN) {
        return false;
    }
    if (spelling == TRI_HF_FUSED) {
        fused_expert(param, num_experts, source);
        return true;
    }
    static const char *const mixtral[] = {"w1", "w3", "w2"};
    static const char *const others[] = {"gate_proj", "up_proj", "down_proj"};
    bool old = family == TRI_HF_MIXTRAL;
    (void)snprintf(source->name, sizeof(source->name),
                   "model.layers.%" PRId64 ".%s.experts.%" PRId64 ".%s.weight", param->layer,
                   old ? "block_sparse_moe" : "mlp", param->expert,
                   (old ? mixtral : others)[param->role - TRI_ROLE_GATE]);
    return true;
}

static bool llama_source(enum tri_hf_family family, const struct tri_param *param,
                         int64_t num_experts, enum tri_hf_spelling spelling,
                         struct tri_hf_source *source)
{
    const char *text = llama_names[param->role];
    whole(param, source);
    if (param->place == TRI_PLACE_EXPERT) {
        return expert_source(family, param, num_experts, spelling, source);
    }
    if (param->role == TRI_ROLE_HEAD) {
        (void)snprintf(source->name, sizeof(source->name), "lm_head.weight");
    } else if (!text) {
        return false;
    } else if (param->layer < 0) {
        (void)snprintf(source->name, sizeof(source->name), "model.%s", text);
    } else if (param->place == TRI_PLACE_SHARED) {
        (void)snprintf(source->name, sizeof(source->name),
                       "model.layers.%" PRId64 ".mlp.shared_expert.%s", param->layer,
                       text + strlen("mlp."));
    } else if (param->role == TRI_ROLE_ROUTER && family == TRI_HF_MIXTRAL &&
               spelling == TRI_HF_PER_EXPERT) {
        (void)snprintf(source->name, sizeof(source->name),
                       "model.layers.%" PRId64 ".block_sparse_moe.gate.weight", param->layer);
    } else {
        (void)snprintf(source->name, sizeof(source->name), "model.layers.%" PRId64 ".%s",
                       param->layer, text);
    }
    return true;
}

bool tri_hf_source_get(enum tri_hf_family family, const struct tri_param *param,
                       int64_t num_experts, enum tri_hf_spelling spelling,
                       struct tri_hf_source *source)
{
    return family == TRI_HF_GPT2 ? gpt2_source(param, source)
                                 : llama_source(family, param, num_experts, spelling, source);
}
