/* The search with times: layouts, and for the best of them tensor grids, how tokens move, what is
 * recomputed and how many rows a micro-batch has, the fastest first. */
#ifndef TRIDENT_PLAN_SEARCH_H
#define TRIDENT_PLAN_SEARCH_H

#include "plan/layouts.h"

/* One way to run a step. */
struct tri_way_plan {
    struct tri_layout_plan plan;
    const struct tri_schedule_kind *schedule; /* NULL: a dense model */
    int64_t chunks, chunks_backward;          /* 0: the schedule has none */
    int64_t recompute;                        /* 0: none, -1: all blocks, else the config's */
    int64_t micro_batch;
    bool fits; /* in the cluster's memory_per_rank */
    int order; /* in which they were tried: of equal ones the first is better */
};

/* Times that differ by less are the same to a plan. */
#define TRI_TELLS_APART 1.002

/* What may be other than the config has it. */
struct tri_search {
    unsigned autos; /* of enum tri_auto */
    bool memory;    /* train.recompute and train.micro_batch */
};

/* All layouts of so many ranks with the config's own options, those that do not fit also, where
 * memory is open, with all blocks recomputed and one row a micro-batch; of the best few their
 * tensor grids; and of the best few then all options: each schedule, with the best number of chunks
 * for the forward and, with that, the best for the backward. Without TRI_AUTO_LAYOUT the config's
 * layout alone. The fastest that fits first (of those that a plan cannot tell apart the one nearest
 * to the config), then those that do not fit, the smallest first,
 * refused ones last. Returns an array of *count, one or more, to be freed with tri_free. Local. */
struct tri_way_plan *tri_plan_ways(const struct tri_config *config, int ranks,
                                   const struct tri_search *search, tri_time_rank rehearse,
                                   const struct tri_cluster *cluster, int *count);

/* Whether the schedule reads moe.chunks. */
bool tri_schedule_has_chunks(const struct tri_schedule_kind *schedule);

/* The config with the options and the layout of a way. */
void tri_way_apply(const struct tri_way_plan *way, struct tri_config *config);

/* Why a way loses against the best: what it takes of memory, the part of the step that is most
 * behind, or why it was refused. */
void tri_way_explain(const struct tri_way_plan *way, const struct tri_way_plan *best,
                     const struct tri_cluster *cluster, char *text, size_t size);

#endif
