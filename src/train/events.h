/* Event files for TensorBoard, beside metrics.jsonl (metrics.tensorboard). Each start of a run
 * writes a file of its own, whose second event tells TensorBoard to forget what earlier files have
 * from the first step on that this start makes (session_log START): a run that goes on from a
 * checkpoint has no gaps and no doubles. A file that was cut short is read up to there.
 *
 *   record  u64 bytes | u32 masked CRC-32C of these 8 | event | u32 masked CRC-32C of the event */
#ifndef TRIDENT_TRAIN_EVENTS_H
#define TRIDENT_TRAIN_EVENTS_H

#include "comm/ledger.h"
#include "train/metrics.h"
#include "train/run_folder.h"

struct tri_events;

/* Begins the file in which `step` is the first. What `ledger` has by
 * now is no step's. folder and config are borrowed. */
enum tri_status tri_events_create(const struct tri_run_folder *folder,
                                  const struct tri_config *config, const struct tri_ledger *ledger,
                                  int64_t step, struct tri_events **events,
                                  struct tri_error *error) TRI_NODISCARD;
void tri_events_destroy(struct tri_events *events);

/* A step: losses, rate, speed, where its time went, balance, each expert's load where metrics have
 * it, memory that this rank holds and what it has sent by group since the last time. */
enum tri_status tri_events_step(struct tri_events *events, const struct tri_metrics *metrics,
                                const struct tri_ledger *ledger,
                                struct tri_error *error) TRI_NODISCARD;
enum tri_status tri_events_evaluation(struct tri_events *events, int64_t step,
                                      const struct tri_texts *texts,
                                      const struct tri_evaluation *evaluations,
                                      struct tri_error *error) TRI_NODISCARD;

/* CRC-32C (Castagnoli) as records have it. */
uint32_t tri_events_crc(const void *data, size_t bytes);

#endif
