/* `trident verify`: this layout against one rank, parameter by parameter (docs/numerics.md). Runs
 * in f32 and writes nothing. */
#ifndef TRIDENT_TRAIN_VERIFY_H
#define TRIDENT_TRAIN_VERIFY_H

#include "config/config.h"

struct tri_verify_options {
    int64_t compared;  /* steps whose gradients are compared */
    int64_t steps;     /* then trained side by side with imposed routes */
    const char *plant; /* parameter whose gradient is scaled on the layout's side; or NULL */
    double factor;
};

struct tri_verify_result {
    bool passed;
    char worst_parameter
        [128]; /* largest error against its limit; "loss" or "routes" when that failed */
    double worst_relative_l2;
    int64_t near_ties;    /* tokens whose routes differ where the reference's gap is below 1e-6 */
    int64_t wrong_routes; /* … where it is not */
    double worst_loss;    /* relative, over the compared steps */
    double worst_training_loss; /* relative, over the steps trained side by side */
    int64_t parameters, compared, steps;
};

/* Collective over all ranks; status and result are the same on all. TRI_OK whether it passed or
 * not. */
enum tri_status tri_verify(const struct tri_config *config,
                           const struct tri_verify_options *options,
                           struct tri_verify_result *result, struct tri_error *error) TRI_NODISCARD;

#endif
