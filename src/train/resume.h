/* What a run that goes on has from the run before: where in the data it goes on. */
#ifndef TRIDENT_TRAIN_RESUME_H
#define TRIDENT_TRAIN_RESUME_H

#include "checkpoint/checkpoint.h"

/* Fills what a state of an older program lacks. Local; path is for messages. */
enum tri_status tri_resume_complete(const char *path, struct tri_checkpoint_state *state,
                                    struct tri_error *error) TRI_NODISCARD;

#endif
