/* What this job's ranks do in a second: all of them work at once, as in a step, and what they
 * measure is fitted to a cluster's rates (plan/cluster.h). */
#ifndef TRIDENT_TRAIN_CALIBRATE_H
#define TRIDENT_TRAIN_CALIBRATE_H

#include "comm/comm.h"
#include "plan/cluster.h"

enum { TRI_CALIBRATION_NOTES = 8192 };

struct tri_calibration {
    int threads;                       /* of each rank */
    bool quick;                        /* in a tenth of the time, less exactly */
    bool reproducible;                 /* also the kernels of reproducible runs */
    const struct tri_cluster *kernels; /* whose rates are taken, and nothing else of it; NULL: they
                                          are measured */
};

/* notes: what was measured and how far the fits are off, in lines. The same on all ranks. BAD_INPUT
 * where hosts have different numbers of ranks, or ranks are not numbered host by host. Collective
 * over all ranks; a minute, and more where ranks share processors. */
enum tri_status tri_calibrate(struct tri_comm *comm, const struct tri_calibration *calibration,
                              struct tri_cluster *cluster, char notes[TRI_CALIBRATION_NOTES],
                              struct tri_error *error) TRI_NODISCARD;

#endif
