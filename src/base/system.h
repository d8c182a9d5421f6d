/* What a file system need not be able to do. Internal to base/. */
#ifndef TRIDENT_BASE_SYSTEM_H
#define TRIDENT_BASE_SYSTEM_H

#include "base/status.h"

#include <sys/stat.h>
#include <sys/types.h>

/* fsync of a file or a folder: 0 or an errno. A system that has no such thing is warned of once and
 * is no failure. */
int tri_system_sync(int fd, const char *path, bool folder);
/* fsync of a file of which others sync their parts too: who does so for the whole is warned. */
int tri_system_sync_part(int fd, const char *path);
/* "PATH: cannot WHAT: …": BAD_INPUT where the path itself is wrong, else FAILED. */
enum tri_status tri_system_error(struct tri_error *error, const char *what, const char *path,
                                 int code);
/* Opens for reading, without waiting for the other end of a pipe. */
enum tri_status tri_system_open(const char *path, int *fd, struct stat *info,
                                struct tri_error *error) TRI_NODISCARD;
/* Of what is no regular file: what it is, as a line of an error ends. */
const char *tri_system_kind(mode_t mode);

#endif
