/* A file of somebody else's names, which all ranks write together: safetensors or GGUF. Internal to
 * checkpoint/.
 *
 * Its tensors are taken in pieces of lines, a few megabytes each; a piece belongs to the rank that
 * has most of it, which adds low-rank pairs, turns it round where the family keeps it transposed,
 * makes it the tensor's type and writes it to its place. What a rank has all of it writes without a
 * message, the rest goes in rounds, of a piece for each rank. */
#ifndef TRIDENT_CHECKPOINT_HF_WRITE_H
#define TRIDENT_CHECKPOINT_HF_WRITE_H

#include "checkpoint/hf.h"

/* How a number is written. Q8_0: blocks of 32 of a line, an f16 scale and as many int8. */
enum tri_hf_number { TRI_HF_F32, TRI_HF_BF16, TRI_HF_F16, TRI_HF_Q8_0 };

enum { TRI_HF_BLOCK = 32 };

/* Bytes of so many numbers: of Q8_0, whole blocks. Pure. */
int64_t tri_hf_bytes(enum tri_hf_number number, int64_t count);

/* A row of the table in a tensor of the file, and the pair that is added to it, or NULL. */
struct tri_hf_row {
    struct tri_hf_source source;
    enum tri_hf_number number; /* its tensor's; */
    uint64_t begin;            /* and where that begins in the file */
    const struct tri_param *param, *a, *b;
};

/* Rows of the table, low-rank pairs beside the weight that they are added to, each with its source
 * by `find`; tri_free *rows. BAD_INPUT names a row for which there is none. Pure. */
typedef bool tri_hf_finder(enum tri_hf_family family, const struct tri_param *param,
                           int64_t num_experts, struct tri_hf_source *source);
enum tri_status tri_hf_place_rows(const struct tri_params *params, enum tri_hf_family family,
                                  int64_t num_experts, tri_hf_finder *find,
                                  struct tri_hf_row **rows, int *count,
                                  struct tri_error *error) TRI_NODISCARD;

struct tri_hf_file {
    const char *path;
    const void *header;
    size_t header_bytes;
    uint64_t bytes; /* of all; what lies between header and tensors is zeros */
    int rows;
    const struct tri_hf_row *row; /* those of one tensor follow each other, in its order */
    double scale;                 /* of pairs */
    int64_t piece;                /* elements, about; 0: as fits */
};

/* Elements of a row's tensor. Pure. */
int64_t tri_hf_elements(const struct tri_hf_source *source);
/* The end of the rows that share the tensor of row `first`. Pure. */
int tri_hf_tensor_end(int rows, const struct tri_hf_row *row, int first);

/* Beside the weights a rank takes TRI_HF_BUFFER_BYTES, unless a line or a pair's half is larger.
 * BAD_INPUT names a tensor with a number that F16 or Q8_0 does not hold. Collective over the mesh's
 * world; the status is the same on all ranks, and after a failure some of the file may be there. */
enum tri_status tri_hf_write(const struct tri_params *params, const struct tri_hf_file *file,
                             struct tri_error *error) TRI_NODISCARD;

#endif
