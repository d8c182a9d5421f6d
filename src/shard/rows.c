#include "shard/rows.h"

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

struct tri_range tri_rows_share(int64_t global_batch, int replicas, int replica)
{
    return tri_range_part(global_batch, replicas, replica);
}

int64_t tri_rows_micro_steps(int64_t global_batch, int replicas, int64_t micro_batch)
{
    int64_t largest = global_batch / replicas + (global_batch % replicas != 0);
    return largest / micro_batch + (largest % micro_batch != 0);
}

struct tri_range tri_rows_micro(int64_t global_batch, int replicas, int replica,
                                int64_t micro_batch, int64_t index)
{
    struct tri_range share = tri_rows_share(global_batch, replicas, replica);
    int64_t size = tri_range_size(share);
    int64_t steps = size / micro_batch + (size % micro_batch != 0);
    if (index >= steps) {
        return (struct tri_range){share.end, share.end};
    }
    int64_t begin = share.begin + index * micro_batch;
    return (struct tri_range){begin, begin + smaller(micro_batch, share.end - begin)};
}
