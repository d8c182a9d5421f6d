/* Rows of own tokens to the relays on other hosts and results back (moe/hosts.h); a part of the
 * schedule `hierarchical`. A token has one row for each host that has experts of its choices:
 *
 *   source  row: (token, host), by relay, then token ── between hosts ──> relay: by source
 *   relay   slot: (row, choice), by home of the host, source, expert, row ── inside ──> homes
 *   source  result: (token, host), or (token, choice) <── between hosts ── relay
 *
 * On the way back a relay adds up, with their weights, the outputs for a row: one result crosses
 * where one row did. In reproducible mode, where a sum has one order, each output crosses as it is
 * and the source adds them up. */
#ifndef TRIDENT_MOE_RELAY_H
#define TRIDENT_MOE_RELAY_H

#include "moe/routed.h"

/* A part of the routing. */
struct tri_relay_plan {
    struct tri_route_plan *route; /* of the way inside: its slots are this relay's */
    /* Of the other end: slots are the rows of this source, slot_of [own tokens, k] the results that
     * its tokens' outputs are sums of, -1 for none. */
    struct tri_route_plan ends;
    int32_t *row_of;                      /* [own tokens, k] -> row, -1 where dropped */
    int64_t *send_rows, *recv_rows;       /* [homes] */
    int64_t *send_results, *recv_results; /* [homes] as a relay, as a source */
    int64_t rows, results; /* that come to this relay; that come back to this source */
    int32_t *passed_of;    /* [slots] -> row of this relay */
    int32_t *slot_of;      /* [rows, k] -> slot, -1 where there is none */
    int32_t *copy_of;      /* [slots] results of this relay -> slot; or NULL: sums */
    float *weight, *back;  /* [rows, k]; back: where the routes have one */
};

/* Whether relays add up. */
bool tri_relay_sums(const struct tri_routed *routed);
/* The plan for tokens `own`; in a recompute the one that was made. Collective over the homes. */
struct tri_relay_plan *tri_relay_plan_make(const struct tri_routed *routed,
                                           const struct tri_frame *frame,
                                           const struct tri_routes *routes, struct tri_range own);
/* Returns [plan->rows, hidden] in exchange buffer 1 <- the rows of own tokens of a tensor of the
 * stream. Takes exchange buffer 0. Collective over the homes, as are the others. */
void *tri_relay_send(const struct tri_routed *routed, const struct tri_frame *frame,
                     const struct tri_relay_plan *plan, enum tri_phase phase, const void *stream);
/* results [plan->results, hidden] <- of slots [route->slots, hidden]; sums are weighted unless
 * weight [rows, k] is NULL. Takes exchange buffer 0. */
void tri_relay_return(const struct tri_routed *routed, const struct tri_relay_plan *plan,
                      enum tri_phase phase, const void *slots, const float *weight, void *results);
/* dweight [tokens, k] of own tokens <- of_rows [rows, k] of the relays. */
void tri_relay_return_weights(const struct tri_routed *routed, const struct tri_frame *frame,
                              const struct tri_relay_plan *plan, const float *of_rows,
                              float *dweight);

#endif
