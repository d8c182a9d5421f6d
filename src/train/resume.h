/* What a run that goes on has from the run before: what must be the same, what may change and is
 * said, where in the data it goes on. */
#ifndef TRIDENT_TRAIN_RESUME_H
#define TRIDENT_TRAIN_RESUME_H

#include "checkpoint/checkpoint.h"

/* For a run that starts over: `resume` must not name what that removes. On one rank. */
enum tri_status tri_resume_check_fresh(const struct tri_config *config,
                                       struct tri_error *error) TRI_NODISCARD;

/* Whether a run of this config on this data (data_tokens and data_contents of `data`) may go on
 * from the checkpoint. BAD_INPUT names the key that no run changes, or the data when they are
 * others and accept_data does not say that they may be; weights that nothing has trained, of an
 * import, go with any seed and data. On one rank. */
enum tri_status tri_resume_check(const char *path, const struct tri_config *config,
                                 const struct tri_checkpoint_state *data, bool accept_data,
                                 struct tri_error *error) TRI_NODISCARD;

/* Fills what a loaded state of an older program lacks and says in one line which keys changed since
 * it was written, and what that does. Local; path is for messages. */
enum tri_status tri_resume_begin(const char *path, const struct tri_config *config,
                                 struct tri_checkpoint_state *state,
                                 struct tri_error *error) TRI_NODISCARD;

#endif
