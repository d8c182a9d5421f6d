/* What the files of calibrate share. */
#ifndef TRIDENT_TRAIN_CALIBRATE_INTERNAL_H
#define TRIDENT_TRAIN_CALIBRATE_INTERNAL_H

#include "plan/fit.h"
#include "train/calibrate.h"

struct tri_calibrator {
    struct tri_comm *comm;
    struct tri_mesh *mesh; /* tensor: the ranks of a host; expert: the hosts */
    struct tri_kernels *kernels;
    struct tri_cluster *cluster;
    bool quick;   /* one call of each, and small models */
    double began; /* when what is measured now did */
    char *notes;
    size_t noted;
};

/* Seconds of one call of run on this rank, while all ranks make it: the median of some. Collective
 * over all ranks. */
double tri_calibrate_time(const struct tri_calibrator *calibrator, void (*run)(void *state),
                          void *state);
/* Whether no measurement should take longer than it must. Collective over all ranks. */
bool tri_calibrate_hurries(const struct tri_calibrator *calibrator);

/* Adds to the notes. */
void tri_calibrate_note(struct tri_calibrator *calibrator, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Fits what each rank measured; costs: the means over the ranks. Notes under this name how far the
 * fit is off. False where no rank measured any. Collective over all ranks. */
bool tri_samples_fit(struct tri_calibrator *calibrator, const char *name,
                     const struct tri_sample *samples, int count, double costs[TRI_FIT_UNKNOWNS]);

/* Fill the cluster. Collective over all ranks. */
void tri_calibrate_kernels(struct tri_calibrator *calibrator, const struct tri_kernels *kernels,
                           bool reproducible);
void tri_calibrate_links(struct tri_calibrator *calibrator);

#endif
