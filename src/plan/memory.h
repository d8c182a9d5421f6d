/* Bytes per rank before they are taken, and whether there are so many. */
#ifndef TRIDENT_PLAN_MEMORY_H
#define TRIDENT_PLAN_MEMORY_H

#include "base/memory.h"
#include "config/config.h"

struct tri_memory_plan {
    int64_t bytes[TRI_MEMORY_COUNT]; /* peaks */
    int64_t total;                   /* their sum */
    int64_t scratch;                 /* of attention, all threads together */
    int64_t process;                 /* libraries, MPI, all scratch: beside the total */
};

/* Bytes this process may still take: the least of the machine's available memory, the cgroup's
 * limit less its use, and the address-space limit; divided by the ranks on this node. */
int64_t tri_memory_available(int local_ranks);

/* Bytes of memory that this process has at most had; 0 when the system does not say. */
int64_t tri_memory_process_peak(void);
/* What a plan's `process` is without scratch that grows with the model, asked for before anything
 * large is taken: what there is now, and what so many kernel threads and MPI take beside the plan
 * in the first steps. */
int64_t tri_memory_process_constant(int64_t threads);

/* FAILED, with both figures, when the plan needs more than is available. Local. */
enum tri_status tri_memory_check(const struct tri_memory_plan *plan, int local_ranks,
                                 struct tri_error *error) TRI_NODISCARD;

#endif
