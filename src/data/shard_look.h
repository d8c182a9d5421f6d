/* Files that are no headerless shards, told by a look at them: bytes of any kind can be read as
 * tokens, and most of what is not tokens has none beyond a vocabulary of 65,536. */
#ifndef TRIDENT_DATA_SHARD_LOOK_H
#define TRIDENT_DATA_SHARD_LOOK_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* BAD_INPUT, saying what the file is, when it begins as a file of a known format does or as text,
 * or when tokens of the other width explain its bytes and tokens of this one do not. width: 2 or 4
 * bytes; limit: every token is below. Local. */
enum tri_status tri_shard_look(const char *path, const unsigned char *data, size_t bytes, int width,
                               int64_t limit, struct tri_error *error) TRI_NODISCARD;

/* What the file is where its header is that of another of our files than a shard, or llm.c's of
 * questions; NULL: it is none. */
const char *tri_shard_name_other(const unsigned char *data, size_t bytes);

#endif
