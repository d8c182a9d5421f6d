/* Low-rank pairs: their gradients against finite differences, and against those of the weights of a
 * model that they are merged into, which has their loss; every layout and policy against one rank.
 * The pairs are not as they begin, for B would be zero. */
#include "support/small.h"

#include "base/memory.h"
#include "checkpoint/peft.h"
#include "model/low_rank.h"

#include <math.h>
#include <string.h>

#define PAIRS "moe.router=balanced train.lora.rank=3 "
#define LLAMA "train.lora.targets=attention,experts,shared "
#define GPT   "train.lora.targets=attention,experts,mlp "

static float *gather(const struct tri_engine *engine, const struct tri_param *param,
                     enum tri_field field)
{
    size_t n = (size_t)(param->shape[0] * param->shape[1]);
    float *values = tri_alloc(TRI_MEMORY_OTHER, n * sizeof(*values));
    tri_param_gather(engine->params, param, field, values);
    return values;
}

/* Of an engine of this rank alone: B as if something had been learned. */
static void fill_pairs(struct tri_engine *one)
{
    for (int p = 0; p < one->params->count; p++) {
        const struct tri_param *param = &one->params->param[p];
        int64_t n = param->shape[0] * param->shape[1];
        if (tri_role_is_low(param->role) && param->init == TRI_INIT_ZERO) {
            float *values = gather(one, param, TRI_FIELD_WEIGHT);
            for (int64_t i = 0; i < n; i++) {
                values[i] = 0.1F * sinf((float)(7 * p + 3) + 1.7F * (float)i);
            }
            tri_param_scatter(one->params, param, TRI_FIELD_WEIGHT, values);
            tri_free(values);
        }
    }
}

static struct tri_engine *make_one(struct tri_config *config, struct tri_mesh **serial)
{
    *serial = tri_mesh_create_serial();
    return tri_engine_create(config, *serial, small_kernels(config), true);
}

/* Weights += h times the gradient (of before) over its norm. */
static void move(struct tri_engine *one, float *const *gradients, double norm, double h)
{
    for (int p = 0; p < one->params->count; p++) {
        const struct tri_param *param = &one->params->param[p];
        int64_t n = param->shape[0] * param->shape[1];
        float *values = gather(one, param, TRI_FIELD_WEIGHT);
        for (int64_t i = 0; i < n; i++) {
            values[i] = (float)((double)values[i] + h * (double)gradients[p][i] / norm);
        }
        tri_param_scatter(one->params, param, TRI_FIELD_WEIGHT, values);
        tri_free(values);
    }
}

/* Along the gradient the loss rises by its norm. */
static void check_slope(struct tri_engine *one, const struct tri_rows_source *source)
{
    const double h = 4e-3;
    double norm = small_gradients(one, source, 0, NULL).grad_norm;
    size_t rows = (size_t)one->params->count;
    float **gradients = tri_alloc(TRI_MEMORY_OTHER, rows * sizeof(*gradients));
    for (size_t p = 0; p < rows; p++) {
        gradients[p] = gather(one, &one->params->param[p], TRI_FIELD_GRADIENT);
    }
    move(one, gradients, norm, h);
    double above = small_gradients(one, source, 0, NULL).loss;
    move(one, gradients, norm, -2 * h);
    double below = small_gradients(one, source, 0, NULL).loss;
    move(one, gradients, norm, h);
    double slope = (above - below) / (2 * h);
    if (!(fabs(slope - norm) <= 5e-3 * norm)) {
        tri_panic(TRI_FAILED, "slope %.9g, gradient %.9g", slope, norm);
    }
    for (size_t p = 0; p < rows; p++) {
        tri_free(gradients[p]);
    }
    tri_free(gradients);
}

