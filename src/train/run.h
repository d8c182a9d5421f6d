/* `trident train`: a run from its config to its last checkpoint. */
#ifndef TRIDENT_TRAIN_RUN_H
#define TRIDENT_TRAIN_RUN_H

#include "comm/comm.h"
#include "config/config.h"

struct tri_run_options {
    bool fresh;       /* start over: what the run folder holds is removed */
    bool accept_data; /* go on though data.train holds other tokens than the run began with */
    bool json;        /* one JSON object on standard output at the end */
};

/* Trains, continuing from the run's last checkpoint when it has one. TRI_REQUEUE after SIGTERM or
 * SIGUSR1, with a checkpoint saved. Collective over all ranks; the status is the same on all. */
enum tri_status tri_run(struct tri_comm *comm, const struct tri_config *config,
                        const struct tri_run_options *options,
                        struct tri_error *error) TRI_NODISCARD;

#endif
