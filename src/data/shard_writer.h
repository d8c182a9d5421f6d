/* Token shards, written: llm.c's format, u16 tokens while the vocabulary fits, else u32. Files are
 * FOLDER/STEM_000000.bin, STEM_000001.bin, … and beside each, where there is something to say,
 * STEM_000000.mask (which tokens count as targets; absent: all) and STEM_000000.docs (where
 * documents begin). Each appears whole or not at all. */
#ifndef TRIDENT_DATA_SHARD_WRITER_H
#define TRIDENT_DATA_SHARD_WRITER_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

enum {
    TRI_SHARD_TOKENS_MAX = INT32_MAX, /* what the header can say */
    TRI_SIDECAR_HEADER_BYTES = 1024,  /* 256 int32: magic, version, 0, 0, count as an int64 */
    TRI_MASK_MAGIC = 20261129,
    TRI_DOCS_MAGIC = 20261130,
    TRI_SIDECAR_VERSION = 1,
    TRI_SIDECAR_COUNT_AT = 16 /* the count's bytes in the header */
};

struct tri_shard_writer;

struct tri_shard_writer_args {
    const char *folder; /* must exist */
    const char *stem;
    int64_t vocab_size;
    int64_t per_shard; /* tokens to a file, 1 to TRI_SHARD_TOKENS_MAX; the last may have fewer */
    int64_t first;     /* number of the first file */
    bool documents;    /* with .docs */
};

/* Name of file `index` of a stem; ending ".bin", ".mask" or ".docs". text has room for
 * text_bytes. */
void tri_shard_name(const char *stem, int64_t index, const char *ending, char *text,
                    size_t text_bytes);

/* Local. The strings are copied. No file is touched before the first token. */
struct tri_shard_writer *tri_shard_writer_create(const struct tri_shard_writer_args *args);
/* The next token is a document's first. */
void tri_shard_writer_begin_document(struct tri_shard_writer *writer);
/* Appends count tokens; one outside the vocabulary is a bug. counts: for each token whether it
 * counts as a target; NULL: all do. Fails when the disk does; then only tri_shard_writer_destroy is
 * allowed. */
enum tri_status tri_shard_writer_write(struct tri_shard_writer *writer, const int32_t *tokens,
                                       const unsigned char *counts, int64_t count,
                                       struct tri_error *error) TRI_NODISCARD;
/* Ends the file that is not full; then all are there. */
enum tri_status tri_shard_writer_finish(struct tri_shard_writer *writer,
                                        struct tri_error *error) TRI_NODISCARD;
/* Number of files finished so far. */
int64_t tri_shard_writer_files(const struct tri_shard_writer *writer);
/* Removes the unfinished file, if there is one. Takes NULL. */
void tri_shard_writer_destroy(struct tri_shard_writer *writer);

#endif
