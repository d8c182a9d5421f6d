/* A job that goes wrong in the way its first argument says; test_fault.c starts it. The rank that
 * stops writes its process id to the file named by the second argument first. */
#include "fixture.h"

#include "comm/mpi_internal.h"

#include "base/memory.h"
#include "base/signals.h"
#include "base/work.h"
#include "support/thread_fault.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const struct tri_where here = {TRI_PHASE_FORWARD, TRI_KIND_ATTENTION};
enum { N = 100000 };
static _Thread_local float *data; /* [N] */
static bool threads;

/* A thread cannot stop without the others: it does nothing any more. */
static void stop_here(const char *path)
{
    while (threads) {
        (void)pause();
    }
    FILE *file = fopen(path, "w");
    CHECK(file && fprintf(file, "%d\n", (int)getpid()) > 0 && fclose(file) == 0);
    (void)raise(SIGSTOP);
}

/* One rank stops before a collective of all. */
static void stop_before(const struct tri_mesh *mesh, const char *path)
{
    tri_all_reduce_sum(tri_mesh_group(mesh, TRI_ON_ALL), here, data, 10, TRI_F32);
    if (mesh->rank == mesh->ranks - 1) {
        stop_here(path);
    }
    tri_all_reduce_sum(tri_mesh_group(mesh, TRI_ON_ALL), here, data, 10, TRI_F32);
}

/* One rank stops before it makes a mesh whose place another one had, on which there were calls. */
static void stop_before_mesh(const char *path)
{
    for (int i = 0; i < 2; i++) {
        struct tri_mesh *mesh = NULL;
        if (i == 1 && job_rank() == job_size() - 1) {
            stop_here(path);
        }
        CHECK(tri_mesh_create(job(), job_size(), 1, 1, 1, &mesh, NULL) == TRI_OK);
        tri_all_reduce_sum(tri_mesh_group(mesh, TRI_ON_ALL), here, data, 10, TRI_F32);
        tri_mesh_destroy(mesh);
    }
}

/* One rank stops between the begin and the end of a collective. */
static void stop_inside(const struct tri_mesh *mesh, const char *path)
{
    struct tri_request *request =
        tri_all_reduce_sum_begin(tri_mesh_group(mesh, TRI_ON_ALL), here, data, N, TRI_F32);
    if (mesh->rank == mesh->ranks - 1) {
        stop_here(path);
    }
    tri_request_end(request);
}

/* The last rank stops; its tensor peer waits for it, and so does its expert peer; a rank that waits
 * for a waiting rank has nothing to say. */
static void stop_chain(const struct tri_mesh *mesh, const char *path)
{
    tri_barrier(tri_mesh_group(mesh, TRI_ON_ALL));
    if (mesh->rank == mesh->ranks - 1) {
        stop_here(path);
    }
    if (mesh->coord[TRI_AXIS_EXPERT] == mesh->size[TRI_AXIS_EXPERT] - 1) {
        tri_barrier(tri_mesh_group(mesh, TRI_ON_TENSOR));
    }
    tri_reduce_scatter_v(tri_mesh_group(mesh, TRI_ON_EXPERT), here, data, (const int64_t[]){5, 5},
                         TRI_F32);
}

/* One rank works for longer than the timeout before it comes, and says so. */
static void work(const struct tri_mesh *mesh)
{
    for (int i = 0; mesh->rank == 0 && i < 15; i++) {
        struct timespec time = {.tv_nsec = 200000000};
        (void)nanosleep(&time, NULL);
        tri_work_progress();
    }
    tri_barrier(tri_mesh_group(mesh, TRI_ON_ALL));
}

/* As if each half of the ranks had a node. */
static bool two_nodes;

