/* A step rehearsed: the code of a run on a planned mesh, with kernels that do nothing, counts what one
 * rank of any layout takes and sends. What it counts is what that rank of a real run counts, byte for
 * byte and call for call, when routing is balanced. */
#ifndef TRIDENT_TRAIN_REHEARSAL_H
#define TRIDENT_TRAIN_REHEARSAL_H

#include "comm/comm.h"
#include "config/config.h"
#include "plan/memory.h"

struct tri_rehearsal {
    const struct tri_config *config; /* its layout's degrees are set aside for `size` */
    int size[TRI_AXIS_COUNT];        /* the mesh; config->parallel.expert_tensor counts */
    int rank;
    bool training; /* else an evaluation */
    double load;   /* rows that arrive at the experts, as a multiple of balanced routing's */
};

/* Peaks by category over two steps, without plan->process. ledger: the calls and bytes of the second
 * step; may be NULL. Local; takes no memory to speak of, whatever the plan's size. */
struct tri_memory_plan tri_rehearse(const struct tri_rehearsal *rehearsal,
                                    struct tri_ledger *ledger);

#endif
