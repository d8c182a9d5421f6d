/* Weights of Hugging Face directories: every tensor in its place, under each of its spellings,
 * and what is missing, left over or misshapen refused by name. */
#include "checkpoint/fixture.h"
#include "checkpoint/hf.h"
#include "checkpoint/hf_folder.h"
#include "checkpoint/safetensors.h"

#include "base/file.h"
#include "base/memory.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <math.h>
#include <string.h>

#include <cmocka.h>

static const float *weights(const struct tri_params *params, const char *name)
{
    const struct tri_param *param = tri_params_by_name(params, name);
    if (!param) {
        fail_msg("no row %s", name);
        return NULL;
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
    (void)snprintf(path, sizeof(path), "%s/model.safetensors", hf_golden(family));
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
        struct tri_params *params = hf_import(hf_golden(families[f]));
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
    struct tri_params *p = hf_import(hf_golden("mixtral"));
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
    p = hf_import(hf_golden("qwen2_moe"));
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
    p = hf_import(hf_golden("gpt2"));
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

static void test_shards(void **state)
{
    (void)state;
    struct hf_items *items = hf_items_of("mixtral");
    int half = items->count / 2;
    hf_copy_config("mixtral");
    hf_write(items, "model-00001-of-00002.safetensors", 0, half);
    hf_write(items, "model-00002-of-00002.safetensors", half, items->count);
    static char index[65536];
    size_t used =
        (size_t)snprintf(index, sizeof(index), "{\"metadata\":{\"total_size\":1},\"weight_map\":{");
    for (int i = 0; i < items->count; i++) {
        used += (size_t)snprintf(index + used, sizeof(index) - used,
                                 "%s\"%s\":\"model-0000%d-of-00002.safetensors\"", i ? "," : "",
                                 items->item[i].name, i < half ? 1 : 2);
    }
    (void)snprintf(index + used, sizeof(index) - used, "}}");
    hf_put("model.safetensors.index.json", index, strlen(index));
    hf_expect_same("mixtral");
    struct tri_error error;
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/model-00002-of-00002.safetensors", hf_dir);
    assert_int_equal(tri_file_remove_tree(path, &error), TRI_OK);
    hf_refuse("model-00002-of-00002.safetensors: cannot open");
    (void)snprintf(path, sizeof(path), "%s/model.safetensors.index.json", hf_dir);
    assert_int_equal(tri_file_remove_tree(path, &error), TRI_OK);
    hf_free(items);
}

static void test_missing_and_extra(void **state)
{
    (void)state;
    struct hf_items *items = hf_items_of("olmoe");
    hf_copy_config("olmoe");
    hf_drop(items, "model.layers.1.mlp.experts.7.up_proj.weight");
    hf_write(items, "model.safetensors", 0, items->count);
    hf_refuse("tensor model.layers.1.mlp.experts.7.up_proj.weight "
              "(layers.1.moe.experts.7.up.weight) is missing");
    hf_free(items);

    items = hf_items_of("olmoe");
    static const int64_t shape[] = {24, 32};
    hf_add(items, "model.layers.1.mlp.experts.16.up_proj.weight", TRI_ST_F32, 2, shape,
           24 * 32 * 4);
    hf_write(items, "model.safetensors", 0, items->count);
    hf_refuse(
        "tensor model.layers.1.mlp.experts.16.up_proj.weight: the model of config.json (olmoe) "
        "has no place");
    hf_drop(items, "model.layers.1.mlp.experts.16.up_proj.weight");
    /* Buffers are passed over. */
    static const int64_t four[] = {4};
    hf_add(items, "model.layers.1.self_attn.rotary_emb.inv_freq", TRI_ST_F32, 1, four, 16);
    hf_write(items, "model.safetensors", 0, items->count);
    hf_expect_same("olmoe");
    /* A wrong shape of the right size. */
    struct hf_item *item = hf_item(items, "model.layers.0.mlp.experts.3.down_proj.weight");
    item->spec.shape[0] = 24;
    item->spec.shape[1] = 32;
    hf_write(items, "model.safetensors", 0, items->count);
    hf_refuse("model.layers.0.mlp.experts.3.down_proj.weight: shape [24, 32], expected [32, 24]");
    item->spec.shape[0] = 32;
    item->spec.shape[1] = 24;
    item->spec.dtype = TRI_ST_I32;
    hf_write(items, "model.safetensors", 0, items->count);
    hf_refuse("dtype I32, expected F32, BF16, F16 or F64");
    hf_free(items);
}

/* transformers 5 in memory: all experts of a layer in two tensors. */
static void test_fused_experts(void **state)
{
    (void)state;
    static const char *const families[] = {"mixtral", "olmoe", "qwen3_moe"};
    for (size_t f = 0; f < 3; f++) {
        struct tri_params *model = hf_import(hf_golden(families[f]));
        const struct tri_param *any = tri_params_by_name(model, "layers.0.moe.experts.0.up.weight");
        const struct tri_param *router = tri_params_by_name(model, "layers.0.moe.router.weight");
        int64_t experts = router->shape[0], inner = any->shape[0], width = any->shape[1];
        struct hf_items *items = hf_items_of(families[f]);
        for (int i = items->count; i-- > 0;) {
            struct hf_item *item = &items->item[i];
            char *gate = strstr(item->name, ".block_sparse_moe.gate.");
            if (strstr(item->name, ".experts.")) {
                hf_drop(items, item->name);
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
            float *gate_up = hf_add(items, name, TRI_ST_F32, 3, up_shape, 2 * all)->data;
            (void)snprintf(name, sizeof(name), "model.layers.%d.mlp.experts.down_proj", (int)layer);
            float *down = hf_add(items, name, TRI_ST_F32, 3, down_shape, all)->data;
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
        hf_copy_config(families[f]);
        hf_write(items, "model.safetensors", 0, items->count);
        hf_expect_same(families[f]);
        /* An expert too many in the tensor. */
        hf_item(items, "model.layers.0.mlp.experts.down_proj")->spec.shape[0] = 1;
        hf_item(items, "model.layers.0.mlp.experts.down_proj")->bytes = (size_t)(inner * width) * 4;
        hf_write(items, "model.safetensors", 0, items->count);
        hf_refuse("mlp.experts.down_proj: shape [1, ");
        hf_free(items);
        tri_params_destroy(model);
    }
}

/* GPT-2 as it was first published: no prefix, masks among the weights; and the head saved twice. */
static void test_old_gpt2(void **state)
{
    (void)state;
    struct hf_items *items = hf_items_of("gpt2");
    static const int64_t mask[] = {1, 1, 64, 64};
    hf_copy_config("gpt2");
    for (int i = 0; i < items->count; i++) {
        char *name = items->item[i].name;
        (void)memmove(name, name + strlen("transformer."),
                      strlen(name) - strlen("transformer.") + 1);
    }
    hf_add(items, "h.0.attn.bias", TRI_ST_F32, 4, mask, 64 * 64 * 4);
    hf_write(items, "model.safetensors", 0, items->count);
    hf_expect_same("gpt2");
    const struct hf_item *embedding = hf_item(items, "wte.weight");
    struct hf_item *head =
        hf_add(items, "lm_head.weight", TRI_ST_F32, 2, embedding->spec.shape, embedding->bytes);
    memcpy(head->data, embedding->data, embedding->bytes);
    hf_write(items, "model.safetensors", 0, items->count);
    hf_expect_same("gpt2");
    ((float *)head->data)[5] += 1.0F;
    hf_write(items, "model.safetensors", 0, items->count);
    hf_refuse("tensor lm_head.weight differs from the embedding");
    hf_free(items);
}

static void test_narrow_types(void **state)
{
    (void)state;
    struct hf_items *items = hf_items_of("llama");
    hf_copy_config("llama");
    struct tri_params *expected = hf_import(hf_golden("llama"));
    for (int i = 0; i < items->count; i++) {
        struct hf_item *item = &items->item[i];
        const float *from = item->data;
        uint16_t *to = item->data;
        for (size_t k = 0; k < item->bytes / 4; k++) {
            to[k] = tri_f32_to_bf16(from[k]);
        }
        item->bytes /= 2;
        item->spec.dtype = TRI_ST_BF16;
    }
    hf_write(items, "model.safetensors", 0, items->count);
    struct tri_params *found = hf_import(hf_dir);
    for (int p = 0; p < found->count; p++) {
        const float *a = tri_param_weights(expected, &expected->param[p]);
        const float *b = tri_param_weights(found, &found->param[p]);
        for (int64_t i = 0; i < fixture_elements(&found->param[p]); i++) {
            assert_true(tri_bf16_to_f32(tri_f32_to_bf16(a[i])) == b[i]);
        }
    }
    tri_params_destroy(found);
    tri_params_destroy(expected);
    hf_free(items);
}

static void test_not_finite(void **state)
{
    (void)state;
    static const float bad[] = {(float)NAN, (float)INFINITY, (float)-INFINITY};
    struct hf_items *items = hf_items_of("llama");
    struct hf_item *item = hf_item(items, "model.layers.1.mlp.down_proj.weight");
    float *last = (float *)item->data + item->bytes / sizeof(float) - 1;
    hf_copy_config("llama");
    for (int i = 0; i < 3; i++) {
        *last = bad[i];
        hf_write(items, "model.safetensors", 0, items->count);
        hf_refuse("model.layers.1.mlp.down_proj.weight holds values that are not finite");
    }
    hf_free(items);
}

static int set_up(void **state)
{
    (void)state;
    hf_begin("hf_weights");
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    hf_end();
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_imports_all),   cmocka_unit_test(test_places),
        cmocka_unit_test(test_shards),        cmocka_unit_test(test_missing_and_extra),
        cmocka_unit_test(test_fused_experts), cmocka_unit_test(test_old_gpt2),
        cmocka_unit_test(test_narrow_types),  cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
