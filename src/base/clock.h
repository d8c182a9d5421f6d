#ifndef TRIDENT_BASE_CLOCK_H
#define TRIDENT_BASE_CLOCK_H

#include <stdint.h>

/* One monotonic clock, the same for all processes of a machine: in seconds, in nanoseconds. */
double tri_clock_now(void);
int64_t tri_clock_nanoseconds(void);

/* Seconds that the calling thread has had of a processor. */
double tri_clock_busy(void);

/* From now on tri_clock_now tells the calling thread what *seconds holds: it plans, and lives in
 * planned time. NULL: the time that it is. */
void tri_clock_plan(const double *seconds);

#endif
