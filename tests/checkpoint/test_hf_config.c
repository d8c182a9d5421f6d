/* config.json of seven families as transformers 5.24 writes it, field by field; and everything that
 * Trident cannot honour refused by name. */
#include "checkpoint/fixture.h"
#include "checkpoint/hf.h"

#include "base/file.h"
#include "base/memory.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static char dir[256];

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
    /* Each version of transformers would take its own. */
    refuse_edit(
        "llama", "\"rope_parameters\"", "\"rope_theta\": 7000.0, \"rope_parameters\"",
        "rope_parameters: {\"rope_theta\":500000.0,\"rope_type\":\"default\"}: its rope_theta");
    refuse_edit("llama", "\"num_key_value_heads\": ", "\"num_key_value_heads\": 0, \"x\": ",
                "num_key_value_heads: 0: expected at least one");
    refuse_edit("llama", "\"max_position_embeddings\": ", "\"max_position_embeddings\": 0, \"x\": ",
                "max_position_embeddings: 0: expected");
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
    refuse_edit("mixtral", "\"sliding_window\": null", "\"sliding_window\": 0",
                "sliding_window: 0: expected at least one");
    refuse_edit("llama", "\"use_cache\"", "\"sliding_window\": 16, \"use_cache\"",
                "sliding_window: 16: this architecture has no windows");
    refuse_edit("llama", "\"default\"", "\"longrope\"", "llama3 and yarn");
    refuse_edit("llama", "\"default\"", "\"default\", \"partial_rotary_factor\": 0.5",
                "over whole heads");
    refuse_edit("llama", "\"use_cache\"", "\"partial_rotary_factor\": 0.25, \"use_cache\"",
                "partial_rotary_factor: 0.25: rope covers whole heads only");
    refuse_edit("llama", "\"default\"", "\"linear\"", "factor is missing");
    refuse_edit("llama", "\"default\"", "\"linear\", \"factor\": \"2\"", "factor");
    refuse_edit("llama", "\"default\"",
                "\"llama3\", \"factor\": 2.0, \"low_freq_factor\": 4.0, \"high_freq_factor\": 4.0",
                "low_freq_factor below");
    refuse_edit("llama", "\"default\"", "\"linear\", \"factor\": 1e-30", "factor: expected");
    refuse_edit("llama", "\"default\"", "\"dynamic\", \"factor\": 1e7", "factor: expected");
    refuse_edit("llama", "\"default\"", "\"yarn\", \"factor\": 0.5", "factor: expected");
    refuse_edit("llama", "\"default\"", "\"yarn\", \"original_max_position_embeddings\": 1000",
                "factor: expected a number from 1");
    refuse_edit("llama", "\"default\"", "\"yarn\", \"factor\": 4.0, \"attention_factor\": -1",
                "attention_factor: expected a number above 0");
    refuse_edit("llama", "\"default\"", "\"yarn\", \"factor\": 4.0, \"attention_factor\": 0",
                "attention_factor: expected a number above 0");
    refuse_edit("llama", "\"default\"", "\"yarn\", \"factor\": 4.0, \"beta_fast\": 0.5",
                "beta_fast: expected at least beta_slow");
    refuse_edit("llama", "\"rope_parameters\"",
                "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}, \"rope_parameters\"",
                "differs from rope_scaling");
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
    c = accept_edit("llama", "\"rope_parameters\"", "\"rope_theta\": 5e5, \"rope_parameters\"");
    assert_true(c.model.rope_theta == 5e5);
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

