/* The job whose ranks MPI starts: its beginning and its end, and what the watchdog needs of it. MPI
 * may be somebody else's: then it goes on after the job, and nothing here ends it. */
#include "comm/mpi_internal.h"

#include "base/memory.h"
#include "base/signals.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* ABORT_SECONDS: that MPI_Abort may take before this process ends by itself. */
enum { ABORT_SECONDS = 2, PAGE = 4096 };

struct mpi_comm {
    struct tri_comm base;
    struct tri_mpi_transport transport;
    bool joined;          /* MPI is somebody else's */
    bool running;         /* MPI is ours, and runs */
    MPI_Comm world, node; /* our duplicate of all; its ranks on this node */
    MPI_Win records;      /* of the watchdog; MPI_WIN_NULL: there are none */
    bool mapped;          /* the records are our own mapping of the window's memory */
};

/* Hydra, MPICH's launcher, drops the lines that it has not passed on when a rank aborts. */
static void let_launcher_read(void)
{
#ifdef MPICH_VERSION
    struct timespec pause = {.tv_nsec = 100000000};
    (void)nanosleep(&pause, NULL);
#endif
}

static void end_all(struct tri_comm *comm, int exit_status)
{
    if (((struct mpi_comm *)comm)->running) {
        tri_signals_exit_after(ABORT_SECONDS, exit_status);
        let_launcher_read();
        (void)MPI_Abort(MPI_COMM_WORLD, exit_status);
    }
}

void tri_mpi_fail(int code, const char *file, int line, const char *call)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    (void)MPI_Error_string(code, text, &length);
    tri_panic(TRI_FAILED, "%s:%d: %s: %s", file, line, call, text);
}

static void name_library(char name[TRI_LIBRARY_BYTES])
{
    char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
    int length = 0;
    TRI_MPI(MPI_Get_library_version(text, &length));
    char version[64];
    if (sscanf(text, "Open MPI v%63[^, \n]", version) == 1) {
        (void)snprintf(name, TRI_LIBRARY_BYTES, "Open MPI %s", version);
    } else if (sscanf(text, "MPICH Version: %63[^ \n]", version) == 1) {
        (void)snprintf(name, TRI_LIBRARY_BYTES, "MPICH %s", version);
    } else {
        (void)snprintf(name, TRI_LIBRARY_BYTES, "%.*s", (int)strcspn(text, "\n"), text);
    }
}

/* ---- the watchdog's records ------------------------------------------------------------------ */

/* The record at base as a mapping of our own, which outlives the window and ends with the process:
 * MPI_Finalize is watched too. An old size of 0 asks for a second mapping of the same pages. NULL
 * where that is refused. */
static struct tri_watch_record *map_again(void *base)
{
    size_t offset = (uintptr_t)base % PAGE;
    size_t bytes = (offset + tri_watch_record_bytes() + PAGE - 1) / PAGE * PAGE;
    char *place = mremap((char *)base - offset, 0, bytes, MREMAP_MAYMOVE);
    return place == MAP_FAILED ? NULL : (struct tri_watch_record *)(void *)(place + offset);
}

/* The records of the node's ranks, each in its own rank's part of a window. */
static struct tri_watch_record **find_records(struct mpi_comm *mpi)
{
    int ranks = mpi->base.node_size;
    struct tri_watch_record **records =
        tri_alloc(TRI_MEMORY_OTHER, (size_t)ranks * sizeof(*records));
    mpi->mapped = !mpi->joined;
    for (int i = 0; i < ranks; i++) {
        MPI_Aint bytes = 0;
        int unit = 0;
        void *base = NULL;
        TRI_MPI(MPI_Win_shared_query(mpi->records, i, &bytes, &unit, &base));
        records[i] = base;
    }
    for (int i = 0; i < ranks; i++) {
        struct tri_watch_record *again = mpi->mapped ? map_again(records[i]) : NULL;
        mpi->mapped = again != NULL;
        records[i] = again ? again : records[i];
    }
    return records;
}

static void share_records(struct mpi_comm *mpi)
{
    const struct tri_comm *comm = &mpi->base;
    void *base = NULL;
    TRI_MPI(MPI_Win_allocate_shared((MPI_Aint)tri_watch_record_bytes(), 1, MPI_INFO_NULL, mpi->node,
                                    &base, &mpi->records));
    tri_watch_record_init(base, comm->rank);
    int first = comm->node_rank == 0;
    int node_index = 0;
    TRI_MPI(MPI_Exscan(&first, &node_index, 1, MPI_INT, MPI_SUM, mpi->world));
    node_index = comm->rank == 0 ? 0 : node_index;
    TRI_MPI(MPI_Bcast(&node_index, 1, MPI_INT, 0, mpi->node));
    struct tri_watch_record **records = find_records(mpi);
    TRI_MPI(MPI_Barrier(mpi->node));
    tri_watch_open(comm->watch, records, node_index);
}

static void release_records(struct mpi_comm *mpi)
{
    if (mpi->records == MPI_WIN_NULL) {
        return;
    }
    if (!mpi->mapped) {
        tri_watch_leave_records(mpi->base.watch);
        tri_watch_enter_stage(mpi->base.watch, TRI_VERB_FINISH);
    }
    TRI_MPI(MPI_Win_free(&mpi->records));
}

