#include "base/clock.h"

#include <time.h>

static double read_clock(clockid_t which)
{
    struct timespec now;
    (void)clock_gettime(which, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

double tri_clock_now(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

double tri_clock_wall(void)
{
    return read_clock(CLOCK_REALTIME);
}