int MPI_Comm_split_type(MPI_Comm comm, int type, int key, MPI_Info info, MPI_Comm *part)
{
    int rank = 0;
    int size = 0;
    if (!two_nodes) {
        return PMPI_Comm_split_type(comm, type, key, info, part);
    }
    (void)PMPI_Comm_rank(comm, &rank);
    (void)PMPI_Comm_size(comm, &size);
    return PMPI_Comm_split(comm, rank < size / 2, key, part);
}

/* The last rank stops when it enters or leaves MPI_Finalize. */
static const char *stop_before_end, *stop_after_end;

int MPI_Finalize(void)
{
    if (stop_before_end) {
        stop_here(stop_before_end);
    }
    int code = PMPI_Finalize();
    if (stop_after_end) {
        stop_here(stop_after_end);
    }
    return code;
}

/* One rank is late, but not too late. */
static void late(const struct tri_mesh *mesh)
{
    if (mesh->rank == 0) {
        struct timespec time = {.tv_nsec = 300000000};
        while (nanosleep(&time, &time) != 0) {
        }
    }
    tri_barrier(tri_mesh_group(mesh, TRI_ON_ALL));
}

static void sleep_tenths(int tenths)
{
    struct timespec time = {.tv_sec = tenths / 10, .tv_nsec = tenths % 10 * 100000000L};
    (void)nanosleep(&time, NULL);
}

/* The whole job is suspended for longer than the timeout, while ranks wait for a late one. */
static void suspend(const struct tri_mesh *mesh)
{
    pid_t self = getpid();
    if (fork() == 0) {
        sleep_tenths(3);
        (void)kill(self, SIGSTOP);
        sleep_tenths(22);
        (void)kill(self, SIGCONT);
        _exit(0);
    }
    late(mesh);
    late(mesh);
}

/* One rank calls another collective than the others. */
static void mismatch(const struct tri_mesh *mesh)
{
    int64_t counts[64] = {0};
    if (mesh->rank == 1) {
        tri_all_gather_v(tri_mesh_group(mesh, TRI_ON_ALL), here, data, counts, TRI_F32);
    } else {
        tri_all_reduce_sum(tri_mesh_group(mesh, TRI_ON_ALL), here, data, 8, TRI_F32);
    }
}

static void mismatch_rows(const struct tri_mesh *mesh)
{
    int64_t send[64] = {0};
    int64_t recv[64] = {0};
    recv[0] = mesh->rank == 1 ? 3 : 0;
    tri_all_to_all_v(tri_mesh_group(mesh, TRI_ON_ALL), here, data, send, data + 50, recv, 2,
                     TRI_F32);
}

/* The last rank never sends what the first waits for; the others wait for all. */
static void no_sender(const struct tri_mesh *mesh, const char *path)
{
    struct tri_group *all = tri_mesh_group(mesh, TRI_ON_ALL);
    tri_barrier(all);
    if (mesh->rank == mesh->ranks - 1) {
        stop_here(path);
    }
    if (mesh->rank == 0) {
        tri_receive(all, here, mesh->ranks - 1, data, 8, TRI_F32);
    }
    tri_barrier(all);
}

/* The first rank sends another length than the second receives. */
static void mismatch_pair(const struct tri_mesh *mesh, int64_t sent)
{
    struct tri_group *all = tri_mesh_group(mesh, TRI_ON_ALL);
    if (mesh->rank == 0) {
        tri_send(all, here, 1, data, sent, TRI_F32);
    } else if (mesh->rank == 1) {
        tri_receive(all, here, 0, data, 8, TRI_F32);
    }
    tri_barrier(all);
}

static void panic(const struct tri_mesh *mesh)
{
    if (mesh->rank == 1) {
        tri_panic(TRI_BAD_INPUT, "the disk\nis full");
    }
    tri_barrier(tri_mesh_group(mesh, TRI_ON_ALL));
}

/* What goes wrong on all ranks alike. */
static void panic_all(const struct tri_mesh *mesh)
{
    tri_barrier(tri_mesh_group(mesh, TRI_ON_ALL));
    tri_panic(TRI_FAILED, "the disk is full for all");
}

