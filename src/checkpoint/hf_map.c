/* Names: a row of the parameter table -> a tensor of a Hugging Face file. */
#include "checkpoint/hf.h"
#include "checkpoint/weight_names.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

const char *tri_hf_family_name(enum tri_hf_family family)
{
    static const char *const names[TRI_HF_FAMILY_COUNT] = {
        "mixtral", "olmoe", "qwen2_moe", "qwen3_moe", "gpt2", "llama", "qwen3", "mistral"};
    return names[family];
}

/* A row that is a whole tensor of its own shape. */
static void whole(const struct tri_param *param, struct tri_hf_source *source)
{
    *source = (struct tri_hf_source){.dims = param->dims};
    source->shape[0] = param->shape[0];
    source->shape[1] = param->dims == 2 ? param->shape[1] : 0;
}

static bool gpt2_source(const struct tri_param *param, struct tri_hf_source *source)
{
    const char *text = tri_weight_names[param->role].gpt2;
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
    const char *text = tri_weight_names[param->role].llama;
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
