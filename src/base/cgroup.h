/* What control groups, in versions 1 and 2, leave this process: the least that its own group and
 * all above it allow. root goes before every path that is read: "", or a test's own tree. */
#ifndef TRIDENT_BASE_CGROUP_H
#define TRIDENT_BASE_CGROUP_H

#include <stdint.h>

/* Processors' worth of time; INFINITY without a quota. */
double tri_cgroup_processors(const char *root);
/* Bytes of memory until the nearest limit, up to the highest group that is mounted here; pages of
 * files that were read once count as free. INT64_MAX without a limit. */
int64_t tri_cgroup_room(const char *root);
/* The same until the nearest memory.high, beyond which whoever asks for memory is put to sleep. */
int64_t tri_cgroup_fast_room(const char *root);

/* A number that begins a one-line file, or -1 ("max", no such file). */
int64_t tri_number_of_file(const char *path);
/* The number of the line "KEY N" or "KEY: N", or -1. */
int64_t tri_number_of_key(const char *path, const char *key);

#endif
