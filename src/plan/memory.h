/* Bytes per rank before they are taken, and whether there are so many. */
#ifndef TRIDENT_PLAN_MEMORY_H
#define TRIDENT_PLAN_MEMORY_H

#include "base/memory.h"
#include "config/config.h"

struct tri_memory_plan {
    int64_t bytes[TRI_MEMORY_COUNT]; /* peaks */
    int64_t total;                   /* their sum */
    int64_t beside;                  /* what a command takes beside its engine */
    int64_t scratch;                 /* of attention, all threads together */
    int64_t process;                 /* libraries, MPI, all scratch: beside the total */
};

/* This rank's share of the memory that its process has at most had, in bytes; 0 when the system
 * does not say. */
int64_t tri_memory_process_peak(void);
/* The same of the memory that it has now. */
int64_t tri_memory_process_share(void);
/* What a plan's `process` is without scratch that grows with the model, asked for before anything
 * large is taken: what there is now, and what so many kernel threads and MPI take beside the plan
 * in the first steps. */
int64_t tri_memory_process_constant(int64_t threads);

/* FAILED, with both figures and the limit that holds, when the plan needs more than is free
 * (base/room.h); a warning when it needs more than is had at full speed. Local. */
enum tri_status tri_memory_check(const struct tri_memory_plan *plan, int local_ranks,
                                 struct tri_error *error) TRI_NODISCARD;
/* The same for a command that holds a rank's share of a model and buffers: bytes of both. Local. */
enum tri_status tri_memory_check_share(const char *command, int64_t weights, int64_t buffers,
                                       int local_ranks, struct tri_error *error) TRI_NODISCARD;

#endif
