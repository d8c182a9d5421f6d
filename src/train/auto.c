#include "train/auto.h"

#include "model/param.h"
#include "plan/search.h"
#include "train/environment.h"
#include "train/rehearsal.h"

#include <stdio.h>
#include <string.h>

static const struct tri_where where = {TRI_PHASE_SETUP, TRI_KIND_META};

enum { LINE = 384 };

/* ---- in words -------------------------------------------------------------------------------- */

static size_t add(char *text, size_t used, const char *part)
{
    int written = snprintf(text + used, LINE - used, "%s%s", used > 0 ? ", " : "", part);
    return written > 0 && used + (size_t)written < LINE ? used + (size_t)written : used;
}

/* What config has of the keys that were left to the planner. */
static void describe(const struct tri_config *config, unsigned autos, int ranks, char text[LINE])
{
    const struct tri_config_parallel *p = &config->parallel;
    const struct tri_config_moe *moe = &config->moe;
    bool chunks = autos & (TRI_AUTO_CHUNKS | TRI_AUTO_CHUNKS_BACKWARD);
    char part[LINE];
    size_t used = 0;
    text[0] = '\0';
    if (autos & TRI_AUTO_LAYOUT) {
        char grid[96] = "";
        if (tri_config_cut(p) < p->tensor) {
            (void)snprintf(grid, sizeof(grid), " (grid %lld x %lld x %lld)",
                           (long long)tri_config_cut(p), (long long)tri_config_cross(p),
                           (long long)tri_config_depth(p));
        }
        (void)snprintf(part, LINE, "tensor %lld%s x expert %lld x data %lld, expert_tensor %lld",
                       (long long)p->tensor, grid, (long long)p->expert,
                       (long long)(ranks / (p->tensor * p->expert)), (long long)p->expert_tensor);
        used = add(text, used, part);
    }
    if ((autos & TRI_AUTO_SCHEDULE) && moe->num_experts > 0) {
        (void)snprintf(part, LINE, "schedule %s", moe->schedule->strategy.name);
        used = add(text, used, part);
    }
    if (chunks && moe->num_experts > 0 && tri_schedule_has_chunks(moe->schedule)) {
        (void)snprintf(part, LINE, "%lld chunk%s", (long long)moe->chunks,
                       moe->chunks == 1 ? "" : "s");
        used = add(text, used, part);
        if (moe->chunks_backward != moe->chunks) {
            (void)snprintf(part, LINE, "%lld backward", (long long)moe->chunks_backward);
            used = add(text, used, part);
        }
    }
    if (used == 0) {
        (void)add(text, used, "no key that the model and its schedule read");
    }
}

/* ---- the search, on one rank ----------------------------------------------------------------- */

static enum tri_status read_cluster(const struct tri_config *config, int ranks,
                                    struct tri_cluster *cluster, struct tri_error *error)
{
    if (!config->plan.cluster[0]) {
        return tri_config_refuse_auto(config,
                                      "expected a cluster's file in plan.cluster with it: `trident "
                                      "calibrate --out FILE` on these ranks writes one",
                                      error);
    }
    TRI_TRY(tri_cluster_read(config->plan.cluster, cluster, error));
    return tri_cluster_check(cluster, config, ranks, error);
}

static enum tri_status check_best(const struct tri_config *config, const struct tri_way_plan *best,
                                  const struct tri_cluster *cluster, int ranks,
                                  struct tri_error *error)
{
    char why[LINE];
    if (best->plan.refused) {
        (void)snprintf(why, sizeof(why), "but %d ranks have no way to run this: %.200s", ranks,
                       best->plan.reason);
        return tri_config_refuse_auto(config, why, error);
    }
    if (!best->fits) {
        (void)snprintf(why, sizeof(why),
                       "but the least that %d rank%s can take is %.3f GB each, and memory_per_rank "
                       "of cluster %.100s is %.3f GB: train.recompute and train.micro_batch take "
                       "less",
                       ranks, ranks == 1 ? "" : "s", (double)best->plan.memory.total / 1e9,
                       cluster->name, (double)cluster->memory / 1e9);
        return tri_config_refuse_auto(config, why, error);
    }
    return TRI_OK;
}

