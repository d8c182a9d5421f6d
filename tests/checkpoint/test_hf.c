/* Hugging Face directories as transformers 5.24 writes them: configs field by field, every
 * tensor in its place, and everything that does not fit refused by name. */
#include "checkpoint/fixture.h"
#include "checkpoint/hf.h"
#include "checkpoint/safetensors.h"

#include "base/file.h"
#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char dir[256];
static struct tri_mesh *mesh;

static const char *golden(const char *family)
{
    static char path[256];
    (void)snprintf(path, sizeof(path), TESTDATA_DIR "/golden/%s", family);
    return path;
}

static struct tri_config load_config(const char *family, enum tri_hf_family expected)
{
    struct tri_config config;
    struct tri_error error;
    enum tri_hf_family found;
    if (tri_hf_load_config(golden(family), &config, &found, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    assert_int_equal(found, expected);
    assert_string_equal(tri_hf_family_name(found), family);
    assert_int_equal(config.model.vocab_size, 128);
    assert_int_equal(config.model.hidden_size, 32);
    assert_int_equal(config.model.num_heads, 4);
    assert_int_equal(config.model.max_position, 64);
    assert_true(config.data.sequence_length <= 64);
    assert_true(config.model.init_std == 0.02);
    assert_int_equal(config.precision, TRI_PRECISION_F32);
    return config;
}

static void test_config_mixtral(void **state)
{
    (void)state;
    struct tri_config c = load_config("mixtral", TRI_HF_MIXTRAL);
    assert_int_equal(c.model.num_layers, 2);
    assert_int_equal(c.model.num_kv_heads, 2);
    assert_int_equal(c.model.head_dim, 8);
    assert_int_equal(c.model.norm, TRI_NORM_RMS);
    assert_true(c.model.norm_epsilon == 1e-5 && c.model.rope_theta == 1e6);
    assert_int_equal(c.model.mlp, TRI_MLP_SWIGLU);
    assert_int_equal(c.model.position, TRI_POSITION_ROPE);
    assert_int_equal(c.model.qk_norm, TRI_QK_NORM_NONE);
    assert_int_equal(c.model.bias, TRI_BIAS_NONE);
    assert_false(c.model.tie_embeddings);
    assert_int_equal(c.moe.num_experts, 8);
    assert_int_equal(c.moe.top_k, 2);
    assert_int_equal(c.moe.intermediate_size, 40);
    assert_int_equal(c.moe.every, 1);
    assert_true(c.moe.normalize_top_k);
    assert_true(c.moe.aux_loss == 0.02 && c.moe.jitter == 0);
    assert_int_equal(c.moe.aux_scope, TRI_AUX_MODEL);
    assert_int_equal(c.moe.aux_window, TRI_WINDOW_STEP);
    assert_int_equal(c.moe.shared_intermediate_size, 0);
}

static void test_config_olmoe(void **state)
{
    (void)state;
    struct tri_config c = load_config("olmoe", TRI_HF_OLMOE);
    assert_int_equal(c.model.num_kv_heads, 4);
    assert_int_equal(c.model.head_dim, 8);
    assert_int_equal(c.model.qk_norm, TRI_QK_NORM_FULL);
    assert_true(c.model.norm_epsilon == 1e-5 && c.model.rope_theta == 1e4);
    assert_int_equal(c.moe.num_experts, 16);
    assert_int_equal(c.moe.top_k, 4);
    assert_int_equal(c.moe.intermediate_size, 24);
    assert_false(c.moe.normalize_top_k);
    assert_true(c.moe.aux_loss == 0.01);
}

static void test_config_qwen2_moe(void **state)
{
    (void)state;
    struct tri_config c = load_config("qwen2_moe", TRI_HF_QWEN2_MOE);
    assert_int_equal(c.model.num_layers, 3);
    assert_int_equal(c.model.intermediate_size, 64);
    assert_int_equal(c.model.bias, TRI_BIAS_QKV);
    assert_true(c.model.norm_epsilon == 1e-6);
    assert_int_equal(c.moe.num_experts, 8);
    assert_int_equal(c.moe.top_k, 3);
    assert_int_equal(c.moe.intermediate_size, 24);
    assert_int_equal(c.moe.shared_intermediate_size, 48);
    assert_true(c.moe.shared_gate);
    assert_false(c.moe.normalize_top_k);
    assert_true(c.moe.aux_loss == 0.001);
    assert_false(tri_config_layer_is_moe(&c, 0));
    assert_true(tri_config_layer_is_moe(&c, 1));
    assert_false(tri_config_layer_is_moe(&c, 2));
}

static void test_config_qwen3_moe(void **state)
{
    (void)state;
    struct tri_config c = load_config("qwen3_moe", TRI_HF_QWEN3_MOE);
    assert_int_equal(c.model.head_dim, 16);
    assert_int_equal(c.model.qk_norm, TRI_QK_NORM_HEAD);
    assert_int_equal(c.model.bias, TRI_BIAS_NONE);
    assert_int_equal(c.moe.num_experts, 16);
    assert_int_equal(c.moe.intermediate_size, 16);
    assert_true(c.moe.normalize_top_k);
    assert_true(tri_config_layer_is_moe(&c, 0));
    assert_false(tri_config_layer_is_moe(&c, 1));
    assert_true(tri_config_layer_is_moe(&c, 2));
}

static void test_config_dense(void **state)
{
    (void)state;
    struct tri_config c = load_config("gpt2", TRI_HF_GPT2);
    assert_int_equal(c.moe.num_experts, 0);
    assert_int_equal(c.model.norm, TRI_NORM_LAYER);
    assert_int_equal(c.model.position, TRI_POSITION_LEARNED);
    assert_int_equal(c.model.mlp, TRI_MLP_GELU);
    assert_int_equal(c.model.bias, TRI_BIAS_ALL);
    assert_int_equal(c.model.intermediate_size, 128);
    assert_int_equal(c.model.num_kv_heads, 4);
    assert_true(c.model.tie_embeddings);
    c = load_config("llama", TRI_HF_LLAMA);
    assert_int_equal(c.model.num_kv_heads, 2);
    assert_int_equal(c.model.intermediate_size, 64);
    assert_true(c.model.rope_theta == 5e5);
    assert_true(c.model.tie_embeddings);
    c = load_config("qwen3", TRI_HF_QWEN3);
    assert_int_equal(c.model.head_dim, 16);
    assert_int_equal(c.model.qk_norm, TRI_QK_NORM_HEAD);
    assert_int_equal(c.moe.num_experts, 0);
    assert_false(c.model.tie_embeddings);
}

/* ---- configs that are changed ---------------------------------------------------------------- */

static char *text_of(const char *path)
{
    struct tri_mapping mapping;
    struct tri_error error;
    assert_int_equal(tri_file_map(path, &mapping, &error), TRI_OK);
    char *text = tri_alloc(TRI_MEMORY_OTHER, mapping.size + 1);
    memcpy(text, mapping.data, mapping.size);
    tri_file_unmap(&mapping);
    return text;
}

static void put(const char *name, const void *data, size_t bytes)
{
    char path[512];
    struct tri_error error;
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(tri_file_save(path, data, bytes, &error), TRI_OK);
}

/* A copy of a family's config in dir with `from` replaced by `to`. */
static void edit_config(const char *family, const char *from, const char *to)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/config.json", golden(family));
    char *text = text_of(path), *at = strstr(text, from);
    assert_non_null(at);
    size_t room = strlen(text) + strlen(to) + 1;
    char *edited = tri_alloc(TRI_MEMORY_OTHER, room);
    (void)snprintf(edited, room, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    put("config.json", edited, strlen(edited));
    tri_free(edited);
    tri_free(text);
}

static void refuse_edit(const char *family, const char *from, const char *to, const char *words)
{
    struct tri_config config;
    struct tri_error error = {0};
    edit_config(family, from, to);
    assert_int_equal(tri_hf_load_config(dir, &config, NULL, &error), TRI_BAD_INPUT);
    if (!strstr(error.message, words) || !strstr(error.message, "config.json")) {
        fail_msg("'%s' lacks '%s' or the file", error.message, words);
    }
}

static struct tri_config accept_edit(const char *family, const char *from, const char *to)
{
    struct tri_config config;
    struct tri_error error = {0};
    edit_config(family, from, to);
    if (tri_hf_load_config(dir, &config, NULL, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return config;
}

static void test_config_refusals(void **state)
{
    (void)state;
    refuse_edit("llama", "\"llama\"", "\"gemma\"", "model_type: \"gemma\"");
    refuse_edit("llama", "\"model_type\": \"llama\",", "", "model_type: missing");
    refuse_edit("llama", "LlamaForCausalLM", "LlamaForSequenceClassification", "architectures");
    refuse_edit("llama", "\"silu\"", "\"relu\"", "hidden_act: \"relu\"");
    refuse_edit("llama", "\"default\"", "\"llama3\"", "rope_parameters");
    refuse_edit("llama", "\"rope_parameters\"", "\"rope_scaling\": {\"type\": \"linear\"}, \"x\"",
                "rope_scaling");
    refuse_edit("llama", "\"attention_bias\": false", "\"attention_bias\": true", "attention_bias");
    refuse_edit("llama", "\"hidden_size\": 32", "\"hidden_size\": \"32\"",
                "hidden_size: \"32\", expected an integer");
    refuse_edit("llama", "\"hidden_size\": 32,", "", "hidden_size: missing");
    refuse_edit("llama", "\"num_attention_heads\": 4", "\"num_attention_heads\": 0",
                "num_attention_heads");
    refuse_edit("llama", "\"use_cache\"", "\"quantization_config\": {}, \"use_cache\"",
                "quantization_config");
    refuse_edit("llama", "\"use_cache\"", "\"hidden_size\": 32, \"use_cache\"", "duplicate");
    refuse_edit("llama", "true", "tru", "config.json:");
    refuse_edit("mixtral", "\"sliding_window\": null", "\"sliding_window\": 16",
                "sliding_window: 16");
    refuse_edit("qwen3", "\"use_sliding_window\": false", "\"use_sliding_window\": true",
                "use_sliding_window");
    refuse_edit("qwen3", "\"full_attention\"", "\"sliding_attention\"", "layer_types");
    refuse_edit("qwen3", "\"attention_bias\": false", "\"attention_bias\": true", "attention_bias");
    refuse_edit("olmoe", "\"clip_qkv\": null", "\"clip_qkv\": 8.0", "clip_qkv: 8.0");
    refuse_edit("olmoe", "\"num_experts\": 16", "\"num_experts\": 0", "num_experts: 0");
    refuse_edit("qwen2_moe", "\"decoder_sparse_step\": 2", "\"decoder_sparse_step\": 4",
                "decoder_sparse_step");
    refuse_edit("qwen3_moe", "\"mlp_only_layers\": [", "\"mlp_only_layers\": [0, 2,",
                "mlp_only_layers");
    refuse_edit("qwen3_moe", "\"mlp_only_layers\": [", "\"mlp_only_layers\": [\"0\",",
                "layer numbers");
    refuse_edit("gpt2", "\"gelu_new\"", "\"relu\"", "activation_function");
    refuse_edit("gpt2", "\"scale_attn_weights\": true", "\"scale_attn_weights\": false",
                "scale_attn_weights");
    refuse_edit("gpt2", "\"scale_attn_by_inverse_layer_idx\": false",
                "\"scale_attn_by_inverse_layer_idx\": true", "scale_attn_by_inverse_layer_idx");
    struct tri_config config;
    struct tri_error error;
    assert_int_equal(tri_hf_load_config(golden("nothing"), &config, NULL, &error), TRI_BAD_INPUT);
}

static void test_config_spellings(void **state)
{
    (void)state;
    /* transformers 4: rope_theta at the top. */
    struct tri_config c =
        accept_edit("llama", "\"rope_parameters\"", "\"rope_theta\": 7000.0, \"other\"");
    assert_true(c.model.rope_theta == 7000.0);
    c = accept_edit("llama", "\"rope_parameters\"", "\"other\"");
    assert_true(c.model.rope_theta == 1e4);
    c = accept_edit("qwen3_moe", "\"num_local_experts\"", "\"num_experts\"");
    assert_int_equal(c.moe.num_experts, 16);
    c = accept_edit("mixtral", "\"sliding_window\": null", "\"sliding_window\": 64");
    c = accept_edit("mixtral", "\"router_jitter_noise\": 0.0", "\"router_jitter_noise\": 0.1");
    assert_true(c.moe.jitter == 0.1);
    c = accept_edit("mixtral", "\"router_aux_loss_coef\": 0.02,", "");
    assert_true(c.moe.aux_loss == 0.001);
    c = accept_edit("mixtral", "\"head_dim\": 8,", "");
    assert_int_equal(c.model.head_dim, 8);
    c = accept_edit("qwen3", "\"head_dim\": 16,", "");
    assert_int_equal(c.model.head_dim, 128);
    c = accept_edit("gpt2", "\"gelu_new\"", "\"gelu\"");
    assert_int_equal(c.model.mlp, TRI_MLP_GELU_ERF);
    c = accept_edit("gpt2", "\"n_inner\": null", "\"n_inner\": 48");
    assert_int_equal(c.model.intermediate_size, 48);
    c = accept_edit("qwen2_moe", "\"mlp_only_layers\": []", "\"mlp_only_layers\": [0]");
    assert_true(tri_config_layer_is_moe(&c, 1) && !tri_config_layer_is_moe(&c, 0) &&
                !tri_config_layer_is_moe(&c, 2));
}

/* ---- weights --------------------------------------------------------------------------------- */

static struct tri_params *params_of(const char *from)
{
    struct tri_config config;
    struct tri_error error;
    if (tri_hf_load_config(from, &config, NULL, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    struct tri_params *params = tri_params_create(&config, mesh);
    tri_params_allocate(params, false);
    return params;
}

static struct tri_params *import(const char *from)
{
    struct tri_params *params = params_of(from);
    struct tri_error error;
    if (tri_hf_load_weights(from, params, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return params;
}

static const float *weights(const struct tri_params *params, const char *name)
{
    const struct tri_param *param = tri_params_by_name(params, name);
    if (!param) {
        fail_msg("no row %s", name);
    }
    return tri_param_weights(params, param);
}

/* Every value of a tensor of the file against a row: file[i * stride_i + j * stride_j + at]. */
static void expect_row(const struct tri_params *params, const char *name, const char *family,
                       const char *tensor, int64_t rows, int64_t columns, int64_t stride_i,
                       int64_t stride_j, int64_t at)
{
    struct tri_safetensors *file;
    struct tri_error error;
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/model.safetensors", golden(family));
    assert_int_equal(tri_safetensors_open(path, &file, &error), TRI_OK);
    const struct tri_safetensor *t = tri_safetensors_find(file, tensor);
    assert_non_null(t);
    float *values = tri_alloc(TRI_MEMORY_OTHER, (size_t)t->count * sizeof(*values));
    assert_int_equal(tri_safetensor_read_f32(t, 0, t->count, values, &error), TRI_OK);
    const float *row = weights(params, name);
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++) {
            assert_true(row[i * columns + j] == values[i * stride_i + j * stride_j + at]);
        }
    }
    tri_free(values);
    tri_safetensors_close(file);
}

static void test_imports_all(void **state)
{
    (void)state;
    static const char *const families[] = {"mixtral", "olmoe", "qwen2_moe", "qwen3_moe",
                                           "gpt2",    "llama", "qwen3"};
    for (size_t f = 0; f < sizeof(families) / sizeof(*families); f++) {
        struct tri_params *params = import(golden(families[f]));
        /* No row is left at zero. */
        for (int p = 0; p < params->count; p++) {
            const float *row = tri_param_weights(params, &params->param[p]);
            double sum = 0;
            for (int64_t i = 0; i < fixture_elements(&params->param[p]); i++) {
                sum += (double)(row[i] * row[i]);
            }
            assert_true(sum > 0);
        }
        tri_params_destroy(params);
    }
}

static void test_places(void **state)
{
    (void)state;
    struct tri_params *p = import(golden("mixtral"));
    expect_row(p, "layers.1.moe.experts.5.gate.weight", "mixtral",
               "model.layers.1.block_sparse_moe.experts.5.w1.weight", 40, 32, 32, 1, 0);
    expect_row(p, "layers.1.moe.experts.5.up.weight", "mixtral",
               "model.layers.1.block_sparse_moe.experts.5.w3.weight", 40, 32, 32, 1, 0);
    expect_row(p, "layers.1.moe.experts.5.down.weight", "mixtral",
               "model.layers.1.block_sparse_moe.experts.5.w2.weight", 32, 40, 40, 1, 0);
    expect_row(p, "layers.0.moe.router.weight", "mixtral",
               "model.layers.0.block_sparse_moe.gate.weight", 8, 32, 32, 1, 0);
    expect_row(p, "head.weight", "mixtral", "lm_head.weight", 128, 32, 32, 1, 0);
    tri_params_destroy(p);
    p = import(golden("qwen2_moe"));
    expect_row(p, "layers.1.moe.shared.up.weight", "qwen2_moe",
               "model.layers.1.mlp.shared_expert.up_proj.weight", 48, 32, 32, 1, 0);
    expect_row(p, "layers.1.moe.shared_gate.weight", "qwen2_moe",
               "model.layers.1.mlp.shared_expert_gate.weight", 1, 32, 32, 1, 0);
    expect_row(p, "layers.2.mlp.down.weight", "qwen2_moe", "model.layers.2.mlp.down_proj.weight",
               32, 64, 64, 1, 0);
    expect_row(p, "layers.0.attention.v.bias", "qwen2_moe", "model.layers.0.self_attn.v_proj.bias",
               16, 1, 1, 1, 0);
    expect_row(p, "layers.0.norm2.weight", "qwen2_moe",
               "model.layers.0.post_attention_layernorm.weight", 32, 1, 1, 1, 0);
    tri_params_destroy(p);
    /* Conv1D: the file holds [in, out]; q, k, v side by side. */
    p = import(golden("gpt2"));
    expect_row(p, "layers.1.attention.q.weight", "gpt2", "transformer.h.1.attn.c_attn.weight", 32,
               32, 1, 96, 0);
    expect_row(p, "layers.1.attention.k.weight", "gpt2", "transformer.h.1.attn.c_attn.weight", 32,
               32, 1, 96, 32);
    expect_row(p, "layers.1.attention.v.weight", "gpt2", "transformer.h.1.attn.c_attn.weight", 32,
               32, 1, 96, 64);
    expect_row(p, "layers.0.attention.k.bias", "gpt2", "transformer.h.0.attn.c_attn.bias", 32, 1, 1,
               1, 32);
    expect_row(p, "layers.0.attention.o.weight", "gpt2", "transformer.h.0.attn.c_proj.weight", 32,
               32, 1, 32, 0);
    expect_row(p, "layers.0.mlp.up.weight", "gpt2", "transformer.h.0.mlp.c_fc.weight", 128, 32, 1,
               128, 0);
    expect_row(p, "layers.0.mlp.down.weight", "gpt2", "transformer.h.0.mlp.c_proj.weight", 32, 128,
               1, 32, 0);
    expect_row(p, "position.weight", "gpt2", "transformer.wpe.weight", 64, 32, 32, 1, 0);
    expect_row(p, "final_norm.bias", "gpt2", "transformer.ln_f.bias", 32, 1, 1, 1, 0);
    assert_null(tri_params_by_name(p, "head.weight"));
    tri_params_destroy(p);
}

/* ---- weights rewritten ----------------------------------------------------------------------- */

/* One tensor of a file to be. */
struct item {
    struct tri_safetensors_spec spec;
    char name[160];
    void *data;
    size_t bytes;
};

struct items {
    int count;
    struct item item[512];
};

static struct item *add_item(struct items *items, const char *name,
                             enum tri_safetensors_dtype dtype, int dims, const int64_t *shape,
                             size_t bytes)
{
    struct item *item = &items->item[items->count++];
    assert_true(items->count <= 512);
    (void)snprintf(item->name, sizeof(item->name), "%s", name);
    item->spec = (struct tri_safetensors_spec){.dtype = dtype, .dims = dims};
    memcpy(item->spec.shape, shape, (size_t)dims * sizeof(*shape));
    item->bytes = bytes;
    item->data = tri_alloc(TRI_MEMORY_OTHER, bytes);
    return item;
}

static struct items *items_of(const char *family)
{
    struct tri_safetensors *file;
    struct tri_error error;
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/model.safetensors", golden(family));
    assert_int_equal(tri_safetensors_open(path, &file, &error), TRI_OK);
    struct items *items = tri_alloc(TRI_MEMORY_OTHER, sizeof(*items));
    for (int64_t i = 0; i < file->count; i++) {
        const struct tri_safetensor *t = &file->tensor[i];
        memcpy(add_item(items, t->name, t->dtype, t->dims, t->shape, t->bytes)->data, t->data,
               t->bytes);
    }
    tri_safetensors_close(file);
    return items;
}

static struct item *item_named(struct items *items, const char *name)
{
    for (int i = 0; i < items->count; i++) {
        if (strcmp(items->item[i].name, name) == 0) {
            return &items->item[i];
        }
    }
    fail_msg("no tensor %s", name);
    return NULL;
}

static void drop_item(struct items *items, const char *name)
{
    struct item *item = item_named(items, name);
    tri_free(item->data);
    *item = items->item[--items->count];
}

static void write_items(struct items *items, const char *name, int first, int end)
{
    struct tri_safetensors_spec specs[512];
    struct tri_safetensors_writer *writer;
    struct tri_error error;
    char path[512];
    for (int i = first; i < end; i++) {
        specs[i - first] = items->item[i].spec;
        specs[i - first].name = items->item[i].name;
    }
    (void)snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(tri_safetensors_writer_create(path, end - first, specs, &writer, &error),
                     TRI_OK);
    for (int i = 0; i < end - first; i++) {
        const struct item *item = item_named(items, specs[i].name);
        assert_int_equal(tri_safetensors_writer_write(writer, item->data, item->bytes, &error),
                         TRI_OK);
    }
    assert_int_equal(tri_safetensors_writer_close(&writer, NULL, NULL, &error), TRI_OK);
}

static void free_items(struct items *items)
{
    for (int i = 0; i < items->count; i++) {
        tri_free(items->item[i].data);
    }
    tri_free(items);
}

static void copy_config(const char *family)
{
    edit_config(family, "{", "{");
}

/* The folder's model must be that of the family's golden files. */
static void expect_same_model(const char *family)
{
    struct tri_params *expected = import(golden(family)), *found = import(dir);
    fixture_expect_equal(expected, found, false);
    tri_params_destroy(expected);
    tri_params_destroy(found);
}

static void refuse_weights(const char *words)
{
    struct tri_params *params = params_of(dir);
    struct tri_error error = {0};
    assert_int_equal(tri_hf_load_weights(dir, params, &error), TRI_BAD_INPUT);
    if (!strstr(error.message, words)) {
        fail_msg("'%s' lacks '%s'", error.message, words);
    }
    tri_params_destroy(params);
}

static void test_shards(void **state)
{
    (void)state;
    struct items *items = items_of("mixtral");
    int half = items->count / 2;
    copy_config("mixtral");
    write_items(items, "model-00001-of-00002.safetensors", 0, half);
    write_items(items, "model-00002-of-00002.safetensors", half, items->count);
    static char index[65536];
    size_t used =
        (size_t)snprintf(index, sizeof(index), "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
    for (int i = 0; i < items->count; i++) {
        used += (size_t)snprintf(index + used, sizeof(index) - used,
                                 "%s\"%s\":\"model-0000%d-of-00002.safetensors\"", i ? "," : "",
                                 items->item[i].name, i < half ? 1 : 2);
    }
    (void)snprintf(index + used, sizeof(index) - used, "}}");
    put("model.safetensors.index.json", index, strlen(index));
    expect_same_model("mixtral");
    struct tri_error error;
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/model-00002-of-00002.safetensors", dir);
    assert_int_equal(tri_file_remove_tree(path, &error), TRI_OK);
    refuse_weights("model-00002-of-00002.safetensors: cannot open");
    (void)snprintf(path, sizeof(path), "%s/model.safetensors.index.json", dir);
    assert_int_equal(tri_file_remove_tree(path, &error), TRI_OK);
    free_items(items);
}

static void test_missing_and_extra(void **state)
{
    (void)state;
    struct items *items = items_of("olmoe");
    copy_config("olmoe");
    drop_item(items, "model.layers.1.mlp.experts.7.up_proj.weight");
    write_items(items, "model.safetensors", 0, items->count);
    refuse_weights("tensor model.layers.1.mlp.experts.7.up_proj.weight "
                   "(layers.1.moe.experts.7.up.weight) is missing");
    free_items(items);

    items = items_of("olmoe");
    static const int64_t shape[] = {24, 32};
    add_item(items, "model.layers.1.mlp.experts.16.up_proj.weight", TRI_ST_F32, 2, shape,
             24 * 32 * 4);
    write_items(items, "model.safetensors", 0, items->count);
    refuse_weights("tensor model.layers.1.mlp.experts.16.up_proj.weight: the model of config.json "
                   "has no place");
    drop_item(items, "model.layers.1.mlp.experts.16.up_proj.weight");
    /* Buffers are passed over. */
    static const int64_t four[] = {4};
    add_item(items, "model.layers.1.self_attn.rotary_emb.inv_freq", TRI_ST_F32, 1, four, 16);
    write_items(items, "model.safetensors", 0, items->count);
    expect_same_model("olmoe");
    /* A wrong shape of the right size. */
    struct item *item = item_named(items, "model.layers.0.mlp.experts.3.down_proj.weight");
    item->spec.shape[0] = 24;
    item->spec.shape[1] = 32;
    write_items(items, "model.safetensors", 0, items->count);
    refuse_weights(
        "model.layers.0.mlp.experts.3.down_proj.weight: shape [24, 32], expected [32, 24]");
    item->spec.shape[0] = 32;
    item->spec.shape[1] = 24;
    item->spec.dtype = TRI_ST_I32;
    write_items(items, "model.safetensors", 0, items->count);
    refuse_weights("dtype I32, expected F32, BF16 or F16");
    free_items(items);
}

/* transformers 5 in memory: all experts of a layer in two tensors. */
static void test_fused_experts(void **state)
{
    (void)state;
    static const char *const families[] = {"mixtral", "olmoe", "qwen3_moe"};
    for (size_t f = 0; f < 3; f++) {
        struct tri_params *model = import(golden(families[f]));
        const struct tri_param *any = tri_params_by_name(model, "layers.0.moe.experts.0.up.weight");
        const struct tri_param *router = tri_params_by_name(model, "layers.0.moe.router.weight");
        int64_t experts = router->shape[0], inner = any->shape[0], width = any->shape[1];
        struct items *items = items_of(families[f]);
        for (int i = items->count; i-- > 0;) {
            struct item *item = &items->item[i];
            char *gate = strstr(item->name, ".block_sparse_moe.gate.");
            if (strstr(item->name, ".experts.")) {
                drop_item(items, item->name);
            } else if (gate) {
                (void)memmove(gate, ".mlp.gate.weight", sizeof(".mlp.gate.weight"));
            }
        }
        for (int64_t layer = 0; layer < model->layers; layer++) {
            char name[160];
            (void)snprintf(name, sizeof(name), "layers.%d.moe.router.weight", (int)layer);
            if (!tri_params_by_name(model, name)) {
                continue;
            }
            int64_t up_shape[] = {experts, 2 * inner, width},
                    down_shape[] = {experts, width, inner};
            size_t matrix = (size_t)(inner * width), all = (size_t)experts * matrix * sizeof(float);
            (void)snprintf(name, sizeof(name), "model.layers.%d.mlp.experts.gate_up_proj",
                           (int)layer);
            float *gate_up = add_item(items, name, TRI_ST_F32, 3, up_shape, 2 * all)->data;
            (void)snprintf(name, sizeof(name), "model.layers.%d.mlp.experts.down_proj", (int)layer);
            float *down = add_item(items, name, TRI_ST_F32, 3, down_shape, all)->data;
            for (int e = 0; e < experts; e++) {
                static const char *const parts[] = {"gate", "up", "down"};
                for (int part = 0; part < 3; part++) {
                    (void)snprintf(name, sizeof(name), "layers.%d.moe.experts.%d.%s.weight",
                                   (int)layer, e, parts[part]);
                    float *to = part == 2 ? down + (size_t)e * matrix
                                          : gate_up + (2 * (size_t)e + (size_t)part) * matrix;
                    memcpy(to, weights(model, name), matrix * sizeof(float));
                }
            }
        }
        copy_config(families[f]);
        write_items(items, "model.safetensors", 0, items->count);
        expect_same_model(families[f]);
        /* An expert too many in the tensor. */
        item_named(items, "model.layers.0.mlp.experts.down_proj")->spec.shape[0] = 1;
        item_named(items, "model.layers.0.mlp.experts.down_proj")->bytes =
            (size_t)(inner * width) * 4;
        write_items(items, "model.safetensors", 0, items->count);
        refuse_weights("mlp.experts.down_proj: shape [1, ");
        free_items(items);
        tri_params_destroy(model);
    }
}

/* GPT-2 as it was first published: no prefix, masks among the weights; and the head saved twice. */
static void test_old_gpt2(void **state)
{
    (void)state;
    struct items *items = items_of("gpt2");
    static const int64_t mask[] = {1, 1, 64, 64};
    copy_config("gpt2");
    for (int i = 0; i < items->count; i++) {
        char *name = items->item[i].name;
        (void)memmove(name, name + strlen("transformer."),
                      strlen(name) - strlen("transformer.") + 1);
    }
    add_item(items, "h.0.attn.bias", TRI_ST_F32, 4, mask, 64 * 64 * 4);
    write_items(items, "model.safetensors", 0, items->count);
    expect_same_model("gpt2");
    const struct item *embedding = item_named(items, "wte.weight");
    struct item *head =
        add_item(items, "lm_head.weight", TRI_ST_F32, 2, embedding->spec.shape, embedding->bytes);
    memcpy(head->data, embedding->data, embedding->bytes);
    write_items(items, "model.safetensors", 0, items->count);
    expect_same_model("gpt2");
    ((float *)head->data)[5] += 1.0F;
    write_items(items, "model.safetensors", 0, items->count);
    refuse_weights("tensor lm_head.weight: the model of config.json has no place");
    free_items(items);
}

static void test_narrow_types(void **state)
{
    (void)state;
    struct items *items = items_of("llama");
    copy_config("llama");
    struct tri_params *expected = import(golden("llama"));
    for (int i = 0; i < items->count; i++) {
        struct item *item = &items->item[i];
        const float *from = item->data;
        uint16_t *to = item->data;
        for (size_t k = 0; k < item->bytes / 4; k++) {
            to[k] = tri_f32_to_bf16(from[k]);
        }
        item->bytes /= 2;
        item->spec.dtype = TRI_ST_BF16;
    }
    write_items(items, "model.safetensors", 0, items->count);
    struct tri_params *found = import(dir);
    for (int p = 0; p < found->count; p++) {
        const float *a = tri_param_weights(expected, &expected->param[p]);
        const float *b = tri_param_weights(found, &found->param[p]);
        for (int64_t i = 0; i < fixture_elements(&found->param[p]); i++) {
            assert_true(tri_bf16_to_f32(tri_f32_to_bf16(a[i])) == b[i]);
        }
    }
    tri_params_destroy(found);
    tri_params_destroy(expected);
    free_items(items);
}

static int set_up(void **state)
{
    (void)state;
    mesh = tri_mesh_create_serial();
    fixture_dir("hf", dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    tri_mesh_destroy(mesh);
    fixture_remove(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_mixtral),
        cmocka_unit_test(test_config_olmoe),
        cmocka_unit_test(test_config_qwen2_moe),
        cmocka_unit_test(test_config_qwen3_moe),
        cmocka_unit_test(test_config_dense),
        cmocka_unit_test(test_config_refusals),
        cmocka_unit_test(test_config_spellings),
        cmocka_unit_test(test_imports_all),
        cmocka_unit_test(test_places),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_missing_and_extra),
        cmocka_unit_test(test_fused_experts),
        cmocka_unit_test(test_old_gpt2),
        cmocka_unit_test(test_narrow_types),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
