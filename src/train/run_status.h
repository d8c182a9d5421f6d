/* RUN/status.json: whether a run goes on, on which host, or how it ended; what its model and layout
 * are. Written when it begins and when it ends; a run that was killed leaves "running" behind, and
 * no lock (train/run_look.h). */
#ifndef TRIDENT_TRAIN_RUN_STATUS_H
#define TRIDENT_TRAIN_RUN_STATUS_H

#include "train/run_folder.h"
#include "train/session.h"

enum tri_run_state { TRI_RUN_RUNNING, TRI_RUN_FINISHED, TRI_RUN_STOPPED, TRI_RUN_FAILED };

struct tri_run_status {
    enum tri_run_state state;
    char host[64]; /* rank 0's */
    int64_t pid;
    int64_t began, ended; /* seconds since 1970; ended 0: it has not */
    char reason[1024];    /* of STOPPED and FAILED */
    int64_t step, steps;  /* done when this was written, and asked for */
    int64_t parameters, active, experts, top_k;
    int64_t ranks, tensor, cross, depth, expert, data;
};

/* A run of this process that begins now. */
void tri_run_status_begin(const struct tri_session *session, int64_t step,
                          struct tri_run_status *status);
enum tri_status tri_run_status_save(const struct tri_run_folder *folder,
                                    const struct tri_run_status *status,
                                    struct tri_error *error) TRI_NODISCARD;
/* Of any folder; numbers that are not there are 0. BAD_INPUT for anything else but a run's file. */
enum tri_status tri_run_status_load(const char *run, struct tri_run_status *status,
                                    struct tri_error *error) TRI_NODISCARD;

#endif
