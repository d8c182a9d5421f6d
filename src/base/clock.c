#include "base/clock.h"

#include <stddef.h>
#include <time.h>

static _Thread_local const double *planned;

void tri_clock_plan(const double *seconds)
{
    planned = seconds;
}

static struct timespec now(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return time;
}

double tri_clock_now(void)
{
    if (planned) {
        return *planned;
    }
    struct timespec time = now();
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

double tri_clock_busy(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

int64_t tri_clock_nanoseconds(void)
{
    struct timespec time = now();
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}
