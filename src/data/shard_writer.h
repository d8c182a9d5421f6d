/* Token shards, written: llm.c's format, u16 tokens while the vocabulary fits, else u32. Files are
 * FOLDER/STEM_000000.bin, STEM_000001.bin, …; each appears whole or not at all. */
#ifndef TRIDENT_DATA_SHARD_WRITER_H
#define TRIDENT_DATA_SHARD_WRITER_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

enum { TRI_SHARD_TOKENS_MAX = INT32_MAX }; /* what the header can say */

struct tri_shard_writer;

struct tri_shard_writer_args {
    const char *folder; /* must exist */
    const char *stem;
    int64_t vocab_size;
    int64_t total;     /* tokens that will be written: a header comes before its tokens */
    int64_t per_shard; /* tokens to a file, 1 to TRI_SHARD_TOKENS_MAX; the last may have fewer */
};

/* Name of shard `index` of a stem. text has room for text_bytes. */
void tri_shard_name(const char *stem, int64_t index, char *text, size_t text_bytes);

/* Local. The strings are copied. No file is touched before the first token. */
struct tri_shard_writer *tri_shard_writer_create(const struct tri_shard_writer_args *args);
/* Appends count tokens; more than args->total in all, or one outside the vocabulary, is a bug.
 * Fails when the disk does; then only tri_shard_writer_destroy is allowed. */
enum tri_status tri_shard_writer_write(struct tri_shard_writer *writer, const int32_t *tokens,
                                       int64_t count, struct tri_error *error) TRI_NODISCARD;
/* Number of files finished so far. Once args->total tokens are written, that is all of them. */
int64_t tri_shard_writer_files(const struct tri_shard_writer *writer);
/* Removes the unfinished file, if there is one. */
void tri_shard_writer_destroy(struct tri_shard_writer *writer);

#endif
