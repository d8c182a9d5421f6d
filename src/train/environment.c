#include "train/environment.h"

#include "base/cgroup.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/processors.h"
#include "base/runtime.h"
#include "kernel/kernel.h"

#include <hwloc.h>
#include <hwloc/glibc-sched.h>
#include <jansson.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifndef TRIDENT_VERSION
#define TRIDENT_VERSION "unknown"
#endif
#ifndef TRIDENT_COMMIT
#define TRIDENT_COMMIT "unknown"
#endif

enum { PLACE_BYTES = 160, MOST_THREADS = 4096 };

const char *tri_version(void)
{
    return "trident " TRIDENT_VERSION " (" TRIDENT_COMMIT ")";
}

/* Physical cores of the node, and those that this rank may run on. */
struct cores {
    int all, usable;
};

static struct cores count_cores(void)
{
    struct cores cores = {1, 1};
    hwloc_topology_t topology;
    if (hwloc_topology_init(&topology) != 0) {
        return cores;
    }
    struct tri_processors processors;
    hwloc_bitmap_t bound = hwloc_bitmap_alloc();
    if (hwloc_topology_load(topology) == 0) {
        int all = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
        cores.all = cores.usable = all > 0 ? all : 1;
        if (bound && tri_processors_find(&processors) &&
            hwloc_cpuset_from_glibc_sched_affinity(topology, bound, processors.set,
                                                   sizeof(processors.set)) == 0) {
            int usable = hwloc_get_nbobjs_inside_cpuset_by_type(topology, bound, HWLOC_OBJ_CORE);
            /* A rank bound to one hardware thread of a core has no whole core inside. */
            cores.usable = usable > 0 ? usable : 1;
        }
    }
    hwloc_bitmap_free(bound);
    hwloc_topology_destroy(topology);
    return cores;
}

/* What OMP_NUM_THREADS says, or 0; of a list, which is for nested regions, its first. */
static int threads_of_openmp(void)
{
    const char *text = tri_runtime_getenv("OMP_NUM_THREADS");
    long threads = text ? strtol(text, NULL, 10) : 0;
    return threads > 0 && threads <= MOST_THREADS ? (int)threads : 0;
}

/* The node's cores, or as many as its quota of processor time keeps busy. */
static int cores_within_quota(int cores)
{
    double quota = ceil(tri_cgroup_processors(""));
    return quota < cores ? (int)quota : cores;
}

const char *tri_environment_kernels(void)
{
    return tri_runtime_getenv("TRIDENT_KERNELS");
}

int tri_environment_threads(const struct tri_config *config, const struct tri_comm *comm)
{
    int local = tri_comm_local_size(comm);
    struct cores cores = count_cores();
    int all = cores_within_quota(cores.all);
    /* Bound ranks (mpirun --bind-to core) see their own cores only; unbound ones share the
     * node's, and ranks of one process its own. A quota is shared in any case. */
    int share = all / local > 0 ? all / local : 1;
    int own = cores.usable / tri_runtime_ranks();
    own = own > 0 ? own : 1;
    bool bound = cores.usable < cores.all;
    int threads = bound && (all == cores.all || own < share) ? own : share;
    int heard = threads_of_openmp();
    threads = config->threads > 0 ? (int)config->threads : heard > 0 ? heard : threads;
    if (threads * local > all && tri_comm_local_rank(comm) == 0) {
        tri_log_warn(
            "%d threads on %d core%s%s (%d rank%s of %d on this node): expect them to wait "
            "for each other",
            threads * local, all, all == 1 ? "" : "s", all < cores.all ? " by quota" : "", local,
            local == 1 ? "" : "s", threads);
    }
    return threads;
}

/* "host: 0-3" into text. */
static void describe_place(char text[PLACE_BYTES])
{
    char host[64] = "";
    cpu_set_t set;
    (void)gethostname(host, sizeof(host) - 1);
    int n = snprintf(text, PLACE_BYTES, "%s:", host);
    if (sched_getaffinity(0, sizeof(set), &set) != 0) {
        return;
    }
    for (int core = 0; core < CPU_SETSIZE && n > 0 && n < PLACE_BYTES; core++) {
        int end = core;
        while (end < CPU_SETSIZE && CPU_ISSET((size_t)end, &set)) {
            end++;
        }
        if (end > core) {
            n += snprintf(text + n, (size_t)(PLACE_BYTES - n), end - core > 1 ? " %d-%d" : " %d",
                          core, end - 1);
            core = end;
        }
    }
}

char *tri_environment_describe(const struct tri_kernels *kernels, const struct tri_mesh *mesh)
{
    size_t ranks = (size_t)mesh->ranks;
    int64_t *counts = tri_alloc(TRI_MEMORY_OTHER, ranks * sizeof(*counts));
    char *places = tri_alloc(TRI_MEMORY_OTHER, ranks * PLACE_BYTES);
    for (size_t r = 0; r < ranks; r++) {
        counts[r] = PLACE_BYTES;
    }
    describe_place(places + (size_t)mesh->rank * PLACE_BYTES);
    tri_all_gather_v(tri_mesh_group(mesh, TRI_ON_ALL),
                     (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, places, counts, TRI_U8);
    char *text = NULL;
    if (mesh->rank == 0) {
        json_t *list = json_array();
        for (size_t r = 0; r < ranks; r++) {
            int coord[TRI_AXIS_COUNT];
            tri_mesh_coords(mesh, (int)r, coord);
            (void)json_array_append_new(
                list, json_pack("{si si si si si si ss}", "rank", (int)r, "tensor",
                                coord[TRI_AXIS_TENSOR], "cross", coord[TRI_AXIS_CROSS], "depth",
                                coord[TRI_AXIS_DEPTH], "expert", coord[TRI_AXIS_EXPERT], "data",
                                coord[TRI_AXIS_DATA], "cores", places + r * PLACE_BYTES));
        }
        char path[TRI_KERNELS_TEXT];
        tri_kernels_describe(tri_environment_kernels(), kernels->reproducible, path);
        json_t *root =
            json_pack("{ss ss ss ss si so}", "version", TRIDENT_VERSION, "commit", TRIDENT_COMMIT,
                      "kernels", path, "messages", tri_comm_library(mesh->comm), "threads_per_rank",
                      kernels->threads, "ranks", list);
        text = json_dumps(root, JSON_INDENT(1));
        json_decref(root);
    }
    tri_free(places);
    tri_free(counts);
    return text;
}
