#include "plan/memory.h"

#include "base/log.h"
#include "base/room.h"
#include "base/runtime.h"

#include <sys/resource.h>

/* What a process takes in its first steps beside what is planned, measured with 1 to 16 threads:
 * the kernels' scratch, the libraries' own and stacks grow with the threads. */
enum { LATER_BYTES = 8 << 20, THREAD_BYTES = 4 << 20 };

int64_t tri_memory_process_constant(int64_t threads)
{
    return (tri_memory_resident() + LATER_BYTES) / tri_runtime_ranks() + threads * THREAD_BYTES;
}

int64_t tri_memory_process_share(void)
{
    return tri_memory_resident() / tri_runtime_ranks();
}

int64_t tri_memory_process_peak(void)
{
    struct rusage use;
    int64_t kilobytes = getrusage(RUSAGE_SELF, &use) == 0 ? (int64_t)use.ru_maxrss : 0;
    return 1024 * kilobytes / tri_runtime_ranks();
}

static double gigabytes(int64_t bytes)
{
    return (double)bytes / 1e9;
}

/* Beyond memory.high the kernel puts to sleep whoever asks for more; it kills nobody. */
static void warn_of_throttle(int64_t needed, int local_ranks)
{
    struct tri_memory_room room = tri_room_before_throttle("", local_ranks);
    if (needed > room.bytes && tri_rank_get() == 0) {
        tri_log_warn("%.2f GB a rank are planned, and from %.2f GB on the kernel slows this job "
                     "down (limit: %s)",
                     gigabytes(needed), gigabytes(room.bytes), room.limit);
    }
}

enum tri_status tri_memory_check(const struct tri_memory_plan *plan, int local_ranks,
                                 struct tri_error *error)
{
    struct tri_memory_room room = tri_room_find(local_ranks);
    int64_t needed = plan->total + plan->process + plan->beside;
    if (needed <= room.bytes) {
        warn_of_throttle(needed, local_ranks);
        return TRI_OK;
    }
    return tri_fail(
        error, TRI_FAILED,
        "this run plans %.2f GB a rank (weights %.2f, gradients %.2f, optimizer %.2f, activations "
        "%.2f, buffers %.2f, beside them %.2f), but %.2f GB a rank is free with %d rank%s on this "
        "node (limit: %s)",
        gigabytes(needed), gigabytes(plan->bytes[TRI_MEMORY_WEIGHTS]),
        gigabytes(plan->bytes[TRI_MEMORY_GRADIENTS]), gigabytes(plan->bytes[TRI_MEMORY_OPTIMIZER]),
        gigabytes(plan->bytes[TRI_MEMORY_ACTIVATIONS]), gigabytes(plan->bytes[TRI_MEMORY_BUFFERS]),
        gigabytes(plan->process + plan->beside), gigabytes(room.bytes), local_ranks,
        local_ranks == 1 ? "" : "s", room.limit);
}

enum tri_status tri_memory_check_share(const char *command, int64_t weights, int64_t buffers,
                                       int local_ranks, struct tri_error *error)
{
    int64_t process = tri_memory_process_constant(1);
    int64_t needed = weights + buffers + process;
    struct tri_memory_room room = tri_room_find(local_ranks);
    if (needed <= room.bytes) {
        warn_of_throttle(needed, local_ranks);
        return TRI_OK;
    }
    return tri_fail(error, TRI_FAILED,
                    "%s needs %.2f GB (weights %.2f, buffers %.2f, beside them %.2f), but %.2f GB "
                    "is free (limit: %s)",
                    command, gigabytes(needed), gigabytes(weights), gigabytes(buffers),
                    gigabytes(process), gigabytes(room.bytes), room.limit);
}
