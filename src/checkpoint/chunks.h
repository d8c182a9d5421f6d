/* Files of tensors in chunks, which the ranks take in turn. Internal to checkpoint/.
 *
 *   file    | header, chunk 0 | chunk 1 | chunk 2 | chunk 3 | chunk 4 | …
 *   rank            0              1         2         3         0
 *
 * A round is a chunk for each rank, or for fewer where all buffers together would take more than
 * one tensor does. In a round each rank moves the bytes of its own chunk between the file and its
 * memory, all at once, and the tensors in them go between it and the ranks that hold them. The hash
 * of a file is of its bytes in their order: its state goes from rank to rank behind them. */
#ifndef TRIDENT_CHECKPOINT_CHUNKS_H
#define TRIDENT_CHECKPOINT_CHUNKS_H

#include "base/hash.h"
#include "model/param.h"

/* A tensor of a file. */
struct tri_chunk_entry {
    const struct tri_param *param;
    enum tri_field field;
    uint64_t begin; /* the first of its bytes; a multiple of 4 */
};

/* Bytes [0, data) are the header, then the tensors follow each other. */
struct tri_chunk_file {
    uint64_t bytes, data;
    int count;
    const struct tri_chunk_entry *entry; /* in the order of the file */
};

struct tri_chunks {
    const struct tri_params *params;
    struct tri_group *world;
    int ranks, me;
    int64_t bytes;              /* of a chunk */
    int most;                   /* in a round */
    int turn;                   /* whose the first chunk of the file is */
    int after;                  /* of the next file */
    struct tri_chunk_file file; /* its entries are borrowed until the last chunk */
    int entry;                  /* where the round's first tensor is looked for */
    struct tri_hash *whole;     /* of the file, to the end of the last chunk that was here */
    struct tri_hash *tensor;    /* of the tensor there */
    int64_t *rows;              /* [2][ranks] */
    struct tri_param_room room; /* of what goes between the ranks */
    unsigned char *packed;      /* hashes that go and come */
    /* The round. */
    int64_t first;         /* its first chunk */
    int count;             /* chunks */
    uint64_t begin, end;   /* of this rank's chunk in the file; equal where it has none */
    unsigned char *buffer; /* that chunk */
    int parts, part_room;
    struct tri_param_part *part; /* what the round holds of tensors */
    int *entry_of;               /* of each part */
};

/* wanted: bytes of a chunk, a multiple of 4; 0: as fits. writing: else reading, which needs more
 * room. Local. */
struct tri_chunks *tri_chunks_create(const struct tri_params *params, bool writing, int64_t wanted);
void tri_chunks_destroy(struct tri_chunks *chunks);
/* Every rank begins the same files, in the same order. file is borrowed to its end. Local. */
void tri_chunks_begin(struct tri_chunks *chunks, const struct tri_chunk_file *file);
/* The next round; false at the end of the file. Local. */
bool tri_chunks_next(struct tri_chunks *chunks);
/* Where the values of this rank's parts begin in buffer; the header is before them. */
float *tri_chunks_values(const struct tri_chunks *chunks);
/* The chunk that this rank has in the round after this one; false when it has none there. */
bool tri_chunks_peek(const struct tri_chunks *chunks, uint64_t *begin, uint64_t *end);
/* Takes every chunk of the round into the hash of the file, and where tensors is given into those
 * of its tensors: tensors[e] is set on the rank that has the end of entry e. Collective over the
 * world. */
void tri_chunks_hash(struct tri_chunks *chunks, uint64_t *tensors);
/* Whether this rank has the end of the file, and so its hash in `whole`. After the last round. */
bool tri_chunks_has_end(const struct tri_chunks *chunks);

#endif
