/* The process: starting and ending MPI, who we are, and how a panic ends every rank. */
#include "comm/internal.h"

#include "base/memory.h"
#include "base/signals.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Seconds that MPI_Abort may take before this process ends by itself. */
enum { ABORT_SECONDS = 2 };

/* Hydra, MPICH's launcher, drops the lines that it has not passed on when a rank aborts. */
static void let_launcher_read(void)
{
#ifdef MPICH_VERSION
    struct timespec pause = {.tv_nsec = 100000000};
    (void)nanosleep(&pause, NULL);
#endif
}

void tri_comm_abort(const struct tri_comm *comm, int exit_status)
{
    if (comm->running) {
        tri_signals_exit_after(ABORT_SECONDS, exit_status);
        let_launcher_read();
        (void)MPI_Abort(MPI_COMM_WORLD, exit_status);
    }
    _exit(exit_status);
}

static bool speaks(void *comm)
{
    return tri_watch_claim(((struct tri_comm *)comm)->watch);
}

static void abort_job(void *comm, int exit_status)
{
    tri_comm_abort(comm, exit_status);
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

struct tri_comm *tri_comm_start(int *argc, char ***argv)
{
    tri_signals_start(false);
    struct tri_comm *comm = tri_alloc(TRI_MEMORY_OTHER, sizeof(*comm));
    comm->watch = tri_watch_start(comm);
    tri_watch_enter_stage(comm->watch, TRI_VERB_START);
    tri_launcher_init(argc, argv);
    comm->running = true;
    tri_panic_set_hooks(speaks, abort_job, comm);
    TRI_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &comm->world));
    TRI_MPI(MPI_Comm_set_errhandler(comm->world, MPI_ERRORS_RETURN));
    TRI_MPI(MPI_Comm_set_name(comm->world, "trident"));
    TRI_MPI(MPI_Comm_rank(comm->world, &comm->rank));
    TRI_MPI(MPI_Comm_size(comm->world, &comm->size));
    tri_rank_set(comm->rank);
    TRI_MPI(MPI_Comm_split_type(comm->world, MPI_COMM_TYPE_SHARED, comm->rank, MPI_INFO_NULL,
                                &comm->node));
    TRI_MPI(MPI_Comm_rank(comm->node, &comm->node_rank));
    TRI_MPI(MPI_Comm_size(comm->node, &comm->node_size));
    name_library(comm->library);
    tri_watch_check_environment(comm);
    if (comm->size > 1) {
        tri_watch_open(comm->watch);
    }
    tri_watch_leave_stage(comm->watch);
    return comm;
}

void tri_comm_finish(struct tri_comm *comm)
{
    tri_watch_enter_stage(comm->watch, TRI_VERB_FINISH);
    /* Whoever is late is waited for while MPI_Abort still ends the job. */
    TRI_MPI(MPI_Barrier(comm->world));
    tri_watch_release(comm->watch);
    TRI_MPI(MPI_Comm_free(&comm->node));
    TRI_MPI(MPI_Comm_free(&comm->world));
    comm->running = false;
    TRI_MPI(MPI_Finalize());
    tri_watch_close(comm->watch);
    tri_panic_set_hooks(NULL, NULL, NULL);
    tri_free(comm);
}

int tri_comm_rank(const struct tri_comm *comm)
{
    return comm->rank;
}

int tri_comm_size(const struct tri_comm *comm)
{
    return comm->size;
}

int tri_comm_local_size(const struct tri_comm *comm)
{
    return comm->node_size;
}

int tri_comm_local_rank(const struct tri_comm *comm)
{
    return comm->node_rank;
}

const char *tri_comm_library(const struct tri_comm *comm)
{
    return comm->library;
}

struct tri_ledger *tri_comm_ledger(struct tri_comm *comm)
{
    return &comm->ledger;
}
