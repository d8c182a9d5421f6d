/* What is left to the planner: the choice is the fastest of what a plan lists, whatever the number
 * of ranks; links and memory decide as they should; all ranks have the same, though rank 0 alone
 * reads the cluster; and a run that goes on keeps what it has. */
#include "support/small.h"

#include "base/memory.h"
#include "moe/strategies.h"
#include "plan/search.h"
#include "train/alike.h"
#include "train/auto.h"
#include "train/rehearsal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH = 512, WORDS_BYTES = 1024 };

#define KERNELS "kernels: {f32: {any: {call: 1e-6, bytes: 1e10}, products: {flops: 1e10}}}\n"

static const char usual[] =
    "name: usual\nranks_per_host: 2\n"
    "links: {inside: {any: {message: 1e-6, bytes: 4e9}}, between: {any: {bytes: 1e9}}}\n" KERNELS;

struct place {
    struct tri_mesh *mesh;
    struct tri_group *all;
    char path[PATH]; /* of the cluster: there is a file only on rank 0 */
};

static void write_cluster(const struct place *place, const char *text)
{
    if (place->mesh->rank == 0) {
        FILE *file = fopen(place->path, "w");
        CHECK(file && fputs(text, file) >= 0 && fclose(file) == 0);
    }
}

static void configure(const struct place *place, const char *words, struct tri_config *config)
{
    char all[WORDS_BYTES];
    (void)snprintf(all, sizeof(all), "%s plan.cluster=%s%s", words, place->path,
                   place->mesh->rank == 0 ? "" : ".none");
    small_config(SMALL_LLAMA, all, config);
}

static enum tri_status choose(const struct place *place, const char *words, int ranks,
                              struct tri_config *config, char text[TRI_AUTO_TEXT],
                              struct tri_error *error)
{
    configure(place, words, config);
    enum tri_status status = tri_auto_choose(place->all, ranks, config, text, error);
    CHECK((status == TRI_OK) == (config->autos == 0));
    return status;
}

static void choose_well(const struct place *place, const char *words, int ranks,
                        struct tri_config *config)
{
    char text[TRI_AUTO_TEXT];
    struct tri_error error;
    if (choose(place, words, ranks, config, text, &error) != TRI_OK) {
        tri_panic(TRI_FAILED, "%s: %s", words, error.message);
    }
    CHECK((text[0] != '\0') == (place->mesh->rank == 0));
    config->plan.cluster[0] = '\0';
    CHECK(tri_alike_config(place->all, config, &error) == TRI_OK);
}

static void refuse(const struct place *place, const char *words, int ranks, const char *says)
{
    char text[TRI_AUTO_TEXT];
    struct tri_config config;
    struct tri_error error = {0};
    CHECK(choose(place, words, ranks, &config, text, &error) == TRI_BAD_INPUT);
    if (!strstr(error.message, says)) {
        tri_panic(TRI_FAILED, "'%s' says no '%s'", error.message, says);
    }
}

static struct tri_layout layout_of(const struct tri_config *config, int ranks)
{
    const struct tri_config_parallel *p = &config->parallel;
    return (struct tri_layout){
        (int)p->tensor,        (int)p->expert,           ranks / (int)(p->tensor * p->expert),
        (int)p->expert_tensor, (int)tri_config_depth(p), (int)tri_config_cross(p)};
}

/* ---- the choice is the best ------------------------------------------------------------------ */

