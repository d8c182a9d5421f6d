/* At a size that matters, what the process has at most had is what was planned, what the kernels
 * keep beside it, and a constant: the same process's memory after a run too small to count. */
#include "support/small.h"

#include "moe/strategies.h"
#include "train/rehearsal.h"
#include "train/session.h"

static const char large[] = "model.hidden_size=512 model.intermediate_size=2048 "
                            "moe.intermediate_size=2048 data.sequence_length=512 precision=bf16";

/* Long rows and many query heads to a key head: attention's backward keeps all their dq. */
static const char grouped[] = "model.hidden_size=64 model.num_heads=8 model.num_kv_heads=1 "
                              "model.head_dim=128 data.sequence_length=2048 "
                              "model.max_position=2048 model.num_layers=1 moe.every=1 "
                              "train.global_batch=2 train.micro_batch=2";

static void run(const char *words, int threads, struct tri_memory_plan *plan)
{
    struct tri_config config;
    bool many = job_size() > 1;
    struct small_layout layout = {many ? 2 : 1, many ? 2 : 1, many ? 2 : 1, 1, 1};
    small_config(SMALL_GPT, words, &config);
    small_config_lay_out(&config, layout);
    config.moe.router = &tri_router_balanced;
    struct tri_mesh *mesh = small_mesh(&config);
    struct tri_rehearsal rehearsal = {
        .config = &config,
        .layout = {layout.tensor, layout.expert, mesh->size[TRI_AXIS_DATA], layout.expert_tensor, 1,
                   1},
        .rank = mesh->rank,
        .training = true,
        .local_ranks = job_size(),
        .threads = threads,
    };
    struct tri_error error;
    CHECK(tri_rehearse(&rehearsal, NULL, plan, &error) == TRI_OK);
    struct tri_kernels *kernels = tri_kernels_create(TRI_KERNELS_FAST, NULL, threads);
    struct tri_engine *engine = tri_engine_create(&config, mesh, kernels, true);
    struct tri_rows_source source = small_source(&config);
    for (int64_t i = 0; i < 2; i++) {
        struct tri_step_report report = small_gradients(engine, &source, i, NULL);
        tri_engine_update(engine, i + 1, 1e-3, &report);
    }
    tri_engine_destroy(engine);
    tri_kernels_destroy(kernels);
    tri_mesh_destroy(mesh);
}

/* What a session asks for has the scratch too. */
static void check_guard(void)
{
    struct tri_config config;
    struct tri_session *session;
    struct tri_error error;
    small_config(SMALL_GPT, grouped, &config);
    config.threads = 1;
    int64_t before = tri_memory_process_constant(1);
    CHECK(tri_session_create(job(), &config, true, 0, NULL, &session, &error) == TRI_OK);
    CHECK(session->plan.process >= before + session->plan.scratch);
    tri_session_destroy(session);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct tri_memory_plan plan;
    run("precision=bf16", 1, &plan); /* bf16 products by AMX bring code of their own along */
    double constant = (double)(tri_memory_resident() - plan.total);
    run(large, 1, &plan);
    double kept = (double)tri_memory_get().peak[TRI_MEMORY_KERNELS];
    double expected = (double)plan.total + constant + kept;
    double peak = (double)tri_memory_process_peak();
    CHECK(plan.total > 100000000);
    if (peak < 0.95 * expected || peak > 1.05 * expected) {
        tri_panic(TRI_FAILED, "%.1f MB planned, %.1f constant, %.1f of kernels, but a peak of %.1f",
                  (double)plan.total / 1e6, constant / 1e6, kept / 1e6, peak / 1e6);
    }
    /* Beside it what other kernels keep. */
    enum { SMALL = 2 << 20 };
    for (int threads = 1; threads <= 2; threads++) {
        run(grouped, threads, &plan);
        double scratch = (double)tri_memory_get().peak[TRI_MEMORY_KERNELS];
        CHECK(plan.scratch > threads * SMALL);
        if (scratch < (double)plan.scratch || scratch > (double)(plan.scratch + threads * SMALL)) {
            tri_panic(TRI_FAILED, "%.1f MB of attention's scratch planned, %.1f MB of all counted",
                      (double)plan.scratch / 1e6, scratch / 1e6);
        }
    }
    check_guard();
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