static void mpi_error(const struct tri_mesh *mesh)
{
    if (mesh->rank == 1) {
        MPI_Comm own = MPI_COMM_NULL;
        TRI_MPI(MPI_Comm_dup(MPI_COMM_SELF, &own));
        TRI_MPI(MPI_Comm_set_errhandler(own, MPI_ERRORS_RETURN));
        TRI_MPI(MPI_Bcast(data, 1, MPI_FLOAT, 1000, own));
    }
    tri_barrier(tri_mesh_group(mesh, TRI_ON_ALL));
}

static const char far[] = "far-";
static const char few[] = "threads-";

static int run_job(int argc, char **argv)
{
    CHECK(argc == 3);
    const char *mode = argv[1] + (two_nodes ? strlen(far) : 0);
    const char *path = argv[2];
    data = tri_alloc(TRI_MEMORY_OTHER, N * sizeof(*data));
    tri_comm_set_timeout(job(), 1);
    struct tri_mesh *mesh = NULL;
    struct tri_error error;
    int half = job_size() / 2;
    CHECK(tri_mesh_create(job(), half, 1, 1, 2, &mesh, &error) == TRI_OK);
    if (strcmp(mode, "stop-before") == 0) {
        stop_before(mesh, path);
    } else if (strcmp(mode, "stop-before-mesh") == 0) {
        stop_before_mesh(path);
    } else if (strcmp(mode, "stop-inside") == 0) {
        stop_inside(mesh, path);
    } else if (strcmp(mode, "stop-chain") == 0) {
        stop_chain(mesh, path);
    } else if (strcmp(mode, "work") == 0) {
        work(mesh);
    } else if (strcmp(mode, "stop-last") == 0) {
        if (mesh->rank == mesh->ranks - 1) {
            stop_here(path);
        }
    } else if (strcmp(mode, "stop-before-end") == 0) {
        stop_before_end = mesh->rank == mesh->ranks - 1 ? path : NULL;
    } else if (strcmp(mode, "stop-after-end") == 0) {
        stop_after_end = mesh->rank == mesh->ranks - 1 ? path : NULL;
    } else if (strcmp(mode, "late") == 0) {
        late(mesh);
    } else if (strcmp(mode, "suspend") == 0) {
        suspend(mesh);
    } else if (strcmp(mode, "mismatch") == 0) {
        mismatch(mesh);
    } else if (strcmp(mode, "mismatch-rows") == 0) {
        mismatch_rows(mesh);
    } else if (strcmp(mode, "no-sender") == 0) {
        no_sender(mesh, path);
    } else if (strcmp(mode, "mismatch-long") == 0) {
        mismatch_pair(mesh, 16);
    } else if (strcmp(mode, "mismatch-short") == 0) {
        mismatch_pair(mesh, 4);
    } else if (strcmp(mode, "panic") == 0) {
        panic(mesh);
    } else if (strcmp(mode, "panic-all") == 0) {
        panic_all(mesh);
    } else if (strncmp(mode, few, strlen(few)) == 0) {
        tri_barrier(tri_mesh_group(mesh, TRI_ON_ALL)); /* for ranks that never come */
    } else if (strcmp(mode, "mpi-error") == 0) {
        mpi_error(mesh);
    } else {
        tri_panic(TRI_BAD_INPUT, "no mode %s", mode);
    }
    tri_mesh_destroy(mesh);
    tri_free(data);
    return 0;
}

int main(int argc, char **argv)
{
    CHECK(argc >= 3);
    two_nodes = strncmp(argv[1], far, strlen(far)) == 0;
    threads = strcmp(argv[argc - 2], "--ranks") == 0;
    if (strncmp(argv[1], few, strlen(few)) == 0) {
        tri_signals_start(false);
        thread_fault_after((int)strtol(argv[1] + strlen(few), NULL, 10), true);
    }
    return job_run(argc, argv, run_job);
}
