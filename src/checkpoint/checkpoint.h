/* Layout-free checkpoints: global tensors by name, so that any layout reads what any layout
 * wrote.
 *
 *   RUN/checkpoints/step_N/
 *     model-00001-of-00001.safetensors      f32 weights (the masters) under the table's names
 *     optimizer-00001-of-00001.safetensors  Adam's moments, "m.NAME" and "v.NAME"; not after import
 *     state.json                            step, tokens, seed, …, the resolved config
 *     tokenizer.json, …                     of the tokenizer, where the run has one
 *     manifest.json                         files, sizes, hashes, tensors, digest, its own check
 *
 * A checkpoint is written as step_N.trident.tmp and renamed when every byte is on disk: a folder
 * without that ending is whole, and stays so whatever dies. docs/formats.md has it byte by byte. */
#ifndef TRIDENT_CHECKPOINT_CHECKPOINT_H
#define TRIDENT_CHECKPOINT_CHECKPOINT_H

#include "config/config.h"
#include "model/param.h"

#include <stdbool.h>
#include <stdint.h>

/* What a run needs beside weights and moments to go on bit for bit. */
struct tri_checkpoint_state {
    int64_t step;   /* steps done */
    int64_t tokens; /* tokens trained on */
    /* Of the training set that were taken; -1: an older program wrote the state, and it is steps
     * times the batch of its config. */
    int64_t samples;
    int64_t data_tokens;    /* of the training set; 0: an older program did not say */
    uint64_t data_contents; /* its tri_tokens_contents */
    int64_t seed;
    int64_t skipped_steps; /* of all; non-finite gradients */
    int64_t skipped_in_a_row;
    int64_t bias_layers, bias_experts;
    float *bias;  /* [bias_layers, bias_experts] of bias balancing; NULL when off */
    char *config; /* the resolved config as YAML */
    /* A folder whose tokenizer's files go into the checkpoint; NULL: there are none. Borrowed;
     * NULL after a load: the checkpoint's own folder has them. */
    const char *tokenizer;
};

/* Frees bias and config (after a load; whoever fills a state to save it owns what it points to). */
void tri_checkpoint_state_fini(struct tri_checkpoint_state *state);

/* ---- writing --------------------------------------------------------------------------------- */

/* Whether a new checkpoint could be written at path, where nothing may be yet: BAD_INPUT or FAILED,
 * before long work. Local. */
enum tri_status tri_checkpoint_check_target(const char *path,
                                            struct tri_error *error) TRI_NODISCARD;

/* Writes a checkpoint folder at exactly `path` (through path.trident.tmp); one that is there
 * already is replaced, anything else there is refused. with_optimizer: m and v too. state on rank 0
 * counts. Collective over the mesh's world; the status is the same on all ranks, and after a
 * failure neither path nor, if it can be removed, path.trident.tmp holds anything of it. */
enum tri_status tri_checkpoint_write(const char *path, const struct tri_params *params,
                                     const struct tri_checkpoint_state *state, bool with_optimizer,
                                     struct tri_error *error) TRI_NODISCARD;

/* RUN/checkpoints/step_N with the optimizer, N = state->step; then removes older ones beyond
 * keep_last (0: keeps all). Collective, as above. */
enum tri_status tri_checkpoint_save(const char *run_dir, const struct tri_params *params,
                                    const struct tri_checkpoint_state *state, int64_t keep_last,
                                    struct tri_error *error) TRI_NODISCARD;

/* What a rank's buffers take at most beside the weights when a checkpoint is written or read: one
 * tensor's bytes, or 8 MiB where that is more. Pure. */
int64_t tri_checkpoint_buffer_bytes(const struct tri_params *params);

/* Removes what a killed save left (and puts back a checkpoint that was being replaced). Called by
 * tri_checkpoint_save; a run calls it when it starts. On one rank only. */
enum tri_status tri_checkpoint_clean(const char *run_dir, struct tri_error *error) TRI_NODISCARD;

/* ---- finding --------------------------------------------------------------------------------- */

/* Which checkpoint is taken, and of a run: what is known of those that were passed over. Begins
 * zeroed but for `moments`. */
struct tri_checkpoint_choice {
    bool moments; /* they are wanted too */
    char path[TRI_PATH_MAX];
    bool of_run; /* and not named itself: an older one may do */
    bool again;  /* path turned out to be damaged: choose once more */
    /* The step that was refused last, and why; it and later ones are not chosen. */
    bool refuses;
    int64_t refused;
    struct tri_error why;
    struct tri_error newest; /* what the newest of all lacks */
};

/* The newest checkpoint of a run that is whole, as far as manifest, state, sizes and headers tell;
 * the bytes of its tensors tell more when they are loaded (below). A damaged one is named in a
 * warning and passed over, and when all are damaged, BAD_INPUT says what the newest lacks. *found
 * is false when there is none. On one rank only. */
