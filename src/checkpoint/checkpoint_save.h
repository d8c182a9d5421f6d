/* Internal to checkpoint/ and its tests. */
#ifndef TRIDENT_CHECKPOINT_SAVE_H
#define TRIDENT_CHECKPOINT_SAVE_H

#include "checkpoint/checkpoint.h"

/* tri_checkpoint_write with files of at most part_bytes, unless one tensor alone takes more; and
 * chunks of chunk_bytes (chunks.h). */
enum tri_status tri_checkpoint_write_parts(const char *path, const struct tri_params *params,
                                           const struct tri_checkpoint_state *state,
                                           bool with_optimizer, int64_t part_bytes,
                                           int64_t chunk_bytes,
                                           struct tri_error *error) TRI_NODISCARD;

#endif
