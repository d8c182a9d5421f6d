/* Paths as text. No path is ever cut short in silence: all of Trident's are made here. */
#ifndef TRIDENT_BASE_PATH_H
#define TRIDENT_BASE_PATH_H

#include "base/status.h"

#include <stddef.h>

/* What is being written lies beside its place under this ending; by it, and by it alone, what a
 * killed process left is known and removed. */
#define TRI_TEMPORARY ".trident.tmp"

/* path[bytes] <- the text. BAD_INPUT, naming its beginning, when it has no room. */
enum tri_status tri_path_format(char *path, size_t bytes, struct tri_error *error,
                                const char *format, ...) TRI_PRINTF(4, 5) TRI_NODISCARD;
/* The same where the parts are known to fit: if they don't, that is a bug. */
void tri_path_make(char *path, size_t bytes, const char *format, ...) TRI_PRINTF(3, 4);
/* Takes "/" and "/." off the end: "out/" becomes "out"; "/" and "." stay. */
void tri_path_trim(char *path);
/* parent[bytes] <- what holds the last part of path; "." and "/" where no more is named. */
void tri_path_parent(const char *path, char *parent, size_t bytes);

#endif