/* Of all that `trident plan --layouts` lists with the config's own recompute and micro-batch. */
static void check_best(const struct place *place, const char *words, int ranks)
{
    static const struct tri_search all = {
        TRI_AUTO_LAYOUT | TRI_AUTO_SCHEDULE | TRI_AUTO_CHUNKS | TRI_AUTO_CHUNKS_BACKWARD, true};
    struct tri_config before, config;
    struct tri_cluster cluster;
    struct tri_error error;
    int count, compared = 0;
    choose_well(place, words, ranks, &config);
    if (place->mesh->rank > 0) {
        return;
    }
    configure(place, words, &before);
    CHECK(tri_cluster_read(place->path, &cluster, &error) == TRI_OK);
    struct tri_way_plan *ways =
        tri_plan_ways(&before, ranks, &all, tri_rehearse_timed, &cluster, &count);
    struct tri_layout_plan chosen =
        tri_layout_plan_timed(&config, layout_of(&config, ranks), tri_rehearse_timed, &cluster);
    CHECK(!chosen.refused && chosen.time.step > 0.0);
    for (int i = 0; i < count; i++) {
        if (!ways[i].plan.refused && ways[i].fits && ways[i].recompute == config.train.recompute &&
            ways[i].micro_batch == config.train.micro_batch) {
            compared++;
            CHECK(chosen.time.step < TRI_TELLS_APART * ways[i].plan.time.step + 1e-11);
        }
    }
    CHECK(compared > 0);
    tri_free(ways);
}

static void test_best(const struct place *place)
{
    static const int ranks[] = {1, 3, 4, 5};
    write_cluster(place, usual);
    for (size_t i = 0; i < sizeof(ranks) / sizeof(*ranks); i++) {
        check_best(place, "parallel=auto moe.schedule=auto moe.chunks=auto", ranks[i]);
    }
    check_best(place, "parallel=auto moe.schedule=auto moe.chunks=auto moe.num_experts=6", 4);
}

/* ---- what decides ---------------------------------------------------------------------------- */

/* Where all-to-alls take no time experts are cut between ranks, where nothing else does they are
 * not. */
static void test_layout_flips(const struct place *place)
{
    struct tri_config config;
    write_cluster(place, "ranks_per_host: 1\nlinks: {inside: {any: {bytes: 1e6}}, between: {any: "
                         "{bytes: 1e6}, all_to_all: {}}}\n" KERNELS);
    choose_well(place, "parallel=auto", 4, &config);
    CHECK(config.parallel.expert == 4);
    write_cluster(place, "ranks_per_host: 1\nlinks: {inside: {any: {bytes: 1e6}}, between: {any: "
                         "{}, all_to_all: {bytes: 1e3}}}\n" KERNELS);
    choose_well(place, "parallel=auto", 4, &config);
    CHECK(config.parallel.expert == 1);
}

/* Schedule s1 sends a token to each holder of its expert, ted once, and gathers. */
static void test_schedule_flips(const struct place *place)
{
    static const char words[] =
        "moe.schedule=auto moe.chunks=auto parallel.tensor=2 parallel.expert=2";
    struct tri_config config;
    write_cluster(place, "ranks_per_host: 1\nlinks: {inside: {any: {bytes: 1e6}}, between: {any: "
                         "{bytes: 1e6}, all_to_all: {}}}\n" KERNELS);
    choose_well(place, words, 4, &config);
    CHECK(config.moe.schedule->adds_at_owner);
    write_cluster(place, "ranks_per_host: 1\nlinks: {inside: {any: {bytes: 1e6}}, between: {any: "
                         "{}, all_to_all: {bytes: 1e3}}}\n" KERNELS);
    choose_well(place, words, 4, &config);
    CHECK(!config.moe.schedule->adds_at_owner);
    CHECK(config.parallel.tensor == 2 && config.parallel.expert == 2);
}

/* Messages that take long want one chunk, links that compute hides several. */
static void test_chunks_flip(const struct place *place)
{
    static const char words[] =
        "moe.schedule=overlapped moe.chunks=auto parallel.tensor=2 parallel.expert=2";
    struct tri_config config;
    write_cluster(place, "ranks_per_host: 2\nlinks: {inside: {hidden: 1, any: {bytes: 1e6}}, "
                         "between: {hidden: 1, any: {message: 1}}}\n" KERNELS);
    choose_well(place, words, 4, &config);
    CHECK(config.moe.chunks == 1 && config.moe.chunks_backward == 1);
    write_cluster(place, "ranks_per_host: 2\nlinks: {inside: {hidden: 1, any: {bytes: 1e6}}, "
                         "between: {hidden: 1, any: {bytes: 2e6}}}\n" KERNELS);
    choose_well(place, words, 4, &config);
    CHECK(config.moe.chunks > 1);
}

