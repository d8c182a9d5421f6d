#ifndef TRIDENT_BASE_CLOCK_H
#define TRIDENT_BASE_CLOCK_H

#include <stdint.h>

/* One monotonic clock, the same for all processes of a machine: in seconds, in nanoseconds. */
double tri_clock_now(void);
int64_t tri_clock_nanoseconds(void);

#endif
