/* Routes at their extremes, imposed on both sides: every token to one expert, so that most ranks
 * have none; every token to the last two. Gradients against one rank's, on every layout. */
#include "support/small.h"

#include "base/memory.h"
#include "moe/moe.h"

#include <math.h>
#include <string.h>

static _Thread_local int64_t growths; /* of exchange buffers that were too small */

enum { FIRST, LAST_TWO, ALTERNATING, PATTERNS };

static int32_t choice(int pattern, int64_t token, int64_t j)
{
    switch (pattern) {
    case FIRST:
        return (int32_t)j;
    case LAST_TWO:
        return (int32_t)(7 - j);
    default: /* even tokens to one half, odd ones to the other */
        return (int32_t)(token % 2 ? 7 - 2 * j : 2 * j);
    }
}

static struct tri_route_tap make_tap(const struct tri_config *config, int pattern)
{
    int64_t layers = tri_model_moe_layers(config);
    struct tri_route_tap tap = {.impose = true, .k = config->moe.top_k};
    tap.tokens = config->train.global_batch * config->data.sequence_length;
    tap.chosen =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)(layers * tap.tokens * tap.k) * sizeof(*tap.chosen));
    for (int64_t i = 0; i < layers * tap.tokens * tap.k; i++) {
        tap.chosen[i] = choice(pattern, i / tap.k, i % tap.k);
    }
    return tap;
}

/* A gradient that is 0 but for rounding (that of a key's bias) counts as 1e-3 of the whole. */
static void compare(const struct tri_engine *layout, const struct tri_engine *one, double whole,
                    const char *where)
{
    for (int p = 0; p < layout->params->count; p++) {
        const struct tri_param *param = &layout->params->param[p];
        int64_t n = param->shape[0] * param->shape[1];
        float *got = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*got));
        float *expected = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*expected));
        tri_param_gather(layout->params, param, TRI_FIELD_GRADIENT, got);
        if (one) {
            tri_param_gather(one->params, &one->params->param[p], TRI_FIELD_GRADIENT, expected);
            double distance = small_distance(got, expected, n, 1e-3 * whole);
            if (!(distance <= 2e-5)) {
                tri_panic(TRI_FAILED, "%s: %s: %.3g", where, param->name, distance);
            }
        }
        tri_free(got);
        tri_free(expected);
    }
}

static void run(struct tri_config *config, struct small_layout layout, int pattern)
{
    struct tri_config alone = *config;
    small_config_lay_out(config, layout);
    struct tri_mesh *mesh = small_mesh(config);
    struct tri_engine *engine = tri_engine_create(config, mesh, small_kernels(config), true);
    struct tri_rows_source source = small_source(config);
    struct tri_route_tap tap = make_tap(config, pattern);
    struct tri_step_report got = small_gradients(engine, &source, 0, &tap);
    struct tri_mesh *serial = NULL;
    struct tri_engine *one = NULL;
    if (mesh->rank == 0) {
        serial = tri_mesh_create_serial();
        one = tri_engine_create(&alone, serial, small_kernels(&alone), true);
        struct tri_step_report expected = small_gradients(one, &source, 0, &tap);
        CHECK(fabs(got.loss - expected.loss) <= 2e-6 * expected.loss);
        CHECK(fabs(got.grad_norm - expected.grad_norm) <= 2e-5 * expected.grad_norm);
        CHECK(got.dropped == expected.dropped);
        CHECK(memcmp(got.load, expected.load,
                     (size_t)(one->moe_layers * config->moe.num_experts) * sizeof(*got.load)) == 0);
    }
    compare(engine, one, got.grad_norm, small_layout_text(layout));
    growths += tri_moe_exchange_growths(tri_model_moe(engine->model));
    tri_engine_destroy(one);
    tri_mesh_destroy(serial);
    tri_free(tap.chosen);
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    static const char *const words[] = {
        "", "moe.capacity_factor=1.0 moe.min_capacity=1 moe.drop_policy=probability",
        "model.qk_norm=full train.global_batch=3"};
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    for (int i = 0; i < count * PATTERNS; i++) {
        struct tri_config config;
        small_config(SMALL_GPT, words[i % 3], &config);
        run(&config, layouts[i / PATTERNS], i % PATTERNS);
        small_config(SMALL_LLAMA, words[(i + 1 + i / PATTERNS) % 3], &config);
        run(&config, layouts[i / PATTERNS], i % PATTERNS);
    }
    /* All tokens at one of several places do not fit twice the balanced share. */
    CHECK(growths > 0 || job_size() < 4 || job_rank() > 0);
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
