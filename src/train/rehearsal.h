/* A step rehearsed: the code of a run on a mesh without other ranks, with kernels that do nothing,
 * counts what one rank of any layout takes and sends. What it counts is what that rank of a real
 * run counts, byte for byte and call for call, when routing is balanced. */
#ifndef TRIDENT_TRAIN_REHEARSAL_H
#define TRIDENT_TRAIN_REHEARSAL_H

#include "plan/layouts.h"

struct tri_active;

struct tri_rehearsal {
    const struct tri_config *config; /* its own layout does not matter */
    struct tri_layout layout;
    int rank;
    bool training;                   /* else an evaluation, */
    const struct tri_active *active; /* in which only these experts work; NULL: all */
    enum tri_load load;
    int local_ranks; /* of this node that rehearse at once, and share its memory */
    int threads;     /* of the rank; 0: the config's, or one */
    /* Hosts as found (struct tri_mesh), NULL: one, where neither config nor cluster says. */
    const int *host;
    /* What says how long the second step takes, and where that goes; both NULL: nobody asks. */
    const struct tri_cluster *cluster;
    struct tri_step_time *time;
};

/* Peaks by category over two steps, without plan->process. ledger: the calls and bytes of the
 * second step; may be NULL. Local; takes some bytes for each token and each route of a micro-batch,
 * and addresses for the plan's size: FAILED, with figures, where those have no room. */
enum tri_status tri_rehearse(const struct tri_rehearsal *rehearsal, struct tri_ledger *ledger,
                             struct tri_memory_plan *plan, struct tri_error *error) TRI_NODISCARD;

/* The same of training: for tri_layout_plan, and with times for tri_layout_plan_timed. */
enum tri_status tri_rehearse_layout(const struct tri_config *config, struct tri_layout layout,
                                    int rank, enum tri_load load, struct tri_ledger *ledger,
                                    struct tri_memory_plan *plan, struct tri_error *error);
enum tri_status tri_rehearse_timed(const struct tri_config *config, struct tri_layout layout,
                                   int rank, const struct tri_cluster *cluster,
                                   struct tri_ledger *ledger, struct tri_layout_plan *plan,
                                   struct tri_error *error);

#endif
