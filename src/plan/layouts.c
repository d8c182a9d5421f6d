#include "plan/layouts.h"

#include "base/memory.h"
#include "base/meter.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>

/* Who rehearses: without times, or on a cluster with them. */
struct rehearser {
    tri_rehearse_rank rehearse;
    tri_time_rank timed;
    const struct tri_cluster *cluster;
};

static enum tri_status rehearse_rank(const struct rehearser *by, const struct tri_config *config,
                                     int rank, struct tri_ledger *ledger,
                                     struct tri_layout_plan *plan, struct tri_error *error)
{
    return by->timed ? by->timed(config, plan->layout, rank, by->cluster, ledger, plan, error)
                     : by->rehearse(config, plan->layout, rank, TRI_LOAD_BALANCED, ledger,
                                    &plan->memory, error);
}

/* ---- who takes most -------------------------------------------------------------------------- */

enum { HOMES_MOST = 3 };

/* Ranks of a host; 0: all are on one. */
static int hosts_of(const struct tri_config *config, const struct rehearser *by)
{
    return by->cluster ? by->cluster->ranks_per_host : (int)config->comm_ranks_per_host;
}

/* Ranges are cut so that the last part is a longest one (tri_range_part), so among ranks that
 * differ in one coordinate the last takes most. Where hosts cut ranks that share experts unevenly,
 * also the first rank of a smallest and of a largest piece: a relay of more, or of others' more.
 * Fills first with ranks whose tensor coordinate is 0; returns how many. */
static int find_homes(struct tri_layout layout, int hosts, int first[HOMES_MOST])
{
    int block = layout.tensor * layout.expert;
    int ranks = block * layout.data;
    int least = INT_MAX;
    int most = 0;
    first[0] = ranks - layout.tensor;
    if (hosts == 0 || hosts >= ranks || hosts % block == 0 || block % hosts == 0) {
        return 1;
    }
    for (int rank = 0; rank < ranks;) {
        int end = (rank / block + 1) * block;
        int host = (rank / hosts + 1) * hosts;
        host += (layout.tensor - host % layout.tensor) % layout.tensor;
        end = host < end ? host : end;
        if (end - rank <= least) {
            least = end - rank;
            first[1] = rank;
        }
        if (end - rank >= most) {
            most = end - rank;
            first[2] = rank;
        }
        rank = end;
    }
    return HOMES_MOST;
}

/* Of tensor ranks the last takes most, but that one can hold fewer KV heads, and that with whole
 * experts the first of a host may relay more. */
static bool is_tried(const struct tri_config *config, struct tri_layout layout, int homes, int t)
{
    bool same = config->model.num_kv_heads % tri_config_cut(&config->parallel) == 0;
    bool relays = t == 0 && homes > 1 && layout.expert_tensor < layout.tensor;
    return t == layout.tensor - 1 || !same || relays;
}

static enum tri_status take(const struct tri_config *config, const struct rehearser *by, int rank,
                            struct tri_ledger *ledger, struct tri_layout_plan *plan,
                            struct tri_error *error)
{
    struct tri_layout_plan one = {.layout = plan->layout};
    TRI_TRY(rehearse_rank(by, config, rank, ledger, &one, error));
    if (one.time.step > plan->time.step) {
        plan->time = one.time;
    }
    if (one.memory.total > plan->memory.total) {
        plan->rank = rank;
        plan->memory = one.memory;
        plan->sent_between = tri_ledger_sum(ledger, -1, -1, -1, -1).bytes_between;
        for (int group = 0; group < TRI_GROUP_COUNT; group++) {
            plan->sent[group] = tri_ledger_sum(ledger, -1, group, -1, -1).bytes;
        }
    }
    return TRI_OK;
}

static enum tri_status plan(const struct tri_config *config, const struct rehearser *by,
                            struct tri_layout_plan *plan, struct tri_error *error)
{
    struct tri_layout layout = plan->layout;
    struct tri_ledger *ledger = tri_alloc(TRI_MEMORY_OTHER, sizeof(*ledger));
    int first[HOMES_MOST];
    int homes = find_homes(layout, hosts_of(config, by), first);
    enum tri_status status = TRI_OK;
    for (int home = 0; home < homes; home++) {
        for (int t = layout.tensor - 1; status == TRI_OK && t >= 0; t--) {
            if (is_tried(config, layout, homes, t)) {
                status = take(config, by, first[home] + t, ledger, plan, error);
            }
        }
    }
    tri_free(ledger);
    return status;
}

