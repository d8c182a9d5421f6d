/* Who owns what: pure index maths, the same on every rank. */
#ifndef TRIDENT_SHARD_RANGE_H
#define TRIDENT_SHARD_RANGE_H

#include <stdint.h>

struct tri_range {
    int64_t begin, end; /* half open */
};

/* Part `index` of [0, n) cut into `parts` consecutive ranges whose sizes differ by at most one: the
 * first n % parts ranges are the longer ones. Ranges may be empty. */
struct tri_range tri_range_part(int64_t n, int parts, int index);
/* The part that holds element i. */
int tri_range_owner(int64_t n, int parts, int64_t i);
struct tri_range tri_range_intersect(struct tri_range a, struct tri_range b);

static inline int64_t tri_range_size(struct tri_range r)
{
    return r.end - r.begin;
}

/* The KV heads that query heads `q` use, `group` query heads to a KV head. */
struct tri_range tri_range_kv_heads(struct tri_range q, int64_t group);

#endif
