/* The optimizer on every layout against AdamW on whole tensors in double: three updates from given
 * gradients, decay on matrices only, and the norm of the gradients, each element counted once. */
#include "support/small.h"

#include "base/memory.h"
#include "base/random.h"

#include <math.h>

enum { UPDATES = 3 };

static double gradient(const struct tri_param *param, int update, int64_t i)
{
    uint64_t stream = tri_random_stream(param->name) + (uint64_t)update;
    /* Of sizes from 1e-6 to 1, some of them 0, exact in bf16. */
    double size = pow(10.0, -6.0 * tri_random_uniform(3, stream, (uint64_t)i));
    double sign = tri_random_uniform(4, stream, (uint64_t)i) - 0.5;
    float value = (float)(sign < 0.0 ? -size : size);
    return fabs(sign) < 0.01 ? 0.0 : (double)tri_bf16_to_f32(tri_f32_to_bf16(value));
}

static int64_t elements(const struct tri_param *param)
{
    return param->shape[0] * param->shape[1];
}

static void put_nan(const struct tri_buffer *buffer, int64_t i)
{
    if (buffer->gradient_dtype == TRI_BF16) {
        ((uint16_t *)buffer->gradients)[i] = tri_f32_to_bf16(NAN);
    } else {
        ((float *)buffer->gradients)[i] = NAN;
    }
}

/* What tri_gradients_reduce would leave: this rank's parts; the rest of the buffer is no one's. */
static void put_gradients(struct tri_params *params, int update)
{
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        float *whole = tri_alloc(TRI_MEMORY_OTHER, (size_t)elements(param) * sizeof(*whole));
        for (int64_t i = 0; i < elements(param); i++) {
            whole[i] = (float)gradient(param, update, i);
        }
        tri_param_scatter(params, param, TRI_FIELD_GRADIENT, whole);
        tri_free(whole);
    }
    for (int b = 0; b < TRI_BUFFERS; b++) {
        const struct tri_buffer *buffer = &params->buffer[b];
        for (int s = 0; s < buffer->segments; s++) {
            const struct tri_segment *segment = &buffer->segment[s];
            for (int64_t i = segment->whole.begin; i < segment->whole.end; i++) {
                if (i < segment->own.begin || i >= segment->own.end) {
                    put_nan(buffer, i);
                }
            }
        }
    }
}

static double norm_of(const struct tri_params *params, int update)
{
    double sum = 0.0;
    for (int p = 0; p < params->count; p++) {
        for (int64_t i = 0; i < elements(&params->param[p]); i++) {
            double g = gradient(&params->param[p], update, i);
            sum += g * g;
        }
    }
    return sqrt(sum);
}

static double expected_weight(const struct tri_config_train *train, const struct tri_param *param,
                              int64_t i, double weight, const double *norm)
{
    double m = 0.0;
    double v = 0.0;
    for (int u = 1; u <= UPDATES; u++) {
        double g = gradient(param, u, i) * fmin(1.0, train->clip / (norm[u] + 1e-6));
        m = train->betas[0] * m + (1.0 - train->betas[0]) * g;
        v = train->betas[1] * v + (1.0 - train->betas[1]) * g * g;
        double mean = m / (1.0 - pow(train->betas[0], u));
        double square = v / (1.0 - pow(train->betas[1], u));
        double decay = param->dims == 2 ? train->weight_decay : 0.0;
        weight -= 1e-2 / u * (mean / (sqrt(square) + train->epsilon) + decay * weight);
    }
    return weight;
}

static void compare(const struct tri_engine *engine, const struct tri_engine *start,
                    const double *norm, bool narrow)
{
    for (int p = 0; p < engine->params->count; p++) {
        const struct tri_param *param = &engine->params->param[p];
        size_t n = (size_t)elements(param);
        float *whole = tri_alloc(TRI_MEMORY_OTHER, n * sizeof(*whole));
        tri_param_gather(engine->params, param, TRI_FIELD_WEIGHT, whole);
        const float *before = tri_param_weights(start->params, &start->params->param[p]);
        for (int64_t i = 0; engine->mesh->rank == 0 && i < elements(param); i++) {
            double expected =
                expected_weight(&engine->config->train, param, i, (double)before[i], norm);
            if (!(fabs((double)whole[i] - expected) <= 1e-6)) {
                tri_panic(TRI_FAILED, "%s[%lld]: %.9g, not %.9g", param->name, (long long)i,
                          (double)whole[i], expected);
            }
        }
        /* The stored weights are the masters' values, everywhere: gathered from all shards. */
        const struct tri_where meta = {TRI_PHASE_SETUP, TRI_KIND_META};
        tri_broadcast(tri_mesh_group(engine->mesh, TRI_ON_ALL), meta, whole, (int64_t)n, TRI_F32,
                      0);
        int64_t columns = tri_range_size(param->local[1]);
        for (int64_t at = 0; at < param->count; at++) {
            int64_t i = param->local[0].begin + at / columns;
            float master = whole[i * param->shape[1] + param->local[1].begin + at % columns];
            const void *weights = tri_param_weights(engine->params, param);
            if (narrow && param->dtype == TRI_BF16) {
                CHECK(((const uint16_t *)weights)[at] == tri_f32_to_bf16(master));
            } else {
                CHECK(((const float *)weights)[at] == master);
            }
        }
        tri_free(whole);
    }
}

static void run(const char *words, struct small_layout layout)
{
    struct tri_config config;
    small_config(SMALL_LLAMA, words, &config);
    struct tri_config alone = config;
    alone.precision = TRI_PRECISION_F32;
    small_config_lay_out(&config, layout);
    struct tri_mesh *serial = tri_mesh_create_serial();
    struct tri_mesh *mesh = small_mesh(&config);
    struct tri_engine *start = tri_engine_create(&alone, serial, small_kernels(&alone), false);
    struct tri_engine *engine = tri_engine_create(&config, mesh, small_kernels(&config), true);
    double norm[UPDATES + 1];
    for (int u = 1; u <= UPDATES; u++) {
        put_gradients(engine->params, u);
        norm[u] = norm_of(engine->params, u);
        double found = tri_gradients_norm(engine->params, engine->kernels);
        if (!(fabs(found - norm[u]) <= 1e-9 * norm[u])) {
            tri_panic(TRI_FAILED, "%s: norm %.12g, not %.12g", small_layout_text(layout), found,
                      norm[u]);
        }
        tri_optimizer_step(engine->optimizer, u, 1e-2 / u,
                           tri_clip_factor(found, config.train.clip));
    }
    compare(engine, start, norm, config.precision == TRI_PRECISION_BF16);
    tri_engine_destroy(engine);
    tri_engine_destroy(start);
    tri_mesh_destroy(mesh);
    tri_mesh_destroy(serial);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    for (int i = 0; i < count; i++) {
        run("model.qk_norm=head train.clip=0.5 train.weight_decay=0.3", layouts[i]);
        run("precision=bf16 model.num_kv_heads=1 model.qk_norm=full model.bias=all train.clip=1e9",
            layouts[i]);
        run("precision=bf16 train.gradient_dtype=bf16 train.optimizer_tile=777 train.clip=0.5",
            layouts[i]);
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
