/* Token shards, read. All files that a pattern matches, in order of their names, are one long
 * sequence of tokens; nothing above this file knows where one shard ends and the next begins.
 *
 * Formats (little-endian):
 *   llmc   1024-byte header of 256 int32: magic 20240520, version 1, tokens; then u16 tokens,
 *          or magic 20240801, version 7, tokens; then u32 tokens. The last token ends the file.
 *   u16, u32   tokens and nothing else.
 *
 * Files are memory-mapped: opening costs no memory, and ranks of one node share the pages. */
#ifndef TRIDENT_DATA_SHARDS_H
#define TRIDENT_DATA_SHARDS_H

#include "base/status.h"
#include "config/config.h"

#include <stdint.h>

enum {
    TRI_SHARD_HEADER_BYTES = 1024,
    TRI_SHARD_MAGIC_U16 = 20240520,
    TRI_SHARD_VERSION_U16 = 1,
    TRI_SHARD_MAGIC_U32 = 20240801,
    TRI_SHARD_VERSION_U32 = 7,
    /* Sets up to this many bytes are checked token by token when they are opened; larger ones only
     * where they are read. */
    TRI_TOKENS_CHECK_BYTES = 100 * 1000 * 1000
};

struct tri_tokens;

/* One file of the set, for reports. */
struct tri_shard_info {
    const char *path; /* borrowed from the set */
    int64_t tokens;
    int bytes_per_token; /* 2 or 4 */
    bool has_header;
};

/* Opens every file that pattern (as glob(7)) matches. Tokens must be below vocab_size; 0 allows any
 * below INT32_MAX. Local; *tokens is NULL on failure. Fails with BAD_INPUT and one line that names
 * the file, what was found and what was expected: nothing matches, magic, version, size, no tokens,
 * a token out of range. */
enum tri_status tri_tokens_create(const char *pattern, enum tri_data_format format,
                                  int64_t vocab_size, struct tri_tokens **tokens,
                                  struct tri_error *error) TRI_NODISCARD;
void tri_tokens_destroy(struct tri_tokens *tokens);

/* Tokens of all shards together; at least 1. */
int64_t tri_tokens_count(const struct tri_tokens *tokens);
int tri_tokens_shards(const struct tri_tokens *tokens);
struct tri_shard_info tri_tokens_shard(const struct tri_tokens *tokens, int index);
/* The largest token of the set: one pass over everything. */
int64_t tri_tokens_largest(const struct tri_tokens *tokens);

/* Of the set, for a checkpoint, so for ever: a hash of the tokens as 32-bit integers, in order: of
 * all when there are at most 2^24, else of 256 blocks of 65,536, spread evenly, the first and the
 * last among them. Equal tokens, equal hash, whatever the files' names, widths and cuts. Fails as
 * tri_tokens_read. */
enum tri_status tri_tokens_contents(const struct tri_tokens *tokens, uint64_t *hash,
                                    struct tri_error *error) TRI_NODISCARD;
/* Of one shard, for ranks that compare theirs, and cheap enough for a thousand that start at once:
 * XXH3-64 of the tokens' bytes, of all when the set is small (TRI_TOKENS_CHECK_BYTES), else of
 * their number and of blocks at the begin, at the end and between, the more the fewer shards there
 * are. Never fails. */
uint64_t tri_tokens_fingerprint(const struct tri_tokens *tokens, int index);

/* out[count] <- the tokens from `first` on, across shards. The range must lie within the set (a bug
 * if not). Fails with BAD_INPUT when one is not below vocab_size: the line names the shard, the
 * token's place in it and the token. */
enum tri_status tri_tokens_read(const struct tri_tokens *tokens, int64_t first, int64_t count,
                                int32_t *out, struct tri_error *error) TRI_NODISCARD;

#endif
