/* What an installation has beside the program, made of the program's own tables: manual pages and
 * what shells complete. */
#ifndef TRIDENT_CLI_MANUAL_H
#define TRIDENT_CLI_MANUAL_H

#include "cli/command.h"

/* The page trident(1), trident-COMMAND(1) or trident-config(5), for man. SOURCE_DATE_EPOCH in the
 * environment is its date; without it it has none. */
void tri_manual_print_all(FILE *out);
void tri_manual_print(const struct tri_command *command, FILE *out);
void tri_manual_print_config(FILE *out);

/* A script that completes commands, options, keys and their words. False, and nothing is printed,
 * for a shell that is not bash, zsh or fish. */
bool tri_completion_print(const char *shell, FILE *out);

#endif
