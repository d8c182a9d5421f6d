/* trident COMMAND …: finds the command, starts the ranks, prints the one error line. */
#include "base/log.h"
#include "base/signals.h"
#include "cli/command.h"
#include "train/environment.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Where one of the three is closed, the next file that is opened, a library's pipe or a checkpoint,
 * takes its number, and what is printed. Held open for reading, standard output still answers that
 * it takes nothing. */
static void hold_standard_files(void)
{
    int fd;
    do {
        fd = open("/dev/null", O_RDONLY);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0) {
        (void)close(fd);
    }
}

/* jansson calls a file malformed where it only had no memory to read it. */
static void *allocate_json(size_t bytes)
{
    void *block = malloc(bytes);
    if (!block) {
        tri_panic(TRI_FAILED, "out of memory: %zu bytes for JSON", bytes);
    }
    return block;
}

static enum tri_status refuse(int argc, char **argv, struct tri_error *error)
{
    if (argc < 2) {
        return tri_fail(error, TRI_BAD_INPUT, "no command given");
    }
    char hint[TRI_HINT_BYTES];
    tri_command_hint(argv[1], hint);
    return tri_fail(error, TRI_BAD_INPUT, "unknown command '%s'; %s", argv[1], hint);
}

/* Why standard output takes nothing. What failed before is gone from the buffer, and errno with it:
 * one more byte fails in the same way. */
static int ask_why(void)
{
    clearerr(stdout);
    errno = 0;
    bool failed = fputc('\n', stdout) == EOF || fflush(stdout) != 0;
    return failed ? errno : 0;
}

/* What was printed must have arrived: a full disk is no success. */
static enum tri_status flush_output(struct tri_error *error)
{
    errno = 0;
    bool failed = fflush(stdout) != 0;
    int code = errno;
    if (failed || ferror(stdout)) {
        code = failed ? code : ask_why();
        return tri_fail(error, TRI_FAILED, "standard output: cannot write%s%s", code ? ": " : "",
                        code ? strerror(code) : "");
    }
    return TRI_OK;
}

/* What needs no ranks: the version and help. *answered is false when it is neither. */
static enum tri_status answer_alone(int argc, char **argv, bool *answered, struct tri_error *error)
{
    const char *word = argc > 1 ? argv[1] : "";
    bool version = strcmp(word, "--version") == 0;
    *answered = version || tri_help_asked(word);
    if (!*answered) {
        return TRI_OK;
    }
    if (version && argc > 2) {
        return tri_fail(error, TRI_BAD_INPUT, "command line: did not expect '%s'", argv[2]);
    }
    if (version) {
        char path[TRI_KERNELS_TEXT];
        TRI_TRY(tri_kernels_check(tri_environment_kernels(), error));
        tri_kernels_describe(tri_environment_kernels(), false, path);
        (void)printf("%s\n%s\n", tri_version(), path);
    } else {
        TRI_TRY(tri_help(argc - 2, argv + 2, error));
    }
    return flush_output(error);
}

static enum tri_status run(enum tri_status status, const struct tri_arguments *arguments,
                           struct tri_error *error)
{
    TRI_TRY(tri_agree_on_command(arguments, status, error));
    if (tri_arguments_has(arguments, "--json")) {
        tri_log_quiet(true);
    }
    status = arguments->command->run(arguments, error);
    if (status == TRI_BAD_INPUT || status == TRI_FAILED) {
        return status;
    }
    struct tri_error output_error;
    enum tri_status printed =
        tri_agree_everywhere(arguments, flush_output(&output_error), &output_error);
    if (printed != TRI_OK) {
        *error = output_error;
        return printed;
    }
    return status;
}

/* Processes that another MPI's launcher started don't know of each other. Each would do all of the
 * work; where it writes files that is refused. The first of them speaks. */
static enum tri_status meet_strangers(const struct tri_comm *comm,
                                      const struct tri_command *command, bool *speaks,
                                      struct tri_error *error)
{
    int count = 0;
    int place = 0;
    const char *variable = tri_comm_strangers(comm, &count, &place);
    *speaks = tri_comm_rank(comm) == 0 && place == 0;
    if (!variable) {
        return TRI_OK;
    }
    if (command && command->traits & TRI_WRITES) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s says %d processes, but %s knows of this one alone: start them with its "
                        "own mpiexec, or unset %s for a single one",
                        variable, count, tri_comm_library(comm), variable);
    }
    if (*speaks) {
        tri_log_warn("%s says %d processes, but %s knows of this one alone: each does all of the "
                     "work; its own mpiexec starts ranks that share it",
                     variable, count, tri_comm_library(comm));
    }
    return TRI_OK;
}

/* ---- the ranks ------------------------------------------------------------------------------- */

