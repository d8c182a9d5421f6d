#include "support/job.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static _Thread_local struct tri_comm *current;
static bool threads;

struct program {
    int argc;
    char **argv;
    int (*body)(int argc, char **argv);
};

static int run_rank(struct tri_comm *comm, void *state)
{
    const struct program *program = state;
    current = comm;
    const char *notes = getenv("JOB_NOTES");
    if (notes && job_rank() == 0) {
        (void)remove(notes);
    }
    int status = program->body(program->argc, program->argv);
    current = NULL;
    return status;
}

int job_run(int argc, char **argv, int (*body)(int argc, char **argv))
{
    struct program program = {argc, argv, body};
    for (int i = 1; i + 1 < argc; i++) {
        if (strcmp(argv[i], "--ranks") == 0) {
            int ranks = (int)strtol(argv[i + 1], NULL, 10);
            memmove(argv + i, argv + i + 2, (size_t)(argc - i - 1) * sizeof(*argv));
            program.argc -= 2;
            threads = true;
            return tri_comm_run_threads(ranks, run_rank, &program);
        }
    }
    struct tri_comm *comm = tri_comm_start(&program.argc, &program.argv);
    int status = run_rank(comm, &program);
    tri_comm_finish(comm);
    return status;
}

void job_quit(int status)
{
    if (!threads) {
        tri_comm_finish(current);
    }
    exit(status);
}

struct tri_comm *job(void)
{
    return current;
}

int job_rank(void)
{
    return tri_comm_rank(current);
}

int job_size(void)
{
    return tri_comm_size(current);
}

struct tri_ledger *job_ledger(void)
{
    return tri_comm_ledger(current);
}

const char *job_transport(void)
{
    return threads ? "threads" : "mpi";
}

void job_note(const char *format, ...)
{
    const char *path = getenv("JOB_NOTES");
    if (!path || job_rank() != 0) {
        return;
    }
    FILE *file = fopen(path, "ae");
    TRI_REQUIRE(file);
    va_list args;
    va_start(args, format);
    (void)vfprintf(file, format, args);
    va_end(args);
    TRI_REQUIRE(fputc('\n', file) == '\n' && fclose(file) == 0);
}
