/* Where tests make files fail: they run as root, whom no permission stops. A program has no hook
 * unless it is linked with one; trident is not. */
#ifndef TRIDENT_BASE_FILE_HOOK_H
#define TRIDENT_BASE_FILE_HOOK_H

#include <stdint.h>

/* Asked before each operation ("open", "read", "write", "sync", "rename", …) on a path: 0, or the
 * errno with which it is to fail. `done`: the bytes written to the file once it has succeeded. */
typedef int tri_file_hook(const char *operation, const char *path, uint64_t done);

/* Of this runtime and of those made from it, before it has other threads. NULL, as at the start:
 * none. */
void tri_file_set_hook(tri_file_hook *hook);
/* What the hook says; 0 without one. For all who call the system on a path themselves. */
int tri_file_fault(const char *operation, const char *path, uint64_t done);

#endif
