/* The gradients of the whole model against central differences of its loss, along random directions
 * in each parameter's space, with imposed routes (a choice that flips has no derivative). */
#include "support/small.h"

#include "base/memory.h"
#include "base/random.h"

#include <math.h>

struct subject {
    struct tri_config config;
    struct tri_mesh *mesh;
    struct tri_engine *engine;
    struct tri_rows_source source;
    struct tri_route_tap tap;
};

static void begin(struct subject *s, enum small_style style, const char *words)
{
    small_config(style, words, &s->config);
    s->mesh = tri_mesh_create_serial();
    s->engine = tri_engine_create(&s->config, s->mesh, small_kernels(&s->config), true);
    s->source = small_source(&s->config);
    s->tap =
        (struct tri_route_tap){.tokens = s->source.rows * s->source.seq, .k = s->config.moe.top_k};
    int64_t n = s->engine->moe_layers * s->tap.tokens * s->tap.k;
    s->tap.chosen = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*s->tap.chosen));
    (void)small_gradients(s->engine, &s->source, 0, &s->tap);
    s->tap.impose = true;
}

static void end(struct subject *s)
{
    tri_free(s->tap.chosen);
    tri_engine_destroy(s->engine);
    tri_mesh_destroy(s->mesh);
}

/* Loss at weights + step * direction. */
static double loss_at(struct subject *s, const struct tri_param *param, const float *kept,
                      const double *direction, double step)
{
    float *weights = tri_param_weights(s->engine->params, param);
    for (int64_t i = 0; i < param->count; i++) {
        weights[i] = (float)((double)kept[i] + step * direction[i]);
    }
    double loss = small_gradients(s->engine, &s->source, 0, &s->tap).loss;
    for (int64_t i = 0; i < param->count; i++) {
        weights[i] = kept[i];
    }
    return loss;
}

/* A random direction tilted along the gradient, so that the derivative is well above the noise. */
static void choose_direction(const struct tri_param *param, const float *gradient, double norm,
                             double *direction)
{
    double length = 0.0;
    double unit = norm > 0.0 ? sqrt((double)param->count) / norm : 0.0;
    uint64_t stream = tri_random_stream(param->name);
    for (int64_t i = 0; i < param->count; i++) {
        direction[i] = tri_random_normal(11, stream, (uint64_t)i) + unit * (double)gradient[i];
        length += direction[i] * direction[i];
    }
    for (int64_t i = 0; i < param->count; i++) {
        direction[i] /= sqrt(length);
    }
}

static double check(struct subject *s, const struct tri_param *param, double whole,
                    const float *gradient)
{
    size_t n = (size_t)param->count;
    float *kept = tri_alloc(TRI_MEMORY_OTHER, n * sizeof(*kept));
    double *direction = tri_alloc(TRI_MEMORY_OTHER, n * sizeof(*direction));
    const float *weights = tri_param_weights(s->engine->params, param);
    double norm = 0.0;
    for (size_t i = 0; i < n; i++) {
        kept[i] = weights[i];
        norm += (double)gradient[i] * (double)gradient[i];
    }
    norm = sqrt(norm);
    choose_direction(param, gradient, norm, direction);
    double expected = 0.0;
    for (size_t i = 0; i < n; i++) {
        expected += direction[i] * (double)gradient[i];
    }
    /* Two steps, extrapolated: the cubic term goes, and what is left is f32's rounding. */
    const double step = 2e-2;
    double far =
        loss_at(s, param, kept, direction, step) - loss_at(s, param, kept, direction, -step);
    double near = loss_at(s, param, kept, direction, step / 2) -
                  loss_at(s, param, kept, direction, -step / 2);
    double found = (8.0 * near - far) / (6.0 * step);
    tri_free(direction);
    tri_free(kept);
    return fabs(found - expected) / fmax(fabs(expected), 1e-2 * whole);
}

static void derivatives_agree(enum small_style style, const char *words)
{
    struct subject s;
    begin(&s, style, words);
    double whole = small_gradients(s.engine, &s.source, 0, &s.tap).grad_norm;
    struct tri_params *params = s.engine->params;
    int checked = 0;
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        if (param->expert > 1) {
            continue;
        }
        float *gradient = tri_alloc(TRI_MEMORY_OTHER, (size_t)param->count * sizeof(*gradient));
        (void)small_gradients(s.engine, &s.source, 0, &s.tap);
        for (int64_t i = 0; i < param->count; i++) {
            gradient[i] = ((const float *)tri_param_gradients(params, param))[i];
        }
        double error = check(&s, param, whole, gradient);
        if (!(error <= 1e-3)) {
            tri_panic(TRI_FAILED, "%s: %s: %.3g", words, param->name, error);
        }
        checked++;
        tri_free(gradient);
    }
    CHECK(checked > 20);
    end(&s);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    derivatives_agree(SMALL_GPT, "moe.z_loss=0.01 moe.aux_loss=0.1");
    derivatives_agree(SMALL_LLAMA, "model.qk_norm=full moe.every=2 moe.aux_loss=0.1 "
                                   "moe.aux_scope=model moe.z_loss=0.01");
    derivatives_agree(SMALL_LLAMA, "model.qk_norm=head moe.normalize_top_k=false moe.jitter=0.1 "
                                   "moe.capacity_factor=1 moe.min_capacity=1");
    derivatives_agree(SMALL_LLAMA, "moe.router=dense moe.sharpen_step=1 moe.top_k=3 "
                                   "moe.mutual_information=0.3 moe.z_loss=0.01");
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
