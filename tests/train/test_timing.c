/* Planned time against closed forms: on a machine that takes a second for an operation or a byte of
 * one kind, and no time for all else, a step takes as many seconds as it has of them. */
#include "support/small.h"

#include "base/memory.h"
#include "shard/rows.h"
#include "train/evaluate.h"
#include "train/rehearsal.h"

#include <math.h>
#include <string.h>

static const struct tri_layout layout = {2, 2, 2, 2, 1, 1};

static void expect_close(double found, double expected, const char *what)
{
    if (!(fabs(found - expected) <= 1e-9 * (1.0 + fabs(expected)))) {
        tri_panic(TRI_FAILED, "%s: found %.17g, expected %.17g", what, found, expected);
    }
}

static struct tri_step_time rehearse(const struct tri_config *config, struct tri_layout where,
                                     const struct tri_cluster *cluster, struct tri_ledger *ledger)
{
    struct tri_layout_plan plan;
    struct tri_error error;
    int last = where.tensor * where.expert * where.data - 1;
    CHECK(tri_rehearse_timed(config, where, last, cluster, ledger, &plan, &error) == TRI_OK);
    double sum = 0.0;
    for (int part = 0; part < TRI_PART_COUNT; part++) {
        CHECK(plan.time.part[part] >= -1e-9 * plan.time.step);
        sum += plan.time.part[part];
    }
    expect_close(sum, plan.time.step, "parts");
    return plan.time;
}

/* Multiplications and additions of all products: three a matrix, forward and two ways back. */
static double products_of(const struct tri_config *config)
{
    const struct tri_config_model *m = &config->model;
    const struct tri_config_moe *moe = &config->moe;
    double hidden = (double)m->hidden_size;
    double heads = (double)((2 * m->num_heads + 2 * m->num_kv_heads) * m->head_dim);
    double matrices = (double)m->vocab_size * hidden;
    for (int64_t layer = 0; layer < m->num_layers; layer++) {
        bool routed = tri_config_layer_is_moe(config, layer);
        double inner =
            (double)(routed ? moe->top_k * moe->intermediate_size : m->intermediate_size);
        matrices += hidden * heads + 2.0 * hidden * inner;
        matrices += routed ? hidden * (double)moe->num_experts : 0.0;
    }
    return 6.0 * matrices * (double)(config->train.global_batch * config->data.sequence_length);
}

static void test_products(const char *words)
{
    struct tri_config config;
    struct tri_cluster cluster = {.ranks_per_host = 1};
    small_config(SMALL_GPT, words, &config);
    for (int task = TRI_TASK_PRODUCT_FORWARD; task <= TRI_TASK_PRODUCT_WEIGHT; task++) {
        cluster.rate[TRI_CLUSTER_F32][task].flops = 1.0;
    }
    struct tri_step_time time =
        rehearse(&config, (struct tri_layout){1, 1, 1, 1, 1, 1}, &cluster, NULL);
    expect_close(time.step, products_of(&config), words);
    double head = 6.0 * (double)(config.model.vocab_size * config.model.hidden_size *
                                 config.train.global_batch * config.data.sequence_length);
    expect_close(time.part[TRI_PART_HEAD], head, "head");
    CHECK(time.part[TRI_PART_EXPERTS] > 0.0 && time.part[TRI_PART_ROUTER] > 0.0);
    CHECK(time.part[TRI_PART_EXCHANGE] == 0.0 && time.exposed == 0.0);
}

/* What a rank sends of the ledger's bytes to each group, where all ranks share a host. */
static double volume(const struct tri_ledger *ledger, enum tri_op op)
{
    const int size[] = {2, 1, 1, 2, 2, 4, 2, 4, 8}; /* of the groups, in their order */
    double sum = 0.0;
    for (int group = 0; group < TRI_GROUP_COUNT; group++) {
        double bytes = (double)tri_ledger_sum(ledger, (int)op, group, -1, -1).bytes;
        double others = (double)(size[group] - 1);
        sum += op == TRI_OP_ALL_GATHER       ? others * bytes
               : op == TRI_OP_REDUCE_SCATTER ? others / (double)size[group] * bytes
                                             : bytes;
    }
    return sum;
}

