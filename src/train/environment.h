/* What a run ran on: for environment.json, the start-up summary and --version. */
#ifndef TRIDENT_TRAIN_ENVIRONMENT_H
#define TRIDENT_TRAIN_ENVIRONMENT_H

#include "comm/comm.h"
#include "config/config.h"

/* "trident 0.1.0 (commit)" */
const char *tri_version(void);

/* Sets OpenMP's threads: config->threads, or OMP_NUM_THREADS, or this rank's share of the cores
 * that affinity and quotas of processor time leave; warns when a node has more threads than that.
 * Returns the number. Local. */
int tri_environment_set_threads(const struct tri_config *config, const struct tri_comm *comm);

/* JSON text: version, commit, processor, kernel path, MPI, threads, and host and cores of each
 * rank. free() it. Collective over the mesh's world; NULL on ranks other than 0. */
char *tri_environment_describe(const struct tri_config *config, const struct tri_mesh *mesh);

#endif
