/* Every token to every expert, and what it is for: each expert learns from every token, so some of
 * them can be left out afterwards. With all of them at work sparse use gives the bits of dense use;
 * with some it gives on every layout what it gives on one rank, in reproducible mode bit for bit;
 * and the fewer work, the higher is a trained model's loss. */
#include "support/small.h"

#include "base/memory.h"
#include "moe/moe.h"
#include "train/evaluate.h"

#include <math.h>
#include <string.h>

static const struct tri_active actives[] = {
    {TRI_ACTIVE_TOP, 8, 0},         {TRI_ACTIVE_TOP, 3, 0},       {TRI_ACTIVE_TOP, 1, 0},
    {TRI_ACTIVE_THRESHOLD, 0, 0.9}, {TRI_ACTIVE_THRESHOLD, 0, 0}, {TRI_ACTIVE_AVERAGE, 0, 1.0},
    {TRI_ACTIVE_AVERAGE, 0, 0},
};
enum { ACTIVES = sizeof(actives) / sizeof(*actives) };

static double evaluate_as_is(struct tri_engine *engine, const struct tri_rows_source *rows)
{
    struct tri_step_report report;
    struct tri_error error;
    CHECK(tri_engine_evaluate(engine, rows, &report, &error) == TRI_OK);
    return report.cross_entropy;
}

static double evaluate(struct tri_engine *engine, const struct tri_rows_source *rows,
                       const struct tri_active *active)
{
    tri_moe_set_active(tri_model_moe(engine->model), active);
    return evaluate_as_is(engine, rows);
}

/* Each expert has one, or just those with tokens, load [layers, experts]. */
static void expect_gradients(struct tri_engine *engine, const int64_t *load)
{
    for (int p = 0; p < engine->params->count; p++) {
        const struct tri_param *param = &engine->params->param[p];
        int64_t n = param->shape[0] * param->shape[1];
        float *gradient = tri_alloc(TRI_MEMORY_OTHER, (size_t)n * sizeof(*gradient));
        tri_param_gather(engine->params, param, TRI_FIELD_GRADIENT, gradient);
        double sum = 0;
        for (int64_t i = 0; i < n; i++) {
            sum += (double)gradient[i] * (double)gradient[i];
        }
        bool of_expert = param->place == TRI_PLACE_EXPERT;
        bool learns = of_expert && (!load || load[param->layer * 8 + param->expert] > 0);
        if (job_rank() == 0 && of_expert && (sum > 0) != learns) {
            tri_panic(TRI_FAILED, "%s has %s gradient", param->name, learns ? "no" : "a");
        }
        tri_free(gradient);
    }
}

static void expect_same(const char *words, struct small_layout layout, bool bits)
{
    struct tri_config config, one;
    small_config(SMALL_LLAMA, words, &config);
    one = config;
    small_config_lay_out(&config, layout);
    struct tri_mesh *mesh = small_mesh(&config), *serial = tri_mesh_create_serial();
    struct tri_engine *engine = tri_engine_create(&config, mesh, small_kernels(&config), true);
    struct tri_engine *alone = NULL;
    const struct tri_rows_source rows = small_source(&config);
    if (mesh->rank == 0) {
        alone = tri_engine_create(&one, serial, small_kernels(&one), true);
    }
    double dense = evaluate(engine, &rows, NULL);
    for (int i = 0; i < ACTIVES; i++) {
        double sparse = evaluate(engine, &rows, &actives[i]);
        struct tri_expert_work work = tri_moe_work(tri_model_moe(engine->model));
        bool all =
            actives[i].n == 8 || (actives[i].kind != TRI_ACTIVE_TOP && !(actives[i].epsilon > 0));
        CHECK(work.done <= work.all && (work.done < work.all) == (!all && work.all > 0));
        CHECK(!all || memcmp(&sparse, &dense, sizeof(dense)) == 0);
        if (alone) {
            double expected = evaluate(alone, &rows, &actives[i]);
            double apart = fabs(sparse - expected);
            if (bits ? apart > 0 : !(apart <= 2e-6 * expected)) {
                tri_panic(TRI_FAILED, "%s: %s: %d: %.17g, one rank %.17g",
                          small_layout_text(layout), words, i, sparse, expected);
            }
        }
    }
    tri_moe_set_active(tri_model_moe(engine->model), NULL);
    for (int step = 0; step < 2; step++) {
        struct tri_step_report report = small_gradients(engine, &rows, step, NULL);
        expect_gradients(engine, NULL);
        tri_engine_update(engine, step + 1, 1e-3, &report);
    }
    tri_engine_destroy(alone);
    tri_engine_destroy(engine);
    tri_mesh_destroy(serial);
    tri_mesh_destroy(mesh);
}

