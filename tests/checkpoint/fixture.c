#include "checkpoint/fixture.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"
#include "moe/strategies.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

int64_t fixture_elements(const struct tri_param *param)
{
    return param->shape[0] * param->shape[1];
}

struct tri_config fixture_config(enum tri_precision precision)
{
    struct tri_config config;
    struct tri_error error;
    tri_config_init(&tri_strategies, &config);
    config.precision = precision;
    config.model.vocab_size = 37;
    config.model.num_layers = 3;
    config.model.hidden_size = 16;
    config.model.num_heads = 4;
    config.model.num_kv_heads = 2;
    config.model.head_dim = 4;
    config.model.intermediate_size = 20;
    config.model.max_position = 32;
    config.model.qk_norm = TRI_QK_NORM_FULL;
    config.model.bias = TRI_BIAS_QKV;
    config.moe.num_experts = 8;
    config.moe.top_k = 2;
    config.moe.every = 2;
    config.moe.intermediate_size = 12;
    config.moe.shared_intermediate_size = 8;
    config.moe.shared_gate = true;
    config.data.sequence_length = 16;
    if (tri_config_finish(&config, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return config;
}

static void fill_moments(struct tri_params *params)
{
    for (int i = 0; i < TRI_BUFFERS; i++) {
        struct tri_buffer *buffer = &params->buffer[i];
        size_t bytes = (size_t)buffer->shard * sizeof(float);
        buffer->m = tri_alloc(TRI_MEMORY_OPTIMIZER, bytes);
        buffer->v = tri_alloc(TRI_MEMORY_OPTIMIZER, bytes);
        buffer->master = buffer->dtype == TRI_F32 ? NULL : tri_alloc(TRI_MEMORY_OPTIMIZER, bytes);
    }
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        int64_t n = fixture_elements(param);
        float *whole = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*whole));
        for (int v = 0; v < 2; v++) {
            for (int64_t i = 0; i < n; i++) {
                double x =
                    tri_random_normal((uint64_t)v + 1, tri_random_stream(param->name), (uint64_t)i);
                whole[i] = (float)(v ? x * x : x);
            }
            tri_param_scatter(params, param, v ? TRI_FIELD_V : TRI_FIELD_M, whole);
        }
        tri_free(whole);
    }
}

struct tri_params *fixture_params(const struct tri_config *config, const struct tri_mesh *mesh,
                                  bool with_optimizer)
{
    struct tri_params *params = tri_params_create(config, mesh);
    tri_params_allocate(params, false);
    if (with_optimizer) {
        fill_moments(params);
    }
    tri_params_init(params, tri_kernels_ref(), 7);
    return params;
}

struct tri_checkpoint_state fixture_state(int64_t step)
{
    static float bias[] = {0.1F, -0.25F, 1e-30F, 3.0F, 0.0F, -0.0F, 1.0F / 3.0F, 1e20F};
    static char config[] = "seed: 1\nmodel: {vocab_size: 37}\n";
    return (struct tri_checkpoint_state){.step = step,
                                         .tokens = step * 512,
                                         .samples = step * 16 + 5,
                                         .data_tokens = 1000,
                                         .data_contents = UINT64_C(0x8123456789abcdef),
                                         .seed = 42,
                                         .skipped_steps = 3,
                                         .skipped_in_a_row = 1,
                                         .bias_layers = 1,
                                         .bias_experts = 8,
                                         .bias = bias,
                                         .config = config};
}

void fixture_expect_equal(const struct tri_params *a, const struct tri_params *b,
                          bool with_optimizer)
{
    static const enum tri_field fields[] = {TRI_FIELD_WEIGHT, TRI_FIELD_M, TRI_FIELD_V};
    assert_int_equal(a->count, b->count);
    for (int p = 0; p < a->count; p++) {
        size_t n = (size_t)fixture_elements(&a->param[p]);
        float *x = tri_alloc(TRI_MEMORY_OTHER, n * sizeof(*x));
        float *y = tri_alloc(TRI_MEMORY_OTHER, n * sizeof(*y));
        assert_string_equal(a->param[p].name, b->param[p].name);
        for (int f = 0; f < (with_optimizer ? 3 : 1); f++) {
            tri_param_gather(a, &a->param[p], fields[f], x);
            tri_param_gather(b, &b->param[p], fields[f], y);
            if (memcmp(x, y, n * sizeof(*x)) != 0) {
                fail_msg("%s, field %d differs", a->param[p].name, f);
            }
        }
        tri_free(x);
        tri_free(y);
    }
}

void fixture_dir(const char *name, char dir[256])
{
    struct tri_error error;
    (void)snprintf(dir, 256, "%s/%s.%d", TEST_TMP, name, (int)getpid());
    assert_int_equal(tri_file_remove_tree(dir, &error), TRI_OK);
    assert_int_equal(tri_file_make_dirs(dir, &error), TRI_OK);
}

void fixture_remove(const char *dir)
{
    struct tri_error error;
    assert_int_equal(tri_file_remove_tree(dir, &error), TRI_OK);
}
