/* A checkpoint's files opened and held against its manifest. Internal to checkpoint/. */
#ifndef TRIDENT_CHECKPOINT_CHECK_H
#define TRIDENT_CHECKPOINT_CHECK_H

#include "checkpoint/checkpoint.h"
#include "checkpoint/manifest.h"
#include "checkpoint/safetensors.h"

/* How far a check goes. */
enum tri_checkpoint_depth {
    TRI_CHECKPOINT_WEIGHTS, /* manifest, state, sizes, the headers of the weights */
    TRI_CHECKPOINT_HEADERS, /* and of the moments */
    TRI_CHECKPOINT_BYTES    /* and every byte's hash; weights and moments are mapped */
};

struct tri_checkpoint_files {
    struct tri_checkpoint_manifest *manifest;
    struct tri_safetensors_set *weights, *moments; /* moments: NULL when not wanted or not there */
};

/* Checks all that can be checked so far without a parameter table, and leaves open what it looked
 * at; tri_checkpoint_close it, also after a failure. Local. */
enum tri_status tri_checkpoint_open(const char *path, enum tri_checkpoint_depth depth,
                                    struct tri_checkpoint_files *files,
                                    struct tri_error *error) TRI_NODISCARD;
void tri_checkpoint_close(struct tri_checkpoint_files *files);
/* Only whether it passes. Local. */
enum tri_status tri_checkpoint_check(const char *path, enum tri_checkpoint_depth depth,
                                     struct tri_error *error) TRI_NODISCARD;
/* Whether the model's table and the weights are of the same tensors. Local. */
enum tri_status tri_checkpoint_check_table(const char *path,
                                           const struct tri_checkpoint_files *files,
                                           const struct tri_params *params,
                                           struct tri_error *error) TRI_NODISCARD;
/* The state, of the step that the manifest is of; tri_checkpoint_state_fini it, also after a
 * failure. Local. */
enum tri_status tri_checkpoint_open_state(const char *path,
                                          const struct tri_checkpoint_manifest *manifest,
                                          struct tri_checkpoint_state *state,
                                          struct tri_error *error) TRI_NODISCARD;
/* Adds to a message about damage which older checkpoint of the run is whole to the last byte:
 * nobody should have to try them in turn. error may be NULL. Local. */
void tri_checkpoint_advise(const char *path, struct tri_error *error);

#endif
