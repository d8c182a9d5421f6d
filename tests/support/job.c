#include "support/job.h"

static struct tri_comm *started;

void job_start(int *argc, char ***argv)
{
    started = tri_comm_start(argc, argv);
}

void job_finish(void)
{
    tri_comm_finish(started);
    started = NULL;
}

struct tri_comm *job(void)
{
    return started;
}

int job_rank(void)
{
    return tri_comm_rank(started);
}

int job_size(void)
{
    return tri_comm_size(started);
}

struct tri_ledger *job_ledger(void)
{
    return tri_comm_ledger(started);
}