static void test_links(const char *words)
{
    static const enum tri_op ops[] = {TRI_OP_ALL_GATHER, TRI_OP_REDUCE_SCATTER, TRI_OP_ALL_TO_ALL};
    struct tri_config config;
    struct tri_ledger *ledger = tri_alloc(TRI_MEMORY_OTHER, sizeof(*ledger));
    small_config(SMALL_LLAMA, words, &config);
    small_config_lay_out(&config, (struct small_layout){2, 2, 2, 1, 1});
    for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++) {
        struct tri_cluster cluster = {.ranks_per_host = 8};
        cluster.link[TRI_LINK_INSIDE][ops[i]].bytes = 1.0;
        struct tri_step_time time = rehearse(&config, layout, &cluster, ledger);
        expect_close(time.step, volume(ledger, ops[i]), tri_op_name(ops[i]));
        expect_close(time.exposed, time.step, "exposed");
        /* What nothing computes beside cannot be hidden; and no more is hidden than is begun. */
        cluster.hidden[TRI_LINK_INSIDE] = 1.0;
        for (int task = 0; task < TRI_TASK_COUNT; task++) {
            cluster.rate[TRI_CLUSTER_F32][task].flops = 1.0;
        }
        struct tri_step_time busy = rehearse(&config, layout, &cluster, ledger);
        cluster.hidden[TRI_LINK_INSIDE] = 0.0;
        struct tri_step_time blocked = rehearse(&config, layout, &cluster, ledger);
        expect_close(blocked.step - blocked.exposed, busy.step - busy.exposed, "computing");
        CHECK(busy.step <= blocked.step);
        CHECK(ops[i] != TRI_OP_REDUCE_SCATTER || !config.comm_overlap || busy.step < blocked.step);
    }
    tri_free(ledger);
}

/* A message of an all-to-all to another host takes a second: as many as the ledger has. By way of
 * relays it has fewer. */
static void test_messages(void)
{
    static const char *const schedules[] = {"moe.schedule=ted", "moe.schedule=hierarchical"};
    struct tri_ledger *ledger = tri_alloc(TRI_MEMORY_OTHER, sizeof(*ledger));
    struct tri_cluster cluster = {.ranks_per_host = 2};
    double steps[2];
    cluster.link[TRI_LINK_BETWEEN][TRI_OP_ALL_TO_ALL].message = 1.0;
    for (int i = 0; i < 2; i++) {
        struct tri_config config;
        small_config(SMALL_LLAMA, schedules[i], &config);
        config.train.micro_batch = config.train.global_batch;
        struct tri_step_time time =
            rehearse(&config, (struct tri_layout){1, 8, 1, 1, 1, 1}, &cluster, ledger);
        struct tri_ledger_cell all = tri_ledger_sum(ledger, -1, -1, -1, -1);
        expect_close(time.step, (double)all.messages_between, schedules[i]);
        CHECK(all.bytes_between > 0);
        steps[i] = time.step;
    }
    CHECK(steps[1] < steps[0]);
    tri_free(ledger);
}

/* On two hosts, whose link is slow: the tensor ranks and the expert ranks are neighbours, replicas
 * are not, and only their sums take time. */
static void test_hosts(void)
{
    struct tri_config config;
    struct tri_cluster cluster = {.ranks_per_host = 4};
    small_config(SMALL_LLAMA, "", &config);
    for (int op = 0; op < TRI_OP_COUNT; op++) {
        cluster.link[TRI_LINK_BETWEEN][op].bytes = 1.0;
    }
    struct tri_step_time apart = rehearse(&config, layout, &cluster, NULL);
    CHECK(apart.step > 0.0 && apart.part[TRI_PART_ATTENTION] == 0.0);
    CHECK(apart.part[TRI_PART_EXCHANGE] == 0.0);
    cluster.ranks_per_host = 2;
    struct tri_step_time split = rehearse(&config, layout, &cluster, NULL);
    CHECK(split.part[TRI_PART_EXCHANGE] > 0.0 && split.part[TRI_PART_ATTENTION] == 0.0);
}

/* A link between hosts whose first bytes go faster: calls that follow at once find that used up,
 * those behind long computing do not. */
static void test_first_bytes(void)
{
    struct tri_ledger *ledger = tri_alloc(TRI_MEMORY_OTHER, sizeof(*ledger));
    struct tri_cluster cluster = {.ranks_per_host = 1};
    struct tri_config config;
    small_config(SMALL_LLAMA, "", &config);
    cluster.link[TRI_LINK_BETWEEN][TRI_OP_ALL_TO_ALL] =
        (struct tri_link_rate){.bytes = 4.0, .from = 64.0, .large = 1.0};
    const struct tri_layout where = {1, 2, 1, 1, 1, 1};
    struct tri_step_time at_once = rehearse(&config, where, &cluster, ledger);
    double bytes = (double)tri_ledger_sum(ledger, -1, -1, -1, -1).bytes_between;
    expect_close(at_once.step, bytes, "at once");
    for (int task = 0; task < TRI_TASK_COUNT; task++) {
        cluster.rate[TRI_CLUSTER_F32][task].bytes = 1e-3;
    }
    struct tri_step_time apart = rehearse(&config, where, &cluster, ledger);
    int64_t calls = tri_ledger_sum(ledger, TRI_OP_ALL_TO_ALL, -1, -1, -1).calls;
    CHECK(apart.exposed < bytes - 64.0 && apart.exposed > bytes / 4.0);
    CHECK(apart.exposed >= bytes - (double)calls * 48.0 - 1e-6);
    tri_free(ledger);
}

