/* The ledger: every call is booked by operation, group, phase and kind. Bytes are the payload
 * a rank hands to the call: all_reduce and broadcast n*w; all_gather its own part; reduce_scatter
 * its whole input; all_to_all_v the rows meant for other ranks; send n*w. A receive is booked as a
 * send of 0 bytes, for the time it waited. Groups of one book nothing. */
#ifndef TRIDENT_COMM_LEDGER_H
#define TRIDENT_COMM_LEDGER_H

#include "comm/axes.h"

#include <stdint.h>

enum tri_op {
    TRI_OP_ALL_REDUCE,
    TRI_OP_ALL_GATHER,
    TRI_OP_REDUCE_SCATTER,
    TRI_OP_ALL_TO_ALL,
    TRI_OP_BROADCAST,
    TRI_OP_SEND,
    TRI_OP_COUNT
};
enum tri_phase {
    TRI_PHASE_SETUP,
    TRI_PHASE_FORWARD,
    TRI_PHASE_RECOMPUTE,
    TRI_PHASE_BACKWARD,
    TRI_PHASE_OPTIMIZER,
    TRI_PHASE_EVAL,
    TRI_PHASE_CHECKPOINT,
    TRI_PHASE_COUNT
};
/* What the bytes are for. META: token counts, statistics, norms, agreement on errors. */
enum tri_kind {
    TRI_KIND_EMBEDDING,
    TRI_KIND_ATTENTION,
    TRI_KIND_MLP,
    TRI_KIND_MOE,
    TRI_KIND_SHARED_EXPERT,
    TRI_KIND_HEAD,
    TRI_KIND_GRADIENT,
    TRI_KIND_WEIGHTS,
    TRI_KIND_META,
    TRI_KIND_COUNT
};

struct tri_ledger_cell {
    int64_t calls, bytes;
    /* Of all_to_all and send: bytes that leave the host (tri_mesh_set_hosts), and ranks elsewhere
     * that they went to, one call after the other. */
    int64_t bytes_between, messages_between;
    double
        seconds; /* inside the call; of a begun one, from begin to end, less what passed after its
                       messages had arrived (as far as tri_mesh_progress was there to see it) */
    double
        seconds_exposed; /* that no computation hid: blocking calls, begin and end of begun ones */
};

struct tri_ledger {
    struct tri_ledger_cell cell[TRI_OP_COUNT][TRI_GROUP_COUNT][TRI_PHASE_COUNT][TRI_KIND_COUNT];
};

void tri_ledger_reset(struct tri_ledger *ledger);
void tri_ledger_book(struct tri_ledger *ledger, enum tri_op op, int group, enum tri_phase phase,
                     enum tri_kind kind, int64_t bytes, double seconds, double seconds_exposed);
/* What of a call that is booked leaves the host. */
void tri_ledger_book_between(struct tri_ledger *ledger, enum tri_op op, int group,
                             enum tri_phase phase, enum tri_kind kind, int64_t bytes,
                             int64_t messages);
/* Sums with wildcards: -1 matches all. 0 of no ledger, NULL. */
struct tri_ledger_cell tri_ledger_sum(const struct tri_ledger *ledger, int op, int group, int phase,
                                      int kind);

const char *tri_op_name(enum tri_op op);
const char *tri_phase_name(enum tri_phase phase);
const char *tri_kind_name(enum tri_kind kind);

#endif
