/* Hugging Face directories written by Trident: the very bytes that transformers wrote of the
 * same model, and configs that read back the same. */
#include "checkpoint/fixture.h"
#include "checkpoint/hf.h"
#include "checkpoint/hf_save.h"
#include "checkpoint/safetensors.h"

#include "base/file.h"
#include "base/memory.h"
#include "moe/strategies.h"
#include "tensor/dtype.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const char *const families[] = {"mixtral", "olmoe", "qwen2_moe", "qwen3_moe",
                                       "gpt2",    "llama", "qwen3"};

enum { FAMILIES = sizeof(families) / sizeof(*families) };

static char dir[256];
static struct tri_mesh *mesh;

struct model {
    struct tri_config config;
    struct tri_params *params;
};

static struct model load(const char *from)
{
    struct model model;
    struct tri_error error;
    if (tri_hf_load_config(from, &model.config, NULL, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    model.params = tri_params_create(&model.config, mesh);
    tri_params_allocate(model.params, false);
    if (tri_hf_load_weights(from, model.params, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return model;
}

static struct model load_golden(const char *family)
{
    char path[512];
    (void)snprintf(path, sizeof(path), TESTDATA_DIR "/golden/%s", family);
    return load(path);
}

static void expect_same_file(const char *a, const char *b)
{
    struct tri_mapping x, y;
    struct tri_error error;
    assert_int_equal(tri_file_map(a, &x, &error), TRI_OK);
    assert_int_equal(tri_file_map(b, &y, &error), TRI_OK);
    assert_int_equal(x.size, y.size);
    assert_memory_equal(x.data, y.data, x.size);
    tri_file_unmap(&x);
    tri_file_unmap(&y);
}

static void expect_same_config(struct tri_config *a, struct tri_config *b)
{
    char text[256];
    const char *key = tri_config_first_difference(a, b, true, text, sizeof(text));
    if (key) {
        fail_msg("%s differs: %s", key, text);
    }
}

static void test_bytes_of_transformers(void **state)
{
    (void)state;
    for (int f = 0; f < FAMILIES; f++) {
        struct model model = load_golden(families[f]);
        struct tri_error error;
        char out[512], mine[600], theirs[600];
        (void)snprintf(out, sizeof(out), "%s/%s", dir, families[f]);
        if (tri_hf_save(out, &model.config, model.params, TRI_ST_F32, NULL, &error) != TRI_OK) {
            fail_msg("%s", error.message);
        }
        (void)snprintf(mine, sizeof(mine), "%s/model.safetensors", out);
        (void)snprintf(theirs, sizeof(theirs), TESTDATA_DIR "/golden/%s/model.safetensors",
                       families[f]);
        expect_same_file(mine, theirs);
        struct model again = load(out);
        expect_same_config(&model.config, &again.config);
        tri_params_destroy(again.params);
        /* Never over something else. */
        assert_int_equal(tri_hf_save(out, &model.config, model.params, TRI_ST_F32, NULL, &error),
                         TRI_BAD_INPUT);
        assert_non_null(strstr(error.message, "is there already"));
        tri_params_destroy(model.params);
    }
}

static void test_shards(void **state)
{
    (void)state;
    for (int f = 0; f < FAMILIES; f += 2) {
        struct model model = load_golden(families[f]);
        struct tri_error error;
        char out[512], path[600];
        (void)snprintf(out, sizeof(out), "%s/shards-%s", dir, families[f]);
        assert_int_equal(tri_hf_save_shards(out, &model.config, model.params, TRI_ST_F32, NULL,
                                            40000, 0, &error),
                         TRI_OK);
        (void)snprintf(path, sizeof(path), "%s/model.safetensors", out);
        assert_false(tri_file_exists(path));
        (void)snprintf(path, sizeof(path), "%s/model.safetensors.index.json", out);
        assert_true(tri_file_exists(path));
        struct model again = load(out);
        fixture_expect_equal(model.params, again.params, false);
        tri_params_destroy(again.params);
        tri_params_destroy(model.params);
    }
}

static void test_bf16(void **state)
{
    (void)state;
    struct model model = load_golden("qwen2_moe");
    struct tri_error error;
    char out[512];
    (void)snprintf(out, sizeof(out), "%s/bf16", dir);
    assert_int_equal(tri_hf_save(out, &model.config, model.params, TRI_ST_BF16, NULL, &error),
                     TRI_OK);
    struct model again = load(out);
    for (int p = 0; p < model.params->count; p++) {
        const float *a = tri_param_weights(model.params, &model.params->param[p]);
        const float *b = tri_param_weights(again.params, &again.params->param[p]);
        for (int64_t i = 0; i < fixture_elements(&model.params->param[p]); i++) {
            assert_true(tri_bf16_to_f32(tri_f32_to_bf16(a[i])) == b[i]);
        }
    }
    tri_params_destroy(again.params);
    tri_params_destroy(model.params);
}

static void refuse_family(const struct tri_config *config, const char *words)
{
    enum tri_hf_family family;
    struct tri_error error = {0};
    assert_int_equal(tri_hf_family_of(config, &family, &error), TRI_BAD_INPUT);
    if (!strstr(error.message, words)) {
        fail_msg("'%s' lacks '%s'", error.message, words);
    }
}

static void test_families(void **state)
{
    (void)state;
    for (int f = 0; f < FAMILIES; f++) {
        struct model model = load_golden(families[f]);
        enum tri_hf_family family;
        struct tri_error error;
        assert_int_equal(tri_hf_family_of(&model.config, &family, &error), TRI_OK);
        assert_string_equal(tri_hf_family_name(family), families[f]);
        tri_params_destroy(model.params);
    }
    struct tri_config c = fixture_config(TRI_PRECISION_F32);
    refuse_family(&c, "model.qk_norm beside a shared expert");
    c.moe.score = TRI_SCORE_SIGMOID;
    refuse_family(&c, "has moe.score sigmoid");
    c.moe.score = TRI_SCORE_SOFTMAX;
    c.moe.groups = 2;
    c.moe.groups_top = 1;
    refuse_family(&c, "has moe.groups");
    c.moe.groups_top = 2;
    c.moe.routed_scaling = 2.5;
    refuse_family(&c, "has moe.routed_scaling");
    c.moe.routed_scaling = 1;
    c.model.qk_norm = TRI_QK_NORM_NONE;
    c.moe.shared_gate = false;
    refuse_family(&c, "a shared expert without moe.shared_gate");
    c.moe.shared_intermediate_size = 0;
    refuse_family(&c, "model.bias beside experts");
    c.model.bias = TRI_BIAS_NONE;
    refuse_family(&c, "layers without experts");
    c.moe.every = 1;
    c.moe.normalize_top_k = false;
    refuse_family(&c, "moe.normalize_top_k false");
    c.moe.router = &tri_router_deepspeed_top1;
    refuse_family(&c, "moe.router");
    c.moe.num_experts = 0;
    c.model.qk_norm = TRI_QK_NORM_FULL;
    refuse_family(&c, "model.qk_norm full in a dense model");
    c.model.mlp = TRI_MLP_GELU;
    refuse_family(&c, "this mix of model.norm");
}

/* A finite half's size. */
static float half_value(int bits)
{
    int exponent = bits >> 10, fraction = bits & 0x3ff;
    return exponent == 0 ? ldexpf((float)fraction, -24)
                         : ldexpf((float)(1024 + fraction), exponent - 25);
}

/* Every half is itself, and between two of them the nearer one is taken, at the middle the even. */
static void test_halves(void **state)
{
    (void)state;
    for (int bits = 0; bits < 0x7c00; bits++) {
        float here = half_value(bits), next = bits + 1 < 0x7c00 ? half_value(bits + 1) : 65536.0F;
        float middle = here + (next - here) / 2.0F;
        assert_int_equal(tri_f32_to_f16(here), bits);
        assert_int_equal(tri_f32_to_f16(-here), bits | 0x8000);
        assert_int_equal(tri_f32_to_f16(nextafterf(middle, 0.0F)), bits);
        assert_int_equal(tri_f32_to_f16(middle), bits + (bits & 1));
        assert_int_equal(tri_f32_to_f16(nextafterf(middle, next)), bits + 1);
    }
    assert_int_equal(tri_f32_to_f16(INFINITY), 0x7c00);
    assert_int_equal(tri_f32_to_f16(-1e30F), 0xfc00);
    assert_int_equal(tri_f32_to_f16(NAN) & 0x7fff, 0x7e00);
}

/* What no half holds is named, and nothing is left. */
static void test_too_large_for_f16(void **state)
{
    (void)state;
    struct model model = load_golden("llama");
    struct tri_error error;
    char out[512];
    (void)snprintf(out, sizeof(out), "%s/too-large", dir);
    float *weights = tri_param_weights(model.params, &model.params->param[0]);
    weights[3] = 1e5F;
    assert_int_equal(tri_hf_save(out, &model.config, model.params, TRI_ST_F16, NULL, &error),
                     TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "found 100000, which no f16 holds"));
    assert_false(tri_file_exists(out));
    tri_params_destroy(model.params);
}

static void test_disk_full(void **state)
{
    (void)state;
    static const char *const faults[] = {"write:ENOSPC:model.safetensors:20000",
                                         "write:ENOSPC:config.json"};
    struct model model = load_golden("llama");
    char out[512], temporary[600];
    struct tri_error error;
    (void)snprintf(out, sizeof(out), "%s/full", dir);
    (void)snprintf(temporary, sizeof(temporary), "%s.trident.tmp", out);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(setenv("TRIDENT_FILE_FAULT", faults[i], 1), 0);
        assert_int_equal(tri_hf_save(out, &model.config, model.params, TRI_ST_F32, NULL, &error),
                         TRI_FAILED);
        assert_int_equal(unsetenv("TRIDENT_FILE_FAULT"), 0);
        assert_non_null(strstr(error.message, "No space left"));
        assert_false(tri_file_exists(out));
        assert_false(tri_file_exists(temporary));
    }
    assert_int_equal(tri_hf_save(out, &model.config, model.params, TRI_ST_F32, NULL, &error),
                     TRI_OK);
    tri_params_destroy(model.params);
}

static int set_up(void **state)
{
    (void)state;
    mesh = tri_mesh_create_serial();
    fixture_dir("hf_save", dir);
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
        cmocka_unit_test(test_bytes_of_transformers),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_bf16),
        cmocka_unit_test(test_families),
        cmocka_unit_test(test_halves),
        cmocka_unit_test(test_too_large_for_f16),
        cmocka_unit_test(test_disk_full),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
