/* Makes files fail, in whichever program it is linked into: the environment variable
 *
 *     TRIDENT_FILE_FAULT=OPERATION:ERRNO:SUBSTRING[:AFTER_BYTES]
 *
 * (write:ENOSPC:…, open:EACCES:…, read:EIO:…, map:…, sync:…, rename:…, remove:…, lock:…, and of
 * folders look:…, list:…, syncdir:…, lockdir:…) makes the operation fail with that errno for paths
 * that contain SUBSTRING; with SIGKILL for the errno the process dies there, with SIGSTOP it stops,
 * with SLEEP=MILLISECONDS it takes so long and does not fail. A comma begins another. */
#include "base/file_hook.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int errno_by_name(const char *name, size_t length)
{
    static const struct {
        const char *name;
        int value;
    } known[] = {{"ENOSPC", ENOSPC},        {"EACCES", EACCES}, {"EIO", EIO},
                 {"EROFS", EROFS},          {"EDQUOT", EDQUOT}, {"EINVAL", EINVAL},
                 {"ENOSYS", ENOSYS},        {"ENODEV", ENODEV}, {"ENOLCK", ENOLCK},
                 {"EOPNOTSUPP", EOPNOTSUPP}};
    for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++) {
        if (strlen(known[i].name) == length && strncmp(known[i].name, name, length) == 0) {
            return known[i].value;
        }
    }
    return EIO;
}

static int one_fault(const char *spec, const char *operation, const char *path, uint64_t done)
{
    const char *code = strchr(spec, ':');
    const char *part = code ? strchr(code + 1, ':') : NULL;
    if (!part || strlen(operation) != (size_t)(code - spec) ||
        strncmp(operation, spec, (size_t)(code - spec)) != 0) {
        return 0;
    }
    char wanted[256];
    (void)snprintf(wanted, sizeof(wanted), "%s", part + 1);
    char *after = strchr(wanted, ':');
    uint64_t after_bytes = 0;
    if (after) {
        *after = '\0';
        after_bytes = strtoull(after + 1, NULL, 10);
    }
    if (!strstr(path, wanted) || done < after_bytes) {
        return 0;
    }
    if (strncmp(code + 1, "SIGKILL:", 8) == 0) {
        (void)raise(SIGKILL);
    }
    if (strncmp(code + 1, "SIGSTOP:", 8) == 0) {
        (void)raise(SIGSTOP);
        return 0;
    }
    if (strncmp(code + 1, "SLEEP=", 6) == 0) {
        long milliseconds = strtol(code + 7, NULL, 10);
        (void)nanosleep(&(struct timespec){milliseconds / 1000, milliseconds % 1000 * 1000000},
                        NULL);
        return 0;
    }
    return errno_by_name(code + 1, (size_t)(part - code - 1));
}

static int fault(const char *operation, const char *path, uint64_t done)
{
    const char *spec = getenv("TRIDENT_FILE_FAULT");
    int code = 0;
    while (spec && code == 0) {
        char one[256];
        (void)snprintf(one, sizeof(one), "%.*s", (int)strcspn(spec, ","), spec);
        code = one_fault(one, operation, path, done);
        spec = strchr(spec, ',');
        spec = spec ? spec + 1 : NULL;
    }
    return code;
}

__attribute__((constructor)) static void install(void)
{
    tri_file_set_hook(fault);
}
