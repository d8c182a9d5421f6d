/* What the files about ranks that are threads share. Only comm/ includes it. */
#ifndef TRIDENT_COMM_THREADS_INTERNAL_H
#define TRIDENT_COMM_THREADS_INTERNAL_H

#include "comm/internal.h"

#include <pthread.h>
#include <stdatomic.h>

/* What a rank listens for while it waits; a cache line of its own. */
struct tri_bell {
    _Alignas(64) _Atomic uint32_t rung; /* how often */
    _Atomic int asleep;
};

struct tri_letter_end;
struct tri_meeting;

/* What the ranks of one job share. */
struct tri_hub {
    int ranks;
    struct tri_bell *bell; /* [ranks] */
    pthread_mutex_t lock;
    struct tri_meeting *meetings; /* the groups that are open, under lock */
};

void tri_hub_init(struct tri_hub *hub, int ranks);
/* All groups are closed. */
void tri_hub_fini(struct tri_hub *hub);

/* The transport of one of its ranks. */
struct tri_threads_transport {
    struct tri_transport base;
    struct tri_hub *hub; /* borrowed */
    int rank;
    uint64_t opened;             /* groups so far, the same on every rank */
    struct tri_letter_end *open; /* messages of this rank that are under way */
};
void tri_threads_transport_init(struct tri_threads_transport *transport, struct tri_hub *hub,
                                int rank);

#endif
