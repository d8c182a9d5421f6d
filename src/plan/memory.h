/* Bytes per rank before they are taken, by category, from the parameter table and the shapes of a
 * step. */
#ifndef TRIDENT_PLAN_MEMORY_H
#define TRIDENT_PLAN_MEMORY_H

#include "base/memory.h"
#include "model/param.h"

struct tri_memory_plan {
    int64_t bytes[TRI_MEMORY_COUNT];
    int64_t total;   /* with moe.headroom */
    int64_t process; /* what the program itself takes beside these: libraries, MPI */
};

/* The plan of this rank of params' mesh. Activations of MoE layers count headroom times a balanced
 * share, at most the worst case (every token of the group here). Local. */
struct tri_memory_plan tri_memory_plan(const struct tri_config *config,
                                       const struct tri_params *params, bool training);

/* Bytes this process may still take: the least of the machine's available memory, the cgroup's limit
 * less its use, and the address-space limit; divided by the ranks on this node. */
int64_t tri_memory_available(int local_ranks);

/* FAILED, with both figures, when the plan needs more than is available. Local. */
enum tri_status tri_memory_check(const struct tri_memory_plan *plan, int local_ranks,
                                 struct tri_error *error) TRI_NODISCARD;

#endif
