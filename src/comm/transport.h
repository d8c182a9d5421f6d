/* What carries messages between ranks: a table of functions. comm/ makes its collectives of it, and
 * asks it for nothing else; nothing above comm/ knows which there is. Whoever writes one fills the
 * first half of the table; the second half is for networks that can do it better than messages.
 *
 * All functions are called by the rank's own thread. What fails ends the job (tri_panic). */
#ifndef TRIDENT_COMM_TRANSPORT_H
#define TRIDENT_COMM_TRANSPORT_H

#include "tensor/dtype.h"

#include <stdbool.h>
#include <stdint.h>

/* A transport's own struct begins with it; so does its end of a group with tri_endpoint. */
struct tri_transport {
    const struct tri_transport_ops *ops;
    bool carries; /* false: no other rank is there, and no data is read or written */
};

struct tri_endpoint {
    int size, rank; /* of the group, and this rank's place in it */
};

/* What a transport remembers of a message under way. */
union tri_message {
    void *place;
    uint64_t number;
};

/* Messages of different lanes between the same two ranks have nothing to do with each other. */
enum tri_lane {
    TRI_LANE_GROUP, /* of collectives */
    TRI_LANE_PAIR,  /* of one rank to one other */
    TRI_LANE_COUNT
};

struct tri_transport_ops {
    /* This rank's end of a group of more than one rank, of which `first` is the lowest world rank;
     * what a rank's groups have to do with each other is up to them. Collective over the job: every
     * rank opens an end, each in one of the groups that they are divided into. */
    struct tri_endpoint *(*open)(struct tri_transport *self, int size, int rank, int first,
                                 const char *name);
    /* Collective likewise; no message is under way. */
    void (*close)(struct tri_transport *self, struct tri_endpoint *end);
    /* Begin to move n elements; 0 < n <= the mesh's max_message. Messages of a lane between
     * two ranks of a group match in the order in which they were begun. The data belongs to the
     * transport until test or wait say that the message has arrived, which they say once. */
    void (*receive)(struct tri_endpoint *end, enum tri_lane lane, int from, void *data, int64_t n,
                    enum tri_dtype dtype, union tri_message *message);
    void (*send)(struct tri_endpoint *end, enum tri_lane lane, int to, const void *data, int64_t n,
                 enum tri_dtype dtype, union tri_message *message);
    /* Whether it has arrived; if not, moves this rank's others on, of all groups, where a transport
     * needs that. */
    bool (*test)(struct tri_endpoint *end, union tri_message *message);
    void (*wait)(struct tri_endpoint *end, union tri_message *messages, int count);
    /* The same, sleeping: later, but the core is free for ranks that work. NULL: wait sleeps. */
    void (*doze)(struct tri_endpoint *end, union tri_message *messages, int count);

    /* ---- may be NULL: made of messages (messages.c) ---- */
    /* Rank r's counts[r] elements, at data + at[r] elements of it, to everyone; all n of them no
     * more than max_message. In place. */
    void (*all_gather)(struct tri_endpoint *end, void *data, const int64_t *counts,
                       const int64_t *at, enum tri_dtype dtype);
    /* n elements of each to all[size * n] of everyone. */
    void (*all_gather_even)(struct tri_endpoint *end, const void *mine, void *all, int64_t n,
                            enum tri_dtype dtype);
    void (*broadcast)(struct tri_endpoint *end, void *data, int64_t n, enum tri_dtype dtype,
                      int root);
    /* recv[r * n + i] of rank s is send[s * n + i] of r. */
    void (*all_to_all)(struct tri_endpoint *end, const void *send, void *recv, int64_t n,
                       enum tri_dtype dtype);
    void (*barrier)(struct tri_endpoint *end);
};

#endif
