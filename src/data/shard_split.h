/* Shards that are written and not yet in their place: where they are cut, how they get there. */
#ifndef TRIDENT_DATA_SHARD_SPLIT_H
#define TRIDENT_DATA_SHARD_SPLIT_H

#include "base/status.h"

#include <stdbool.h>
#include <stdint.h>

/* What tri_shard_writer wrote, as "train", first file 0. */
struct tri_shard_set {
    const char *folder;
    int64_t vocab_size, per_shard, tokens;
    bool documents;
    int64_t train_files, valid_files;
};

/* *border <- the first token of the document, not the first, that begins nearest to a place; 0:
 * there is one document. */
enum tri_status tri_shard_find_border(const struct tri_shard_set *set, int64_t place,
                                      int64_t *border, struct tri_error *error) TRI_NODISCARD;
/* Makes the tokens from `first` on shards called "valid"; what is before them stays "train". */
enum tri_status tri_shard_split(struct tri_shard_set *set, int64_t first,
                                struct tri_error *error) TRI_NODISCARD;
/* Moves all into folder, where shards of these names make way first, with what lies beside them:
 * tokens go first and come last, so that none is ever there without its mask. */
enum tri_status tri_shard_publish(const struct tri_shard_set *set, const char *folder,
                                  struct tri_error *error) TRI_NODISCARD;

#endif
