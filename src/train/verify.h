/* `trident verify`: this layout against one rank, parameter by parameter (docs/numerics.md). Runs
 * in f32 and writes nothing. */
#ifndef TRIDENT_TRAIN_VERIFY_H
#define TRIDENT_TRAIN_VERIFY_H

#include "comm/comm.h"
#include "config/config.h"

struct tri_verify_options {
    int64_t compared;  /* steps whose gradients are compared */
    int64_t steps;     /* steps whose updates are, from equal weights and moments, routes imposed */
    const char *plant; /* parameter whose gradient is scaled on the layout's side; or NULL */
    double factor;
};

enum { TRI_VERIFY_NAME = 128 };

struct tri_verify_result {
    bool passed;
    char worst_parameter[TRI_VERIFY_NAME]; /* gradient of the largest error against its limit; when
                                              something else failed, what */
    double worst_relative_l2;
    char
        worst_changed[TRI_VERIFY_NAME]; /* likewise of what updates changed; empty: none compared */
    double worst_change;
    int64_t near_ties;    /* tokens whose routes differ where the reference's gap is below 1e-6 */
    int64_t wrong_routes; /* … where it is not */
    double worst_loss;    /* relative, over the compared steps */
    double worst_training_loss; /* relative to the loss or to 1, over the followed steps */
    int64_t parameters, compared, steps;
    int64_t reference_bytes; /* that rank 0 takes beside the layout's own */
    int64_t layout_rows; /* windows of `step` were dealt by the layout: rows that the reference took
                            at once where one rank takes train.micro_batch; 0: as one rank would */
};

/* Collective over all ranks; status and result are the same on all. TRI_OK whether it passed or
 * not. */
enum tri_status tri_verify(struct tri_comm *comm, const struct tri_config *config,
                           const struct tri_verify_options *options,
                           struct tri_verify_result *result, struct tri_error *error) TRI_NODISCARD;

#endif
