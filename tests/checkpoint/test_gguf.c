/* GGUF files: the bytes of a head, every weight where and as the format's readers look for it, on
 * one rank and several, the tokenizer, and what is refused. That llama.cpp computes the same with
 * such a file: tools/gguf. */
#include "checkpoint/fixture.h"
#include "checkpoint/gguf.h"
#include "checkpoint/gguf_file.h"
#include "checkpoint/gguf_header.h"
#include "support/job.h"

#include "base/memory.h"
#include "base/random.h"
#include "model/rope.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCABULARY = 1510 };

static char dir[256];
static bool root;

static void barrier(void)
{
    struct tri_mesh *mesh;
    struct tri_error error;
    assert_int_equal(tri_mesh_create(job(), 1, 1, 1, 1, &mesh, &error), TRI_OK);
    tri_barrier(tri_mesh_group(mesh, TRI_ON_ALL));
    tri_mesh_destroy(mesh);
}

/* ---- the head by itself ---------------------------------------------------------------------- */

static void test_head(void **state)
{
    (void)state;
    static const unsigned char expected[] = {
        'G', 'G', 'U', 'F', 3, 0, 0, 0, 1,   0,   0, 0, 0,  0, 0, 0, 3, 0, 0, 0, 0,
        0,   0,   0,                                                    /* counts */
        1,   0,   0,   0,   0, 0, 0, 0, 'a', 4,   0, 0, 0,  7, 1, 0, 0, /* a: 263 */
        1,   0,   0,   0,   0, 0, 0, 0, 'b', 7,   0, 0, 0,  1,          /* b: yes */
        1,   0,   0,   0,   0, 0, 0, 0, 'c', 9,   0, 0, 0,  8, 0, 0, 0, 1, 0, 0, 0,
        0,   0,   0,   0,                                                           /* c: a list */
        2,   0,   0,   0,   0, 0, 0, 0, 'h', 'i',                                   /* of a text */
        1,   0,   0,   0,   0, 0, 0, 0, 't', 2,   0, 0, 0,  3, 0, 0, 0, 0, 0, 0, 0, /* t [2, 3] */
        2,   0,   0,   0,   0, 0, 0, 0, 30,  0,   0, 0, 64, 0, 0, 0, 0, 0, 0, 0,    /* bf16 at 64 */
    };
    static const int64_t shape[] = {2, 3};
    struct tri_gguf_header header;
    tri_gguf_header_init(&header);
    tri_gguf_put_u32(&header, "a", 263);
    tri_gguf_put_bool(&header, "b", true);
    tri_gguf_put_list(&header, "c", TRI_GGUF_TEXT, 1);
    tri_gguf_add_text(&header, "hi", 2);
    tri_gguf_put_tensor(&header, "t", 2, shape, TRI_GGML_BF16, 64);
    tri_gguf_header_end(&header);
    assert_memory_equal(header.data, expected, sizeof(expected));
    assert_int_equal(header.bytes, (sizeof(expected) + 31) / 32 * 32);
    for (size_t i = sizeof(expected); i < header.bytes; i++) {
        assert_int_equal(header.data[i], 0);
    }
    tri_gguf_header_fini(&header);
}

/* ---- weights --------------------------------------------------------------------------------- */

/* A model whose every layer has experts where some have, with room for the tokenizers here. */
static struct tri_config config_of(const char *family)
{
    struct tri_config config;
    struct tri_error error;
    char path[512];
    (void)snprintf(path, sizeof(path), TESTDATA_DIR "/golden/%s", family);
    assert_int_equal(tri_hf_load_config(path, &config, NULL, &error), TRI_OK);
    config.model.vocab_size = VOCABULARY;
    config.moe.every = config.moe.num_experts > 0 ? 1 : config.moe.every;
    config.moe.num_layers = 0;
    assert_int_equal(tri_config_finish(&config, &error), TRI_OK);
    return config;
}

static float weight_of(const struct tri_param *param, int64_t at)
{
    uint64_t bits = tri_random_bits(1, tri_random_stream(param->name), (uint64_t)at);
    return ((float)(bits % 65521) - 32760.0F) / 4096.0F;
}

static struct tri_params *make(const struct tri_config *config, const struct tri_mesh *mesh)
{
    struct tri_params *params = tri_params_create(config, mesh);
    tri_params_allocate(params, false);
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        int64_t n = fixture_elements(param);
        float *whole = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*whole));
        for (int64_t i = 0; i < n; i++) {
            whole[i] = weight_of(param, i);
        }
        tri_param_scatter(params, param, TRI_FIELD_WEIGHT, whole);
        tri_free(whole);
    }
    return params;
}

