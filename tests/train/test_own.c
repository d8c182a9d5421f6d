/* A router and a schedule that src/ knows nothing of (support/own_strategies.h), through what
 * everybody calls: a config that names them is read, verified on every layout, trained, saved,
 * resumed, planned; and refused where their fields say so. */
#include "support/small.h"

#include "base/file.h"
#include "base/memory.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/hf.h"
#include "data/shard_writer.h"
#include "moe/strategies.h"
#include "support/own_strategies.h"
#include "train/rehearsal.h"
#include "train/run.h"
#include "train/verify.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- verify ---------------------------------------------------------------------------------- */

static const char *const words[] = {
    "moe.router=hash",
    "moe.schedule=gather",
    "moe.router=hash moe.schedule=gather moe.capacity_factor=1 moe.min_capacity=1",
    "moe.router=hash moe.schedule=gather train.recompute=full",
    "moe.router=hash train.recompute=full moe.capacity_factor=1 moe.min_capacity=1",
    "moe.schedule=gather train.sequence_parallel=true moe.noise=0.5",
    "moe.router=deepspeed_top2 moe.schedule=gather",
    "moe.router=sparsemixer moe.schedule=gather moe.mask_range=1 moe.aux_window=sequence",
};
enum { WORDS = sizeof(words) / sizeof(*words) };

static void verify(struct small_layout layout, int index)
{
    const struct tri_verify_options options = {.compared = 2, .steps = 3, .factor = 1.0};
    struct tri_verify_result result;
    struct tri_error error;
    struct tri_config config;
    small_config(SMALL_LLAMA, words[index % WORDS], &config);
    small_config_lay_out(&config, layout);
    if (tri_verify(job(), &config, &options, &result, &error) != TRI_OK) {
        tri_panic(TRI_FAILED, "%s: %s", words[index % WORDS], error.message);
    }
    if (!result.passed || result.wrong_routes > 0) {
        tri_panic(TRI_FAILED, "%s: %s: %s: %.3g (%lld wrong routes)", small_layout_text(layout),
                  words[index % WORDS], result.worst_parameter, result.worst_relative_l2,
                  (long long)result.wrong_routes);
    }
    CHECK(result.compared == 2 && result.steps == 3);
}

/* Who goes by a token's place cannot be followed through micro-steps that another layout deals. */
static void expect_no_reference(const char *router)
{
    const struct tri_verify_options options = {.compared = 1, .factor = 1.0};
    struct tri_verify_result result;
    struct tri_error error = {0};
    struct tri_config config;
    char text[128];
    (void)snprintf(text, sizeof(text),
                   "moe.router=%s moe.capacity_factor=1 moe.capacity_window=step", router);
    small_config(SMALL_LLAMA, text, &config);
    config.train.micro_batch = 1;
    enum tri_status status = tri_verify(job(), &config, &options, &result, &error);
    CHECK(status == (job_size() > 1 ? TRI_BAD_INPUT : TRI_OK));
    CHECK(job_size() == 1 || strstr(error.message, "takes turns"));
}

/* ---- a run ----------------------------------------------------------------------------------- */

enum { TOKENS = 4000, VOCABULARY = 53 };

static void write_tokens(const char *folder)
{
    const struct tri_shard_writer_args args = {
        .folder = folder, .stem = "train", .vocab_size = VOCABULARY, .per_shard = TOKENS};
    struct tri_shard_writer *writer = tri_shard_writer_create(&args);
    struct tri_error error;
    for (int32_t i = 0; i < TOKENS; i++) {
        int32_t token = i % 11 * 7 % VOCABULARY;
        CHECK(tri_shard_writer_write(writer, &token, NULL, 1, &error) == TRI_OK);
    }
    CHECK(tri_shard_writer_finish(writer, &error) == TRI_OK);
    tri_shard_writer_destroy(writer);
}

/* A folder that all ranks mean, empty but for tokens. */
static void make_folder(struct tri_group *world, char folder[256])
{
    struct tri_error error;
    (void)snprintf(folder, 256, TEST_TMP "/own.%s.%d", job_transport(), job_size());
    if (job_rank() == 0) {
        CHECK(!tri_file_exists(folder) || tri_file_remove_tree(folder, &error) == TRI_OK);
        CHECK(tri_file_make_dirs(folder, &error) == TRI_OK);
        write_tokens(folder);
    }
    tri_barrier(world);
}

static void train(const char *folder, int steps, struct tri_config *config)
{
    const struct tri_run_options options = {0};
    struct tri_error error;
    char text[1024];
    (void)snprintf(text, sizeof(text),
                   "moe.router=hash moe.schedule=gather run_dir=%s/run data.train=%s/train_*.bin "
                   "train.steps=%d train.schedule=constant parallel.expert=%d",
                   folder, folder, steps, job_size() > 2 ? 2 : job_size());
    small_config(SMALL_LLAMA, text, config);
    if (tri_run(job(), config, &options, &error) != TRI_OK) {
        tri_panic(TRI_FAILED, "%s", error.message);
    }
}