/* What does not fit is not chosen, and when nothing does that is said. */
static void test_memory(const struct place *place)
{
    char text[WORDS_BYTES];
    struct tri_config config;
    int64_t bytes = 0;
    struct tri_memory_plan memory;
    struct tri_error error;
    write_cluster(place, usual);
    choose_well(place, "parallel=auto", 4, &config);
    for (int limit = 0; limit < 2; limit++) {
        struct tri_layout layout = layout_of(&config, 4);
        CHECK(tri_rehearse_layout(&config, layout, 3, TRI_LOAD_BALANCED, NULL, &memory, &error) ==
              TRI_OK);
        CHECK(limit == 0 || memory.total < bytes);
        bytes = memory.total;
        (void)snprintf(text, sizeof(text), "memory_per_rank: %lld\n%s", (long long)bytes - 1,
                       usual);
        write_cluster(place, text);
        choose_well(place, "parallel=auto", 4, &config);
    }
    (void)snprintf(text, sizeof(text), "memory_per_rank: 1000\n%s", usual);
    write_cluster(place, text);
    refuse(place, "parallel=auto", 4, "memory_per_rank of cluster usual");
}

/* What the choice stands against is said as it is. Of ways that are as fast the config's own, which
 * is tried first, is taken. On one host there is nothing to be had by going
 * from host to host. */
static void test_rest(const struct place *place)
{
    struct tri_config config;
    struct tri_error error = {0};
    char text[TRI_AUTO_TEXT];
    write_cluster(place, usual);
    CHECK(choose(place, "parallel=auto", 1, &config, text, &error) == TRI_OK);
    CHECK(place->mesh->rank > 0 || strstr(text, "; there is no other way"));
    CHECK(choose(place, "parallel=auto model.num_heads=1 model.num_kv_heads=1", 2, &config, text,
                 &error) == TRI_OK);
    CHECK(choose(place, "moe.schedule=auto moe.chunks=auto", 1, &config, text, &error) == TRI_OK);
    CHECK(place->mesh->rank > 0 || !strstr(text, "hierarchical"));
    for (int ranks = 2; ranks <= 4; ranks += 2) {
        static const struct tri_search open = {.autos = TRI_AUTO_SCHEDULE};
        struct tri_cluster cluster;
        struct tri_way_plan *ways;
        int count, found = 0;
        configure(place, "parallel.expert=2 moe.schedule=ted", &config);
        config.parallel.expert = ranks;
        memset(&cluster, 0, sizeof(cluster));
        cluster.ranks_per_host = 2;
        ways = tri_plan_ways(&config, ranks, &open, tri_rehearse_timed, &cluster, &count);
        for (int i = 0; i < count; i++) {
            found += ways[i].schedule->by_host;
            bool apart = ways[i].plan.time.step > TRI_TELLS_APART * ways[0].plan.time.step;
            CHECK(apart || ways[0].order <= ways[i].order);
        }
        CHECK(found == (ranks > 2));
        tri_free(ways);
    }
}

/* ---- what is refused ------------------------------------------------------------------------- */

