#include "shard/virtual.h"

static int64_t begin_of(struct tri_virtual shards, int64_t extent, int part)
{
    return extent * (shards.first + part) / shards.total;
}

struct tri_range tri_virtual_part(struct tri_virtual shards, int64_t extent, int part)
{
    int64_t before = begin_of(shards, extent, 0);
    return (struct tri_range){begin_of(shards, extent, part) - before,
                              begin_of(shards, extent, part + 1) - before};
}

int64_t tri_virtual_size(struct tri_virtual shards, int64_t extent)
{
    return tri_virtual_part(shards, extent, shards.own - 1).end;
}
