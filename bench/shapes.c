#include "shapes.h"

/* GPT with LayerNorm, GELU, learned positions, biases and a tied head. */
#define GPT(vocabulary)                                                                            \
    "model:\n"                                                                                     \
    "  vocab_size: " #vocabulary "\n"                                                              \
    "  num_layers: 4\n"                                                                            \
    "  hidden_size: 512\n"                                                                         \
    "  num_heads: 8\n"                                                                             \
    "  intermediate_size: 2048\n"                                                                  \
    "  norm: layernorm\n"                                                                          \
    "  position: learned\n"                                                                        \
    "  mlp: gelu_erf\n"                                                                            \
    "  bias: all\n"                                                                                \
    "  tie_embeddings: true\n"

#define BATCH(rows, length)                                                                        \
    "data:\n"                                                                                      \
    "  sequence_length: " #length "\n"                                                             \
    "train:\n"                                                                                     \
    "  global_batch: " #rows "\n"                                                                  \
    "  schedule: constant\n"

const struct tri_shape tri_shapes[] = {
    {"small", GPT(256) "moe:\n"
                       "  num_experts: 8\n"
                       "  top_k: 1\n"
                       "  every: 2\n"
                       "  normalize_top_k: false\n" BATCH(8, 256)},
    {"small-dense", GPT(256) BATCH(8, 256)},
    {"wide", "model:\n"
             "  vocab_size: 8192\n"
             "  num_layers: 4\n"
             "  hidden_size: 1024\n"
             "  num_heads: 16\n"
             "  intermediate_size: 4096\n"
             "moe:\n"
             "  num_experts: 8\n"
             "  top_k: 2\n" BATCH(4, 512)},
    {"fine", "model:\n"
             "  vocab_size: 8192\n"
             "  num_layers: 8\n"
             "  hidden_size: 512\n"
             "  num_heads: 8\n"
             "  intermediate_size: 512\n"
             "  qk_norm: full\n"
             "moe:\n"
             "  num_experts: 64\n"
             "  top_k: 8\n"
             "  normalize_top_k: false\n" BATCH(4, 512)},
    {"gpt2-narrow", GPT(50304) BATCH(4, 256)},
    /* Grouped heads, and widths that are no powers of two. */
    {"gqa", "model:\n"
            "  vocab_size: 4000\n"
            "  num_layers: 3\n"
            "  hidden_size: 768\n"
            "  num_heads: 12\n"
            "  num_kv_heads: 4\n"
            "  intermediate_size: 576\n"
            "moe:\n"
            "  num_experts: 12\n"
            "  top_k: 3\n" BATCH(4, 384)},
    /* Many tokens for its width: what travels is tokens, hardly any gradients. */
    {"ted", "model:\n"
            "  vocab_size: 256\n"
            "  num_layers: 4\n"
            "  hidden_size: 128\n"
            "  num_heads: 4\n"
            "  intermediate_size: 512\n"
            "  mlp: gelu\n"
            "moe:\n"
            "  num_experts: 8\n"
            "  top_k: 2\n"
            "  every: 2\n" BATCH(32, 256)},
    {NULL, NULL},
};

double tri_shape_flops_per_token(const struct tri_config *config)
{
    const struct tri_config_model *model = &config->model;
    const struct tri_config_moe *moe = &config->moe;
    int64_t hidden = model->hidden_size;
    int64_t matrices = model->mlp == TRI_MLP_SWIGLU ? 3 : 2;
    int64_t attention = 2 * hidden * (model->num_heads + model->num_kv_heads) * model->head_dim;
    int64_t active = hidden * model->vocab_size;
    for (int64_t layer = 0; layer < model->num_layers; layer++) {
        active += attention;
        if (tri_config_layer_is_moe(config, layer)) {
            active += moe->top_k * matrices * hidden * moe->intermediate_size;
            active += matrices * hidden * moe->shared_intermediate_size;
            active += hidden * moe->num_experts;
        } else {
            active += matrices * hidden * model->intermediate_size;
        }
    }
    return 6.0 * (double)active + 12.0 * (double)(model->num_layers * model->num_heads) *
                                      (double)(model->head_dim * config->data.sequence_length);
}
