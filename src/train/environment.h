/* What a run ran on: for environment.json, the start-up summary and --version. */
#ifndef TRIDENT_TRAIN_ENVIRONMENT_H
#define TRIDENT_TRAIN_ENVIRONMENT_H

#include "comm/comm.h"
#include "config/config.h"
#include "kernel/kernel.h"

/* "trident 0.1.0 (commit)" */
const char *tri_version(void);

/* What TRIDENT_KERNELS says, for tri_kernels_create; NULL: nothing. */
const char *tri_environment_kernels(void);

/* Threads of this rank: config->threads, or OMP_NUM_THREADS, or its share of the cores that
 * affinity and quotas of processor time leave; warns when a node has more threads than that.
 * Local. */
int tri_environment_threads(const struct tri_config *config, const struct tri_comm *comm);

/* JSON text: version, commit, processor, kernel path, MPI, threads, and host and cores of each
 * rank. free() it. Collective over the mesh's world; NULL on ranks other than 0. */
char *tri_environment_describe(const struct tri_kernels *kernels, const struct tri_mesh *mesh);

#endif