/* Where hosts cut the ranks that share experts unevenly: a layout's plan is that of whoever takes
 * most, of time, and to a percent of memory. */
static void test_uneven(void)
{
    static const struct tri_layout layouts[] = {{1, 7, 1, 1, 1, 1}, {2, 5, 2, 1, 1, 1}};
    for (size_t i = 0; i < sizeof(layouts) / sizeof(*layouts); i++) {
        const struct tri_layout *where = &layouts[i];
        struct tri_cluster cluster = {.ranks_per_host = 4};
        struct tri_config config;
        struct tri_error error;
        int64_t most = 0;
        double slowest = 0.0;
        small_config(SMALL_LLAMA,
                     i == 0 ? "moe.schedule=hierarchical moe.num_experts=7 moe.top_k=3"
                            : "moe.schedule=hierarchical moe.num_experts=10 moe.top_k=4",
                     &config);
        cluster.link[TRI_LINK_BETWEEN][TRI_OP_ALL_TO_ALL].bytes = 1.0;
        cluster.link[TRI_LINK_INSIDE][TRI_OP_ALL_TO_ALL].bytes = 10.0;
        for (int rank = 0; rank < where->tensor * where->expert * where->data; rank++) {
            struct tri_layout_plan plan;
            CHECK(tri_rehearse_timed(&config, *where, rank, &cluster, NULL, &plan, &error) ==
                  TRI_OK);
            most = plan.memory.total > most ? plan.memory.total : most;
            slowest = plan.time.step > slowest ? plan.time.step : slowest;
        }
        struct tri_layout_plan plan =
            tri_layout_plan_timed(&config, *where, tri_rehearse_timed, &cluster);
        CHECK(!plan.refused);
        CHECK((double)plan.memory.total >= 0.99 * (double)most);
        expect_close(plan.time.step, slowest, "time");
    }
}

#define LARGE_SUMS "data.sequence_length=64 moe.every=2 train.global_batch=4 train.micro_batch=2"

/* A step on two tensor ranks whose link carries a byte in a second and whose products are slow. */
static void rehearse_slow(const char *words, struct tri_layout where, struct tri_config *config,
                          struct tri_ledger *ledger)
{
    struct tri_cluster cluster = {.ranks_per_host = 2};
    small_config(SMALL_LLAMA, words, config);
    config->parallel = tri_layout_parallel(where);
    cluster.hidden[TRI_LINK_INSIDE] = 1.0;
    for (int op = 0; op < TRI_OP_COUNT; op++) {
        cluster.link[TRI_LINK_INSIDE][op].bytes = 1.0;
    }
    for (int task = 0; task < TRI_TASK_COUNT; task++) {
        cluster.rate[TRI_CLUSTER_F32][task].flops = 1e-6;
        cluster.rate[TRI_CLUSTER_F32][task].bytes = 1e-6;
    }
    (void)rehearse(config, where, &cluster, ledger);
}

static double exposed_of(const struct tri_ledger *ledger, enum tri_op op, int axes,
                         enum tri_kind kind)
{
    int phase = op == TRI_OP_ALL_REDUCE ? TRI_PHASE_BACKWARD : -1;
    return tri_ledger_sum(ledger, (int)op, tri_group_id(axes), phase, (int)kind).seconds_exposed;
}

/* AxoNN's overlaps. Of what depth gathers a pass waits for the first alone, the table of the
 * embeddings; what it scatters all runs beside other work, the last beside the sums of those before
 * it. Of the sums in the backward nothing hides the second half, the gather. */