/* Row of a matrix that is line `line` of the file's: rope turns lines 2 j and 2 j + 1 of a head
 * where that is the architecture's way. */
static int64_t row_of(const struct tri_config *config, const struct tri_param *param, int64_t line,
                      bool neighbours)
{
    int64_t head = config->model.head_dim, in = line % head;
    bool turned = param->role == TRI_ROLE_Q || param->role == TRI_ROLE_K ||
                  param->role == TRI_ROLE_Q_BIAS || param->role == TRI_ROLE_K_BIAS;
    return neighbours && turned ? line - in + in % 2 * (head / 2) + in / 2 : line;
}

/* A block's scale is the largest size of its numbers / 127, as an f16. */
static void expect_scale(const struct tri_param *param, int64_t block, float scale)
{
    float most = 0.0F;
    for (int64_t i = 0; i < TRI_HF_BLOCK; i++) {
        most = fmaxf(most, fabsf(weight_of(param, block + i)));
    }
    assert_true(fabsf(scale * 127.0F - most) <= most / 2000.0F);
}

/* Experts lie one behind the other, and q, k and v of gpt2. */
static int64_t first_line(enum tri_hf_family family, const struct tri_param *param)
{
    bool weight = param->role >= TRI_ROLE_Q && param->role <= TRI_ROLE_V;
    bool bias = param->role >= TRI_ROLE_Q_BIAS && param->role <= TRI_ROLE_V_BIAS;
    int64_t before = param->expert > 0 ? param->expert : 0;
    if (family == TRI_HF_GPT2 && (weight || bias)) {
        before = param->role - (weight ? TRI_ROLE_Q : TRI_ROLE_Q_BIAS);
    }
    return before * param->shape[0];
}

static void expect_row(const struct gguf_file *file, const struct tri_config *config,
                       enum tri_hf_family family, const struct tri_param *param)
{
    struct tri_hf_source source;
    assert_true(tri_gguf_source_get(family, param, config->moe.num_experts, &source));
    const struct gguf_tensor *tensor = gguf_find_tensor(file, source.name);
    if (!tensor) {
        fail_msg("%s is not there", source.name);
    }
    int64_t width = param->dims == 2 ? param->shape[1] : 1;
    int64_t first = first_line(family, param);
    bool exact = param->dims == 1 || param->role == TRI_ROLE_ROUTER || tensor->type == 0;
    assert_true(!exact || tensor->type == 0);
    assert_true(param->dims == 1 || (int64_t)tensor->shape[0] == width);
    for (int64_t i = 0; i < param->shape[0]; i++) {
        int64_t row = row_of(config, param, i, family == TRI_HF_LLAMA || family == TRI_HF_MIXTRAL);
        for (int64_t j = 0; j < width; j++) {
            float scale, expected = weight_of(param, row * width + j);
            float found = gguf_number(tensor, (uint64_t)((first + i) * width + j), &scale);
            if (tensor->type == 8 && j % TRI_HF_BLOCK == 0) {
                expect_scale(param, row * width + j, scale);
            }
            /* Half a step, and the rounding of the scale itself. */
            float bound = tensor->type == 8    ? scale * (0.5F + 127.0F / 2048.0F)
                          : tensor->type == 30 ? fabsf(expected) / 256.0F
                          : tensor->type == 1  ? fabsf(expected) / 2048.0F + 1e-7F
                                               : 0.0F;
            if (fabsf(found - expected) > bound) {
                fail_msg("%s (%lld, %lld): %g, not %g", source.name, (long long)i, (long long)j,
                         (double)found, (double)expected);
            }
        }
    }
}

static void expect_file(const char *path, const struct tri_config *config,
                        const struct tri_params *params, enum tri_hf_number number)
{
    static struct gguf_file file;
    static const uint32_t types[] = {0, 30, 1, 8};
    enum tri_hf_family family;
    struct tri_error error;
    uint64_t elements = 0, held = 0;
    bool has_type = false;
    gguf_open(path, &file);
    assert_int_equal(tri_gguf_family_of(config, &family, &error), TRI_OK);
    for (int p = 0; p < params->count; p++) {
        elements += (uint64_t)fixture_elements(&params->param[p]);
        expect_row(&file, config, family, &params->param[p]);
    }
    for (int i = 0; i < file.tensors; i++) {
        held += file.tensor[i].elements;
        has_type = has_type || file.tensor[i].type == types[number];
    }
    const struct gguf_tensor *frequencies = gguf_find_tensor(&file, "rope_freqs.weight");
    assert_true(held == elements + (frequencies ? frequencies->elements : 0));
    assert_true(has_type);
    gguf_close(&file);
}

