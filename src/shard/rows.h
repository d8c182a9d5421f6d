/* Which rows of the global batch a data replica works on, and in which micro-step. Row numbers are
 * those of the global batch, so that row r means the same tokens on every layout.
 *
 *   global batch 7, replicas 3, micro-batch 2:
 *     replica 0: rows 0 1 | -      replica 1: rows 2 3 | -      replica 2: rows 4 5 | 6
 *                step 0   step 1              step 0   step 1              step 0   step 1
 *
 * A replica with no rows in a micro-step still takes part in it: its peers wait in its collectives.
 * Evaluation uses the same functions with the number of its rows as the global batch. */
#ifndef TRIDENT_SHARD_ROWS_H
#define TRIDENT_SHARD_ROWS_H

#include "shard/range.h"

/* Consecutive rows of replica `replica` of `replicas`: shares differ by at most one row and may be
 * empty. */
struct tri_range tri_rows_share(int64_t global_batch, int replicas, int replica);

/* Micro-steps of a step, the same for every replica: what the largest share needs at micro_batch
 * rows a time. 0 for a global batch of 0. */
int64_t tri_rows_micro_steps(int64_t global_batch, int replicas, int64_t micro_batch);

/* Rows of micro-step `index` of a replica: consecutive within its share; empty once the share is
 * used up. */
struct tri_range tri_rows_micro(int64_t global_batch, int replicas, int replica,
                                int64_t micro_batch, int64_t index);

#endif