static void test_overlaps(void)
{
    static const struct {
        struct tri_layout layout;
        int axes;
    } sums[] = {{{2, 1, 1, 2, 1, 1}, TRI_ON_TENSOR}, {{2, 1, 1, 2, 1, 2}, TRI_ON_CROSS}};
    static const char *const words[] = {LARGE_SUMS, LARGE_SUMS " comm.overlap=false"};
    static const enum tri_kind kinds[] = {TRI_KIND_ATTENTION, TRI_KIND_MLP, TRI_KIND_SHARED_EXPERT};
    struct tri_config config;
    struct tri_ledger *ledger[2];
    for (int i = 0; i < 2; i++) {
        ledger[i] = tri_alloc(TRI_MEMORY_OTHER, sizeof(*ledger[i]));
        rehearse_slow(words[i], (struct tri_layout){2, 1, 1, 2, 2, 1}, &config, ledger[i]);
    }
    const struct tri_config_train *train = &config.train;
    int64_t passes = tri_rows_micro_steps(train->global_batch, 1, train->micro_batch);
    double row = (double)(config.model.hidden_size * 4 * passes);
    double table = (double)config.model.vocab_size * row;
    double own = (double)((config.model.vocab_size + 1) / 2) * row; /* of the last rank */
    expect_close(exposed_of(ledger[0], TRI_OP_ALL_GATHER, TRI_ON_DEPTH, TRI_KIND_WEIGHTS), own,
                 "gathers");
    expect_close(exposed_of(ledger[0], TRI_OP_REDUCE_SCATTER, TRI_ON_DEPTH, TRI_KIND_GRADIENT), 0.0,
                 "scatters");
    CHECK(exposed_of(ledger[1], TRI_OP_ALL_GATHER, TRI_ON_DEPTH, TRI_KIND_WEIGHTS) > 3 * table);
    CHECK(exposed_of(ledger[1], TRI_OP_REDUCE_SCATTER, TRI_ON_DEPTH, TRI_KIND_GRADIENT) > table);
    for (int s = 0; s < 2; s++) {
        for (int i = 0; i < 2; i++) {
            rehearse_slow(words[i], sums[s].layout, &config, ledger[i]);
        }
        for (size_t k = 0; k < sizeof(kinds) / sizeof(*kinds); k++) {
            double whole = exposed_of(ledger[1], TRI_OP_ALL_REDUCE, sums[s].axes, kinds[k]);
            CHECK(whole > 0.0);
            expect_close(exposed_of(ledger[0], TRI_OP_ALL_REDUCE, sums[s].axes, kinds[k]),
                         whole / 2, tri_kind_name(kinds[k]));
        }
    }
    tri_free(ledger[0]);
    tri_free(ledger[1]);
}

/* ---- what calibrate rests on ----------------------------------------------------------------- */

struct heard {
    double bytes[TRI_TASK_COUNT], busy;
};

static void hear(void *state, const struct tri_kernel_note *note)
{
    struct heard *heard = state;
    heard->bytes[note->work] += note->bytes;
    heard->busy += note->busy;
}

static void ignore_head(void *state, bool begins)
{
    (void)state;
    (void)begins;
}

/* A run's own calls, timed, are those that a plan books: of each kind as many bytes. */
static void test_timed(const char *words)
{
    struct tri_config config;
    struct heard heard;
    const struct tri_kernel_listener listener = {hear, ignore_head, &heard};
    small_config(SMALL_LLAMA, words, &config);
    struct tri_mesh *mesh = tri_mesh_create_serial();
    struct tri_kernels *kernels = tri_kernels_create(
        config.reproducible ? TRI_KERNELS_REPRODUCIBLE : TRI_KERNELS_FAST, NULL, 1);
    int first = config.reproducible ? TRI_CLUSTER_REPRODUCIBLE : 0;
    struct tri_kernels *timed = tri_kernels_create_timed(kernels, &listener);
    struct tri_engine *engine = tri_engine_create(&config, mesh, timed, true);
    const struct tri_rows_source source = tri_source_random(&config);
    for (int64_t step = 0; step < 2; step++) {
        struct tri_step_report report;
        struct tri_error error;
        heard = (struct heard){.busy = 0.0};
        CHECK(tri_engine_gradients(engine, &source, step, NULL, &report, &error) == TRI_OK);
        tri_engine_update(engine, step + 1, 0.0, &report);
    }
    for (int task = 0; task < TRI_TASK_COUNT; task++) {
        struct tri_cluster cluster = {.ranks_per_host = 1};
        cluster.rate[first][task].bytes = 1.0;
        struct tri_step_time time =
            rehearse(&config, (struct tri_layout){1, 1, 1, 1, 1, 1}, &cluster, NULL);
        expect_close(heard.bytes[task], time.step, tri_task_name((enum tri_task)task));
    }
    CHECK(heard.busy > 0.0);
    tri_engine_destroy(engine);
    tri_kernels_destroy(timed);
    tri_kernels_destroy(kernels);
    tri_mesh_destroy(mesh);
}

static int run_job(int argc, char **argv)
{
    (void)argc;
    (void)argv;
    test_products("");
    test_products("train.global_batch=59 train.micro_batch=1");
    test_links("");
    test_links("train.recompute=full comm.overlap=false");
    test_messages();
    test_hosts();
    test_uneven();
    test_first_bytes();
    test_overlaps();
    test_timed("moe.router=balanced");
    test_timed("moe.router=balanced train.recompute=full train.micro_batch=1");
    test_timed("moe.router=balanced reproducible=true");
    return 0;
}

int main(int argc, char **argv)
{
    return job_run(argc, argv, run_job);
}
