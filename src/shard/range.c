#include "shard/range.h"

struct tri_range tri_range_part(int64_t n, int parts, int index)
{
    return (struct tri_range){n * index / parts, n * (index + 1) / parts};
}

struct tri_range tri_range_intersect(struct tri_range a, struct tri_range b)
{
    struct tri_range r = {a.begin > b.begin ? a.begin : b.begin, a.end < b.end ? a.end : b.end};
    if (r.end < r.begin) {
        r.end = r.begin;
    }
    return r;
}

struct tri_range tri_range_kv_heads(struct tri_range q, int64_t group)
{
    if (q.end <= q.begin) {
        return (struct tri_range){q.begin / group, q.begin / group};
    }
    return (struct tri_range){q.begin / group, (q.end - 1) / group + 1};
}
