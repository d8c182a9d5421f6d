/* What the watchdog's files share. */
#ifndef TRIDENT_COMM_WATCH_H
#define TRIDENT_COMM_WATCH_H

#include "comm/internal.h"

#include "base/work.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    TRI_WATCH_MESHES = 256,
    TRI_WATCH_CHANNELS = TRI_WATCH_MESHES * TRI_GROUP_COUNT,
    TRI_WATCH_SECOND = 1000000000, /* in nanoseconds */
    /* So many times as long as another wait may last a call on a file, and a wait for ranks of
     * other nodes, whose work cannot be seen and whose own nodes judge them. */
    TRI_WATCH_FACTOR = 10
};

/* One rank's record, in memory that the ranks of its node share. */
struct tri_watch_record {
    _Atomic uint64_t arrived[TRI_WATCH_CHANNELS]; /* calls reached, by group */
    _Atomic int64_t since;     /* tri_clock_nanoseconds when the wait began; 0: waits in none */
    _Atomic uint64_t sequence; /* the call it waits in */
    _Atomic int channel, verb, phase, kind;
    _Atomic int64_t n; /* of a call between two ranks: its length, type and other rank */
    _Atomic int dtype, peer;
    _Atomic int claimed; /* in the node's first record: some rank has begun to report */
    _Atomic int ended;   /* is about to exit */
    int rank, process;
    struct tri_work work;
};

struct tri_watch {
    struct tri_comm *comm; /* borrowed */
    /* The records; the thread looks at them under the lock. */
    int node_index;
    struct tri_watch_record *own;     /* NULL before there are records */
    struct tri_watch_record **record; /* [node_size], in order of rank */
    int *place;                       /* [size]: index into record, or -1 when on another node */
    /* Before there are records: the stage that this rank waits in, and since when. */
    _Atomic int64_t stage_since;
    const char *stage;
    uint64_t sequence; /* of the starting and ending calls */
    /* The first is all ranks, for starting and ending. */
    struct {
        bool used;
        uint64_t opened; /* how often */
        int size[TRI_AXIS_COUNT];
    } mesh[TRI_WATCH_MESHES];
    _Atomic int64_t timeout; /* nanoseconds; 0: none */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    bool stop; /* under lock */
};

/* The sizes of the mesh whose groups this channel is one of. */
const int *tri_watch_mesh_size(const struct tri_watch *watch, int channel);
/* Whether the system says that this process cannot go on: " (stopped)", " (gone)", or "". */
const char *tri_watch_halted(int process);
/* Whether a rank of this node keeps another of it waiting and waits for nobody itself. */
bool tri_watch_sees_cause(const struct tri_watch *watch);
/* Prints one line for this node, unless another of its ranks does, and ends the job. */
_Noreturn void tri_watch_report(struct tri_watch *watch);
/* The same before and after the records: what has not returned. */
_Noreturn void tri_watch_report_stage(const struct tri_watch *watch, double seconds);

#endif
