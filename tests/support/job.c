#include "support/job.h"

static _Thread_local struct tri_comm *started;

void job_start(int *argc, char ***argv)
{
    started = tri_comm_start(argc, argv);
}

void job_finish(void)
{
    tri_comm_finish(started);
    started = NULL;
}

int job_run(int argc, char **argv, int (*body)(int argc, char **argv))
{
    job_start(&argc, &argv);
    int status = body(argc, argv);
    job_finish();
    return status;
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
