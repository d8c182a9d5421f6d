/* What a config leaves to the planner with the word `auto`: the way that `trident plan --cluster`
 * predicts to be the fastest of those that fit, with the cluster of plan.cluster. */
#ifndef TRIDENT_TRAIN_AUTO_H
#define TRIDENT_TRAIN_AUTO_H

#include "comm/comm.h"
#include "config/config.h"

enum { TRI_AUTO_TEXT = 2048 };

/* Chooses what config leaves to the planner, for `ranks` ranks: rank 0 of the group reads the
 * cluster and searches, all take what it found. text: on rank 0 what was chosen, the predicted step
 * and the next best, "" where nothing was left. BAD_INPUT without a cluster, with one that lacks
 * rates, when nothing fits its memory_per_rank, and when ranks leave other keys to the planner.
 * Collective over group; the status is the same on all ranks. */
enum tri_status tri_auto_choose(struct tri_group *group, int ranks, struct tri_config *config,
                                char text[TRI_AUTO_TEXT], struct tri_error *error) TRI_NODISCARD;

/* The same from the config of a run that goes on: BAD_INPUT, with the reason, and config unchanged,
 * when this config on so many ranks cannot have what that run has. Local. */
enum tri_status tri_auto_keep(const struct tri_config *run, int ranks, struct tri_config *config,
                              char text[TRI_AUTO_TEXT], struct tri_error *error) TRI_NODISCARD;

#endif
