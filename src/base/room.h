/* Memory that is free: what an allocation can get, and what it is that gives no more. Swap does not
 * count: a step that waits for it is of no use to anybody. */
#ifndef TRIDENT_BASE_ROOM_H
#define TRIDENT_BASE_ROOM_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

struct tri_memory_room {
    int64_t bytes;     /* INT64_MAX without a limit */
    const char *limit; /* the one that holds, as users know it */
};

/* What each of so many ranks of this node may still take: its part of what the machine and the
 * control groups have left, but no more than its part of what its process's own limits (ulimit -v,
 * -d) leave, which ranks that are threads of the process share. 1: all of it. */
struct tri_memory_room tri_room_find(int local_ranks);
/* What of it is had at full speed: beyond a control group's memory.high each page is waited for.
 * root: as below. */
struct tri_memory_room tri_room_before_throttle(const char *root, int local_ranks);
/* Only the limits that count what is asked for, touched or not: ulimit, and promises that
 * are kept (vm.overcommit_memory 2). */
struct tri_memory_room tri_room_of_addresses(int local_ranks);

/* What all processes of this machine and control group may still take together: available memory,
 * what may be promised where promises are kept, groups' limits. root: in front of /proc and /sys
 * ("" but in tests). */
struct tri_memory_room tri_room_of_machine(const char *root);

/* Panics with what is wanted, what is taken by category, and what is free. */
_Noreturn void tri_room_exhausted(size_t bytes, const char *owner);

#endif
