/* Questions of multiple choice: which completion the model finds likeliest. */
#ifndef TRIDENT_TRAIN_CHOICES_H
#define TRIDENT_TRAIN_CHOICES_H

#include "data/choices.h"
#include "train/engine.h"

struct tri_choices_result {
    int64_t questions;
    int64_t right_by_mean; /* the least cross entropy a token: HellaSwag's acc_norm, llm.c's */
    int64_t right_by_sum;  /* the least of the whole completion: acc */
};

/* Every row is a context and one completion; where two are equally likely the first one counts, and
 * where a loss is not finite no answer is right.
 * The engine's config has data.sequence_length at least tri_choices_longest. REQUEUE when a signal
 * that stops the run comes before the last. Collective over the engine's mesh; the result and the
 * status are the same on all ranks. */
enum tri_status tri_choices_answer(struct tri_engine *engine, const struct tri_choices *choices,
                                   struct tri_choices_result *result,
                                   struct tri_error *error) TRI_NODISCARD;

#endif
