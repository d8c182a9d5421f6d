/* Who sends what where, of one micro-batch of an MoE layer; a part of the routing. */
#ifndef TRIDENT_MOE_ROUTE_PLAN_H
#define TRIDENT_MOE_ROUTE_PLAN_H

#include "model/linear.h"
#include "moe/peers.h"
#include "moe/router.h"

struct tri_route_chunks;
struct tri_route_plan {
    struct tri_range own;           /* tokens */
    int64_t slots, part_rows, rows; /* part_rows: those that arrive here; rows: of all parts */
    int32_t *slot_of;               /* [own tokens, k] -> slot, -1 where dropped */
    int32_t *token_of;              /* [slots] -> token, from the first one of `own` */
    int64_t *send_rows, *recv_rows; /* [homes] */
    int64_t *part_offsets; /* [homes * experts + 1] runs of (source, expert) in this part */
    int64_t *part_counts;  /* [parts] elements of each part */
    int64_t *offsets;      /* [experts + 1] rows of each local expert */
    int32_t *row_from;     /* [rows] expert order -> arrival order; NULL when they agree */
    int32_t *row_to;       /* the inverse */
    struct tri_route_chunks *chunks[2]; /* forward, backward; in place of the two above */
    /* With hosts (moe/hosts.h), where slots are what this rank hands on inside its own, and slots
     * and send_rows moe/relay.c's: own tokens with routes to each host; what this rank is told as a
     * relay (struct tri_host_counts). */
    int64_t *host_rows, *passed, *heard;
    struct tri_cuts *cuts; /* [experts] of each one's rows, by rows of the global batch */
};

/* The plan for tokens `own` of the micro-batch, on the tape; in a recompute the one that was made.
 * load: as in struct tri_exchange. Collective over the homes. */
struct tri_route_plan *tri_route_plan_make(const struct tri_peers *peers,
                                           const struct tri_frame *frame,
                                           const struct tri_routes *routes, struct tri_range own,
                                           double load);
/* This rank's part of a source's tokens. */
int tri_peers_part(const struct tri_peers *peers);

#endif
