#include "base/processors.h"

#include "base/runtime.h"

#include <omp.h>
#include <stdlib.h>
#include <string.h>

static int places(void)
{
    return omp_get_proc_bind() == omp_proc_bind_false ? 0 : omp_get_num_places();
}

static void add_place(struct tri_processors *processors, int place)
{
    int count = omp_get_place_num_procs(place);
    int *ids = count > 0 ? malloc((size_t)count * sizeof(*ids)) : NULL;
    if (ids) {
        omp_get_place_proc_ids(place, ids);
    }
    for (int i = 0; ids && i < count; i++) {
        if (ids[i] >= 0 && ids[i] < TRI_PROCESSORS) {
            CPU_SET_S((size_t)ids[i], sizeof(processors->set), processors->set);
        }
    }
    free(ids);
}

bool tri_processors_find(struct tri_processors *processors)
{
    memset(processors, 0, sizeof(*processors));
    if (sched_getaffinity(0, sizeof(processors->set), processors->set) != 0) {
        return false;
    }
    for (int place = 0; place < places(); place++) {
        add_place(processors, place);
    }
    return true;
}

void tri_processors_open(void)
{
    const struct tri_runtime *runtime = tri_runtime_get();
    struct tri_processors all;
    if ((runtime->ranks > 1 || runtime->embedded) && places() > 0 && tri_processors_find(&all)) {
        (void)sched_setaffinity(0, sizeof(all.set), all.set);
    }
}