/* What every rank begins with: the command line as it was understood, or why it was not. */
struct start {
    const struct tri_command *command; /* NULL: there is none */
    bool empty;                        /* nor a word that could be one */
    struct tri_arguments arguments;
    enum tri_status status;
    struct tri_error error;
};

/* A rank's part, whoever started it; the one that speaks tells what failed. */
static enum tri_status run_rank(struct tri_comm *comm, const struct start *start, bool speaks)
{
    struct tri_arguments arguments = start->arguments;
    struct tri_error error = start->error;
    struct tri_error none;
    arguments.comm = comm;
    if (tri_mesh_create(comm, 1, 1, 1, 1, &arguments.everyone, &none) != TRI_OK) {
        tri_panic(TRI_FAILED, "%s", none.message);
    }
    enum tri_status status = start->command
                                 ? run(start->status, &arguments, &error)
                                 : tri_agree_everywhere(&arguments, start->status, &error);
    if ((status == TRI_BAD_INPUT || status == TRI_FAILED) && speaks) {
        if (start->empty) {
            tri_help_list(stderr);
        }
        tri_log_error(&error);
    }
    tri_mesh_destroy(arguments.everyone);
    return status;
}

static enum tri_status run_over_mpi(int argc, char **argv, struct start *start)
{
    bool speaks;
    struct tri_error alone;
    struct tri_comm *comm = tri_comm_start(&argc, &argv);
    enum tri_status met = meet_strangers(comm, start->command, &speaks, &alone);
    if (met != TRI_OK && start->status == TRI_OK) {
        start->status = met;
        start->error = alone;
    }
    enum tri_status status = run_rank(comm, start, speaks);
    tri_comm_finish(comm);
    return status;
}

static int run_thread(struct tri_comm *comm, void *start)
{
    return (int)run_rank(comm, start, tri_comm_rank(comm) == 0);
}

/* Ranks that are to be threads of this process; 0: it is a rank, or what is asked for is wrong. */
static int count_threads(struct start *start)
{
    enum { RANKS_MOST = 1024 };
    int64_t ranks = 0;
    char launchers[128];
    if (start->status != TRI_OK || !(start->command->traits & TRI_STARTS_RANKS)) {
        return 0;
    }
    start->status =
        tri_arguments_int(&start->arguments, "--ranks", 1, RANKS_MOST, 0, &ranks, &start->error);
    if (start->status == TRI_OK && ranks > 0 && tri_comm_launchers(launchers, sizeof(launchers))) {
        start->status =
            tri_fail(&start->error, TRI_BAD_INPUT,
                     "command line: --ranks makes the ranks itself, but a launcher started this "
                     "process: leave out --ranks, or, where it is the only one, unset %s",
                     launchers);
    }
    return start->status == TRI_OK ? (int)ranks : 0;
}

/* The config is read here, once, for all ranks. */
static enum tri_status run_threads(int ranks, struct start *start)
{
    struct tri_mapping file;
    bool reads = start->command->traits & TRI_READS_CONFIG;
    if (reads) {
        start->status = tri_config_map(start->arguments.words[0], &file, &start->error);
    }
    bool is_read = reads && start->status == TRI_OK;
    start->arguments.config_file = is_read ? &file : NULL;
    enum tri_status status = (enum tri_status)tri_comm_run_threads(ranks, run_thread, start);
    if (is_read) {
        tri_file_unmap(&file);
    }
    return status;
}

/* Starts the ranks for a command that is there, or for saying once that there is none. */
static enum tri_status run_on_ranks(int argc, char **argv)
{
    struct start start = {.command = argc > 1 ? tri_command_find(argv[1]) : NULL,
                          .empty = argc < 2};
    start.status = start.command ? tri_arguments_parse(start.command, argc - 2, argv + 2,
                                                       &start.arguments, &start.error)
                                 : refuse(argc, argv, &start.error);
    if (start.status == TRI_OK) {
        start.status = tri_comm_check_environment(&start.error);
    }
    enum tri_status status;
    if (start.arguments.help) {
        status = tri_help(1, argv + 1, &start.error);
        status = status == TRI_OK ? flush_output(&start.error) : status;
        if (status != TRI_OK) {
            tri_log_error(&start.error);
        }
    } else {
        int threads = count_threads(&start);
        status = threads > 0 ? run_threads(threads, &start) : run_over_mpi(argc, argv, &start);
    }
    tri_arguments_fini(&start.arguments);
    return status;
}

int main(int argc, char **argv)
{
    struct tri_error error = {0};
    bool answered;
    hold_standard_files();
    json_set_alloc_funcs(allocate_json, free);
    enum tri_status status = answer_alone(argc, argv, &answered, &error);
    if (answered) {
        if (status != TRI_OK) {
            tri_log_error(&error);
        }
        return (int)status;
    }
    tri_signals_start(argc > 1 && strcmp(argv[1], "train") == 0);
    return (int)run_on_ranks(argc, argv);
}
