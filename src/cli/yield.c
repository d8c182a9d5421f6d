/* How a rank that waits gives its core away. Where ranks share cores with each other or with other
 * jobs, the ranks that wait ask the network over and over and yield in between, and the scheduler
 * hands the core round among those that ask: whoever computes gets a part of it. So the program has
 * a sched_yield of its own, which the MPI library calls too: once somebody took the core, yielding
 * is a short sleep for a while. A rank whose core nobody wants never sleeps. */
#include <sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* In nanoseconds: how long the core was away when somebody took it who does not yield, no interrupt
 * and no other rank between two messages; how long is slept instead of yielding from then on, and
 * how long at a time. */
enum { TAKEN = 1000000, WHILE = 10000000, PAUSE = 30000 };

static int64_t now(void)
{
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

int sched_yield(void)
{
    static _Thread_local int64_t shared_until;
    int64_t before = now();
    if (before < shared_until) {
        const struct timespec pause = {.tv_nsec = PAUSE};
        (void)nanosleep(&pause, NULL);
        return 0;
    }
    int status = (int)syscall(SYS_sched_yield);
    int64_t after = now();
    if (after - before > TAKEN) {
        shared_until = after + WHILE;
    }
    return status;
}