/* ---- layouts --------------------------------------------------------------------------------- */

struct tri_config_parallel tri_layout_parallel(struct tri_layout layout)
{
    struct tri_config_parallel parallel = {layout.tensor, layout.expert, layout.expert_tensor, {0}};
    int depth = layout.depth > 1 ? layout.depth : 1;
    int cross = layout.cross > 1 ? layout.cross : 1;
    if (depth * cross > 1) {
        parallel.tensor_grid[0] = layout.tensor / depth / cross;
        parallel.tensor_grid[1] = cross;
        parallel.tensor_grid[2] = depth;
    }
    return parallel;
}

static struct tri_layout_plan plan_layout(const struct tri_config *config, struct tri_layout layout,
                                          const struct rehearser *by)
{
    struct tri_layout_plan result = {.layout = layout};
    struct tri_config *laid_out = tri_alloc(TRI_MEMORY_OTHER, sizeof(*laid_out));
    struct tri_error error;
    *laid_out = *config;
    laid_out->parallel = tri_layout_parallel(layout);
    int ranks = layout.tensor * layout.expert * layout.data;
    result.refused = tri_config_check_layout(laid_out, ranks, &error) != TRI_OK ||
                     plan(laid_out, by, &result, &error) != TRI_OK;
    if (result.refused) {
        (void)snprintf(result.reason, sizeof(result.reason), "%s", error.message);
    }
    tri_free(laid_out);
    return result;
}

struct tri_layout_plan tri_layout_plan(const struct tri_config *config, struct tri_layout layout,
                                       tri_rehearse_rank rehearse)
{
    return plan_layout(config, layout, &(const struct rehearser){.rehearse = rehearse});
}

struct tri_layout_plan tri_layout_plan_timed(const struct tri_config *config,
                                             struct tri_layout layout, tri_time_rank rehearse,
                                             const struct tri_cluster *cluster)
{
    return plan_layout(config, layout,
                       &(const struct rehearser){.timed = rehearse, .cluster = cluster});
}

static int compare(const void *a, const void *b)
{
    const struct tri_layout_plan *x = a;
    const struct tri_layout_plan *y = b;
    if (x->refused != y->refused) {
        return x->refused ? 1 : -1;
    }
    if (x->memory.total != y->memory.total) {
        return x->memory.total < y->memory.total ? -1 : 1;
    }
    if (x->layout.tensor != y->layout.tensor) {
        return x->layout.tensor - y->layout.tensor;
    }
    return x->layout.expert != y->layout.expert ? x->layout.expert - y->layout.expert
                                                : x->layout.expert_tensor - y->layout.expert_tensor;
}

struct tri_layout_plan *tri_layout_plans(const struct tri_config *config, int ranks,
                                         tri_rehearse_rank rehearse, int *count)
{
    int most = 0;
    for (int tensor = 1; tensor <= ranks; tensor++) {
        for (int expert = 1; expert <= ranks / tensor; expert++) {
            most += ranks % (tensor * expert) == 0 ? 2 : 0;
        }
    }
    struct tri_layout_plan *plans = tri_alloc(TRI_MEMORY_OTHER, (size_t)most * sizeof(*plans));
    *count = 0;
    tri_meter_begin(TRI_METER_LAYOUTS, most, "planning");
    for (int tensor = 1; tensor <= ranks; tensor++) {
        for (int expert = 1; expert <= ranks / tensor; expert++) {
            if (ranks % (tensor * expert) != 0) {
                continue;
            }
            struct tri_layout layout = {tensor, expert, ranks / (tensor * expert), tensor, 1, 1};
            plans[(*count)++] = tri_layout_plan(config, layout, rehearse);
            layout.expert_tensor = 1;
            if (tensor > 1 && config->moe.num_experts > 0) {
                plans[(*count)++] = tri_layout_plan(config, layout, rehearse);
            }
            tri_meter_add(TRI_METER_LAYOUTS, 2);
        }
    }
    tri_meter_end();
    qsort(plans, (size_t)*count, sizeof(*plans), compare);
    return plans;
}