/* What stands behind the best: the first that a plan can tell from it, 0 where none that fits is
 * slower; how many take as long, do not fit, and are refused. */
struct rivals {
    int next, alike, large, refused;
};

static struct rivals rivals_of(const struct tri_way_plan *ways, int count)
{
    struct rivals rivals = {0};
    for (int i = 1; i < count; i++) {
        if (ways[i].plan.refused) {
            rivals.refused++;
        } else if (!ways[i].fits) {
            rivals.large++;
        } else if (ways[i].plan.time.step <= TRI_TELLS_APART * ways[0].plan.time.step) {
            rivals.alike++;
        } else if (rivals.next == 0) {
            rivals.next = i;
        }
    }
    return rivals;
}

/* Of a best way that nothing is slower than. */
static void describe_rest(const struct rivals *rivals, const char *refusal, char text[LINE])
{
    char part[LINE];
    size_t used = 0;
    text[0] = '\0';
    if (rivals->alike > 0) {
        (void)snprintf(part, LINE, "%d other%s take%s as long", rivals->alike,
                       rivals->alike == 1 ? "" : "s", rivals->alike == 1 ? "s" : "");
        used = add(text, used, part);
    }
    if (rivals->large > 0) {
        (void)snprintf(part, LINE, "%d do%s not fit memory_per_rank", rivals->large,
                       rivals->large == 1 ? "es" : "");
        used = add(text, used, part);
    }
    if (rivals->refused > 0) {
        (void)snprintf(part, LINE, "%d %s refused (%.200s)", rivals->refused,
                       rivals->refused == 1 ? "is" : "are", refusal);
        used = add(text, used, part);
    }
    if (used == 0) {
        (void)add(text, used, "there is no other way");
    }
}

/* chosen: the config with the best way. */
static enum tri_status search(const struct tri_config *config, int ranks,
                              const struct tri_cluster *cluster, struct tri_config *chosen,
                              char text[TRI_AUTO_TEXT], struct tri_error *error)
{
    const struct tri_search open = {.autos = config->autos};
    char line[LINE], other[LINE];
    int count;
    if (!(config->autos & TRI_AUTO_LAYOUT)) {
        TRI_TRY(tri_config_check_layout(config, ranks, error));
    }
    struct tri_way_plan *ways =
        tri_plan_ways(config, ranks, &open, tri_rehearse_timed, cluster, &count);
    enum tri_status status = check_best(config, &ways[0], cluster, ranks, error);
    if (status == TRI_OK) {
        const struct rivals rivals = rivals_of(ways, count);
        char next[2 * LINE];
        if (rivals.next > 0) {
            tri_way_apply(&ways[rivals.next], chosen);
            describe(chosen, config->autos, ranks, other);
            (void)snprintf(next, sizeof(next), "next best %s, %.3f ms", other,
                           1e3 * ways[rivals.next].plan.time.step);
        } else {
            describe_rest(&rivals, ways[count - 1].plan.reason, other);
            (void)snprintf(next, sizeof(next), "%s", other);
        }
        tri_way_apply(&ways[0], chosen);
        describe(chosen, config->autos, ranks, line);
        (void)snprintf(text, TRI_AUTO_TEXT, "%s: predicted step %.3f ms on %.100s; %s", line,
                       1e3 * ways[0].plan.time.step, cluster->name, next);
    }
    tri_free(ways);
    return status;
}

