/* The log: one line each on standard error, or where the runtime's sink takes it. Root (rank 0)
 * prints INFO and NOTE; every rank prints WARN. */
#ifndef TRIDENT_BASE_LOG_H
#define TRIDENT_BASE_LOG_H

#include "base/status.h"

void tri_log_info(const char *format, ...) TRI_PRINTF(1, 2);
/* What scripts are told too: quiet does not concern it. */
void tri_log_note(const char *format, ...) TRI_PRINTF(1, 2);
void tri_log_warn(const char *format, ...) TRI_PRINTF(1, 2);
/* Prints "trident: error: message". The caller sees to it that one rank calls it. */
void tri_log_error(const struct tri_error *error);
void tri_log_quiet(bool quiet); /* no INFO: for --json */

/* Takes a line, with its newline. Of one runtime's threads several may call it at once. */
typedef void tri_log_sink(void *state, const char *line);
/* Where this runtime's lines go from now on; NULL: standard error. state is borrowed. */
void tri_log_set_sink(tri_log_sink *sink, void *state);

#endif