/* What the run left names them, for one who knows them. */
static void expect_named(const char *folder)
{
    struct tri_error error = {0};
    struct tri_config read;
    char path[TRI_PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/run/checkpoints/step_8", folder);
    CHECK(tri_checkpoint_read_config(path, &own_strategies, &read, &error) == TRI_OK);
    CHECK(read.moe.router == &own_router_hash && read.moe.schedule == &own_schedule_gather);
    CHECK(tri_checkpoint_read_config(path, &tri_strategies, &read, &error) == TRI_BAD_INPUT);
    CHECK(strstr(error.message, "key 'moe."));
    CHECK(strstr(error.message, "found 'hash', expected top_k, balanced, deepspeed_top1") ||
          strstr(error.message, "found 'gather', expected ted"));
}

static void run_and_resume(struct tri_group *world)
{
    char folder[256];
    struct tri_config config;
    struct tri_error error;
    make_folder(world, folder);
    train(folder, 4, &config);
    train(folder, 8, &config); /* goes on from step 4 */
    if (job_rank() == 0) {
        expect_named(folder);
        CHECK(tri_file_remove_tree(folder, &error) == TRI_OK);
    }
}

/* ---- plans, export, keys --------------------------------------------------------------------- */

/* A plan of the router is that of who stands for it. */
static void expect_planned(void)
{
    const struct tri_layout layout = {2, 2, 2, 1, 1, 1};
    struct tri_ledger *ledger = tri_alloc(TRI_MEMORY_OTHER, 2 * sizeof(*ledger));
    struct tri_memory_plan plans[2];
    struct tri_error error;
    for (int i = 0; i < 2; i++) {
        struct tri_config config;
        small_config(SMALL_LLAMA, i == 0 ? "moe.router=hash" : "moe.router=balanced", &config);
        CHECK(tri_rehearse_layout(&config, layout, 1, TRI_LOAD_BALANCED, ledger + i, plans + i,
                                  &error) == TRI_OK);
    }
    CHECK(plans[0].total > 0 && memcmp(plans, plans + 1, sizeof(*plans)) == 0);
    CHECK(memcmp(ledger, ledger + 1, sizeof(*ledger)) == 0);
    tri_free(ledger);
}

static void expect_refused(void)
{
    static const struct {
        const char *words, *message;
    } cases[] = {
        {"moe.router=hash moe.bias_balancing=0.1", "router hash chooses by no bias"},
        {"moe.router=hash moe.aux_scope=model", "router hash balances each layer"},
        {"moe.router=hush", "found 'hush', expected top_k, balanced, deepspeed_top1, "
                            "deepspeed_top2, deepspeed_topk, sparsemixer, dense, "
                            "expert_choice or hash"},
        {"moe.schedule=gather parallel.tensor=2 parallel.tensor_grid=[1,1,2]",
         "found gather, which takes no parallel.tensor_grid but [tensor, 1, 1]"},
        {"moe.schedule=ted2", "found 'ted2', expected ted, overlapped, s1, s2, "
                              "hierarchical, dense or gather"},
    };
    struct tri_config config;
    struct tri_error error = {0};
    enum tri_hf_family family;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        CHECK(small_config_try(SMALL_LLAMA, cases[i].words, &config, &error) == TRI_BAD_INPUT);
        CHECK(strstr(error.message, cases[i].message));
    }
    small_config(SMALL_LLAMA, "moe.router=hash", &config);
    CHECK(tri_hf_family_of(&config, &family, &error) == TRI_BAD_INPUT);
    CHECK(strstr(error.message, "moe.router"));
    small_config(SMALL_LLAMA, "moe.schedule=gather", &config);
    CHECK(tri_hf_family_of(&config, &family, &error) == TRI_OK);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct small_layout layouts[SMALL_LAYOUTS];
    int count = small_layouts(job_size(), 8, layouts);
    for (int i = 0; i < (count < WORDS ? WORDS : count); i++) {
        verify(layouts[i % count], i);
    }
    expect_no_reference("hash");
    expect_no_reference("balanced");
    expect_refused();
    expect_planned();
    struct tri_mesh *mesh;
    struct tri_error error;
    CHECK(tri_mesh_create(job(), 1, 1, 1, 1, &mesh, &error) == TRI_OK);
    run_and_resume(tri_mesh_group(mesh, TRI_ON_ALL));
    tri_mesh_destroy(mesh);
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
