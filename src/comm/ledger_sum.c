#include "comm/comm.h"

#include "base/memory.h"

enum { CELLS = TRI_OP_COUNT * TRI_GROUP_COUNT * TRI_PHASE_COUNT * TRI_KIND_COUNT };

void tri_ledger_sum_ranks(struct tri_group *group, const struct tri_ledger *ledger,
                          struct tri_ledger *total)
{
    const struct tri_ledger_cell *own = &ledger->cell[0][0][0][0];
    struct tri_ledger_cell *sum = &total->cell[0][0][0][0];
    int64_t *counts = tri_alloc(TRI_MEMORY_OTHER, 2 * CELLS * sizeof(*counts));
    for (int i = 0; i < CELLS; i++) {
        counts[2 * i] = own[i].calls;
        counts[2 * i + 1] = own[i].bytes;
    }
    tri_all_reduce_sum(group, (struct tri_where){TRI_PHASE_CHECKPOINT, TRI_KIND_META}, counts,
                       2 * CELLS, TRI_I64);
    for (int i = 0; i < CELLS; i++) {
        sum[i] = (struct tri_ledger_cell){.calls = counts[2 * i], .bytes = counts[2 * i + 1]};
    }
    tri_free(counts);
}
