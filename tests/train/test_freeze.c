/* What is frozen has weights and nothing else, and never changes; all else is trained as if nothing
 * were frozen: the same bits of gradients and, unclipped, of updates, on every layout and policy.
 * The norm is that of what is trained. */
#include "support/small.h"

#include "base/memory.h"

#include <math.h>
#include <string.h>

static bool frozen_here(const struct tri_engine *engine, int p)
{
    return !engine->params->param[p].trained;
}

/* One field of a row, whole, on rank 0. */
static float *gather(const struct tri_engine *engine, int p, enum tri_field field)
{
    const struct tri_param *param = &engine->params->param[p];
    size_t n = (size_t)(param->shape[0] * param->shape[1]);
    float *values = tri_alloc(TRI_MEMORY_OTHER, n * sizeof(*values));
    tri_param_gather(engine->params, param, field, values);
    return values;
}

struct pair {
    struct tri_engine *all, *some; /* all trained; some frozen */
    const char *words;
    struct small_layout layout;
};

/* The field of each trained row has the same bits on both sides; of frozen ones it is that of
 * `before` (weights), or zero. Returns the sum of squares of what is trained. */
static double compare(const struct pair *pair, enum tri_field field, float *const *before)
{
    double squares = 0.0;
    for (int p = 0; p < pair->some->params->count; p++) {
        const struct tri_param *param = &pair->some->params->param[p];
        int64_t n = param->shape[0] * param->shape[1];
        float *want = gather(pair->all, p, field), *got = gather(pair->some, p, field);
        bool frozen = frozen_here(pair->some, p);
        for (int64_t i = 0; i < n && job_rank() == 0; i++) {
            float expected = !frozen ? want[i] : before ? before[p][i] : 0.0F;
            if (memcmp(&expected, &got[i], sizeof(expected)) != 0) {
                tri_panic(TRI_FAILED, "%s: %s: field %d of %s: %.9g at %lld, expected %.9g",
                          small_layout_text(pair->layout), pair->words, (int)field, param->name,
                          (double)got[i], (long long)i, (double)expected);
            }
            squares += (double)got[i] * (double)got[i];
        }
        tri_free(want);
        tri_free(got);
    }
    return squares;
}

static void expect_nothing_kept(const struct tri_engine *engine)
{
    for (int i = 0; i < TRI_BUFFERS; i++) {
        const struct tri_buffer *buffer = &engine->params->buffer[i];
        if (!buffer->trained) {
            CHECK(!buffer->gradients && !buffer->m && !buffer->v && !buffer->master);
        }
    }
    for (int p = 0; p < engine->params->count; p++) {
        const struct tri_param *param = &engine->params->param[p];
        CHECK(engine->params->buffer[param->buffer].trained == param->trained);
    }
}

/* What is reduced and gathered of gradients and weights, in a step of this rank. */
static int64_t sent(void)
{
    return tri_ledger_sum(job_ledger(), -1, -1, TRI_PHASE_OPTIMIZER, TRI_KIND_GRADIENT).bytes +
           tri_ledger_sum(job_ledger(), -1, -1, TRI_PHASE_OPTIMIZER, TRI_KIND_WEIGHTS).bytes;
}

/* Of that, what the replicas don't send of frozen weights' gradients. */
static int64_t saved_at_least(const struct tri_engine *engine)
{
    int64_t bytes = 0;
    for (int i = 0; i < TRI_BUFFERS; i++) {
        const struct tri_buffer *buffer = &engine->params->buffer[i];
        if (!buffer->trained && tri_group_size(buffer->group) > 1) {
            bytes += buffer->count * (int64_t)tri_dtype_size(buffer->gradient_dtype);
        }
    }
    return bytes;
}

static struct tri_engine *make(struct tri_config *config, struct tri_mesh **mesh)
{
    *mesh = small_mesh(config);
    return tri_engine_create(config, *mesh, small_kernels(config), true);
}