/* c [m, n] = scale a^T b, a [k, m] and b [k, n]; or a b^T, a [m, k] and b [n, k]. */
static void multiply(bool transposed, int64_t m, int64_t n, int64_t k, double scale, const float *a,
                     const float *b, float *c)
{
    for (int64_t i = 0; i < m; i++) {
        for (int64_t j = 0; j < n; j++) {
            double sum = 0.0;
            for (int64_t l = 0; l < k; l++) {
                sum += transposed ? (double)a[l * m + i] * (double)b[l * n + j]
                                  : (double)a[i * k + l] * (double)b[j * k + l];
            }
            c[i * n + j] = (float)(scale * sum);
        }
    }
}

/* From the gradient G of W + s B A: s B^T G of A, s G A^T of B. */
static void check_pair(const struct tri_engine *one, const struct tri_param *weight,
                       const float *gradient, double scale, double whole)
{
    const struct tri_param *a, *b;
    if (!tri_low_rank_find(one->params, weight, &a, &b)) {
        return;
    }
    int64_t out = weight->shape[0], in = weight->shape[1], rank = a->shape[0];
    float *down = gather(one, a, TRI_FIELD_WEIGHT), *up = gather(one, b, TRI_FIELD_WEIGHT);
    float *of_a = gather(one, a, TRI_FIELD_GRADIENT), *of_b = gather(one, b, TRI_FIELD_GRADIENT);
    float *expected = tri_alloc(TRI_MEMORY_OTHER, (size_t)(rank * (in + out)) * sizeof(float));
    multiply(true, rank, in, out, scale, up, gradient, expected);
    CHECK(small_distance(of_a, expected, rank * in, 1e-3 * whole) < 2e-5);
    multiply(false, out, rank, in, scale, gradient, down, expected);
    CHECK(small_distance(of_b, expected, rank * out, 1e-3 * whole) < 2e-5);
    tri_free(expected);
    tri_free(of_a);
    tri_free(of_b);
    tri_free(up);
    tri_free(down);
}

static void merge(const struct tri_engine *one, const struct tri_param *weight, double scale,
                  float *values)
{
    const struct tri_param *a, *b;
    if (tri_low_rank_find(one->params, weight, &a, &b)) {
        float *down = gather(one, a, TRI_FIELD_WEIGHT), *up = gather(one, b, TRI_FIELD_WEIGHT);
        tri_peft_merge(weight->shape[0], weight->shape[1], a->shape[0], scale, up, down, values);
        tri_free(down);
        tri_free(up);
    }
}

/* The same loss without pairs, from merged weights; `one` has its gradients. */
static void check_merged(const struct tri_engine *one, struct tri_config *config,
                         const struct tri_rows_source *source, const struct tri_step_report *report)
{
    double scale = config->train.lora.alpha / (double)config->train.lora.rank;
    struct tri_config plain = *config;
    struct tri_mesh *serial;
    plain.train.lora.rank = 0;
    struct tri_engine *merged = make_one(&plain, &serial);
    for (int p = 0; p < merged->params->count; p++) {
        const struct tri_param *param = &merged->params->param[p];
        const struct tri_param *base = tri_params_by_name(one->params, param->name);
        float *values = gather(one, base, TRI_FIELD_WEIGHT);
        merge(one, base, scale, values);
        tri_param_scatter(merged->params, param, TRI_FIELD_WEIGHT, values);
        tri_free(values);
    }
    double got = small_gradients(merged, source, 0, NULL).loss;
    if (!(fabs(got - report->loss) <= 2e-6 * report->loss)) {
        tri_panic(TRI_FAILED, "merged: loss %.9g, with pairs %.9g", got, report->loss);
    }
    for (int p = 0; p < merged->params->count; p++) {
        const struct tri_param *param = &merged->params->param[p];
        float *gradient = gather(merged, param, TRI_FIELD_GRADIENT);
        check_pair(one, tri_params_by_name(one->params, param->name), gradient, scale,
                   report->grad_norm);
        tri_free(gradient);
    }
    tri_engine_destroy(merged);
    tri_mesh_destroy(serial);
}

