#include "train/calibrate.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/room.h"
#include "train/calibrate_internal.h"
#include "train/environment.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Of one measurement: seconds that it should take, or quickly, and calls that are timed. What is
 * shorter than GRAIN is timed several at a time. */
#define BUDGET 0.25
/* Seconds, of kernels and again of links, after which no measurement takes longer than it must. */
#define LATEST     60.0
#define GRAIN      20e-6
#define PAUSE_MOST 0.02
enum { CALLS_LEAST = 5, CALLS_MOST = 101, TOGETHER_MOST = 1000 };

static const struct tri_where meta = {TRI_PHASE_SETUP, TRI_KIND_META};

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a;
    double y = *(const double *)b;
    return (x > y) - (x < y);
}

static double time_calls(void (*run)(void *state), void *state, int count)
{
    double start = tri_clock_now();
    for (int i = 0; i < count; i++) {
        run(state);
    }
    return (tri_clock_now() - start) / (double)count;
}

static int clip(double value, int least, int most)
{
    return value < (double)least ? least : value > (double)most ? most : (int)value;
}

bool tri_calibrate_hurries(const struct tri_calibrator *calibrator)
{
    double passed = tri_clock_now() - calibrator->began;
    tri_all_reduce_max(tri_mesh_group(calibrator->mesh, TRI_ON_ALL), meta, &passed, 1, TRI_F64);
    return calibrator->quick || passed > LATEST;
}

/* Between the calls of a step ranks compute, and a link that has idled may carry more at once: so
 * each call begins after a pause about as long, at the same time on all ranks. */
static void rest(const struct tri_calibrator *calibrator, double seconds)
{
    double nothing = 0.0;
    double pause = seconds < PAUSE_MOST ? seconds : PAUSE_MOST;
    const struct timespec time = {.tv_nsec = (long)(1e9 * pause)};
    (void)nanosleep(&time, NULL);
    tri_all_reduce_max(tri_mesh_group(calibrator->mesh, TRI_ON_ALL), meta, &nothing, 1, TRI_F64);
}

double tri_calibrate_time(const struct tri_calibrator *calibrator, void (*run)(void *state),
                          void *state)
{
    double times[CALLS_MOST];
    if (!calibrator->quick) {
        run(state); /* makes what is made once */
    }
    /* The slowest rank decides how often all of them call; where the time is up, once. */
    double slowest = time_calls(run, state, 1);
    tri_all_reduce_max(tri_mesh_group(calibrator->mesh, TRI_ON_ALL), meta, &slowest, 1, TRI_F64);
    int together = clip(ceil(GRAIN / (slowest + 1e-9)), 1, TOGETHER_MOST);
    int calls = clip(BUDGET / (slowest * (double)together + 1e-9), CALLS_LEAST, CALLS_MOST);
    calls = tri_calibrate_hurries(calibrator) ? 1 : calls;
    for (int i = 0; i < calls; i++) {
        rest(calibrator, slowest);
        times[i] = time_calls(run, state, together);
    }
    qsort(times, (size_t)calls, sizeof(*times), compare);
    return 0.5 * (times[(calls - 1) / 2] + times[calls / 2]);
}

void tri_calibrate_note(struct tri_calibrator *calibrator, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    size_t left = TRI_CALIBRATION_NOTES - calibrator->noted;
    int used = vsnprintf(calibrator->notes + calibrator->noted, left, format, arguments);
    va_end(arguments);
    calibrator->noted += used > 0 && (size_t)used < left ? (size_t)used : 0;
}

bool tri_samples_fit(struct tri_calibrator *calibrator, const char *name,
                     const struct tri_sample *samples, int count, double costs[TRI_FIT_UNKNOWNS])
{
    struct tri_group *world = tri_mesh_group(calibrator->mesh, TRI_ON_ALL);
    double error = tri_fit(samples, count, costs);
    double sums[TRI_FIT_UNKNOWNS + 2] = {costs[0], costs[1], costs[2], error, (double)count};
    tri_all_reduce_sum(world, meta, sums, TRI_FIT_UNKNOWNS + 2, TRI_F64);
    for (int i = 0; i < TRI_FIT_UNKNOWNS; i++) {
        costs[i] = sums[i] / (double)tri_group_size(world);
    }
    if (!(sums[TRI_FIT_UNKNOWNS + 1] > 0.0)) {
        return false;
    }
    tri_calibrate_note(calibrator, "  %-26s %3d measured, off by %5.1f %%\n", name, count,
                       1e2 * sums[TRI_FIT_UNKNOWNS] / (double)tri_group_size(world));
    return true;
}

