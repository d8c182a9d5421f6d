/* A safetensors file of somebody else's names, which all ranks write together. Internal to
 * checkpoint/.
 *
 * Its tensors are taken in pieces of lines, a few megabytes each; a piece belongs to the rank that
 * has most of it, which adds low-rank pairs, turns it round where the family keeps it transposed,
 * makes it the file's type and writes it to its place. What a rank has all of it writes without a
 * message, the rest goes in rounds, of a piece for each rank. */
#ifndef TRIDENT_CHECKPOINT_HF_WRITE_H
#define TRIDENT_CHECKPOINT_HF_WRITE_H

#include "checkpoint/hf.h"

/* A row of the table in a tensor of the file, and the pair that is added to it, or NULL. */
struct tri_hf_row {
    struct tri_hf_source source;
    const struct tri_param *param, *a, *b;
};

struct tri_hf_file {
    const char *path;
    enum tri_safetensors_dtype dtype; /* F32, BF16 or F16 */
    int rows;
    const struct tri_hf_row *row; /* by name; those of one tensor follow each other */
    double scale;                 /* of pairs */
    int64_t piece;                /* elements, about; 0: as fits */
};

/* Elements of a row's tensor. Pure. */
int64_t tri_hf_elements(const struct tri_hf_source *source);
/* The end of the rows that share the tensor of row `first`. Pure. */
int tri_hf_tensor_end(int rows, const struct tri_hf_row *row, int first);

/* Beside the weights a rank takes TRI_HF_BUFFER_BYTES, unless a line or a pair's half is larger.
 * BAD_INPUT names a tensor with a number that no F16 holds. Collective over the mesh's world; the
 * status is the same on all ranks, and after a failure some of the file may be there. */
enum tri_status tri_hf_write(const struct tri_params *params, const struct tri_hf_file *file,
                             struct tri_error *error) TRI_NODISCARD;

#endif
