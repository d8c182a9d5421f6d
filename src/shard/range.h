/* Who owns what: pure index maths, the same on every rank. */
#ifndef TRIDENT_SHARD_RANGE_H
#define TRIDENT_SHARD_RANGE_H

#include <stdint.h>

struct tri_range {
    int64_t begin, end; /* half open */
};

/* Part `index` of [0, n) cut into `parts` consecutive ranges whose sizes differ by at most one;
 * they may be empty. Cuts nest: a part of `parts` is the union of the m parts of parts * m in its
 * place. */
struct tri_range tri_range_part(int64_t n, int parts, int index);
struct tri_range tri_range_intersect(struct tri_range a, struct tri_range b);

static inline int64_t tri_range_size(struct tri_range r)
{
    return r.end - r.begin;
}

/* The KV heads that query heads `q` use, `group` query heads to a KV head. */
struct tri_range tri_range_kv_heads(struct tri_range q, int64_t group);

#endif
