/* The bytes of files of tensors, which all ranks move together between the disk and their memory.
 * Internal to checkpoint/.
 *
 * Where a rank holds many bytes of a tensor in a row, as with all but matrices that are cut by
 * columns, it moves these itself, without a copy: slices (slices.c).
 *
 *   file   | header | embedding                     | layers.0.attention.k | …
 *   rank       0        0   |   1   |   2   |   3           0        |  1
 *
 * Ranks that hold the same weights are sent them by the one that has read them. The rest is moved
 * in rounds of chunks (chunks.c): a chunk for each rank, or for fewer where all buffers together
 * would take more than one tensor does. In a round each rank moves the bytes of its own chunk, all
 * at once, and the tensors in them go between it and the ranks that hold them.
 *
 * The hash of a file is of its bytes in their order: its state goes from rank to rank behind them,
 * and who waits for it has meanwhile moved some of its next slices. */
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
    const char *header; /* that is written; NULL when reading */
    int count;
    const struct tri_chunk_entry *entry; /* in the order of the file */
};

/* This rank's disk. What fails is told when all ranks are through. */
struct tri_chunk_disk {
    void *data;
    void (*move)(void *data, uint64_t begin, void *bytes, size_t count);
    /* Will be read soon. NULL when writing. */
    void (*expect)(void *data, uint64_t begin, size_t count);
};

/* What a rank has of a tensor, as all are told. */
struct tri_chunk_share {
    struct tri_range given, taken;
    int64_t flags;
};

struct tri_chunks {
    const struct tri_params *params;
    struct tri_params *into; /* the same when reading; NULL when writing */
    struct tri_group *world;
    int ranks, me;
    /* Of the file. */
    const struct tri_chunk_file *file;
    const struct tri_chunk_disk *disk;
    uint64_t *tensors;         /* their hashes; NULL: not wanted */
    int holder;                /* who has the hashes as far as they are */
    struct tri_hash *whole;    /* of the file */
    struct tri_hash *tensor;   /* of the tensor there */
    unsigned char *packed;     /* hashes that go and come */
    struct tri_request *going; /* those on their way */
    void *buffer;              /* a chunk, or a slice that has no place of its own */
    size_t buffer_bytes;
    /* What all ranks have of some entries. */
    int told_first, told_count, most_told;
    struct tri_chunk_share *told; /* [ranks][told_count] */
    int64_t slice;                /* elements, at most */
    int turn;                     /* who is next to read what several hold */
    /* Rounds. */
    int64_t bytes;       /* of a chunk */
    int most;            /* chunks in a round */
    int parts_most;      /* of tensors, in a round */
    int entry;           /* where the next chunk's first tensor is looked for */
    uint64_t at;         /* where it begins */
    uint64_t begin, end; /* this rank's chunk; equal where it has none */
    int owners;          /* of the round: ranks 0, 1, … */
    int parts;
    struct tri_param_part *part; /* [parts_most] what the round holds of tensors */
    int *entry_of;               /* of each part */
    struct tri_param_room room;  /* of what goes between the ranks */
};

/* into: params when reading, NULL when writing. wanted: bytes of a chunk and of a slice, a multiple
 * of 4; 0: as fits. Local. */
struct tri_chunks *tri_chunks_create(const struct tri_params *params, struct tri_params *into,
                                     int64_t wanted);
void tri_chunks_destroy(struct tri_chunks *chunks);
/* Moves a file, the same on all ranks, and takes its hash on the way; where tensors is given also
 * those of its tensors: tensors[e] is set on the rank that has the end of entry e. Collective over
 * the world. */
void tri_chunks_move(struct tri_chunks *chunks, const struct tri_chunk_file *file,
                     const struct tri_chunk_disk *disk, uint64_t *tensors);
/* The hash of that file, the same on all ranks. Collective over the world. */
uint64_t tri_chunks_hash(const struct tri_chunks *chunks);

/* ---- between chunks.c and slices.c ----------------------------------------------------------- */

/* The hashes to a rank that goes on with them. Every rank calls it alike. */
void tri_chunks_pass(struct tri_chunks *chunks, int to);
/* Takes n values of an entry, from its element `first` on, into them; by the holder. */
void tri_chunks_take(struct tri_chunks *chunks, int entry, int64_t first, int64_t n,
                     const float *values);
/* Tells all ranks what each has of entries from `first` on: told_count of them. Collective. */
void tri_slices_tell(struct tri_chunks *chunks, int first);
/* Whether an entry that was told of can be moved in slices; the same on all ranks. */
bool tri_slices_fit(const struct tri_chunks *chunks, int entry);
/* Moves entries [first, end), which fit. Collective. */
void tri_slices_move(struct tri_chunks *chunks, int first, int end);

#endif
