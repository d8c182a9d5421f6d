/* The job that a test's ranks are: started by mpiexec, or with `--ranks N` among the arguments
 * threads of this process. */
#ifndef TRIDENT_TESTS_SUPPORT_JOB_H
#define TRIDENT_TESTS_SUPPORT_JOB_H

#include "comm/comm.h"

/* Runs body on every rank, with the arguments that are not for this or for MPI, and returns its
 * exit status. What is in a variable of static duration is every thread's: tests that run over
 * threads have none, or thread-local ones. */
int job_run(int argc, char **argv, int (*body)(int argc, char **argv));
/* Ends the program from inside, on every rank alike. */
_Noreturn void job_quit(int status);
/* Of the calling rank, inside. */
struct tri_comm *job(void);
int job_rank(void);
int job_size(void);
struct tri_ledger *job_ledger(void);
/* "mpi" or "threads": tests of both may run at once, and need folders of their own. */
const char *job_transport(void);
/* Rank 0 appends a line to the file that JOB_NOTES names, if it does: a job over threads must leave
 * the same file as one over MPI. */
void job_note(const char *format, ...) TRI_PRINTF(1, 2);

#endif
