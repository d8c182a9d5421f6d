/* Three ranks, and 3 or 6 experts: each router on every layout computes what one rank computes, and
 * in reproducible mode its bits. */
#include "support/small.h"

#include "train/verify.h"

#include <stdio.h>
#include <string.h>

static const struct {
    int64_t experts; /* 0: either */
    const char *words;
} cases[] = {
    {0, "moe.router=dense moe.mutual_information=0.1"},
    {0, "moe.router=sparsemixer moe.mask_range=0.5 moe.aux_window=sequence moe.aux_loss=0.1"},
    {0, "moe.router=expert_choice moe.z_loss=0.01"},
    {6, "moe.score=sigmoid moe.groups=3 moe.groups_top=2 moe.bias_balancing=0.02"},
    {0, "moe.router=dense moe.sharpen_step=2 moe.top_k=2 train.sequence_parallel=true"},
    {0, "moe.score=sigmoid moe.aux_loss=0.1 train.recompute=full"},
};
enum { CASES = sizeof(cases) / sizeof(*cases), STEPS = 2, TEXT = 256 };

/* The small model with heads that three ranks can share, or as reproducible mode has them. */
static void make_config(int index, enum small_style style, const char *heads, char words[TEXT],
                        struct tri_config *config)
{
    int64_t experts = cases[index % CASES].experts;
    experts = experts ? experts : index / CASES % 2 ? 3 : 6;
    (void)snprintf(words, TEXT, "%s moe.num_experts=%d %s", heads, (int)experts,
                   cases[index % CASES].words);
    small_config(style, words, config);
}

static void verify(struct small_layout layout, int index)
{
    const struct tri_verify_options options = {.compared = STEPS, .steps = STEPS, .factor = 1.0};
    struct tri_verify_result result;
    struct tri_error error;
    struct tri_config config;
    char words[TEXT];
    make_config(index, index % 2 ? SMALL_GPT : SMALL_LLAMA,
                "model.num_heads=24 model.head_dim=4 model.num_kv_heads=3", words, &config);
    small_config_lay_out(&config, layout);
    if (tri_verify(job(), &config, &options, &result, &error) != TRI_OK) {
        tri_panic(TRI_FAILED, "%s: %s: %s", small_layout_text(layout), words, error.message);
    }
    if (!result.passed) {
        tri_panic(TRI_FAILED, "%s: %s: %s: %.3g (loss %.3g, %lld wrong routes)",
                  small_layout_text(layout), words, result.worst_parameter,
                  result.worst_relative_l2, result.worst_loss, (long long)result.wrong_routes);
    }
}

/* Losses and norms, which say all of the gradients and of the weights that they made. */
static void train(struct tri_engine *engine, struct tri_config *config, double trace[2 * STEPS])
{
    const struct tri_rows_source rows = small_source(config);
    for (int step = 0; step < STEPS; step++) {
        struct tri_step_report report = small_gradients(engine, &rows, step, NULL);
        trace[2 * step] = report.loss;
        trace[2 * step + 1] = report.grad_norm;
        tri_engine_update(engine, step + 1, 1e-2, &report);
    }
}

static void expect_bits(struct small_layout layout, int index)
{
    struct tri_config one, many;
    double want[2 * STEPS], got[2 * STEPS];
    char words[TEXT];
    make_config(index, SMALL_LLAMA, "reproducible=true model.num_kv_heads=8", words, &one);
    many = one;
    small_config_lay_out(&many, layout);
    struct tri_mesh *mesh = small_mesh(&many);
    struct tri_engine *engine = tri_engine_create(&many, mesh, small_kernels(&many), true);
    train(engine, &many, got);
    if (mesh->rank == 0) {
        struct tri_mesh *serial = tri_mesh_create_serial();
        struct tri_engine *alone = tri_engine_create(&one, serial, small_kernels(&one), true);
        train(alone, &one, want);
        if (memcmp(got, want, sizeof(want)) != 0) {
            tri_panic(TRI_FAILED, "%s: %s: other bits", small_layout_text(layout), words);
        }
        tri_engine_destroy(alone);
        tri_mesh_destroy(serial);
    }
    tri_engine_destroy(engine);
    tri_mesh_destroy(mesh);
}

static int run_job(int argc, char **argv)
{
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 3, layouts);
    (void)argc;
    (void)argv;
    for (int i = 0; i < count; i++) {
        for (int c = 0; c < CASES; c++) {
            int index = c + CASES * ((i + c) % 2);
            verify(layouts[i], index);
            if (layouts[i].tensor == 1) {
                expect_bits(layouts[i], index);
            }
        }
    }
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