enum tri_status tri_checkpoint_latest(const char *run_dir, struct tri_checkpoint_choice *choice,
                                      bool *found, struct tri_error *error) TRI_NODISCARD;
/* The step of the run's newest checkpoint, whole or not, that is of `step` or before it; -1: none.
 * Local. */
int64_t tri_checkpoint_newest_until(const char *run_dir, int64_t step);
/* RUN|CHECKPOINT: a checkpoint folder as it is, damaged or not; a run's as above. */
enum tri_status tri_checkpoint_resolve(const char *given, struct tri_checkpoint_choice *choice,
                                       struct tri_error *error) TRI_NODISCARD;
/* path, of a run, is damaged, or has gone away meanwhile: choice->again. Local. */
void tri_checkpoint_refuse(struct tri_checkpoint_choice *choice, const struct tri_error *why);

/* Whether path, of a run, has gone away since it was chosen, as beside a run that goes on: what
 * failed then is nobody's fault, and another one is to be chosen. Collective over group; the same
 * on all ranks. */
bool tri_checkpoint_is_gone(const struct tri_checkpoint_choice *choice, struct tri_group *group);

/* ---- reading --------------------------------------------------------------------------------- */

/* Checks on every rank manifest, sizes, headers and state, and every tensor against the table; then
 * each rank reads its part of the files, once, and takes its slices of what all read, while the
 * hash of each file is taken. state (may be NULL) is filled: tri_checkpoint_state_fini it.
 * with_optimizer: m and v too, else their files are not opened; where there are none, they stay as
 * they are when nothing has been trained, else that is refused. BAD_INPUT names the file, the
 * tensor, found and expected, and the newest older checkpoint that is good. After a failure of the
 * checks the weights are as they were; after a wrong hash, which the whole file shows, or a file
 * that cannot be read to its end, they are undefined. Collective over the mesh's world; the status
 * is the same on all ranks. */
enum tri_status tri_checkpoint_load(const char *path, struct tri_params *params,
                                    struct tri_checkpoint_state *state, bool with_optimizer,
                                    struct tri_error *error) TRI_NODISCARD;
/* The checkpoint that was chosen, the same on all ranks, with its moments if they are wanted. When
 * its bytes are damaged or cannot be read and it is of a run, it is refused (choice->again) and no
 * other one is named; when it has gone away, again is set alone. Collective, as above. */
enum tri_status tri_checkpoint_load_choice(struct tri_checkpoint_choice *choice,
                                           struct tri_params *params,
                                           struct tri_checkpoint_state *state,
                                           struct tri_error *error) TRI_NODISCARD;

/* The state alone, its hash checked; tri_checkpoint_state_fini it, also after a failure, which
 * names an older checkpoint as above. Local. */
enum tri_status tri_checkpoint_read_state(const char *path, struct tri_checkpoint_state *state,
                                          struct tri_error *error) TRI_NODISCARD;

/* The config of a state that was read from the checkpoint at path, for one who knows these
 * strategies. Local. */
enum tri_status tri_checkpoint_config_of(const char *path, const struct tri_checkpoint_state *state,
                                         const struct tri_strategies *known,
                                         struct tri_config *config,
                                         struct tri_error *error) TRI_NODISCARD;

/* The config that the checkpoint was written under, of its state as above. Local. */
enum tri_status tri_checkpoint_read_config(const char *path, const struct tri_strategies *known,
                                           struct tri_config *config,
                                           struct tri_error *error) TRI_NODISCARD;

struct tri_checkpoint_tensor {
    const char *name;
    int dims;
    int64_t shape[2];
};

struct tri_checkpoint_info {
    int64_t step, tokens;
    bool optimizer;
    uint64_t digest; /* of names, shapes and weights: equal weights, equal digest */
    int64_t bytes;   /* of all files */
    int64_t parameters;
    int64_t count; /* weights, sorted by name */
    struct tri_checkpoint_tensor *tensor;
    struct tri_checkpoint_manifest *manifest; /* owns the names */
};

/* Checks everything that tri_checkpoint_load checks, moments too, short of a parameter table, and
 * takes the digest again from the data. tri_checkpoint_info_fini it. Local: call it on one rank. */
enum tri_status tri_checkpoint_inspect(const char *path, struct tri_checkpoint_info *info,
                                       struct tri_error *error) TRI_NODISCARD;
/* The same of a chosen one, refused when it is damaged and of a run. */
enum tri_status tri_checkpoint_inspect_choice(struct tri_checkpoint_choice *choice,
                                              struct tri_checkpoint_info *info,
                                              struct tri_error *error) TRI_NODISCARD;
void tri_checkpoint_info_fini(struct tri_checkpoint_info *info);

#endif
