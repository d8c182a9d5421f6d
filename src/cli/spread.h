/* The weights of a model that a command moves from one kind of folder to another. */
#ifndef TRIDENT_CLI_SPREAD_H
#define TRIDENT_CLI_SPREAD_H

#include "comm/comm.h"
#include "config/config.h"
#include "model/param.h"

struct tri_spread {
    struct tri_mesh *mesh;
    struct tri_params *params; /* f32, allocated */
    int64_t planned, process;  /* bytes of a rank's share and buffers; of its process before */
};

/* Cuts a model over all ranks, tensor and expert ranks as many as divide it, config->parallel
 * saying how, after FAILED where a rank's share and buffers, or the ranks' of a node, have no room.
 * tri_spread_destroy it, also after a failure. Collective over comm; the status is the same on all
 * ranks. */
enum tri_status tri_spread_create(const char *command, struct tri_comm *comm,
                                  struct tri_config *config, struct tri_spread *spread,
                                  struct tri_error *error) TRI_NODISCARD;
/* A line: bytes planned and counted at their peak, and the process's own, of the rank that took
 * most. Collective over the mesh's world. */
void tri_spread_report(const struct tri_spread *spread);
void tri_spread_destroy(struct tri_spread *spread);

#endif