static void save(const char *path, const struct tri_config *config, const struct tri_params *params,
                 enum tri_hf_number number, const char *tokenizer)
{
    char folder[512];
    struct tri_error error;
    (void)snprintf(folder, sizeof(folder), TESTDATA_DIR "/golden/tokenizers/%s", tokenizer);
    const struct tri_hf_origin origin = {folder, ""};
    if (tri_gguf_save(path, config, params, number, &origin, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
}

/* Every family on each layout of the ranks there are, in each type of numbers in turn. */
static void test_weights(void **state)
{
    (void)state;
    static const char *const families[] = {"llama",     "mixtral", "olmoe", "qwen2_moe",
                                           "qwen3_moe", "qwen3",   "gpt2",  "llama_llama3"};
    static const int layouts[][2] = {{1, 1}, {2, 1}, {1, 2}};
    int checked = 0;
    for (int i = 0; i < 8 * 3; i++) {
        struct tri_config config = config_of(families[i % 8]);
        enum tri_hf_number number = (enum tri_hf_number)((i + i / 8) % 4);
        struct tri_error error;
        struct tri_mesh *mesh;
        char path[512];
        const int *layout = layouts[i / 8];
        config.parallel.tensor = config.parallel.expert_tensor = layout[0];
        config.parallel.expert = layout[1];
        if (job_size() % (layout[0] * layout[1]) != 0 ||
            tri_config_check_layout(&config, job_size(), &error) != TRI_OK) {
            continue;
        }
        assert_int_equal(tri_mesh_create(job(), layout[0], 1, 1, layout[1], &mesh, &error), TRI_OK);
        struct tri_params *params = make(&config, mesh);
        (void)snprintf(path, sizeof(path), "%s/%d.gguf", dir, i);
        save(path, &config, params, number, "gpt2");
        barrier();
        if (root) {
            expect_file(path, &config, params, number);
        }
        tri_params_destroy(params);
        tri_mesh_destroy(mesh);
        checked++;
    }
    assert_true(checked >= 8);
}

/* Names and shapes as llama.cpp has them, innermost dimension first. */
static void test_names(void **state)
{
    (void)state;
    static struct gguf_file file;
    struct tri_config config = config_of("mixtral");
    const struct tri_config_model *m = &config.model;
    const uint64_t hidden = (uint64_t)m->hidden_size, wide = (uint64_t)config.moe.intermediate_size,
                   experts = (uint64_t)config.moe.num_experts,
                   keys = (uint64_t)(m->num_kv_heads * m->head_dim);
    const struct {
        const char *name;
        uint32_t dims;
        uint64_t shape[3];
    } expected[] = {
        {"token_embd.weight", 2, {hidden, VOCABULARY}},
        {"output_norm.weight", 1, {hidden}},
        {"output.weight", 2, {hidden, VOCABULARY}},
        {"blk.1.attn_norm.weight", 1, {hidden}},
        {"blk.1.attn_k.weight", 2, {hidden, keys}},
        {"blk.1.attn_output.weight", 2, {(uint64_t)(m->num_heads * m->head_dim), hidden}},
        {"blk.1.ffn_norm.weight", 1, {hidden}},
        {"blk.1.ffn_gate_inp.weight", 2, {hidden, experts}},
        {"blk.1.ffn_gate_exps.weight", 3, {hidden, wide, experts}},
        {"blk.1.ffn_up_exps.weight", 3, {hidden, wide, experts}},
        {"blk.1.ffn_down_exps.weight", 3, {wide, hidden, experts}},
    };
    struct tri_mesh *mesh;
    struct tri_error error;
    char path[512];
    assert_int_equal(tri_mesh_create(job(), 1, 1, 1, 1, &mesh, &error), TRI_OK);
    struct tri_params *params = make(&config, mesh);
    (void)snprintf(path, sizeof(path), "%s/names.gguf", dir);
    save(path, &config, params, TRI_HF_F32, "llama2");
    gguf_open(path, &file);
    for (size_t i = 0; i < sizeof(expected) / sizeof(*expected); i++) {
        const struct gguf_tensor *tensor = gguf_find_tensor(&file, expected[i].name);
        assert_non_null(tensor);
        assert_int_equal(tensor->dims, expected[i].dims);
        assert_memory_equal(tensor->shape, expected[i].shape,
                            expected[i].dims * sizeof(*expected[i].shape));
    }
    gguf_expect_text(gguf_text(&file, "general.architecture"), "llama");
    assert_int_equal(gguf_u32(&file, "llama.expert_count"), experts);
    assert_int_equal(gguf_u32(&file, "llama.expert_used_count"), config.moe.top_k);
    assert_int_equal(gguf_u32(&file, "llama.feed_forward_length"), wide);
    assert_int_equal(gguf_u32(&file, "llama.attention.head_count_kv"), m->num_kv_heads);
    assert_true(gguf_f32(&file, "llama.rope.freq_base") == (float)m->rope_theta);
    /* In characters: earlier merges have higher scores, ids without a token are unused. */
    const struct gguf_key *tokens = gguf_find_key(&file, "tokenizer.ggml.tokens");
    const struct gguf_key *types = gguf_find_key(&file, "tokenizer.ggml.token_type");
    assert_true(tokens->count == VOCABULARY && types->count == VOCABULARY);
    gguf_expect_text(gguf_text(&file, "tokenizer.ggml.model"), "llama");
    gguf_expect_text(gguf_element(tokens, 1), "<s>");
    gguf_expect_text(gguf_element(tokens, VOCABULARY - 1), "[PAD1509]");
    int32_t type[2];
    memcpy(type, types->value, sizeof(type));
    assert_true(type[0] == 2 && type[1] == 3);
    memcpy(type, types->value + 4 * (VOCABULARY - 1), 4);
    assert_int_equal(type[0], 5);
    assert_int_equal(gguf_find_key(&file, "tokenizer.ggml.scores")->count, VOCABULARY);
    gguf_close(&file);
    tri_params_destroy(params);
    tri_mesh_destroy(mesh);
}

/* ---- the rest -------------------------------------------------------------------------------- */

static void test_tokenizer_of_bytes(void **state)
{
    (void)state;
    static struct gguf_file file;
    struct tri_config config = config_of("llama_llama3"), plain = config;
    struct tri_mesh *mesh;
    struct tri_error error;
    char path[512];
    assert_int_equal(tri_mesh_create(job(), 1, 1, 1, 1, &mesh, &error), TRI_OK);
    struct tri_params *params = make(&config, mesh);
    (void)snprintf(path, sizeof(path), "%s/bytes.gguf", dir);
    save(path, &config, params, TRI_HF_BF16, "llama3");
    gguf_open(path, &file);
    gguf_expect_text(gguf_text(&file, "tokenizer.ggml.model"), "gpt2");
    gguf_expect_text(gguf_text(&file, "tokenizer.ggml.pre"), "llama-bpe");
    const struct gguf_key *merges = gguf_find_key(&file, "tokenizer.ggml.merges");
    const struct gguf_key *types = gguf_find_key(&file, "tokenizer.ggml.token_type");
    assert_int_equal(merges->count, 1244);
    gguf_expect_text(gguf_element(merges, 1), "h e");
    int32_t type[4];
    memcpy(type, types->value + 1500 * sizeof(*type), sizeof(type));
    assert_true(type[0] == 3 && type[1] == 3 && type[2] == 4 && type[3] == 4);
    /* Divisors of the frequencies. */
    const struct gguf_tensor *frequencies = gguf_find_tensor(&file, "rope_freqs.weight");
    assert_int_equal(frequencies->elements, config.model.head_dim / 2);
    plain.model.rope_scaling = TRI_ROPE_PLAIN;
    for (int64_t j = 0; j < config.model.head_dim / 2; j++) {
        float scale, divisor = gguf_number(frequencies, (uint64_t)j, &scale);
        double expected = tri_rope_frequency(&plain, j) / tri_rope_frequency(&config, j);
        assert_true(fabs((double)divisor / expected - 1.0) < 1e-6);
    }
    gguf_close(&file);
    tri_params_destroy(params);
    tri_mesh_destroy(mesh);
}

static void refuse(const struct tri_config *config, const char *words)
{
    enum tri_hf_family family;
    struct tri_error error = {0};
    assert_int_equal(tri_gguf_family_of(config, &family, &error), TRI_BAD_INPUT);
    if (!strstr(error.message, words)) {
        fail_msg("'%s' lacks '%s'", error.message, words);
    }
}

static void test_refused_models(void **state)
{
    (void)state;
    struct tri_config c = config_of("qwen2_moe");
    c.moe.every = 2;
    refuse(&c, "layers without experts among others");
    c = config_of("qwen2_moe");
    c.moe.normalize_top_k = true;
    refuse(&c, "has moe.normalize_top_k in");
    c = config_of("olmoe");
    c.model.tie_embeddings = true;
    refuse(&c, "model.tie_embeddings");
    c = config_of("qwen3_moe");
    c.moe.normalize_top_k = false;
    refuse(&c, "moe.normalize_top_k false");
    c = config_of("gpt2");
    c.model.mlp = TRI_MLP_GELU_ERF;
    refuse(&c, "model.mlp gelu_erf");
    c = config_of("qwen2_moe_dynamic");
    c.model.sliding_window = 0;
    c.moe.normalize_top_k = false;
    refuse(&c, "model.rope_scaling dynamic");
    c = config_of("llama");
    c.model.sliding_window = 4;
    refuse(&c, "model.sliding_window");
    c = config_of("qwen3");
    c.model.rope_scaling = TRI_ROPE_LLAMA3;
    refuse(&c, "llama3 in a model of this kind");
    c.model.qk_norm = TRI_QK_NORM_FULL;
    refuse(&c, "no architecture of transformers");
}

static void expect_failure(const char *path, const struct tri_config *config,
                           const struct tri_params *params, enum tri_hf_number number,
                           const char *tokenizer, const char *words)
{
    char folder[512], temporary[600];
    struct tri_error error = {0};
    (void)snprintf(folder, sizeof(folder), "%s/golden/%s", TESTDATA_DIR, tokenizer);
    (void)snprintf(temporary, sizeof(temporary), "%s.trident.tmp", path);
    const struct tri_hf_origin origin = {folder, NULL};
    assert_int_equal(tri_gguf_save(path, config, params, number, &origin, &error), TRI_BAD_INPUT);
    if (!strstr(error.message, words)) {
        fail_msg("'%s' lacks '%s'", error.message, words);
    }
    barrier();
    assert_false(root && (tri_file_exists(path) || tri_file_exists(temporary)));
    barrier();
}

static void test_failures(void **state)
{
    (void)state;
    struct tri_config config = config_of("llama");
    struct tri_mesh *mesh;
    struct tri_error error;
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/fails.gguf", dir);
    assert_int_equal(tri_mesh_create(job(), 1, 1, 1, 1, &mesh, &error), TRI_OK);
    struct tri_params *params = make(&config, mesh);
    expect_failure(path, &config, params, TRI_HF_F32, "llama", "no tokenizer.json is beside");
    const struct tri_param *row = tri_params_by_name(params, "layers.0.mlp.up.weight");
    size_t n = (size_t)fixture_elements(row);
    float *whole = tri_alloc(TRI_MEMORY_OTHER, n * sizeof(*whole));
    whole[n - 1] = 1e8F;
    tri_param_scatter(params, row, TRI_FIELD_WEIGHT, whole);
    expect_failure(path, &config, params, TRI_HF_Q8_0, "tokenizers/gpt2",
                   "blk.0.ffn_up.weight: found a number too large");
    whole[n - 1] = (float)INFINITY;
    tri_param_scatter(params, row, TRI_FIELD_WEIGHT, whole);
    expect_failure(path, &config, params, TRI_HF_Q8_0, "tokenizers/gpt2", "that is not finite");
    tri_free(whole);
    save(path, &config, params, TRI_HF_F32, "gpt2");
    const struct tri_hf_origin none = {NULL, NULL};
    assert_int_equal(tri_gguf_save(path, &config, params, TRI_HF_F32, &none, &error),
                     TRI_BAD_INPUT);
    assert_non_null(strstr(error.message, "is there already"));
    tri_params_destroy(params);
    config.model.vocab_size = 1000;
    params = make(&config, mesh);
    (void)snprintf(path, sizeof(path), "%s/small.gguf", dir);
    expect_failure(path, &config, params, TRI_HF_F32, "tokenizers/gpt2", "and the model has 1000");
    tri_params_destroy(params);
    tri_mesh_destroy(mesh);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head),           cmocka_unit_test(test_weights),
        cmocka_unit_test(test_names),          cmocka_unit_test(test_tokenizer_of_bytes),
        cmocka_unit_test(test_refused_models), cmocka_unit_test(test_failures)};
    struct tri_error error;
    root = job_rank() == 0;
    (void)snprintf(dir, sizeof(dir), "%s/gguf.%d", TEST_TMP, job_size());
    if (root) {
        assert_int_equal(tri_file_remove_tree(dir, &error), TRI_OK);
        assert_int_equal(tri_file_make_dirs(dir, &error), TRI_OK);
    }
    barrier();
    tri_comm_set_timeout(job(), 60);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    barrier();
    if (root) {
        fixture_remove(dir);
    }
    return failed;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