static void test_config_windows(void **state)
{
    (void)state;
    struct tri_config c =
        accept_edit("mixtral", "\"sliding_window\": null", "\"sliding_window\": 16");
    assert_int_equal(tri_config_layer_window(&c, 0), 16);
    assert_int_equal(tri_config_layer_window(&c, 1), 16);
    c = accept_edit("qwen3", "\"use_sliding_window\": false",
                    "\"use_sliding_window\": true, \"unused\": 0");
    assert_int_equal(tri_config_layer_window(&c, 0), 0); /* wider than the context */
    c = accept_edit("llama", "\"rope_parameters\"",
                    "\"rope_scaling\": {\"type\": \"linear\", \"factor\": 2.0}, \"x\"");
    assert_int_equal(c.model.rope_scaling, TRI_ROPE_LINEAR);
    assert_true(c.model.rope_factor == 2.0);
    c = accept_edit("llama", "\"default\"",
                    "\"yarn\", \"factor\": 4.0, \"original_max_position_embeddings\": 16");
    assert_int_equal(c.model.rope_original, 16);
    assert_true(fabs(c.model.rope_attention - (0.1 * log(4.0) + 1.0)) < 1e-15);
    assert_true(c.model.rope_truncate);
    c = accept_edit("llama", "\"default\"", "\"yarn\", \"factor\": 4.0, \"truncate\": false");
    assert_false(c.model.rope_truncate);
    struct tri_config again;
    struct tri_error error = {0};
    assert_int_equal(tri_hf_save_config(dir, &c, TRI_HF_LLAMA, TRI_ST_F32, NULL, &error), TRI_OK);
    assert_int_equal(tri_hf_load_config(dir, &again, NULL, &error), TRI_OK);
    assert_false(again.model.rope_truncate);
}

/* The family is the one that has such windows, or none has. */
static void test_windows_of_families(void **state)
{
    (void)state;
    struct tri_config c, again;
    enum tri_hf_family family = TRI_HF_LLAMA, found = TRI_HF_LLAMA;
    struct tri_error error = {0};
    assert_int_equal(tri_hf_load_config(golden("llama"), &c, NULL, &error), TRI_OK);
    c.model.sliding_window = 16;
    assert_int_equal(tri_hf_family_of(&c, &family, &error), TRI_OK);
    assert_int_equal(family, TRI_HF_MISTRAL);
    assert_int_equal(tri_hf_save_config(dir, &c, family, TRI_ST_F32, NULL, &error), TRI_OK);
    assert_int_equal(tri_hf_load_config(dir, &again, &found, &error), TRI_OK);
    assert_int_equal(found, TRI_HF_MISTRAL);
    assert_int_equal(again.model.sliding_window, 16);
    c.model.num_window_layers = 1;
    assert_int_equal(tri_hf_family_of(&c, &family, &error), TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "model.window_layers in a model of this kind"));
    assert_int_equal(tri_hf_load_config(golden("olmoe"), &c, NULL, &error), TRI_OK);
    c.model.sliding_window = 16;
    assert_int_equal(tri_hf_family_of(&c, &family, &error), TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "model.sliding_window in a model of this kind"));
}

/* What is written is what was read. */
static void test_config_rewritten(void **state)
{
    (void)state;
    static const char *const folders[] = {"mixtral",
                                          "olmoe",
                                          "qwen2_moe",
                                          "qwen3_moe",
                                          "gpt2",
                                          "llama",
                                          "qwen3",
                                          "llama_llama3",
                                          "qwen3_yarn",
                                          "mixtral_linear",
                                          "qwen2_moe_dynamic"};
    for (size_t i = 0; i < sizeof(folders) / sizeof(*folders); i++) {
        struct tri_config before, after;
        enum tri_hf_family family = TRI_HF_LLAMA, again = TRI_HF_FAMILY_COUNT;
        struct tri_error error = {0};
        if (tri_hf_load_config(golden(folders[i]), &before, NULL, &error) != TRI_OK ||
            tri_hf_family_of(&before, &family, &error) != TRI_OK ||
            tri_hf_save_config(dir, &before, family, TRI_ST_F16, NULL, &error) != TRI_OK ||
            tri_hf_load_config(dir, &after, &again, &error) != TRI_OK) {
            fail_msg("%s: %s", folders[i], error.message);
        }
        assert_int_equal(again, family);
        char *a = tri_config_to_yaml(&before), *b = tri_config_to_yaml(&after);
        assert_string_equal(a, b);
        tri_free(a);
        tri_free(b);
    }
}

static int set_up(void **state)
{
    (void)state;
    fixture_dir("hf_config", dir);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    fixture_remove(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_config_mixtral),   cmocka_unit_test(test_config_olmoe),
        cmocka_unit_test(test_config_qwen2_moe), cmocka_unit_test(test_config_qwen3_moe),
        cmocka_unit_test(test_config_dense),     cmocka_unit_test(test_config_refusals),
        cmocka_unit_test(test_config_spellings), cmocka_unit_test(test_config_windows),
        cmocka_unit_test(test_config_rewritten), cmocka_unit_test(test_windows_of_families),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
