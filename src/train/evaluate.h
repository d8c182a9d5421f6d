/* Token rows for the engine, and the loss over a whole set. */
#ifndef TRIDENT_TRAIN_EVALUATE_H
#define TRIDENT_TRAIN_EVALUATE_H

#include "data/loader.h"
#include "train/engine.h"
#include "train/text.h"

/* The training rows of a loader as a source. loader is borrowed. */
struct tri_rows_source tri_source_of_loader(const struct tri_loader *loader,
                                            const struct tri_config *config);

/* Uniform random tokens, a function of (seed, step, row): for configs without data. config is
 * borrowed. */
struct tri_rows_source tri_source_random(const struct tri_config *config);

struct tri_evaluation {
    double loss; /* cross-entropy, mean over the set's targets that count; NaN when none does */
    double aux_loss;
    int64_t targets, dropped;
    int64_t *load; /* [MoE layers, experts]; tri_free it */
};

/* Rows that an evaluation passes through the model as one batch: a few micro-batches a replica, or
 * what a replica has in a step where that is less than one: so it takes the memory of a step. */
int64_t tri_evaluate_rows(const struct tri_config *config, int replicas);

/* Whole rows of an evaluation of at most so many global batches (0: all), and the tokens of a
 * shorter row behind them. */
void tri_evaluate_extent(const struct tri_config *config, const struct tri_loader *loader,
                         int64_t batches, int64_t *rows, int64_t *rest);

/* Loss over the loader's evaluation rows, at most `batches` global batches of them (0: all), a few
 * at a time; `name`, "" where it has none, is shown while it lasts. REQUEUE when a signal that
 * stops the run comes before the last. Collective over the engine's mesh; the status is the same on
 * all ranks. */
enum tri_status tri_evaluate(struct tri_engine *engine, const struct tri_loader *loader,
                             const char *name, int64_t batches, struct tri_evaluation *result,
                             struct tri_error *error) TRI_NODISCARD;

/* The same for each of several sets, [texts->count]; all of them or none. */
enum tri_status tri_evaluate_all(struct tri_engine *engine, const struct tri_texts *texts,
                                 int64_t batches, struct tri_evaluation **results,
                                 struct tri_error *error) TRI_NODISCARD;
void tri_evaluations_free(int count, struct tri_evaluation *evaluations);
/* The mean over the targets of all of them; NaN when none counts. */
double tri_evaluation_loss(int count, const struct tri_evaluation *evaluations);

#endif
