/* What a run was planned to take, beside which a report puts what it took. */
#ifndef TRIDENT_TRAIN_RUN_PLAN_H
#define TRIDENT_TRAIN_RUN_PLAN_H

#include "train/run_folder.h"
#include "train/session.h"

/* Rehearses a step of rank 0 with balanced routing and writes plan.json: memory by category, as the
 * session was checked for, the calls and bytes of the step, and with plan.cluster its time, part by
 * part. What cannot be planned is null there, and a note says why. Local to rank 0. */
enum tri_status tri_run_plan_save(const struct tri_session *session,
                                  const struct tri_run_folder *folder,
                                  struct tri_error *error) TRI_NODISCARD;

#endif
