/* A run folder seen from outside, while it is worked in or long after, whatever is in it. */
#ifndef TRIDENT_TRAIN_RUN_LOOK_H
#define TRIDENT_TRAIN_RUN_LOOK_H

#include "train/run_status.h"

enum tri_run_seen {
    TRI_SEEN_STARTING, /* a job holds the lock, and has not begun the run, or it again */
    TRI_SEEN_RUNNING,
    TRI_SEEN_FINISHED,
    TRI_SEEN_STOPPED, /* by a signal: the same command goes on */
    TRI_SEEN_FAILED,
    TRI_SEEN_DIED,   /* its status says that it runs on this host, but nobody holds the lock */
    TRI_SEEN_UNKNOWN /* no status to be read, or it says that another host's run goes on, whose lock
                        may not be seen from here */
};

struct tri_run_look {
    char path[TRI_PATH_MAX];
    enum tri_run_seen seen;
    struct tri_run_status status;
    int64_t step;             /* of the last line of metrics, or of the status */
    double loss;              /* of the last step line; NaN: none */
    double tokens_per_second; /* median of the last lines; NaN: none */
    int64_t changed;          /* when status or metrics last did, seconds since 1970; 0: none */
    char problem[512];        /* what could not be read, one line; "": nothing */
};

/* "starting", "running", "finished", "stopped", "failed", "died", "unknown" */
const char *tri_run_seen_name(enum tri_run_seen seen);
/* The state in words: where it runs, or why it ended. */
void tri_run_seen_say(const struct tri_run_look *look, char *text, size_t bytes);

/* Whether a run has begun here, as its files say. */
bool tri_run_is(const char *path);
void tri_run_look(const char *path, struct tri_run_look *look);

/* All runs at and below path, some levels deep, each once whatever links lead to it; tri_free
 * *looks. What cannot be listed is one of them, with its problem. */
void tri_runs_find(const char *path, struct tri_run_look **looks, int64_t *count);

#endif
