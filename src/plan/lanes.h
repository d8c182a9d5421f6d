/* A rank's time, simulated: it computes, and has two links, inside its host and between hosts, on
 * which one transfer goes after another. What is begun runs on its links while the rank computes;
 * waiting for it takes what is left. No ranks, no bytes, no model: only seconds. */
#ifndef TRIDENT_PLAN_LANES_H
#define TRIDENT_PLAN_LANES_H

#include <stdbool.h>

enum tri_link { TRI_LINK_INSIDE, TRI_LINK_BETWEEN, TRI_LINK_COUNT };

struct tri_lanes {
    double now;                  /* of the rank */
    double free[TRI_LINK_COUNT]; /* from when on a link is idle */
    bool one_link;               /* both are the same: what would run side by side queues */
};

/* What a collective takes of each link, both at once. hidden: the part of it, 0 to 1, that runs
 * beside the rank's work when it is begun; the rest is the rank's own, when it begins. */
struct tri_transfer {
    double seconds[TRI_LINK_COUNT], hidden[TRI_LINK_COUNT];
};

void tri_lanes_compute(struct tri_lanes *lanes, double seconds);
/* Begins a transfer, of what is there from `ready` on, which may be the arrival of what was begun
 * before; returns when the links will have carried it. */
double tri_lanes_begin(struct tri_lanes *lanes, const struct tri_transfer *transfer, double ready);
/* Waits for a transfer that was begun, and will have been carried at `arrival`. */
void tri_lanes_wait(struct tri_lanes *lanes, double arrival);
/* The rank does nothing else meanwhile. */
void tri_lanes_block(struct tri_lanes *lanes, const struct tri_transfer *transfer);

#endif
