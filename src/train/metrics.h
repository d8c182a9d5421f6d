/* What a step says: a line of metrics.jsonl, and a line for a person. */
#ifndef TRIDENT_TRAIN_METRICS_H
#define TRIDENT_TRAIN_METRICS_H

#include "train/engine.h"
#include "train/evaluate.h"

struct tri_metrics {
    int64_t step;         /* steps done, this one included */
    int64_t tokens;       /* targets that counted so far */
    int64_t batch_tokens; /* of the step's rows, padding apart: the model has passed them */
    int64_t skipped_steps;
    double learning_rate;
    double seconds; /* of the step */
    bool with_load; /* of each expert */
    const struct tri_step_report *report;
};

/* One JSON object without a newline; free() it. A value that is not finite, and a mean over
 * nothing, is null. */
char *tri_metrics_line(const struct tri_config *config, const struct tri_metrics *metrics);
/* evaluations [texts->count] */
char *tri_metrics_evaluation_line(const struct tri_config *config, int64_t step,
                                  const struct tri_texts *texts,
                                  const struct tri_evaluation *evaluations);

/* Balance of the experts over all MoE layers of a load table. */
struct tri_balance {
    double worst; /* largest, over layers, of max load / mean load */
    int64_t dead; /* experts that no token chose */
};
struct tri_balance tri_balance_get(const struct tri_config *config, const int64_t *load);

/* The live line of a terminal, or plain lines. */
struct tri_progress;
struct tri_progress *tri_progress_create(const struct tri_config *config);
void tri_progress_destroy(struct tri_progress *progress);
/* The first step of this start begins: on a terminal, that it takes longer. */
void tri_progress_warm(const struct tri_progress *progress, int64_t step);
void tri_progress_step(struct tri_progress *progress, const struct tri_metrics *metrics);
void tri_progress_evaluation(struct tri_progress *progress, int64_t step,
                             const struct tri_texts *texts,
                             const struct tri_evaluation *evaluations);

#endif