static enum tri_status choose(const struct tri_config *config, int ranks, struct tri_config *chosen,
                              char text[TRI_AUTO_TEXT], struct tri_error *error)
{
    struct tri_cluster *cluster = tri_alloc(TRI_MEMORY_OTHER, sizeof(*cluster));
    enum tri_status status = tri_kernels_check(tri_environment_kernels(), error);
    if (status == TRI_OK) {
        status = tri_params_check_frozen(config, error);
    }
    if (status == TRI_OK) {
        status = read_cluster(config, ranks, cluster, error);
    }
    if (status == TRI_OK) {
        status = search(config, ranks, cluster, chosen, text, error);
    }
    tri_free(cluster);
    return status;
}

/* ---- all ranks ------------------------------------------------------------------------------- */

/* What rank 0 tells the others: its keys, and the values, by their place in lists. */
struct told {
    uint64_t autos;
    struct tri_config_parallel parallel;
    int64_t schedule, chunks, chunks_backward;
};

static int64_t place_of(const struct tri_config *config)
{
    int64_t i = 0;
    while (config->known->schedules[i] != (const struct tri_strategy *)config->moe.schedule) {
        i++;
    }
    return i;
}

static struct told tell(const struct tri_config *config, const struct tri_config *chosen)
{
    return (struct told){config->autos, chosen->parallel, place_of(chosen), chosen->moe.chunks,
                         chosen->moe.chunks_backward};
}

static void listen(const struct told *told, struct tri_config *chosen)
{
    chosen->parallel = told->parallel;
    chosen->moe.schedule =
        (const struct tri_schedule_kind *)chosen->known->schedules[told->schedule];
    chosen->moe.chunks = told->chunks;
    chosen->moe.chunks_backward = told->chunks_backward;
}

static enum tri_status choose_together(struct tri_group *group, int ranks,
                                       struct tri_config *config, struct tri_config *chosen,
                                       char text[TRI_AUTO_TEXT], struct tri_error *error)
{
    struct told told = {0};
    enum tri_status status = TRI_OK;
    *chosen = *config;
    if (tri_group_rank(group) == 0) {
        status = config->autos ? choose(config, ranks, chosen, text, error) : TRI_OK;
        told = tell(config, chosen);
    }
    TRI_TRY(tri_comm_agree(group, status, error));
    tri_broadcast(group, where, &told, (int64_t)sizeof(told), TRI_U8, 0);
    if (told.autos != config->autos) {
        status = tri_fail(error, TRI_BAD_INPUT,
                          "rank %d leaves other keys to the planner (auto) than rank 0",
                          tri_group_rank(group));
    } else {
        listen(&told, chosen);
        tri_config_settle(config, chosen);
        status = tri_config_finish(config, error);
    }
    return tri_comm_agree(group, status, error);
}

enum tri_status tri_auto_choose(struct tri_group *group, int ranks, struct tri_config *config,
                                char text[TRI_AUTO_TEXT], struct tri_error *error)
{
    int64_t any = config->autos != 0;
    text[0] = '\0';
    tri_all_reduce_max(group, where, &any, 1, TRI_I64);
    if (!any) {
        return TRI_OK;
    }
    struct tri_config *chosen = tri_alloc(TRI_MEMORY_OTHER, sizeof(*chosen));
    enum tri_status status = choose_together(group, ranks, config, chosen, text, error);
    tri_free(chosen);
    return status;
}

enum tri_status tri_auto_keep(const struct tri_config *run, int ranks, struct tri_config *config,
                              char text[TRI_AUTO_TEXT], struct tri_error *error)
{
    struct tri_config *kept = tri_alloc(TRI_MEMORY_OTHER, sizeof(*kept));
    char line[LINE];
    *kept = *config;
    tri_config_settle(kept, run);
    enum tri_status status = tri_config_finish(kept, error);
    status = status == TRI_OK ? tri_config_check_layout(kept, ranks, error) : status;
    if (status == TRI_OK) {
        describe(kept, config->autos, ranks, line);
        (void)snprintf(text, TRI_AUTO_TEXT, "as the run has it: %s", line);
        *config = *kept;
    }
    tri_free(kept);
    return status;
}
