/* How much processor time control groups leave this process. */
#ifndef TRIDENT_BASE_CGROUP_H
#define TRIDENT_BASE_CGROUP_H

/* Processors' worth of time: the least quota of this process's group and all above it, in versions
 * 1 and 2; INFINITY without one. root goes before every path that is read: "", or a test's own
 * tree. */
double tri_cgroup_processors(const char *root);

#endif
