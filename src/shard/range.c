#include "shard/range.h"

struct tri_range tri_range_part(int64_t n, int parts, int index)
{
    int64_t size = n / parts;
    int64_t longer = n % parts;
    int64_t begin = index * size + (index < longer ? index : longer);
    return (struct tri_range){begin, begin + size + (index < longer ? 1 : 0)};
}

int tri_range_owner(int64_t n, int parts, int64_t i)
{
    int64_t size = n / parts;
    int64_t longer = n % parts;
    if (i < longer * (size + 1)) {
        return (int)(i / (size + 1));
    }
    return (int)(longer + (i - longer * (size + 1)) / size);
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
