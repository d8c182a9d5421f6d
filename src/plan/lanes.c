#include "plan/lanes.h"

void tri_lanes_compute(struct tri_lanes *lanes, double seconds)
{
    lanes->now += seconds;
}

/* Puts `seconds` of each link behind what it carries already, not before `ready`; returns when the
 * last is done. */
static double carry(struct tri_lanes *lanes, const double seconds[TRI_LINK_COUNT], double ready)
{
    double from = ready > lanes->now ? ready : lanes->now;
    double last = from;
    for (int i = 0; i < TRI_LINK_COUNT; i++) {
        double *free = &lanes->free[lanes->one_link ? 0 : i];
        if (seconds[i] > 0.0) {
            double start = *free > from ? *free : from;
            *free = start + seconds[i];
            last = *free > last ? *free : last;
        }
    }
    return last;
}

double tri_lanes_begin(struct tri_lanes *lanes, const struct tri_transfer *transfer, double ready)
{
    double seconds[TRI_LINK_COUNT];
    double own = 0.0;
    for (int i = 0; i < TRI_LINK_COUNT; i++) {
        double rest = (1.0 - transfer->hidden[i]) * transfer->seconds[i];
        seconds[i] = transfer->seconds[i] - rest;
        own = lanes->one_link ? own + rest : rest > own ? rest : own;
    }
    lanes->now += own;
    return carry(lanes, seconds, ready);
}

void tri_lanes_wait(struct tri_lanes *lanes, double arrival)
{
    lanes->now = arrival > lanes->now ? arrival : lanes->now;
}

void tri_lanes_block(struct tri_lanes *lanes, const struct tri_transfer *transfer)
{
    lanes->now = carry(lanes, transfer->seconds, lanes->now);
}
