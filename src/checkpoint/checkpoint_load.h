/* Internal to checkpoint/ and its tests. */
#ifndef TRIDENT_CHECKPOINT_LOAD_H
#define TRIDENT_CHECKPOINT_LOAD_H

#include "checkpoint/checkpoint.h"

/* tri_checkpoint_load in chunks of chunk_bytes (chunks.h). */
enum tri_status tri_checkpoint_load_parts(const char *path, struct tri_params *params,
                                          struct tri_checkpoint_state *state, bool with_optimizer,
                                          int64_t chunk_bytes,
                                          struct tri_error *error) TRI_NODISCARD;

#endif
