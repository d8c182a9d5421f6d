/* Ranks that are threads of this process: no launcher, no other library. Each has a runtime, a job
 * and a watchdog of its own, as each process of an MPI job has; what they share is the hub and the
 * watchdog's records. */
#include "comm/threads_internal.h"
#include "comm/watch.h"

#include "base/memory.h"
#include "base/processors.h"
#include "base/runtime.h"
#include "base/signals.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* What all of them share. */
struct crew {
    struct tri_hub hub;
    struct tri_watch_record *record; /* [ranks] */
    pthread_mutex_t turn;
    pthread_barrier_t end;
    tri_rank_body *body;
    void *state;
};

struct thread_comm {
    struct tri_comm base;
    struct tri_threads_transport transport;
};

struct worker {
    struct crew *crew;
    struct tri_runtime *runtime;
    int rank, status;
    pthread_t thread;
};

/* The others are threads: they end with the process. */
static void end_all(struct tri_comm *comm, int exit_status)
{
    (void)comm;
    (void)exit_status;
}

/* Until a rank has a watchdog to ask: one of those that cannot begin says so. */
static bool speaks_first(void *crew)
{
    return tri_watch_claim_record(((struct crew *)crew)->record);
}

static struct tri_comm *create_comm(struct crew *crew, int rank)
{
    struct thread_comm *threads = tri_alloc(TRI_MEMORY_OTHER, sizeof(*threads));
    struct tri_comm *comm = &threads->base;
    int ranks = crew->hub.ranks;
    tri_threads_transport_init(&threads->transport, &crew->hub, rank);
    comm->transport = &threads->transport.base;
    comm->rank = comm->node_rank = rank;
    comm->size = comm->node_size = ranks;
    (void)snprintf(comm->library, sizeof(comm->library), "threads");
    comm->end_all = end_all;
    comm->turn = &crew->turn;
    comm->watch = tri_watch_start(comm);
    tri_comm_take_panics(comm);
    if (ranks > 1) {
        struct tri_watch_record **records =
            tri_alloc(TRI_MEMORY_OTHER, (size_t)ranks * sizeof(struct tri_watch_record *));
        for (int i = 0; i < ranks; i++) {
            records[i] = &crew->record[i];
        }
        tri_watch_open(comm->watch, records, 0);
    }
    return comm;
}

static void destroy_comm(struct crew *crew, struct tri_comm *comm)
{
    /* Whoever is late is waited for under the watchdog's eyes. */
    tri_watch_enter_stage(comm->watch, TRI_VERB_FINISH);
    (void)pthread_barrier_wait(&crew->end);
    tri_watch_leave_stage(comm->watch);
    tri_watch_close(comm->watch);
    tri_panic_set_hooks(NULL, NULL, NULL);
    tri_free(comm);
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct crew *crew = worker->crew;
    tri_runtime_bind(worker->runtime);
    tri_runtime_set_ranks(worker->runtime, crew->hub.ranks);
    tri_processors_open();
    tri_panic_set_hooks(speaks_first, NULL, crew);
    struct tri_comm *comm = create_comm(crew, worker->rank);
    worker->status = crew->body(comm, crew->state);
    destroy_comm(crew, comm);
    tri_runtime_bind(NULL);
    tri_runtime_destroy(worker->runtime);
    return NULL;
}

int tri_comm_run_threads(int ranks, tri_rank_body *body, void *state)
{
    struct crew crew = {.body = body, .state = state};
    TRI_REQUIRE(ranks > 0);
    tri_signals_start(false);
    tri_hub_init(&crew.hub, ranks);
    crew.record = tri_alloc(TRI_MEMORY_OTHER, (size_t)ranks * sizeof(*crew.record));
    (void)pthread_mutex_init(&crew.turn, NULL);
    (void)pthread_barrier_init(&crew.end, NULL, (unsigned int)ranks);
    struct worker *workers = tri_alloc(TRI_MEMORY_OTHER, (size_t)ranks * sizeof(*workers));
    for (int rank = 0; rank < ranks; rank++) {
        tri_watch_record_init(&crew.record[rank], rank);
    }
    tri_panic_set_hooks(speaks_first, NULL, &crew);
    for (int rank = 0; rank < ranks; rank++) {
        struct worker *worker = &workers[rank];
        *worker = (struct worker){.crew = &crew, .runtime = tri_runtime_create(rank), .rank = rank};
        int code = worker->runtime ? pthread_create(&worker->thread, NULL, work, worker) : ENOMEM;
        if (code != 0) {
            tri_panic(TRI_FAILED, "cannot start rank %d: %s", rank, strerror(code));
        }
    }
    int status = 0;
    for (int rank = 0; rank < ranks; rank++) {
        (void)pthread_join(workers[rank].thread, NULL);
        status = workers[rank].status > status ? workers[rank].status : status;
    }
    tri_panic_set_hooks(NULL, NULL, NULL);
    tri_free(workers);
    tri_free(crew.record);
    (void)pthread_barrier_destroy(&crew.end);
    (void)pthread_mutex_destroy(&crew.turn);
    tri_hub_fini(&crew.hub);
    return status;
}