/* Three tokens, one expert each: from the step on just those experts learn that have a token, and
 * an evaluation is one of sparse use. */
static void expect_sharp(struct small_layout layout)
{
    const struct tri_active one = {TRI_ACTIVE_TOP, 1, 0};
    struct tri_config config;
    small_config(SMALL_LLAMA,
                 "moe.router=dense moe.sharpen_step=2 moe.top_k=1 train.global_batch=1 "
                 "data.sequence_length=3 moe.mutual_information=0.1",
                 &config);
    small_config_lay_out(&config, layout);
    struct tri_mesh *mesh = small_mesh(&config);
    struct tri_engine *engine = tri_engine_create(&config, mesh, small_kernels(&config), true);
    struct tri_moe *moe = tri_model_moe(engine->model);
    const struct tri_rows_source rows = small_source(&config);
    for (int step = 0; step < 3; step++) {
        struct tri_step_report report = small_gradients(engine, &rows, step, NULL);
        for (int64_t i = 0; i < engine->moe_layers * 8 && step == 0; i++) {
            CHECK(report.load[i] == 3);
        }
        expect_gradients(engine, step == 0 ? NULL : report.load);
        tri_engine_update(engine, step + 1, 1e-3, &report);
        double dense = evaluate(engine, &rows, NULL);
        double sparse = evaluate(engine, &rows, &one);
        tri_moe_set_steps(moe, step + 1);
        CHECK(evaluate_as_is(engine, &rows) == (step == 0 ? dense : sparse) && dense != sparse);
    }
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
}

/* After some steps of a repetitive text. */
static void expect_falling(struct small_layout layout)
{
    static const double epsilon[] = {6, 2, 1, 0.5, 0.25, 0};
    struct tri_config config;
    small_config(SMALL_LLAMA, "moe.router=dense moe.mutual_information=0.01", &config);
    small_config_lay_out(&config, layout);
    struct tri_mesh *mesh = small_mesh(&config);
    struct tri_engine *engine = tri_engine_create(&config, mesh, small_kernels(&config), true);
    const struct tri_rows_source rows = small_source_repetitive(&config);
    double losses[6];
    double information = 0;
    for (int step = 0; step < 60; step++) {
        struct tri_step_report report = small_gradients(engine, &rows, step, NULL);
        tri_engine_update(engine, step + 1, 1e-2, &report);
        information = report.information_loss;
        CHECK(information <= 0 && information >= -log(8) * (double)engine->moe_layers);
    }
    CHECK(information < -0.05);
    for (int i = 0; i < 6; i++) {
        const struct tri_active active = {TRI_ACTIVE_THRESHOLD, 0, epsilon[i]};
        losses[i] = evaluate(engine, &rows, &active);
        job_note("%a", losses[i]);
        CHECK(i == 0 || losses[i] <= losses[i - 1] * 1.02);
    }
    CHECK(losses[5] < losses[0]);
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
}

static int run_job(int argc, char **argv)
{
    static const char *const words[] = {
        "moe.router=dense",
        "moe.router=dense train.sequence_parallel=true",
        "moe.router=dense reproducible=true model.num_kv_heads=8",
        ("moe.router=dense moe.aux_window=step train.micro_batch=7 "
         "train.duplicate_token_dropping=false"),
        "moe.router=dense reproducible=true precision=bf16 model.num_kv_heads=8",
    };
    enum { WORDS = sizeof(words) / sizeof(*words) };
    (void)argc;
    (void)argv;
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    for (int i = 0; i < (count < WORDS ? WORDS : count); i++) {
        const char *one = words[i % WORDS];
        expect_same(one, layouts[i % count], strstr(one, "reproducible") != NULL);
    }
    int every = count > 8 ? 3 : 1;
    for (int i = 0; i < count; i += every) {
        expect_sharp(layouts[i]);
    }
    expect_falling(layouts[count - 1]);
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
