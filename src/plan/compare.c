#include "plan/compare.h"

#include "base/log.h"

#include <stdio.h>

static const struct tri_where where = {TRI_PHASE_SETUP, TRI_KIND_META};

/* Doubles, of which the largest rank's are wanted. */
struct memory_figures {
    double planned[TRI_MEMORY_COUNT + 1]; /* and the total */
    double counted[TRI_MEMORY_COUNT + 1];
    double process, peak, share; /* share: peak / (planned total + process) */
};

static struct memory_figures largest_figures(const struct tri_memory_plan *plan,
                                             struct tri_group *world)
{
    struct tri_memory_counters counters = tri_memory_get();
    struct memory_figures f = {.process = (double)plan->process,
                               .peak = (double)tri_memory_process_peak()};
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        f.planned[i] = (double)plan->bytes[i];
        f.counted[i] = (double)counters.peak[i];
        f.planned[TRI_MEMORY_COUNT] += f.planned[i];
        f.counted[TRI_MEMORY_COUNT] += f.counted[i];
    }
    f.share = f.peak / ((double)plan->total + f.process);
    tri_all_reduce_max(world, where, &f, sizeof(f) / sizeof(double), TRI_F64);
    return f;
}

/* The first rank that plans most, and its plan. */
static int find_largest(struct tri_group *world, struct tri_memory_plan *plan)
{
    int64_t most = plan->total;
    tri_all_reduce_max(world, where, &most, 1, TRI_I64);
    int64_t first = plan->total == most ? -tri_group_rank(world) : INT64_MIN;
    tri_all_reduce_max(world, where, &first, 1, TRI_I64);
    tri_broadcast(world, where, plan, (int64_t)sizeof(*plan), TRI_U8, (int)-first);
    return (int)-first;
}

void tri_memory_print(const struct tri_memory_plan *own, struct tri_group *world)
{
    struct tri_memory_plan plan = *own;
    char parts[512] = "", rank[64] = "";
    size_t used = 0;
    int largest = find_largest(world, &plan);
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        if (plan.bytes[i] > 0 && used < sizeof(parts)) {
            used += (size_t)snprintf(parts + used, sizeof(parts) - used, "%s%s %.1f",
                                     used > 0 ? ", " : "", tri_memory_name((enum tri_memory)i),
                                     (double)plan.bytes[i] / 1e6);
        }
    }
    if (tri_group_size(world) > 1) {
        (void)snprintf(rank, sizeof(rank), " a rank, the most on rank %d", largest);
    }
    tri_log_info("memory   %.1f MB%s: %s", (double)plan.total / 1e6, rank, parts);
}

void tri_memory_compare(const struct tri_memory_plan *plan, enum tri_load load,
                        struct tri_group *world)
{
    struct memory_figures f = largest_figures(plan, world);
    tri_log_info("memory        planned    counted   MB a rank at the peak, %s",
                 load == TRI_LOAD_BALANCED ? "balanced routing" : "planned for moe.headroom");
    for (int i = 0; i <= TRI_MEMORY_COUNT; i++) {
        const char *name = i < TRI_MEMORY_COUNT ? tri_memory_name((enum tri_memory)i) : "total";
        if (f.planned[i] > 0.0 || f.counted[i] > 0.0) {
            tri_log_info("  %-11s %8.1f   %8.1f", name, f.planned[i] / 1e6, f.counted[i] / 1e6);
        }
    }
    tri_log_info("  process                %8.1f   %.2f of planned + %.1f for libraries, MPI, "
                 "scratch",
                 f.peak / 1e6, f.share, f.process / 1e6);
}
