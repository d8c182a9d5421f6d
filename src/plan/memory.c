#include "plan/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* What a process takes in its first steps beside what is planned, measured with 1 to 16 threads:
 * the kernels' scratch, the libraries' own and stacks grow with the threads. */
enum { LATER_BYTES = 8 << 20, THREAD_BYTES = 4 << 20 };

/* A number from a one-line file, or -1 ("max", no such file). */
static int64_t read_number(const char *path)
{
    char text[64] = "";
    FILE *file = fopen(path, "re");
    if (!file) {
        return -1;
    }
    bool read = fgets(text, sizeof(text), file) != NULL;
    (void)fclose(file);
    char *end;
    long long value = strtoll(text, &end, 10);
    return read && end != text ? value : -1;
}

static int64_t available_on_machine(void)
{
    char line[256];
    long long kilobytes = -1;
    FILE *file = fopen("/proc/meminfo", "re");
    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, "MemAvailable:", 13) == 0) {
            kilobytes = strtoll(line + 13, NULL, 10);
        }
    }
    if (file) {
        (void)fclose(file);
    }
    return kilobytes < 0 ? INT64_MAX : kilobytes * 1024;
}

/* Limit less use of one cgroup folder; INT64_MAX without a limit. */
static int64_t room_in(const char *folder, const char *limit_file, const char *use_file)
{
    char path[TRI_PATH_MAX + 96];
    (void)snprintf(path, sizeof(path), "%s/%s", folder, limit_file);
    int64_t limit = read_number(path);
    (void)snprintf(path, sizeof(path), "%s/%s", folder, use_file);
    int64_t used = read_number(path);
    return limit >= 0 && used >= 0 ? limit - used : INT64_MAX;
}

/* This process's place in the version-2 hierarchy ("0::/a/b"), or "". */
static void read_cgroup_path(char path[TRI_PATH_MAX])
{
    char line[TRI_PATH_MAX];
    FILE *file = fopen("/proc/self/cgroup", "re");
    path[0] = '\0';
    while (file && fgets(line, sizeof(line), file)) {
        if (strncmp(line, "0::", 3) == 0) {
            line[strcspn(line, "\n")] = '\0';
            (void)snprintf(path, TRI_PATH_MAX, "%s", line + 3);
        }
    }
    if (file) {
        (void)fclose(file);
    }
}

/* The least room of this process's memory cgroup and all above it; version 1: the root's view of
 * it. */
static int64_t available_in_cgroup(void)
{
    char place[TRI_PATH_MAX];
    char folder[TRI_PATH_MAX + 32];
    int64_t room =
        room_in("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes");
    read_cgroup_path(place);
    for (;;) {
        (void)snprintf(folder, sizeof(folder), "/sys/fs/cgroup%s", place);
        int64_t here = room_in(folder, "memory.max", "memory.current");
        room = here < room ? here : room;
        char *slash = strrchr(place, '/');
        if (!slash) {
            return room;
        }
        *slash = '\0';
    }
}

int64_t tri_memory_available(int local_ranks)
{
    const char *override = getenv("TRIDENT_MEMORY_LIMIT");
    if (override) {
        return strtoll(override, NULL, 10);
    }
    int64_t machine = available_on_machine();
    int64_t cgroup = available_in_cgroup();
    int64_t share = (machine < cgroup ? machine : cgroup) / local_ranks;
    struct rlimit limit;
    if (getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY &&
        (int64_t)limit.rlim_cur < share) {
        share = (int64_t)limit.rlim_cur;
    }
    return share;
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
    int64_t needed = plan->total + plan->process;
    if (needed <= available) {
        return TRI_OK;
    }
    return tri_fail(
        error, TRI_FAILED,
        "this run plans %.2f GB a rank (weights %.2f, gradients %.2f, optimizer %.2f, activations "
        "%.2f, buffers %.2f), but %.2f GB a rank is free with %d ranks on this node",
        (double)needed / 1e9, (double)plan->bytes[TRI_MEMORY_WEIGHTS] / 1e9,
        (double)plan->bytes[TRI_MEMORY_GRADIENTS] / 1e9,
        (double)plan->bytes[TRI_MEMORY_OPTIMIZER] / 1e9,
        (double)plan->bytes[TRI_MEMORY_ACTIVATIONS] / 1e9,
        (double)plan->bytes[TRI_MEMORY_BUFFERS] / 1e9, (double)available / 1e9, local_ranks);
}
