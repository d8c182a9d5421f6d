/* trace.steps of a run: what each rank did when (base/trace.h), of these steps and of evaluations
 * and checkpoints among them, as one file in the run folder, trace-FIRST-LAST.json. A start that
 * goes on behind the first of them traces what is left. Events are kept in memory, and written when
 * the last step has ended: by rank 0, to which the others send theirs. None of that is booked.
 *
 * Ranks of other hosts have clocks of their own: when the first step begins each sends messages to
 * and fro with rank 0, and takes the difference that the fastest of them shows. */
#ifndef TRIDENT_TRAIN_RUN_TRACE_H
#define TRIDENT_TRAIN_RUN_TRACE_H

#include "train/run_folder.h"

struct tri_run_trace;
struct tri_session;

/* Bytes that a rank of so many threads takes for it; 0 where nothing is traced. */
size_t tri_run_trace_bytes(const struct tri_config *config, int threads);

/* Of a start whose first step is `step` + 1; NULL where none of its steps is to be traced, which
 * rank 0 says if the config wants some. session is borrowed. Local. */
struct tri_run_trace *tri_run_trace_create(struct tri_session *session, int64_t step);
void tri_run_trace_destroy(struct tri_run_trace *trace);

/* Before the step, and behind all that follows it; last: no other step does. All take NULL. folder:
 * rank 0's. Collective. */
void tri_run_trace_begin(struct tri_run_trace *trace, int64_t step);
enum tri_status tri_run_trace_end(struct tri_run_trace *trace, int64_t step, bool last,
                                  const struct tri_run_folder *folder,
                                  struct tri_error *error) TRI_NODISCARD;

#endif
