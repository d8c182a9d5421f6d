/* A runtime of another program's: its ranks, and how a call reaches them. */
#ifndef TRIDENT_EMBED_INTERNAL_H
#define TRIDENT_EMBED_INTERNAL_H

#include "base/runtime.h"
#include "comm/comm.h"
#include "trident/trident.h"

#include <pthread.h>

/* A rank: a thread that waits for work. */
struct tri_rank {
    struct trident_runtime *owner;
    int number;
    struct tri_comm *comm;
    enum tri_status status; /* of the last work */
    struct tri_error error;
};

/* What one rank does of a call; the status is the same on all. */
typedef enum tri_status tri_rank_work(struct tri_rank *rank, void *argument,
                                      struct tri_error *error);

struct trident_runtime {
    int ranks, threads;
    void (*log)(void *state, const char *line);
    void *log_state;
    struct tri_rank *rank;     /* [ranks] */
    struct tri_runtime *base;  /* that the ranks' are made from */
    pthread_t starter;         /* starts the ranks, and waits for them */
    struct tri_rank in_charge; /* what it is when it panics */
    pthread_mutex_t turn;      /* one call at a time */
    pthread_mutex_t lock;      /* of what follows */
    pthread_cond_t changed;
    tri_rank_work *work; /* of the call under way */
    void *argument;
    int64_t calls; /* begun so far */
    int models;    /* that are not destroyed */
    int wanted;    /* ranks that the call is for: the first so many */
    int busy;      /* that have not ended it */
    bool ends;     /* the threads are to end */
    bool broken;
    struct tri_error why; /* when it is broken */
};

/* Starts the threads and waits until they are there; FAILED when there cannot be so many, and then
 * the runtime may be broken. */
enum tri_status tri_ranks_start(struct trident_runtime *runtime,
                                struct tri_error *error) TRI_NODISCARD;
/* Ends them and frees what they had. Not for a broken runtime. */
void tri_ranks_stop(struct trident_runtime *runtime);
/* Has the work done by all ranks, or by rank 0 alone, and waits for it. error may be NULL. */
enum trident_status tri_ranks_do(struct trident_runtime *runtime, bool all, tri_rank_work *work,
                                 void *argument, struct trident_error *error);

/* Fills error unless it is NULL. */
enum trident_status tri_embed_fail(struct trident_error *error, enum tri_status status,
                                   const char *message);

#endif
