/* Prints the ceilings of this machine: one thread, then all cores. */
#include "ceiling.h"

#include <stdio.h>
#include <unistd.h>

int main(void)
{
    int cores = (int)sysconf(_SC_NPROCESSORS_ONLN);
    (void)printf("%-14s %14s %10d threads\n", "GFLOP/s", "1 thread", cores);
    for (const struct tri_ceiling_way *way = tri_ceiling_ways; way->name; way++) {
        if (way->can()) {
            (void)printf("%-14s %14.0f %10.0f\n", way->name, tri_ceiling_measure(way, 1),
                         tri_ceiling_measure(way, cores));
        }
    }
    return 0;
}
