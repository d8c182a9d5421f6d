/* Where the weights of a run begin: drawn, or those of `init_from`. */
#ifndef TRIDENT_TRAIN_START_H
#define TRIDENT_TRAIN_START_H

#include "train/session.h"

/* tri_config_load for a command that trains, of path or of file, its text, where that is not NULL:
 * what the sections model and moe leave out is that of
 * the folder, checkpoint or run that init_from names; or, when a run goes on (goes_on) that has
 * checkpoints of its own, of these, and init_from is not looked at. Each rank reads its own config.
 * What it leaves to the planner is chosen for so many ranks (0: stays so), or in a run that goes on
 * is as the run has it, and is logged.
 * Collective over group; the status is the same on all ranks. */
enum tri_status tri_start_config(struct tri_group *group, const char *path,
                                 const struct tri_mapping *file, int count, char *const *overrides,
                                 bool goes_on, int ranks, struct tri_config *config,
                                 struct tri_error *error) TRI_NODISCARD;

/* The weights of init_from into a session whose config was read as above: step 0, moments 0.
 * Collective over the session's mesh; the status is the same on all ranks, and after a failure
 * the weights are undefined. */
enum tri_status tri_start_weights(struct tri_session *session,
                                  struct tri_error *error) TRI_NODISCARD;

#endif
