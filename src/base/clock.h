#ifndef TRIDENT_BASE_CLOCK_H
#define TRIDENT_BASE_CLOCK_H

/* Seconds of a monotonic clock. */
double tri_clock_now(void);

#endif
