/* What a control group still lets a process take. */
#ifndef TRIDENT_PLAN_CGROUP_H
#define TRIDENT_PLAN_CGROUP_H

#include <stdint.h>

/* A number that begins a one-line file, or -1 ("max", no such file). */
int64_t tri_number_of_file(const char *path);

/* Bytes until the nearest limit of this process's memory groups, of either version, from its own
 * group up to the highest that is mounted here; pages of files that were read once count as free.
 * INT64_MAX without a limit. root: in front of /proc and of every mount point ("" but in tests). */
int64_t tri_cgroup_room(const char *root);

#endif
