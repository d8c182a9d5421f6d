#include "checkpoint/gguf_keys.h"

#include <stdio.h>

enum tri_ggml_type tri_gguf_number(enum tri_hf_number number)
{
    static const enum tri_ggml_type types[] = {[TRI_HF_F32] = TRI_GGML_F32,
                                               [TRI_HF_BF16] = TRI_GGML_BF16,
                                               [TRI_HF_F16] = TRI_GGML_F16,
                                               [TRI_HF_Q8_0] = TRI_GGML_Q8_0};
    return types[number];
}

/* general.file_type: what most tensors are. */
static uint32_t file_type(enum tri_hf_number number)
{
    static const uint32_t types[] = {
        [TRI_HF_F32] = 0, [TRI_HF_BF16] = 32, [TRI_HF_F16] = 1, [TRI_HF_Q8_0] = 7};
    return types[number];
}

/* Keys behind the architecture's name. */
struct keys {
    struct tri_gguf_header *header;
    const char *architecture;
    char key[128];
};

static const char *key_of(struct keys *keys, const char *name)
{
    (void)snprintf(keys->key, sizeof(keys->key), "%s.%s", keys->architecture, name);
    return keys->key;
}

static void put(struct keys *keys, const char *name, int64_t value)
{
    tri_gguf_put_u32(keys->header, key_of(keys, name), (uint32_t)value);
}

static void put_real(struct keys *keys, const char *name, double value)
{
    tri_gguf_put_f32(keys->header, key_of(keys, name), (float)value);
}

/* Frequencies of llama3 are a tensor of their own. */
static void put_rope(struct keys *keys, const struct tri_config_model *m)
{
    put(keys, "rope.dimension_count", m->head_dim);
    put_real(keys, "rope.freq_base", m->rope_theta);
    if (m->rope_scaling != TRI_ROPE_LINEAR && m->rope_scaling != TRI_ROPE_YARN) {
        return;
    }
    tri_gguf_put_text(keys->header, key_of(keys, "rope.scaling.type"),
                      m->rope_scaling == TRI_ROPE_YARN ? "yarn" : "linear");
    put_real(keys, "rope.scaling.factor", m->rope_factor);
    if (m->rope_scaling == TRI_ROPE_YARN) {
        put(keys, "rope.scaling.original_context_length", m->rope_original);
        put_real(keys, "rope.scaling.yarn_beta_fast", m->rope_betas[0]);
        put_real(keys, "rope.scaling.yarn_beta_slow", m->rope_betas[1]);
    }
}

static void put_experts(struct keys *keys, const struct tri_config_moe *moe)
{
    put(keys, "expert_count", moe->num_experts);
    put(keys, "expert_used_count", moe->top_k);
    put(keys, "expert_feed_forward_length", moe->intermediate_size);
    if (moe->shared_intermediate_size > 0) {
        put(keys, "expert_shared_feed_forward_length", moe->shared_intermediate_size);
    }
}

void tri_gguf_put_model(struct tri_gguf_header *header, const struct tri_config *config,
                        enum tri_hf_family family, enum tri_hf_number number)
{
    const struct tri_config_model *m = &config->model;
    struct keys keys = {.header = header, .architecture = tri_gguf_architecture(family)};
    bool stacked = family == TRI_HF_MIXTRAL || family == TRI_HF_OLMOE;
    tri_gguf_put_text(header, "general.architecture", keys.architecture);
    tri_gguf_put_text(header, "general.type", "model");
    tri_gguf_put_u32(header, "general.file_type", file_type(number));
    tri_gguf_put_u32(header, "general.quantization_version", 2);
    put(&keys, "block_count", m->num_layers);
    put(&keys, "context_length", m->max_position);
    put(&keys, "embedding_length", m->hidden_size);
    put(&keys, "feed_forward_length",
        stacked ? config->moe.intermediate_size : m->intermediate_size);
    put(&keys, "vocab_size", m->vocab_size);
    put(&keys, "attention.head_count", m->num_heads);
    put(&keys, "attention.head_count_kv", m->num_kv_heads);
    put(&keys, "attention.key_length", m->head_dim);
    put(&keys, "attention.value_length", m->head_dim);
    put_real(&keys,
             m->norm == TRI_NORM_RMS ? "attention.layer_norm_rms_epsilon"
                                     : "attention.layer_norm_epsilon",
             m->norm_epsilon);
    if (m->position == TRI_POSITION_ROPE) {
        put_rope(&keys, m);
    }
    if (config->moe.num_experts > 0) {
        put_experts(&keys, &config->moe);
    }
}
