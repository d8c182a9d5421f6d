/* manifest.json: what a checkpoint consists of. Internal to checkpoint/.
 *
 * Its last line is a check of all bytes before it, so that no bit of the manifest itself can turn
 * unseen; through it, no bit of the checkpoint. */
#ifndef TRIDENT_CHECKPOINT_MANIFEST_H
#define TRIDENT_CHECKPOINT_MANIFEST_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* The last step that a checkpoint can be of: as many as train.steps may ask for. */
#define TRI_CHECKPOINT_STEPS INT64_C(1000000000)

struct json_t;

enum tri_manifest_part {
    TRI_MANIFEST_MODEL,
    TRI_MANIFEST_OPTIMIZER,
    TRI_MANIFEST_STATE,
    TRI_MANIFEST_TOKENIZER,
    TRI_MANIFEST_PARTS
};

struct tri_manifest_file {
    const char *name;
    enum tri_manifest_part part;
    uint64_t bytes, hash;
};

/* A weight: of the moments the manifest keeps no list, their files mirror the weights', but for
 * those that were not trained. */
struct tri_manifest_tensor {
    const char *name, *file;
    int dims;
    int64_t shape[2];
    uint64_t hash; /* XXH3-64 of its f32 data */
    bool frozen;   /* it has no moments */
};

struct tri_checkpoint_manifest {
    int64_t step;
    bool optimizer;
    uint64_t digest;
    int files;
    struct tri_manifest_file *file;
    int64_t count;
    struct tri_manifest_tensor *tensor; /* sorted by name (strcmp) */
    struct json_t *root;                /* owns the names of a manifest that was read */
};

/* The digest of a model: XXH3-64 over name, zero byte, dims, shape, hash of the data of each
 * tensor, in order of name. Sorts m->tensor. */
uint64_t tri_manifest_digest(struct tri_checkpoint_manifest *m);

/* Writes DIR/manifest.json; sorts m->tensor and sets m->digest. */
enum tri_status tri_manifest_save(const char *dir, struct tri_checkpoint_manifest *m,
                                  struct tri_error *error) TRI_NODISCARD;
/* Reads and checks DIR/manifest.json; a DIR called step_N must be of step N.
 * tri_manifest_destroy it. */
enum tri_status tri_manifest_load(const char *dir, struct tri_checkpoint_manifest **m,
                                  struct tri_error *error) TRI_NODISCARD;
void tri_manifest_destroy(struct tri_checkpoint_manifest *m);

/* Checks the size of every file of the manifest; opens none. */
enum tri_status tri_manifest_check_sizes(const char *dir, const struct tri_checkpoint_manifest *m,
                                         struct tri_error *error) TRI_NODISCARD;
/* BAD_INPUT for the file at path, whose hash was found to be another one: which tensor it is, where
 * the file can still be read and is of weights. Reads it. */
enum tri_status tri_manifest_name_damage(const char *path, const struct tri_manifest_file *file,
                                         uint64_t found, const struct tri_checkpoint_manifest *m,
                                         struct tri_error *error) TRI_NODISCARD;
/* Checks size and hash of every file of the manifest; for damaged weights it names the tensor. */
enum tri_status tri_manifest_verify_files(const char *dir, const struct tri_checkpoint_manifest *m,
                                          struct tri_error *error) TRI_NODISCARD;
/* The same for the file of one part alone. */
enum tri_status tri_manifest_verify_part(const char *dir, const struct tri_checkpoint_manifest *m,
                                         enum tri_manifest_part part,
                                         struct tri_error *error) TRI_NODISCARD;

#endif
