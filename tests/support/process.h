/* Commands as a user runs them: started, timed, their output kept, ended when they take too
 * long. */
#ifndef TRIDENT_TESTS_SUPPORT_PROCESS_H
#define TRIDENT_TESTS_SUPPORT_PROCESS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct process {
    pid_t pid;
    int out, err; /* our ends of its pipes */
    double began;
};

struct process_result {
    int status; /* of exit, or 128 + the signal that ended it */
    bool late;  /* it was killed at the time limit */
    double seconds;
    long max_rss_kib; /* of the process and the children it waited for */
    char *out, *err;  /* all of it, ended by NUL */
};

/* Starts argv (ended by NULL) with the environment's changes "NAME=value" (ended by NULL; NULL:
 * none), standard input empty. Its orphans become children of this process. */
void process_start(struct process *process, const char *const *argv, const char *const *changes);

/* Reads until both outputs are closed by all who hold them, then waits; kills the whole tree after
 * `limit` seconds. process_result_fini frees what it holds. */
void process_wait(struct process *process, double limit, struct process_result *result);
void process_result_fini(struct process_result *result);

/* Root and its descendants, those whose command is `name` (NULL: all); at most `room`. */
int process_tree(pid_t root, const char *name, pid_t *found, int room);
/* Whether it runs, waits or is stopped; one that has ended and whose status nobody has asked for
 * does not. */
bool process_lives(pid_t pid);
/* Sends SIGKILL to root and all its descendants. */
void process_kill_tree(pid_t root);
/* Waits until no child is left, orphans included; one that stays for 30 seconds ends this process
 * by SIGALRM. */
void process_reap_all(void);
/* The value of a variable in the environment with which a process was started, or -1. */
int process_number_in_environment(pid_t pid, const char *name);

#endif
