/* parm [CLUSTER.yaml]: Parm's experiment on paper. The time of one MoE layer, forward and backward,
 * of Parm's s1 and s2, of `ted` with and without dropping, and of what they are to better, as the
 * planner predicts it, over a grid of 1296 settings on 8 and 32 ranks: who is the fastest in how
 * many, and how much the better of s1 and s2 gains.
 *
 * Theirs is DeepSpeed-MoE, which treats what tensor ranks hold alike as tokens of each: where
 * tensor ranks share experts (N_ESP) the group gathers N_MP times the same rows, sends, computes
 * and sums them; with whole experts each rank sends and computes all its rows. Trident never does,
 * so that baseline is planned as `ted` without dropping for N_MP times the rows, or on ranks that
 * share nothing; the gather before it is left out.
 *
 * Parm (arXiv 2407.00599) has 1296 settings on an 8-GPU server and a 32-GPU cluster; which ones was
 * not to be had. These are ours, of its letters:
 *
 *   P      8, 32              ranks
 *   N_MP   2, 4               tensor ranks; the others are N_EP
 *   N_ESP  1, N_MP            ranks that share an expert
 *   E      P, 2 P             experts
 *   B      2, 4, 8            rows of a replica
 *   L      512, 1024, 2048    tokens of a row
 *   M      1024, 2048, 4096   hidden size; an expert's inner one, H, is 4 M
 *   k      1, 2, 4            experts a token
 *
 * No expert has a capacity (its f), and routing is even. In bf16, which has fp16's sizes. The layer
 * is what a step books as router, exchange and experts. */
#include "base/log.h"
#include "base/memory.h"
#include "moe/strategies.h"
#include "train/rehearsal.h"

#include <stdio.h>
#include <string.h>

enum { FACTORS = 8, VALUES_MOST = 3, SETTINGS = 1296 };

/* Tokens of all tensor ranks; their own, sent by each of them; sent once; Parm's. */
enum way { COPIES, KEPT, TED, S1, S2, WAYS };

/* Ranks first, so that what is next to each other is told together. */
enum factor { P, N_MP, N_ESP, E, B, L, M, K };

static const struct {
    const char *name;
    int count, values[VALUES_MOST];
} factors[FACTORS] = {
    [P] = {"P", 2, {8, 32}},           [N_MP] = {"N_MP", 2, {2, 4}},
    [N_ESP] = {"N_ESP", 2, {0, 1}}, /* 0: N_MP */
    [E] = {"E / P", 2, {1, 2}},        [B] = {"B", 3, {2, 4, 8}},
    [L] = {"L", 3, {512, 1024, 2048}}, [M] = {"M", 3, {1024, 2048, 4096}},
    [K] = {"k", 3, {1, 2, 4}},
};

struct setting {
    int place[FACTORS]; /* of the value of each factor */
    double seconds[WAYS];
};

static int value_of(const struct setting *setting, enum factor factor)
{
    return factors[factor].values[setting->place[factor]];
}

/* ---- one setting ----------------------------------------------------------------------------- */

static void configure(const struct setting *setting, int replicas, int64_t rows,
                      struct tri_config *config)
{
    tri_config_init(&tri_strategies, config);
    config->precision = TRI_PRECISION_BF16;
    config->model.num_layers = 1;
    config->model.hidden_size = value_of(setting, M);
    config->model.num_heads = config->model.hidden_size / 64;
    config->model.intermediate_size = 4 * config->model.hidden_size;
    config->model.mlp = TRI_MLP_GELU;
    config->moe.num_experts = value_of(setting, E) * value_of(setting, P);
    config->moe.top_k = value_of(setting, K);
    config->data.sequence_length = value_of(setting, L);
    config->train.micro_batch = rows;
    config->train.global_batch = rows * replicas;
}

static const struct tri_schedule_kind *schedule_of(const char *name)
{
    const struct tri_strategy *const *list = tri_strategies.schedules;
    while (strcmp((*list)->name, name) != 0) {
        list++;
    }
    return (const struct tri_schedule_kind *)*list;
}

static double layer_of(const struct tri_step_time *time)
{
    return time->part[TRI_PART_ROUTER] + time->part[TRI_PART_EXCHANGE] +
           time->part[TRI_PART_EXPERTS];
}

static double plan(const struct tri_cluster *cluster, const struct setting *setting, enum way way)
{
    bool whole = value_of(setting, N_ESP) != 0;
    int tensor = way == COPIES && whole ? 1 : value_of(setting, N_MP);
    int replicas = value_of(setting, P) / tensor;
    int rows = value_of(setting, B) * (way == COPIES ? tensor : 1);
    struct tri_layout layout = {tensor, replicas, 1, whole ? 1 : tensor, 1, 1};
    struct tri_config *config = tri_alloc(TRI_MEMORY_OTHER, sizeof(*config));
    struct tri_error error;
    configure(setting, replicas, rows, config);
    config->moe.schedule = schedule_of(way == S1 ? "s1" : way == S2 ? "s2" : "ted");
    config->train.duplicate_token_dropping = way >= TED;
    enum tri_status status = tri_config_finish(config, &error);
    if (status != TRI_OK) {
        tri_panic(status, "%s", error.message);
    }
    struct tri_layout_plan found =
        tri_layout_plan_timed(config, layout, tri_rehearse_timed, cluster);
    if (found.refused) {
        tri_panic(TRI_FAILED, "%s", found.reason);
    }
    tri_free(config);
    return layer_of(&found.time);
}

