/* Whole tensors to parts and back, for every field, on every layout of these ranks. */
#include "support/small.h"

#include "base/memory.h"
#include "base/random.h"

#include <string.h>

static float value(const struct tri_param *param, enum tri_field field, int64_t i)
{
    uint64_t bits = tri_random_bits((uint64_t)field, tri_random_stream(param->name), (uint64_t)i);
    return (float)(bits % 251) - 125.0F; /* exact in bf16 as well */
}

static void round_trip(struct tri_params *params, enum tri_field field)
{
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        int64_t n = param->shape[0] * param->shape[1];
        float *whole = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*whole));
        for (int64_t i = 0; i < n; i++) {
            whole[i] = value(param, field, i);
        }
        tri_param_scatter(params, param, field, whole);
        tri_free(whole);
    }
    /* Only when all are in place: one must not lie in another's. */
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        int64_t n = param->shape[0] * param->shape[1];
        float *whole = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*whole));
        tri_param_gather(params, param, field, whole);
        for (int64_t i = 0; i < n; i++) {
            float expected = params->mesh->rank == 0 ? value(param, field, i) : 0.0F;
            if (whole[i] != expected) {
                tri_panic(TRI_FAILED, "%s[%lld], field %d: %g, not %g", param->name, (long long)i,
                          (int)field, (double)whole[i], (double)expected);
            }
        }
        tri_free(whole);
    }
}

static void run(enum small_style style, const char *words, struct small_layout layout)
{
    struct tri_config config;
    small_config(style, words, &config);
    small_config_lay_out(&config, layout);
    struct tri_mesh *mesh = small_mesh(&config);
    struct tri_engine *engine = tri_engine_create(&config, mesh, small_kernels(&config), true);
    round_trip(engine->params, TRI_FIELD_M);
    round_trip(engine->params, TRI_FIELD_WEIGHT);
    round_trip(engine->params, TRI_FIELD_V);
    round_trip(engine->params, TRI_FIELD_GRADIENT);
    round_trip(engine->params, TRI_FIELD_M);
    tri_engine_destroy(engine);
    engine = tri_engine_create(&config, mesh, small_kernels(&config), false);
    round_trip(engine->params, TRI_FIELD_WEIGHT);
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    for (int i = 0; i < count; i++) {
        run(SMALL_GPT, "model.num_kv_heads=1", layouts[i]);
        run(SMALL_LLAMA, "precision=bf16 model.qk_norm=full", layouts[i]);
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
