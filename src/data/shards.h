/* Token shards, read. All files that a pattern matches, in order of their names, are one long
 * sequence of tokens; nothing above this file knows where one shard ends and the next begins.
 *
 * Formats (little-endian):
 *   llmc   1024-byte header of 256 int32: magic 20240520, version 1, tokens; then u16 tokens,
 *          or magic 20240801, version 7, tokens; then u32 tokens. The last token ends the file.
 *   u16, u32   tokens and nothing else.
 *   megatron   the same, with an index NAME.idx beside NAME.bin (data/megatron.c).
 * Beside NAME.bin, whatever its format, may lie
 *   NAME.mask  1024-byte header of 256 int32: magic 20261129, 1, 0, 0, tokens as int64, zeros; then
 *              bit i % 8 of byte i / 8 says whether token i counts as a target. Without: all do.
 *   NAME.docs  the same with magic 20261130 and the number of documents; then the places, as u64,
 *              where they begin, ascending. A document may go on in the next file. Where some files
 *              have none, a document begins with each of these.
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
    int64_t documents; /* that begin in it; -1: it has no list of them */
    bool masked;
};

/* Opens every file that pattern (as glob(7)) matches. Tokens must be below vocab_size; 0 allows any
 * below INT32_MAX. Local; *tokens is NULL on failure. Fails with BAD_INPUT and one line that names
 * the file, what was found and what was expected: nothing matches, magic, version, size, no tokens,
 * a token out of range, a mask or documents that are not of the shard. */
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
 * last among them; where the set has masks or documents, of these in the same blocks too. Equal
 * tokens, equal hash, whatever the files' names, widths and cuts. Fails as tri_tokens_read. */
enum tri_status tri_tokens_contents(const struct tri_tokens *tokens, uint64_t *hash,
                                    struct tri_error *error) TRI_NODISCARD;
/* Of one shard, for ranks that compare theirs, and cheap enough for a thousand that start at once:
 * XXH3-64 of the tokens' bytes, and of what lies beside them, of all when the set is small
 * (TRI_TOKENS_CHECK_BYTES), else of their number and of blocks at the begin, at the end and
 * between, the more the fewer shards there are. Never fails. */
uint64_t tri_tokens_fingerprint(const struct tri_tokens *tokens, int index);

/* out[count] <- the tokens from `first` on, across shards. The range must lie within the set (a bug
 * if not). Fails with BAD_INPUT when one is not below vocab_size: the line names the shard, the
 * token's place in it and the token. */
enum tri_status tri_tokens_read(const struct tri_tokens *tokens, int64_t first, int64_t count,
                                int32_t *out, struct tri_error *error) TRI_NODISCARD;

/* Whether any shard has a mask, or a list of documents. */
bool tri_tokens_masked(const struct tri_tokens *tokens);
bool tri_tokens_documented(const struct tri_tokens *tokens);
/* targets[i] <- -1 where token first + i does not count as a target. */
void tri_tokens_mask(const struct tri_tokens *tokens, int64_t first, int64_t count,
                     int32_t *targets);
/* How many tokens of [first, first + count) count as targets. */
int64_t tri_tokens_counted(const struct tri_tokens *tokens, int64_t first, int64_t count);
/* Where the first document behind position begins; the number of tokens when there is none. */
int64_t tri_tokens_next_document(const struct tri_tokens *tokens, int64_t position);

#endif
