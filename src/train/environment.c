#include "train/environment.h"

#include "base/log.h"
#include "base/memory.h"
#include "kernel/kernel.h"

#include <jansson.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#ifndef TRIDENT_VERSION
#define TRIDENT_VERSION "unknown"
#endif
#ifndef TRIDENT_COMMIT
#define TRIDENT_COMMIT "unknown"
#endif

enum { PLACE_BYTES = 160 };

const char *tri_version(void)
{
    return "trident " TRIDENT_VERSION " (" TRIDENT_COMMIT ")";
}

static int usable_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) == 0) {
        return CPU_COUNT(&set);
    }
    return 1;
}

int tri_environment_set_threads(const struct tri_config *config)
{
    int local = tri_comm_local_size();
    int online = (int)sysconf(_SC_NPROCESSORS_ONLN);
    int mine = usable_cores();
    /* Bound ranks (mpirun --bind-to core) see their own cores only; unbound ones share the node's. */
    int threads = mine < online ? mine : online / local;
    threads = config->threads > 0 ? (int)config->threads : threads > 0 ? threads : 1;
    if (threads * local > online && tri_comm_local_rank() == 0) {
        tri_log_warn("%d threads on %d cores (%d ranks of %d on this node): expect them to wait "
                     "for each other",
                     threads * local, online, local, threads);
    }
    tri_kernels_set_threads(threads);
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

char *tri_environment_describe(const struct tri_mesh *mesh)
{
    size_t ranks = (size_t)mesh->ranks;
    int64_t *counts = tri_alloc(TRI_MEMORY_OTHER, ranks * sizeof(*counts));
    char *places = tri_alloc(TRI_MEMORY_OTHER, ranks * PLACE_BYTES);
    for (size_t r = 0; r < ranks; r++) {
        counts[r] = PLACE_BYTES;
    }
    describe_place(places + (size_t)mesh->rank * PLACE_BYTES);
    tri_all_gather_v(mesh->world, (struct tri_where){TRI_PHASE_SETUP, TRI_KIND_META}, places,
                     counts, TRI_U8);
    char *text = NULL;
    if (mesh->rank == 0) {
        json_t *list = json_array();
        for (size_t r = 0; r < ranks; r++) {
            int coord[TRI_AXIS_COUNT];
            tri_mesh_coords(mesh, (int)r, coord);
            (void)json_array_append_new(
                list, json_pack("{si si si si ss}", "rank", (int)r, "tensor", coord[0], "expert",
                                coord[1], "data", coord[2], "cores", places + r * PLACE_BYTES));
        }
        json_t *root =
            json_pack("{ss ss ss ss si so}", "version", TRIDENT_VERSION, "commit", TRIDENT_COMMIT,
                      "kernels", tri_kernels_describe(), "mpi", tri_comm_library(),
                      "threads_per_rank", tri_kernels_threads(), "ranks", list);
        text = json_dumps(root, JSON_INDENT(1));
        json_decref(root);
    }
    tri_free(places);
    tri_free(counts);
    return text;
}
