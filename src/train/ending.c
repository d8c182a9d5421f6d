#include "train/ending.h"

#include <stdio.h>

enum tri_status tri_ending_skipped(const char *run_dir, const struct tri_checkpoint_state *state,
                                   struct tri_error *error)
{
    int64_t skipped = state->skipped_in_a_row;
    int64_t good = tri_checkpoint_newest_until(run_dir, state->step - skipped);
    char last[TRI_PATH_MAX + 96] = "no checkpoint from before them is there";
    if (good >= 0) {
        (void)snprintf(last, sizeof(last),
                       "the last checkpoint from before them is %s/checkpoints/step_%lld", run_dir,
                       (long long)good);
    }
    return tri_fail(error, TRI_FAILED,
                    "the last %lld step%s, up to step %lld, had a loss or gradient that is not "
                    "finite and changed no weight; %s",
                    (long long)skipped, skipped > 1 ? "s" : "", (long long)state->step, last);
}

enum tri_status tri_ending_of_own_file(enum tri_status status, struct tri_error *error)
{
    if (status != TRI_BAD_INPUT) {
        return status;
    }
    error->status = TRI_FAILED;
    return TRI_FAILED;
}