static void compare(const struct tri_engine *layout, const struct tri_engine *one, double whole,
                    double limit, const char *words, const char *where)
{
    for (int p = 0; p < layout->params->count; p++) {
        const struct tri_param *param = &layout->params->param[p];
        int64_t n = param->shape[0] * param->shape[1];
        float *got = gather(layout, param, TRI_FIELD_GRADIENT);
        CHECK(tri_role_is_low(param->role) || !param->trained);
        if (one) {
            float *expected = gather(one, &one->params->param[p], TRI_FIELD_GRADIENT);
            double distance = small_distance(got, expected, n, 1e-3 * whole);
            if (!(distance <= limit)) {
                tri_panic(TRI_FAILED, "%s: %s: %s: %.3g", words, where, param->name, distance);
            }
            tri_free(expected);
        }
        tri_free(got);
    }
}

static void run(enum small_style style, const char *words, struct small_layout layout)
{
    struct tri_config config, alone;
    struct tri_error error;
    small_config(style, words, &config);
    alone = config;
    alone.train.recompute = 0;
    small_config_lay_out(&config, layout);
    CHECK(tri_params_check_frozen(&config, &error) == TRI_OK);
    bool narrow = config.precision == TRI_PRECISION_BF16;
    struct tri_mesh *mesh = small_mesh(&config), *serial = NULL;
    struct tri_engine *engine = tri_engine_create(&config, mesh, small_kernels(&config), true);
    struct tri_engine *one = NULL;
    struct tri_rows_source source = small_source(&config);
    if (mesh->rank == 0) {
        one = make_one(&alone, &serial);
        fill_pairs(one);
    }
    small_copy_weights(one, engine);
    struct tri_step_report got = small_gradients(engine, &source, 0, NULL);
    struct tri_step_report expected = {0};
    if (one) {
        expected = small_gradients(one, &source, 0, NULL);
        CHECK(fabs(got.loss - expected.loss) <= (narrow ? 5e-3 : 2e-6) * expected.loss);
        CHECK(fabs(got.grad_norm - expected.grad_norm) <=
              (narrow ? 5e-2 : 2e-5) * expected.grad_norm);
        CHECK(expected.grad_norm > 0.0);
    }
    compare(engine, one, got.grad_norm, narrow ? 0.3 : 2e-5, words, small_layout_text(layout));
    if (one && !narrow) {
        check_merged(one, &alone, &source, &expected);
        check_slope(one, &source);
    }
    tri_engine_update(engine, 1, 1e-3, &got);
    tri_engine_destroy(one);
    tri_mesh_destroy(serial);
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
}

static const struct {
    enum small_style style;
    const char *words;
} cases[] = {
    {SMALL_LLAMA, PAIRS LLAMA},
    {SMALL_GPT, PAIRS GPT "train.recompute=full train.sequence_parallel=true"},
    {SMALL_LLAMA, PAIRS LLAMA "precision=bf16 train.gradient_dtype=bf16"},
    {SMALL_LLAMA, PAIRS LLAMA "model.num_kv_heads=1 model.qk_norm=full "
                              "train.duplicate_token_dropping=false train.recompute=[1]"},
    {SMALL_GPT, PAIRS GPT "train.lora.alpha=3 train.recompute=full "
                          "train.communication_aware_checkpointing=false"},
    {SMALL_LLAMA, "moe.router=dense moe.mutual_information=0.1 train.lora.rank=3 "
                  "train.recompute=full " LLAMA},
    {SMALL_LLAMA, PAIRS LLAMA "train.sequence_parallel=true comm.overlap=false train.lora.rank=1"},
    {SMALL_GPT, PAIRS "train.lora.targets=mlp train.freeze=layers.*.mlp.down.*"},
};

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    enum { CASES = sizeof(cases) / sizeof(*cases) };
    int each = count > 4 ? 3 : count > 2 ? 4 : CASES;
    for (int i = 0; i < count; i++) {
        for (int c = 0; c < each; c++) {
            int which = (i * each + c) % CASES;
            run(cases[which].style, cases[which].words, layouts[i]);
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