static void test_refused(const struct place *place)
{
    struct tri_config config;
    struct tri_error error = {0};
    char text[TRI_AUTO_TEXT];
    write_cluster(place, "name: lonely\nranks_per_host: 4\nlinks: {inside: {any: {}}}\n" KERNELS);
    refuse(place, "moe.schedule=auto", 8, "no section links.between");
    refuse(place, "moe.schedule=auto precision=bf16", 4, "no section kernels.bf16");
    refuse(place, "parallel=auto reproducible=true", 4, "no section kernels.reproducible_f32");
    refuse(place, "moe.schedule=auto parallel.tensor=2", 3, "the number of ranks (3)");
    small_config(SMALL_LLAMA, "moe.chunks=auto", &config);
    CHECK(tri_auto_choose(place->all, 4, &config, text, &error) == TRI_BAD_INPUT);
    CHECK(strstr(error.message, "key 'moe.chunks': found auto") &&
          strstr(error.message, "trident calibrate"));
    if (job_size() > 1) { /* each reads its own config */
        const char *words = place->mesh->rank == 1 ? "moe.schedule=ted" : "moe.schedule=auto";
        configure(place, words, &config);
        CHECK(tri_auto_choose(place->all, 4, &config, text, &error) == TRI_BAD_INPUT);
        CHECK(strstr(error.message, "rank 1 leaves other keys to the planner"));
    }
}

/* ---- a run that goes on ---------------------------------------------------------------------- */

static void test_kept(void)
{
    struct tri_config run, config;
    struct tri_error error = {0};
    char text[TRI_AUTO_TEXT];
    small_config(SMALL_LLAMA,
                 "moe.schedule=overlapped moe.chunks=3 moe.chunks_backward=5 "
                 "parallel.tensor=2 parallel.expert=2",
                 &run);
    small_config(SMALL_LLAMA, "parallel=auto moe.schedule=auto moe.chunks=auto", &config);
    CHECK(tri_auto_keep(&run, 6, &config, text, &error) == TRI_BAD_INPUT && config.autos != 0);
    CHECK(strstr(error.message, "the number of ranks (6)"));
    CHECK(tri_auto_keep(&run, 8, &config, text, &error) == TRI_OK && config.autos == 0);
    CHECK(strstr(text, "tensor 2 x expert 2 x data 2, expert_tensor 2, schedule overlapped, 3 "
                       "chunks, 5 backward"));
    CHECK(config.parallel.tensor == 2 && config.parallel.expert == 2);
    CHECK(config.moe.schedule == run.moe.schedule && config.moe.chunks == 3 &&
          config.moe.chunks_backward == 5);
    /* It is written as if it had been given, and so read again. */
    char *yaml = tri_config_to_yaml(&config);
    struct tri_config again;
    CHECK(tri_config_parse(&tri_strategies, "again", yaml, strlen(yaml), 0, NULL, &again, &error) ==
          TRI_OK);
    CHECK(again.autos == 0 && again.parallel.tensor == 2 && again.moe.chunks_backward == 5);
    tri_free(yaml);
    small_config(SMALL_LLAMA, "moe.chunks=auto moe.schedule=overlapped", &config);
    CHECK(tri_auto_keep(&run, 5, &config, text, &error) == TRI_OK && config.parallel.tensor == 1);
    CHECK(config.moe.chunks == 3 && strcmp(text, "as the run has it: 3 chunks, 5 backward") == 0);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    struct place place;
    struct tri_error error;
    CHECK(tri_mesh_create(job(), 1, 1, 1, 1, &place.mesh, &error) == TRI_OK);
    place.all = tri_mesh_group(place.mesh, TRI_ON_ALL);
    (void)snprintf(place.path, PATH, TEST_TMP "/auto.%s.%d.%d", job_transport(), job_size(),
                   (int)getpid());
    test_best(&place);
    test_layout_flips(&place);
    test_schedule_flips(&place);
    test_chunks_flip(&place);
    test_memory(&place);
    test_rest(&place);
    test_refused(&place);
    test_kept();
    if (place.mesh->rank == 0) {
        (void)unlink(place.path);
    }
    tri_mesh_destroy(place.mesh);
    return 0;
}

int main(int argc, char **argv)
{
    small_strategies = &tri_strategies;
    return job_run(argc, argv, run_job);
}
