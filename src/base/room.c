#include "base/room.h"

#include "base/cgroup.h"
#include "base/memory.h"
#include "base/runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>

enum { PATH_BYTES = 1024 };

/* ---- the machine ----------------------------------------------------------------------------- */

/* Bytes of a line "name: N kB" of /proc/meminfo, or -1. */
static int64_t meminfo(const char *root, const char *name)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof(path), "%s/proc/meminfo", root);
    int64_t kilobytes = tri_number_of_key(path, name);
    return kilobytes < 0 ? -1 : kilobytes * 1024;
}

static struct tri_memory_room smaller(struct tri_memory_room a, int64_t bytes, const char *limit)
{
    return bytes < a.bytes ? (struct tri_memory_room){bytes, limit} : a;
}

static struct tri_memory_room of_promises(const char *root, struct tri_memory_room room)
{
    char path[PATH_BYTES];
    (void)snprintf(path, sizeof(path), "%s/proc/sys/vm/overcommit_memory", root);
    int64_t limit = meminfo(root, "CommitLimit");
    int64_t promised = meminfo(root, "Committed_AS");
    if (tri_number_of_file(path) == 2 && limit >= 0 && promised >= 0) {
        room = smaller(room, limit > promised ? limit - promised : 0, "vm.overcommit_memory=2");
    }
    return room;
}

struct tri_memory_room tri_room_of_machine(const char *root)
{
    int64_t free = meminfo(root, "MemAvailable");
    struct tri_memory_room room = {free < 0 ? INT64_MAX : free, "the machine's memory"};
    return smaller(of_promises(root, room), tri_cgroup_room(root), "a control group");
}

/* ---- this process ---------------------------------------------------------------------------- */

/* What a limit of this process leaves each of its ranks beside what it has, where so many of the
 * node's ask; which: as in tri_memory_statm. */
static int64_t room_of_limit(int resource, int which, int local_ranks)
{
    struct rlimit limit;
    if (getrlimit((__rlimit_resource_t)resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur > (rlim_t)INT64_MAX) {
        return INT64_MAX;
    }
    int64_t used = tri_memory_statm(which);
    int64_t left = (int64_t)limit.rlim_cur > used ? (int64_t)limit.rlim_cur - used : 0;
    int ranks = tri_runtime_ranks();
    return left / (ranks < local_ranks ? ranks : local_ranks);
}

static struct tri_memory_room of_process(struct tri_memory_room room, int local_ranks)
{
    enum { ADDRESSES = 0, DATA = 5 };
    room = smaller(room, room_of_limit(RLIMIT_AS, ADDRESSES, local_ranks), "ulimit -v");
    return smaller(room, room_of_limit(RLIMIT_DATA, DATA, local_ranks), "ulimit -d");
}

static struct tri_memory_room share_of(struct tri_memory_room room, int local_ranks)
{
    return (struct tri_memory_room){room.bytes < INT64_MAX ? room.bytes / local_ranks : room.bytes,
                                    room.limit};
}

/* For whoever wants less than there is. */
static int64_t parse_override(const char *text)
{
    char *end = NULL;
    int64_t bytes = strtoll(text, &end, 10);
    if (end == text || *end || bytes < 0) {
        tri_panic(TRI_BAD_INPUT, "TRIDENT_MEMORY_LIMIT: found '%s', expected a number of bytes",
                  text);
    }
    return bytes;
}

struct tri_memory_room tri_room_find(int local_ranks)
{
    const char *override = tri_runtime_getenv("TRIDENT_MEMORY_LIMIT");
    if (override) {
        return (struct tri_memory_room){parse_override(override), "TRIDENT_MEMORY_LIMIT"};
    }
    return of_process(share_of(tri_room_of_machine(""), local_ranks), local_ranks);
}

struct tri_memory_room tri_room_before_throttle(const char *root, int local_ranks)
{
    struct tri_memory_room room = {tri_cgroup_fast_room(root), "memory.high of a control group"};
    return share_of(room, local_ranks);
}

struct tri_memory_room tri_room_of_addresses(int local_ranks)
{
    const struct tri_memory_room none = {INT64_MAX, "none"};
    return of_process(share_of(of_promises("", none), local_ranks), local_ranks);
}

/* ---- none left ------------------------------------------------------------------------------- */

static double gigabytes(int64_t bytes)
{
    return (double)bytes / 1e9;
}

void tri_room_exhausted(size_t bytes, const char *owner)
{
    struct tri_memory_counters now = tri_memory_get();
    struct tri_memory_room room = tri_room_find(1);
    char taken[512] = "";
    int64_t total = 0;
    size_t used = 0;
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        total += now.current[i];
        if (now.current[i] >= 10000000 && used < sizeof(taken)) {
            used +=
                (size_t)snprintf(taken + used, sizeof(taken) - used, ", %s %.2f",
                                 tri_memory_name((enum tri_memory)i), gigabytes(now.current[i]));
        }
    }
    tri_panic(TRI_FAILED,
              "out of memory: %.3f GB more for %s beside %.3f GB%s; %.3f GB is free (limit: %s)",
              gigabytes((int64_t)bytes), owner, gigabytes(total), taken, gigabytes(room.bytes),
              room.limit);
}
