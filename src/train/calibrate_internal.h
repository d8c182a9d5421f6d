/* What the files of calibrate share. */
#ifndef TRIDENT_TRAIN_CALIBRATE_INTERNAL_H
#define TRIDENT_TRAIN_CALIBRATE_INTERNAL_H

#include "plan/fit.h"
#include "train/calibrate.h"

enum { TRI_SAMPLES_MOST = 64 };

/* Measurements of one rate. */
struct tri_samples {
    struct tri_sample sample[TRI_SAMPLES_MOST];
    int count;
};

struct tri_calibrator {
    struct tri_comm *comm;
    struct tri_mesh *mesh; /* tensor: the ranks of a host; expert: the hosts */
    struct tri_kernels *kernels;
    struct tri_cluster *cluster;
    bool quick;   /* one call of each, and none that is large */
    double began; /* when all did */
    char *notes;
    size_t noted;
};

/* Seconds of one call of run on this rank, while all ranks make it: the first quartile of some,
 * which others on the machine hardly move. Collective over all ranks. */
double tri_calibrate_time(const struct tri_calibrator *calibrator, void (*run)(void *state),
                          void *state);
void tri_samples_add(struct tri_samples *samples, const struct tri_sample *sample);
/* Fits the means over the ranks, and notes under this name how far it is off. Collective. */
void tri_samples_fit(struct tri_calibrator *calibrator, const char *name,
                     struct tri_samples *samples, double costs[TRI_FIT_UNKNOWNS]);

/* Fill the cluster. Collective over all ranks. */
void tri_calibrate_kernels(struct tri_calibrator *calibrator);
void tri_calibrate_links(struct tri_calibrator *calibrator);

#endif
