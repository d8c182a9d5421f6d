/* Gradients in bf16 against the same in f32, from the same weights and rows, on every layout. Rows
 * that stay f32 (norms, biases, routers) must have the same bits. In the others each sum is rounded
 * after each micro-batch and each reduction, to 2^-9 at most of what has been summed by then: with
 * 4 micro-batches and 2 reductions, 6 / 512 where no partial sum is larger than the whole. */
#include "support/small.h"

#include "base/memory.h"

#include <stdio.h>

static const double limit = 6.0 / 512.0;

static void compare(struct tri_engine *narrow, struct tri_engine *wide, const char *words,
                    struct small_layout layout)
{
    double worst = 0.0;
    for (int p = 0; p < wide->params->count; p++) {
        const struct tri_param *param = &wide->params->param[p];
        int64_t n = param->shape[0] * param->shape[1];
        float *a = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*a));
        float *b = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*b));
        tri_param_gather(narrow->params, &narrow->params->param[p], TRI_FIELD_GRADIENT, a);
        tri_param_gather(wide->params, param, TRI_FIELD_GRADIENT, b);
        double distance = small_distance(a, b, n, 0.0);
        bool rounded = param->dtype == TRI_BF16;
        if (!(distance <= (rounded ? limit : 0.0))) {
            tri_panic(TRI_FAILED, "%s on %s: %s is off by %.3g", words, small_layout_text(layout),
                      param->name, distance);
        }
        worst = distance > worst ? distance : worst;
        tri_free(b);
        tri_free(a);
    }
    /* They are rounded, and were not f32 all along. */
    CHECK(wide->mesh->rank != 0 || worst > 1e-3);
}

static void run(enum small_style style, const char *words, struct small_layout layout)
{
    struct tri_config config[2];
    struct tri_engine *engine[2];
    double norm[2];
    struct tri_mesh *mesh = NULL;
    for (int i = 0; i < 2; i++) {
        char all[256];
        (void)snprintf(all, sizeof(all), "precision=bf16 train.gradient_dtype=%s %s",
                       i ? "f32" : "bf16", words);
        small_config(style, all, &config[i]);
        small_config_lay_out(&config[i], layout);
        mesh = mesh ? mesh : small_mesh(&config[i]);
        engine[i] = tri_engine_create(&config[i], mesh, small_kernels(&config[i]), true);
        struct tri_rows_source source = small_source(&config[i]);
        norm[i] = small_gradients(engine[i], &source, 0, NULL).grad_norm;
    }
    compare(engine[0], engine[1], words, layout);
    CHECK(small_distance((float[]){(float)norm[0]}, (float[]){(float)norm[1]}, 1, 0.0) < limit);
    int64_t bytes[2] = {0, 0};
    for (int i = 0; i < 2; i++) {
        for (int b = 0; b < TRI_BUFFERS; b++) {
            const struct tri_buffer *buffer = &engine[i]->params->buffer[b];
            bytes[i] += buffer->count * (int64_t)tri_dtype_size(buffer->gradient_dtype);
        }
    }
    CHECK(2 * bytes[0] < bytes[1] + bytes[1] / 4);
    tri_engine_destroy(engine[1]);
    tri_engine_destroy(engine[0]);
    tri_mesh_destroy(mesh);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    for (int i = 0; i < count; i++) {
        run(SMALL_GPT, "", layouts[i]);
        run(SMALL_LLAMA, "model.num_kv_heads=1 model.qk_norm=head", layouts[i]);
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
