/* The job that a test's ranks are. */
#ifndef TRIDENT_TESTS_SUPPORT_JOB_H
#define TRIDENT_TESTS_SUPPORT_JOB_H

#include "comm/comm.h"

/* Runs body on every rank, with the arguments that are not for MPI, and returns its exit status. */
int job_run(int argc, char **argv, int (*body)(int argc, char **argv));
/* The same by hand: first and last in main. */
void job_start(int *argc, char ***argv);
void job_finish(void);
/* Of the calling rank, in between. */
struct tri_comm *job(void);
int job_rank(void);
int job_size(void);
struct tri_ledger *job_ledger(void);

#endif
