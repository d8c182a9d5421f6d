/* trident COMMAND …: finds the command, starts the ranks, prints the one error line. */
#include "base/log.h"
#include "cli/command.h"
#include "comm/comm.h"
#include "kernel/kernel.h"
#include "train/environment.h"

#include <stdio.h>
#include <string.h>

static void list_commands(FILE *out)
{
    (void)fprintf(out, "usage: trident COMMAND …\n\n");
    for (const struct tri_command *command = tri_commands; command->name; command++) {
        (void)fprintf(out, "  %-9s %s\n", command->name, command->summary);
    }
    (void)fprintf(out, "\n`trident help COMMAND` says more.\n");
}

static const struct tri_command *find(const char *name)
{
    for (const struct tri_command *command = tri_commands; command->name; command++) {
        if (strcmp(command->name, name) == 0) {
            return command;
        }
    }
    return NULL;
}

/* Without a command that exists; every rank says the same, one prints. */
static enum tri_status refuse(int argc, char **argv, struct tri_error *error)
{
    if (tri_comm_rank() == 0) {
        list_commands(stderr);
    }
    if (argc < 2) {
        return tri_fail(error, TRI_BAD_INPUT, "no command given");
    }
    return tri_fail(error, TRI_BAD_INPUT, "unknown command '%s'", argv[1]);
}

static enum tri_status run(int argc, char **argv, struct tri_error *error)
{
    const struct tri_command *command = argc > 1 ? find(argv[1]) : NULL;
    if (!command) {
        return refuse(argc, argv, error);
    }
    for (int i = 2; i < argc; i++) {
        if (strcmp(argv[i], "--json") == 0) {
            tri_log_quiet(true);
        }
    }
    return command->run(argc - 2, argv + 2, error);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "--version") == 0) {
        (void)printf("%s\n%s\n", tri_version(), tri_kernels_describe(false));
        return TRI_OK;
    }
    if (argc == 2 && strcmp(argv[1], "--help") == 0) {
        list_commands(stdout);
        return TRI_OK;
    }
    struct tri_error error = {0};
    if (argc > 1 && strcmp(argv[1], "help") == 0) {
        enum tri_status helped = tri_command_help(argc - 2, argv + 2, &error);
        if (helped != TRI_OK) {
            tri_log_error(&error);
        }
        return (int)helped;
    }
    tri_comm_start(&argc, &argv);
    enum tri_status status = run(argc, argv, &error);
    if ((status == TRI_BAD_INPUT || status == TRI_FAILED) && tri_comm_rank() == 0) {
        tri_log_error(&error);
    }
    (void)fflush(NULL);
    tri_comm_finish();
    return (int)status;
}
