/* What a file system need not be able to do. Internal to base/. */
#ifndef TRIDENT_BASE_SYSTEM_H
#define TRIDENT_BASE_SYSTEM_H

#include "base/status.h"

#include <sys/types.h>

/* fsync of a file or a folder: 0 or an errno. A system that has no such thing is warned of once and
 * is no failure. */
int tri_system_sync(int fd, const char *path, bool folder);
/* "PATH: cannot WHAT: …": BAD_INPUT where the path itself is wrong, else FAILED. */
enum tri_status tri_system_error(struct tri_error *error, const char *what, const char *path,
                                 int code);
/* Of what is no regular file: what it is, as a line of an error ends. */
const char *tri_system_kind(mode_t mode);

#endif
