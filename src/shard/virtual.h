/* Virtual shards: a dimension that tensor cuts is cut further, into a number of parts that is the
 * same on every layout, so that sums over it can be taken part by part in one order. A rank holds
 * some consecutive parts; cuts nest (tri_range_part), so together they are its share.
 *
 *   total 8, tensor 2:   rank 0: 0 1 2 3   rank 1: 4 5 6 7       each: (0 + 1) + (2 + 3), then both
 */
#ifndef TRIDENT_SHARD_VIRTUAL_H
#define TRIDENT_SHARD_VIRTUAL_H

#include "shard/range.h"

struct tri_virtual {
    int total;      /* parts of the whole dimension */
    int first, own; /* this rank's: first, first + 1, …, own of them */
};

/* Own part `part` (from 0) of a dimension of `extent` elements in all, counted from the first
 * element that this rank holds. */
struct tri_range tri_virtual_part(struct tri_virtual shards, int64_t extent, int part);
/* Elements that this rank holds. */
int64_t tri_virtual_size(struct tri_virtual shards, int64_t extent);

#endif
