#include "comm/comm.h"

#include "base/memory.h"

enum { CELLS = TRI_OP_COUNT * TRI_GROUP_COUNT * TRI_PHASE_COUNT * TRI_KIND_COUNT, COUNTS = 4 };

void tri_ledger_sum_ranks(struct tri_group *group, const struct tri_ledger *ledger,
                          struct tri_ledger *total)
{
    const struct tri_ledger_cell *own = &ledger->cell[0][0][0][0];
    struct tri_ledger_cell *sum = &total->cell[0][0][0][0];
    int64_t *counts = tri_alloc(TRI_MEMORY_OTHER, COUNTS * CELLS * sizeof(*counts));
    for (int i = 0; i < CELLS; i++) {
        int64_t *count = counts + COUNTS * i;
        count[0] = own[i].calls;
        count[1] = own[i].bytes;
        count[2] = own[i].bytes_between;
        count[3] = own[i].messages_between;
    }
    tri_all_reduce_sum(group, (struct tri_where){TRI_PHASE_CHECKPOINT, TRI_KIND_META}, counts,
                       COUNTS * CELLS, TRI_I64);
    for (int i = 0; i < CELLS; i++) {
        const int64_t *count = counts + COUNTS * i;
        sum[i] = (struct tri_ledger_cell){.calls = count[0],
                                          .bytes = count[1],
                                          .bytes_between = count[2],
                                          .messages_between = count[3]};
    }
    tri_free(counts);
}