/* ---- the table ------------------------------------------------------------------------------- */

enum { RIVALS = TED + 1 }; /* of s1 and s2: the ways before them */

struct tally {
    int count, parm[WAYS], all[WAYS]; /* who wins: among s1, s2 and the baseline; among all */
    double gain[RIVALS], least[RIVALS], most[RIVALS]; /* of the better of s1 and s2 */
};

static void add(struct tally *tally, const struct setting *setting)
{
    const double *t = setting->seconds;
    int better = t[S1] <= t[S2] ? S1 : S2;
    int first = t[TED] <= t[KEPT] ? TED : KEPT;
    int best = t[COPIES] < t[better] ? COPIES : better;
    tally->parm[best]++;
    tally->all[t[first] < t[best] ? first : best]++;
    for (int i = 0; i < RIVALS; i++) {
        double gain = t[i] / t[better];
        tally->gain[i] += gain;
        tally->least[i] = tally->count == 0 || gain < tally->least[i] ? gain : tally->least[i];
        tally->most[i] = gain > tally->most[i] ? gain : tally->most[i];
    }
    tally->count++;
}

static double percent(const struct tally *tally, int count)
{
    return 100.0 * (double)count / (double)tally->count;
}

static void print(const char *what, const struct tally *tally)
{
    (void)printf("| %s | %d | %.0f / %.0f / %.0f | %.0f / %.0f / %.0f |", what, tally->count,
                 percent(tally, tally->parm[S1]), percent(tally, tally->parm[S2]),
                 percent(tally, tally->parm[COPIES]), percent(tally, tally->all[S1]),
                 percent(tally, tally->all[S2]),
                 percent(tally, tally->all[TED] + tally->all[KEPT]));
    for (int i = 0; i < RIVALS; i++) {
        (void)printf(" %.2f (%.2f to %.2f) |", tally->gain[i] / (double)tally->count,
                     tally->least[i], tally->most[i]);
    }
    (void)printf("\n");
}

/* A line for each value of a factor. */
static void print_factor(enum factor factor, const struct setting *settings)
{
    for (int v = 0; v < factors[factor].count; v++) {
        struct tally tally = {0};
        char what[32];
        for (int i = 0; i < SETTINGS; i++) {
            if (settings[i].place[factor] == v) {
                add(&tally, &settings[i]);
            }
        }
        int value = factors[factor].values[v];
        if (value == 0) {
            (void)snprintf(what, sizeof(what), "%s = N_MP", factors[factor].name);
        } else {
            (void)snprintf(what, sizeof(what), "%s = %d", factors[factor].name, value);
        }
        print(what, &tally);
    }
}

static enum tri_status measure(const char *path, struct tri_error *error)
{
    struct tri_cluster *cluster = tri_alloc(TRI_MEMORY_OTHER, sizeof(*cluster));
    struct setting *settings = tri_alloc(TRI_MEMORY_OTHER, SETTINGS * sizeof(*settings));
    struct tally all = {0};
    enum tri_status status = tri_cluster_read(path, cluster, error);
    for (int i = 0; status == TRI_OK && i < SETTINGS; i++) {
        for (int factor = FACTORS - 1, rest = i; factor >= 0; factor--) {
            settings[i].place[factor] = rest % factors[factor].count;
            rest /= factors[factor].count;
        }
        for (int way = 0; way < WAYS; way++) {
            settings[i].seconds[way] = plan(cluster, &settings[i], (enum way)way);
        }
        add(&all, &settings[i]);
    }
    if (status == TRI_OK) {
        (void)printf("%s\n\n", cluster->name);
        (void)printf(
            "| settings | how many | fastest, %%: s1 / s2 / baseline | with ted: s1 / s2 / "
            "ted | gain over the baseline | over ted, no dropping | over ted |\n");
        (void)printf("| --- | --- | --- | --- | --- | --- | --- |\n");
        print("all", &all);
        for (int factor = 0; factor < FACTORS; factor++) {
            print_factor((enum factor)factor, settings);
        }
    }
    tri_free(settings);
    tri_free(cluster);
    return status;
}

int main(int argc, char **argv)
{
    struct tri_error error;
    const char *path = argc > 1 ? argv[1] : "examples/clusters/dgx1_v100.yaml";
    enum tri_status status = argc > 2
                                 ? tri_fail(&error, TRI_BAD_INPUT, "usage: parm [CLUSTER.yaml]")
                                 : measure(path, &error);
    if (status != TRI_OK) {
        tri_log_error(&error);
    }
    return (int)status;
}
