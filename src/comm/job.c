/* The job, whoever started its ranks: who we are, and how a panic ends every rank. */
#include "comm/internal.h"

#include <unistd.h>

void tri_comm_abort(struct tri_comm *comm, int exit_status)
{
    comm->end_all(comm, exit_status);
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

void tri_comm_take_panics(struct tri_comm *comm)
{
    tri_panic_set_hooks(speaks, abort_job, comm);
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

void tri_comm_begin_turn(struct tri_comm *comm)
{
    if (comm->turn) {
        (void)pthread_mutex_lock(comm->turn);
    }
}

void tri_comm_end_turn(struct tri_comm *comm)
{
    if (comm->turn) {
        (void)pthread_mutex_unlock(comm->turn);
    }
}

const char *tri_comm_library(const struct tri_comm *comm)
{
    return comm->library;
}

struct tri_ledger *tri_comm_ledger(struct tri_comm *comm)
{
    return &comm->ledger;
}

struct tri_transport *tri_comm_transport(const struct tri_comm *comm)
{
    return comm->transport;
}

void tri_comm_set_transport(struct tri_comm *comm, struct tri_transport *transport)
{
    comm->transport = transport;
}
