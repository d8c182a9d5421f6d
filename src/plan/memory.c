#include "plan/memory.h"

#include "base/cgroup.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

/* What a process takes in its first steps beside what is planned, measured with 1 to 16 threads:
 * the kernels' scratch, the libraries' own and stacks grow with the threads. */
enum { LATER_BYTES = 8 << 20, THREAD_BYTES = 4 << 20 };

/* Bytes of a line "name: N kB" of /proc/meminfo, or -1. */
static int64_t meminfo(const char *root, const char *name)
{
    char path[TRI_PATH_MAX];
    (void)snprintf(path, sizeof(path), "%s/proc/meminfo", root);
    int64_t kilobytes = tri_number_of_key(path, name);
    return kilobytes < 0 ? -1 : kilobytes * 1024;
}

static int64_t smaller(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

int64_t tri_memory_of_machine(const char *root)
{
    char path[TRI_PATH_MAX];
    int64_t free = meminfo(root, "MemAvailable");
    free = free < 0 ? INT64_MAX : free;
    (void)snprintf(path, sizeof(path), "%s/proc/sys/vm/overcommit_memory", root);
    int64_t limit = meminfo(root, "CommitLimit");
    int64_t promised = meminfo(root, "Committed_AS");
    if (tri_number_of_file(path) == 2 && limit >= 0 && promised >= 0) {
        free = smaller(free, limit > promised ? limit - promised : 0);
    }
    return smaller(free, tri_cgroup_room(root));
}

/* What a limit of this process leaves beside what it has; which: as in tri_memory_statm. */
static int64_t room_of_limit(int resource, int which)
{
    struct rlimit limit;
    if (getrlimit((__rlimit_resource_t)resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur > (rlim_t)INT64_MAX) {
        return INT64_MAX;
    }
    int64_t used = tri_memory_statm(which);
    return (int64_t)limit.rlim_cur > used ? (int64_t)limit.rlim_cur - used : 0;
}

int64_t tri_memory_available(int local_ranks)
{
    enum { ADDRESSES = 0, DATA = 5 };
    const char *override = getenv("TRIDENT_MEMORY_LIMIT");
    if (override) {
        return strtoll(override, NULL, 10);
    }
    int64_t share = tri_memory_of_machine("") / local_ranks;
    share = smaller(share, room_of_limit(RLIMIT_AS, ADDRESSES));
    return smaller(share, room_of_limit(RLIMIT_DATA, DATA));
}

int64_t tri_memory_process_constant(int64_t threads)
{
    return tri_memory_resident() + LATER_BYTES + threads * THREAD_BYTES;
}

int64_t tri_memory_process_peak(void)
{
    struct rusage use;
    return getrusage(RUSAGE_SELF, &use) == 0 ? 1024 * (int64_t)use.ru_maxrss : 0;
}

enum tri_status tri_memory_check(const struct tri_memory_plan *plan, int local_ranks,
                                 struct tri_error *error)
{
    int64_t available = tri_memory_available(local_ranks);
    int64_t needed = plan->total + plan->process + plan->beside;
    if (needed <= available) {
        return TRI_OK;
    }
    return tri_fail(
        error, TRI_FAILED,
        "this run plans %.2f GB a rank (weights %.2f, gradients %.2f, optimizer %.2f, activations "
        "%.2f, buffers %.2f, beside them %.2f), but %.2f GB a rank is free with %d ranks on this "
        "node",
        (double)needed / 1e9, (double)plan->bytes[TRI_MEMORY_WEIGHTS] / 1e9,
        (double)plan->bytes[TRI_MEMORY_GRADIENTS] / 1e9,
        (double)plan->bytes[TRI_MEMORY_OPTIMIZER] / 1e9,
        (double)plan->bytes[TRI_MEMORY_ACTIVATIONS] / 1e9,
        (double)plan->bytes[TRI_MEMORY_BUFFERS] / 1e9, (double)(plan->process + plan->beside) / 1e9,
        (double)available / 1e9, local_ranks);
}

enum tri_status tri_memory_check_whole(const char *command, int64_t weights, int64_t buffers,
                                       struct tri_error *error)
{
    int64_t process = tri_memory_process_constant(1);
    int64_t needed = weights + buffers + process;
    int64_t available = tri_memory_available(1);
    if (needed <= available) {
        return TRI_OK;
    }
    return tri_fail(error, TRI_FAILED,
                    "%s needs %.2f GB (weights %.2f, buffers %.2f, beside them %.2f), but %.2f GB "
                    "is free",
                    command, (double)needed / 1e9, (double)weights / 1e9, (double)buffers / 1e9,
                    (double)process / 1e9, (double)available / 1e9);
}
