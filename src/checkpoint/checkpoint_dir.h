/* The folder RUN/checkpoints. Internal to checkpoint/. */
#ifndef TRIDENT_CHECKPOINT_DIR_H
#define TRIDENT_CHECKPOINT_DIR_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

enum { TRI_CHECKPOINT_PATH = 2048 };

/* The steps of the folders step_N in dir, newest first; tri_free them. A folder that is not there
 * holds none. Leftovers (.trident.tmp) don't count. */
enum tri_status tri_checkpoint_steps(const char *dir, int64_t **steps, int *count,
                                     struct tri_error *error) TRI_NODISCARD;
/* Splits ".../step_N": dir gets what is before the last slash ("." when there is none). False
 * when the last part has another form. */
bool tri_checkpoint_split(const char *path, char dir[TRI_CHECKPOINT_PATH], int64_t *step);
/* Removes the leftovers of one checkpoint path, or puts its .old.trident.tmp back where path is
 * gone. */
enum tri_status tri_checkpoint_recover(const char *path, struct tri_error *error) TRI_NODISCARD;
/* Removes the checkpoints of dir older than step, but for the newest keep. */
enum tri_status tri_checkpoint_prune(const char *dir, int64_t step, int64_t keep,
                                     struct tri_error *error) TRI_NODISCARD;

#endif
