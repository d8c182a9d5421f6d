/* The process: starting and ending MPI, who we are, and how a panic ends every rank. */
#include "comm/internal.h"

#include "base/signals.h"

#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Seconds that MPI_Abort may take before this process ends by itself. */
enum { ABORT_SECONDS = 2 };

static struct {
    bool running;
    MPI_Comm world, node;
    int rank, size;
    int node_rank, node_size;
    int64_t max_message;
} process = {.size = 1, .node_size = 1, .max_message = INT64_C(1) << 30};

/* Hydra, MPICH's launcher, drops the lines that it has not passed on when a rank aborts. */
static void let_launcher_read(void)
{
#ifdef MPICH_VERSION
    struct timespec pause = {.tv_nsec = 100000000};
    (void)nanosleep(&pause, NULL);
#endif
}

void tri_process_abort(int exit_status)
{
    if (process.running) {
        tri_signals_exit_after(ABORT_SECONDS, exit_status);
        let_launcher_read();
        (void)MPI_Abort(MPI_COMM_WORLD, exit_status);
    }
    _exit(exit_status);
}

void tri_mpi_fail(int code, const char *file, int line, const char *call)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    (void)MPI_Error_string(code, text, &length);
    tri_panic(TRI_FAILED, "%s:%d: %s: %s", file, line, call, text);
}

void tri_comm_start(int *argc, char ***argv)
{
    TRI_REQUIRE(!process.running);
    tri_signals_start(false);
    tri_watch_start();
    tri_watch_enter_stage(TRI_VERB_START);
    tri_launcher_init(argc, argv);
    process.running = true;
    tri_panic_set_hooks(tri_watch_claim, tri_process_abort);
    TRI_MPI(MPI_Comm_dup(MPI_COMM_WORLD, &process.world));
    TRI_MPI(MPI_Comm_set_errhandler(process.world, MPI_ERRORS_RETURN));
    TRI_MPI(MPI_Comm_set_name(process.world, "trident"));
    TRI_MPI(MPI_Comm_rank(process.world, &process.rank));
    TRI_MPI(MPI_Comm_size(process.world, &process.size));
    tri_rank_set(process.rank);
    TRI_MPI(MPI_Comm_split_type(process.world, MPI_COMM_TYPE_SHARED, process.rank, MPI_INFO_NULL,
                                &process.node));
    TRI_MPI(MPI_Comm_rank(process.node, &process.node_rank));
    TRI_MPI(MPI_Comm_size(process.node, &process.node_size));
    tri_watch_check_environment(process.world);
    if (process.size > 1) {
        tri_watch_open(process.world, process.node);
    }
    tri_watch_leave_stage();
}

void tri_comm_finish(void)
{
    TRI_REQUIRE(process.running);
    tri_watch_enter_stage(TRI_VERB_FINISH);
    /* Whoever is late is waited for while MPI_Abort still ends the job. */
    TRI_MPI(MPI_Barrier(process.world));
    tri_watch_release();
    TRI_MPI(MPI_Comm_free(&process.node));
    TRI_MPI(MPI_Comm_free(&process.world));
    process.running = false;
    TRI_MPI(MPI_Finalize());
    tri_watch_close();
}

MPI_Comm tri_process_world(void)
{
    return process.running ? process.world : MPI_COMM_NULL;
}

int tri_comm_rank(void)
{
    return process.rank;
}

int tri_comm_size(void)
{
    return process.size;
}

int tri_comm_local_size(void)
{
    return process.node_size;
}

int tri_comm_local_rank(void)
{
    return process.node_rank;
}

const char *tri_comm_library(void)
{
    static char name[MPI_MAX_LIBRARY_VERSION_STRING];
    if (!name[0]) {
        char text[MPI_MAX_LIBRARY_VERSION_STRING] = "";
        int length = 0;
        TRI_MPI(MPI_Get_library_version(text, &length));
        char version[64];
        if (sscanf(text, "Open MPI v%63[^, \n]", version) == 1) {
            (void)snprintf(name, sizeof(name), "Open MPI %s", version);
        } else if (sscanf(text, "MPICH Version: %63[^ \n]", version) == 1) {
            (void)snprintf(name, sizeof(name), "MPICH %s", version);
        } else {
            (void)snprintf(name, sizeof(name), "%.*s", (int)strcspn(text, "\n"), text);
        }
    }
    return name;
}

void tri_comm_set_max_message(int64_t elements)
{
    TRI_REQUIRE(elements > 0 && elements <= INT64_C(1) << 30);
    process.max_message = elements;
}

int64_t tri_process_max_message(void)
{
    return process.max_message;
}