/* ---- hosts ----------------------------------------------------------------------------------- */

/* Ranks of each host, which are numbered one host after another. */
static enum tri_status find_hosts(struct tri_comm *comm, int *ranks_per_host,
                                  struct tri_error *error)
{
    struct tri_mesh *mesh;
    TRI_TRY(tri_mesh_create(comm, 1, 1, 1, 1, &mesh, error));
    struct tri_group *world = tri_mesh_group(mesh, TRI_ON_ALL);
    int local = tri_comm_local_size(comm);
    int rank = tri_comm_rank(comm);
    double largest = (double)local;
    tri_all_reduce_max(world, meta, &largest, 1, TRI_F64);
    enum tri_status status = TRI_OK;
    if (local != (int)largest || rank % local != tri_comm_local_rank(comm)) {
        status = tri_fail(error, TRI_BAD_INPUT,
                          "rank %d is number %d of %d on its host, and the largest host has %d: "
                          "expected hosts with the same number of ranks, numbered host by host "
                          "(mpirun --map-by slot)",
                          rank, tri_comm_local_rank(comm), local, (int)largest);
    }
    status = tri_comm_agree(world, status, error);
    tri_mesh_destroy(mesh);
    *ranks_per_host = local;
    return status;
}

static int64_t find_memory(const struct tri_calibrator *calibrator)
{
    struct tri_memory_room room = tri_room_find(tri_comm_local_size(calibrator->comm));
    double least = room.bytes == INT64_MAX ? -(double)INFINITY : -(double)room.bytes;
    tri_all_reduce_max(tri_mesh_group(calibrator->mesh, TRI_ON_ALL), meta, &least, 1, TRI_F64);
    return isfinite(least) ? (int64_t)-least : 0;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void describe(struct tri_calibrator *calibrator, int threads)
{
    struct tri_cluster *cluster = calibrator->cluster;
    char path[TRI_KERNELS_TEXT];
    int ranks = tri_comm_size(calibrator->comm);
    int hosts = ranks / cluster->ranks_per_host;
    tri_kernels_describe(tri_environment_kernels(), false, path);
    (void)snprintf(cluster->name, sizeof(cluster->name), "%d rank%s on %d host%s, %d thread%s each",
                   ranks, ranks == 1 ? "" : "s", hosts, hosts == 1 ? "" : "s", threads,
                   threads == 1 ? "" : "s");
    tri_calibrate_note(calibrator, "measured by trident calibrate\n%s; %s\n", path,
                       tri_comm_library(calibrator->comm));
    tri_calibrate_note(calibrator,
                       "seconds a call or message, operations and bytes a second; fits:\n");
}

enum tri_status tri_calibrate(struct tri_comm *comm, const struct tri_calibration *calibration,
                              struct tri_cluster *cluster, char notes[TRI_CALIBRATION_NOTES],
                              struct tri_error *error)
{
    const struct tri_cluster *kernels = calibration->kernels;
    struct tri_calibrator calibrator = {.comm = comm,
                                        .cluster = cluster,
                                        .quick = calibration->quick,
                                        .began = tri_clock_now(),
                                        .notes = notes};
    *cluster = (struct tri_cluster){0};
    notes[0] = '\0';
    TRI_TRY(find_hosts(comm, &cluster->ranks_per_host, error));
    int hosts = tri_comm_size(comm) / cluster->ranks_per_host;
    TRI_TRY(tri_mesh_create(comm, cluster->ranks_per_host, 1, 1, hosts, &calibrator.mesh, error));
    calibrator.kernels =
        tri_kernels_create(TRI_KERNELS_FAST, tri_environment_kernels(), calibration->threads);
    describe(&calibrator, calibration->threads);
    cluster->memory = find_memory(&calibrator);
    if (kernels) {
        memcpy(cluster->rate, kernels->rate, sizeof(cluster->rate));
        memcpy(cluster->has_kernels, kernels->has_kernels, sizeof(cluster->has_kernels));
    } else {
        tri_calibrate_kernels(&calibrator, calibrator.kernels, false);
    }
    if (calibration->reproducible && !cluster->has_kernels[TRI_CLUSTER_REPRODUCIBLE]) {
        struct tri_kernels *own = tri_kernels_create(
            TRI_KERNELS_REPRODUCIBLE, tri_environment_kernels(), calibration->threads);
        tri_calibrate_kernels(&calibrator, own, true);
        tri_kernels_destroy(own);
    }
    calibrator.began = tri_clock_now();
    tri_calibrate_links(&calibrator);
    tri_kernels_destroy(calibrator.kernels);
    tri_mesh_destroy(calibrator.mesh);
    return TRI_OK;
}
