/* The search over layouts: which ones a number of ranks allows, and what each takes. */
#ifndef TRIDENT_PLAN_LAYOUTS_H
#define TRIDENT_PLAN_LAYOUTS_H

#include "comm/comm.h"
#include "config/config.h"
#include "plan/memory.h"
#include "plan/timing.h"

struct tri_layout {
    int tensor, expert, data, expert_tensor;
    int depth, cross; /* of parallel.tensor_grid; 0: 1 */
};

/* Rows that arrive at a rank's experts. */
enum tri_load {
    TRI_LOAD_BALANCED,
    TRI_LOAD_HEADROOM, /* moe.headroom times as many */
    TRI_LOAD_WORST,    /* all that there are */
    TRI_LOAD_COUNT
};

/* Counts a step of one rank of a layout; train/ hands it in (tri_rehearse_layout). ledger may be
 * NULL. FAILED when there is no room even to count. */
typedef enum tri_status (*tri_rehearse_rank)(const struct tri_config *config,
                                             struct tri_layout layout, int rank, enum tri_load load,
                                             struct tri_ledger *ledger,
                                             struct tri_memory_plan *plan, struct tri_error *error);

struct tri_layout_plan {
    struct tri_layout layout;
    bool refused;
    char reason[1024]; /* when refused */
    int rank;          /* the one that takes most; all that follows is that rank's */
    struct tri_memory_plan memory;
    int64_t sent[TRI_GROUP_COUNT]; /* bytes a step */
    int64_t sent_between;          /* of all-to-alls and sends, from host to host (comm/ledger.h) */
    struct tri_step_time time;     /* of a step; 0 unless a cluster was asked */
};

/* The same with balanced routing, with times: memory and time of plan. */
typedef enum tri_status (*tri_time_rank)(const struct tri_config *config, struct tri_layout layout,
                                         int rank, const struct tri_cluster *cluster,
                                         struct tri_ledger *ledger, struct tri_layout_plan *plan,
                                         struct tri_error *error);

/* The keys of parallel of a layout. */
struct tri_config_parallel tri_layout_parallel(struct tri_layout layout);
/* The config's own layout on `ranks` ranks. Local. */
struct tri_layout_plan tri_layout_plan(const struct tri_config *config, struct tri_layout layout,
                                       tri_rehearse_rank rehearse);

/* The same with times, on a cluster: those of the rank that takes longest. Local. */
struct tri_layout_plan tri_layout_plan_timed(const struct tri_config *config,
                                             struct tri_layout layout, tri_time_rank rehearse,
                                             const struct tri_cluster *cluster);

/* Every way to write `ranks` as tensor x expert x data, with tensor-cut and whole experts: the
 * least memory first, refused ones last. Returns an array of *count, to be freed with tri_free.
 * Local. */
struct tri_layout_plan *tri_layout_plans(const struct tri_config *config, int ranks,
                                         tri_rehearse_rank rehearse, int *count);

#endif