static void run(enum small_style style, const char *words, const char *freeze,
                struct small_layout layout)
{
    struct tri_config config[2];
    struct tri_mesh *mesh[2];
    struct tri_error error;
    struct tri_step_report report[2];
    small_config(style, words, &config[0]);
    small_config_lay_out(&config[0], layout);
    config[0].train.clip = 0.0;
    if (tri_config_check_layout(&config[0], job_size(), &error) != TRI_OK) {
        return;
    }
    config[1] = config[0];
    (void)snprintf(config[1].train.freeze, sizeof(config[1].train.freeze), "%s", freeze);
    CHECK(tri_params_check_frozen(&config[1], &error) == TRI_OK);
    struct pair pair = {make(&config[0], &mesh[0]), make(&config[1], &mesh[1]), words, layout};
    expect_nothing_kept(pair.some);
    int rows = pair.some->params->count;
    float **before = tri_alloc(TRI_MEMORY_OTHER, (size_t)rows * sizeof(*before));
    for (int p = 0; p < rows; p++) {
        before[p] = gather(pair.some, p, TRI_FIELD_WEIGHT);
    }
    int64_t bytes[2];
    for (int i = 0; i < 2; i++) {
        struct tri_rows_source source = small_source(&config[i]);
        struct tri_engine *engine = i ? pair.some : pair.all;
        tri_ledger_reset(job_ledger());
        report[i] = small_gradients(engine, &source, 0, NULL);
        tri_engine_update(engine, 1, 1e-3, &report[i]);
        bytes[i] = sent();
    }
    CHECK(report[0].loss == report[1].loss);
    CHECK(bytes[1] <= bytes[0] - saved_at_least(pair.some));
    double norm = sqrt(compare(&pair, TRI_FIELD_GRADIENT, NULL));
    (void)compare(&pair, TRI_FIELD_M, NULL);
    (void)compare(&pair, TRI_FIELD_V, NULL);
    (void)compare(&pair, TRI_FIELD_WEIGHT, before);
    CHECK(job_rank() != 0 || fabs(report[1].grad_norm - norm) <= 1e-5 * norm);
    CHECK(report[1].grad_norm < report[0].grad_norm);
    for (int p = 0; p < rows; p++) {
        tri_free(before[p]);
    }
    tri_free(before);
    tri_engine_destroy(pair.all);
    tri_engine_destroy(pair.some);
    tri_mesh_destroy(mesh[0]);
    tri_mesh_destroy(mesh[1]);
}

/* Both styles have all of these. */
static const char *const patterns[] = {
    "embedding.*",
    "*attention*,*norm*",
    "*expert*,layers.0.attention*",
    "embedding.*,layers.0.*,layers.1.norm*,layers.1.attention.*,*router*",
    "embedding*,layers.*",
    "*.experts.[0-2].*,*norm1*",
};

static const char *const options[] = {
    "",
    "precision=bf16 train.gradient_dtype=bf16",
    "train.recompute=full train.sequence_parallel=true",
    "train.recompute=full train.communication_aware_checkpointing=false comm.overlap=false",
    "reproducible=true model.num_kv_heads=8 model.qk_norm=full",
    "train.duplicate_token_dropping=false moe.aux_scope=model moe.z_loss=0.01",
};

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    enum { PATTERNS = sizeof(patterns) / sizeof(*patterns) };
    enum { OPTIONS = sizeof(options) / sizeof(*options) };
    for (int i = 0; i < count; i++) {
        for (int o = 0; o < OPTIONS; o++) {
            run(SMALL_LLAMA, options[o], patterns[(i + o) % PATTERNS], layouts[i]);
            bool gpt = !strstr(options[o], "qk_norm");
            const char *freeze = patterns[(i + o + 1) % PATTERNS];
            if (gpt) {
                run(SMALL_GPT, options[o], freeze, layouts[i]);
            }
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