/* ---- beginning and end ----------------------------------------------------------------------- */

static struct mpi_comm *create(bool joined)
{
    struct mpi_comm *mpi = tri_alloc(TRI_MEMORY_OTHER, sizeof(*mpi));
    mpi->joined = joined;
    mpi->records = MPI_WIN_NULL;
    mpi->base.end_all = end_all;
    mpi->base.watch = tri_watch_start(&mpi->base);
    return mpi;
}

/* Which ranks share a node. */
static void find_hosts(struct mpi_comm *mpi)
{
    struct tri_comm *comm = &mpi->base;
    int first = comm->rank;
    if (comm->size > 1) {
        comm->host = tri_alloc(TRI_MEMORY_OTHER, (size_t)comm->size * sizeof(*comm->host));
        TRI_MPI(MPI_Bcast(&first, 1, MPI_INT, 0, mpi->node));
        TRI_MPI(MPI_Allgather(&first, 1, MPI_INT, comm->host, 1, MPI_INT, mpi->world));
    }
}

/* Finds this rank's place among all. */
static void find_place(struct mpi_comm *mpi, MPI_Comm all)
{
    struct tri_comm *comm = &mpi->base;
    TRI_MPI(MPI_Comm_dup(all, &mpi->world));
    TRI_MPI(MPI_Comm_set_errhandler(mpi->world, MPI_ERRORS_RETURN));
    TRI_MPI(MPI_Comm_set_name(mpi->world, "trident"));
    TRI_MPI(MPI_Comm_rank(mpi->world, &comm->rank));
    TRI_MPI(MPI_Comm_size(mpi->world, &comm->size));
    tri_rank_set(comm->rank);
    tri_mpi_transport_init(&mpi->transport, mpi->world);
    comm->transport = &mpi->transport.base;
    TRI_MPI(MPI_Comm_split_type(mpi->world, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL,
                                &mpi->node));
    TRI_MPI(MPI_Comm_rank(mpi->node, &comm->node_rank));
    TRI_MPI(MPI_Comm_size(mpi->node, &comm->node_size));
    find_hosts(mpi);
    name_library(comm->library);
}

struct tri_comm *tri_comm_start(int *argc, char ***argv)
{
    tri_signals_start(false);
    struct mpi_comm *mpi = create(false);
    struct tri_comm *comm = &mpi->base;
    tri_watch_enter_stage(comm->watch, TRI_VERB_START);
    tri_launcher_init(argc, argv);
    mpi->running = true;
    tri_comm_take_panics(comm);
    find_place(mpi, MPI_COMM_WORLD);
    if (comm->size > 1) {
        share_records(mpi);
    }
    tri_watch_leave_stage(comm->watch);
    return comm;
}

enum tri_status tri_comm_may_join(const void *communicator, struct tri_error *error)
{
    const MPI_Comm *all = communicator;
    int started = 0;
    int ended = 0;
    int level = MPI_THREAD_SINGLE;
    int inter = 0;
    (void)MPI_Initialized(&started);
    (void)MPI_Finalized(&ended);
    if (!started || ended) {
        return tri_fail(error, TRI_BAD_INPUT, "MPI %s", ended ? "has ended" : "is not initialised");
    }
    (void)MPI_Query_thread(&level);
    if (level < MPI_THREAD_SERIALIZED) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "MPI was initialised with MPI_THREAD_%s, expected MPI_THREAD_SERIALIZED or "
                        "MPI_THREAD_MULTIPLE: a thread of the runtime calls it",
                        level == MPI_THREAD_SINGLE ? "SINGLE" : "FUNNELED");
    }
    if (*all != MPI_COMM_NULL) {
        (void)MPI_Comm_test_inter(*all, &inter);
    }
    if (*all == MPI_COMM_NULL || inter) {
        return tri_fail(error, TRI_BAD_INPUT, "communicator: found %s, expected one of one group",
                        inter ? "an intercommunicator" : "MPI_COMM_NULL");
    }
    return TRI_OK;
}

struct tri_comm *tri_comm_join(const void *communicator)
{
    struct mpi_comm *mpi = create(true);
    tri_comm_set_timeout(&mpi->base, 0.0);
    find_place(mpi, *(const MPI_Comm *)communicator);
    if (mpi->base.size > 1) {
        share_records(mpi);
    }
    return &mpi->base;
}

void tri_comm_finish(struct tri_comm *comm)
{
    struct mpi_comm *mpi = (struct mpi_comm *)comm;
    tri_watch_enter_stage(comm->watch, TRI_VERB_FINISH);
    /* Whoever is late is waited for while MPI_Abort still ends the job. */
    TRI_MPI(MPI_Barrier(mpi->world));
    release_records(mpi);
    TRI_MPI(MPI_Comm_free(&mpi->node));
    TRI_MPI(MPI_Comm_free(&mpi->world));
    mpi->running = false;
    if (!mpi->joined) {
        TRI_MPI(MPI_Finalize());
    }
    tri_watch_close(comm->watch);
    if (!mpi->joined) {
        tri_panic_set_hooks(NULL, NULL, NULL);
    }
    tri_free(comm->host);
    tri_free(mpi);
}
