/* How a run ends badly. */
#ifndef TRIDENT_TRAIN_ENDING_H
#define TRIDENT_TRAIN_ENDING_H

#include "checkpoint/checkpoint.h"

/* The end of a run whose last steps, state->skipped_in_a_row of them, were skipped: FAILED, with a
 * line that names the newest checkpoint from before them. Local; the line is that of the rank that
 * sees the folder. */
enum tri_status tri_ending_skipped(const char *run_dir, const struct tri_checkpoint_state *state,
                                   struct tri_error *error) TRI_NODISCARD;

/* What a file of the run's own gave while it goes on: it was no input, so BAD_INPUT becomes
 * FAILED. */
enum tri_status tri_ending_of_own_file(enum tri_status status,
                                       struct tri_error *error) TRI_NODISCARD;

#endif
