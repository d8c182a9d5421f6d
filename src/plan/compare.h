/* The plan beside what was counted. */
#ifndef TRIDENT_PLAN_COMPARE_H
#define TRIDENT_PLAN_COMPARE_H

#include "plan/layouts.h"

/* Before the steps: bytes planned on the rank of world that takes most, all categories that have
 * some, and which rank that is, to the log. Collective over world. */
void tri_memory_print(const struct tri_memory_plan *own, struct tri_group *world);

/* After the steps: bytes planned and counted at their peak, by category, of the largest rank of
 * world, and the process's peak beside their sum, to the log. Collective over world. */
void tri_memory_compare(const struct tri_memory_plan *plan, enum tri_load load,
                        struct tri_group *world);

#endif
