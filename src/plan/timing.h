/* A rehearsal in planned time: its kernels and collectives tell what they would do, a cluster says
 * how long that takes, and the thread's clock shows it. So a step's report says of a plan what it
 * says of a run. */
#ifndef TRIDENT_PLAN_TIMING_H
#define TRIDENT_PLAN_TIMING_H

#include "comm/listener.h"
#include "plan/cluster.h"

/* Where a step's time goes: all but the first are what a run's metrics have. */
enum tri_part {
    TRI_PART_REST, /* embedding, norms, dense MLPs */
    TRI_PART_ATTENTION,
    TRI_PART_ROUTER,
    TRI_PART_EXCHANGE,
    TRI_PART_EXPERTS,
    TRI_PART_HEAD,
    TRI_PART_OPTIMIZER,
    TRI_PART_COUNT
};
const char *tri_part_name(enum tri_part part);

/* Of one step, in seconds. exposed: communication that nothing hides, in whatever part. */
struct tri_step_time {
    double step, exposed, part[TRI_PART_COUNT];
};

struct tri_timing {
    const struct tri_cluster *cluster;
    bool reproducible;
    struct tri_kernels *kernels;
    struct tri_lanes lanes;
    double head, head_began; /* seconds of the head so far; when it began */
    struct tri_call_listener calls;
    struct tri_kernel_listener works;
    int neighbours;
    double spent; /* bytes that went between hosts and that link has not had the time to forget */
    int local[TRI_GROUP_COUNT]; /* members of each group on this rank's host */
};

/* From now until the end the calling thread lives in the planned time of the mesh's rank. kernels
 * are dry, the mesh has no other ranks; ranks stand on hosts in their order. Local. */
void tri_timing_begin(struct tri_timing *timing, const struct tri_cluster *cluster,
                      bool reproducible, struct tri_kernels *kernels, struct tri_mesh *mesh);
void tri_timing_end(struct tri_timing *timing);

#endif
