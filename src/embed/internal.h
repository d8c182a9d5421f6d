/* A runtime of another program's: its ranks, and how a call reaches them. */
#ifndef TRIDENT_EMBED_INTERNAL_H
#define TRIDENT_EMBED_INTERNAL_H

#include "base/runtime.h"
#include "comm/comm.h"
#include "train/session.h"
#include "trident/trident.h"

#include <pthread.h>
#include <stdatomic.h>

/* A rank of this process: a thread that waits for work. */
struct tri_rank {
    struct trident_runtime *owner;
    int number; /* in the job */
    int place;  /* among those of this process */
    struct tri_comm *comm;
    struct tri_mesh *world; /* of the processes, that their callers agree by; NULL: there is one */
    enum tri_status status; /* of the last work */
    struct tri_error error;
};

/* What one rank does of a call; the status is the same on all. */
typedef enum tri_status tri_rank_work(struct tri_rank *rank, void *argument,
                                      struct tri_error *error);

struct trident_runtime {
    int ranks;                /* of the job */
    int here;                 /* of these, in this process */
    int threads;              /* as given: 0 is what the config says */
    const void *communicator; /* MPI's, while the ranks start; NULL: all ranks are here */
    void (*log)(void *state, const char *line);
    void *log_state;
    struct tri_rank *rank;     /* [here] */
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
    int made;      /* models, so far: what numbers them */
    int wanted;    /* ranks here that the call is for: the first so many */
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
/* Has the work done by all ranks of this process, or by the first of them alone, and waits for it.
 * error may be NULL. */
enum trident_status tri_ranks_do(struct trident_runtime *runtime, bool all, tri_rank_work *work,
                                 void *argument, struct trident_error *error);

/* The same status on all processes: the worst, or BAD_INPUT where they are in different calls or
 * were given different things; error comes with that of status. For work that one rank of each
 * process does. */
enum tri_status tri_ranks_agree(struct tri_rank *rank, const char *call, const char *given,
                                enum tri_status status, struct tri_error *error) TRI_NODISCARD;

/* trident_runtime_create, and with the address of an MPI_Comm trident_runtime_create_mpi. */
enum trident_status tri_embed_create(const void *communicator,
                                     const struct trident_options *options,
                                     struct trident_runtime **runtime, struct trident_error *error);

/* Fills error unless it is NULL. */
enum trident_status tri_embed_fail(struct trident_error *error, enum tri_status status,
                                   const char *message);
/* BAD_INPUT: there is no such thing where one must be. */
enum trident_status tri_embed_missing(struct trident_error *error, const char *name);
/* BAD_INPUT on a runtime's own thread, which would wait for itself. */
enum trident_status tri_embed_check_caller(struct trident_error *error);

struct trident_model {
    struct trident_runtime *owner;
    int number; /* the same in all processes */
    struct tri_config config;
    bool training;
    struct tri_session *session;         /* [here] */
    struct tri_checkpoint_state state;   /* steps, tokens, samples */
    struct tri_checkpoint_choice choice; /* what it comes from; an empty path: nothing */
    _Atomic int64_t steps;               /* those of state, for who asks meanwhile */
};

#endif
