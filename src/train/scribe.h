/* What rank 0 writes down of each step and evaluation: a line of metrics.jsonl and, with
 * metrics.tensorboard, events; which of them are due. */
#ifndef TRIDENT_TRAIN_SCRIBE_H
#define TRIDENT_TRAIN_SCRIBE_H

#include "train/events.h"
#include "train/metrics.h"
#include "train/run_folder.h"

struct tri_scribe;

/* The next step is `step` + 1. folder and config are borrowed. FAILED when a file cannot be
 * written. */
enum tri_status tri_scribe_create(const struct tri_run_folder *folder,
                                  const struct tri_config *config, const struct tri_ledger *ledger,
                                  int64_t step, struct tri_scribe **scribe,
                                  struct tri_error *error) TRI_NODISCARD;
void tri_scribe_destroy(struct tri_scribe *scribe);

/* wanted: whether the step has its line though none is due. ledger: of this rank. */
enum tri_status tri_scribe_step(struct tri_scribe *scribe, struct tri_metrics *metrics, bool wanted,
                                const struct tri_ledger *ledger,
                                struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_scribe_evaluation(struct tri_scribe *scribe, int64_t step,
                                      const struct tri_texts *texts,
                                      const struct tri_evaluation *evaluations,
                                      struct tri_error *error) TRI_NODISCARD;

#endif
