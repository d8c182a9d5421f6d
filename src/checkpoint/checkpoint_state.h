/* state.json of a checkpoint. Internal to checkpoint/. */
#ifndef TRIDENT_CHECKPOINT_STATE_H
#define TRIDENT_CHECKPOINT_STATE_H

#include "checkpoint/checkpoint.h"

/* Writes DIR/state.json; *bytes and *hash are the file's. */
enum tri_status tri_checkpoint_state_save(const char *dir, const struct tri_checkpoint_state *state,
                                          uint64_t *bytes, uint64_t *hash,
                                          struct tri_error *error) TRI_NODISCARD;
/* Reads DIR/state.json; tri_checkpoint_state_fini it, also after a failure. */
enum tri_status tri_checkpoint_state_load(const char *dir, struct tri_checkpoint_state *state,
                                          struct tri_error *error) TRI_NODISCARD;

#endif
