/* Rows between tokens and experts by one all-to-all over tensor x expert (Parm, arXiv 2407.00599):
 * a copy of a token goes straight to every rank that holds a shard of its expert (a holder), and
 * the holders' partial results come straight back to the token's owner, who adds them. A part of
 * the schedules `s1` and `s2`.
 *
 *   slots ── all-to-all ──> rows by source ── regroup ──> rows by expert: those of a holder
 *   results <── sum over holders ── [expert rank, holder, slots] <── all-to-all ── and back
 *
 * A slot is one (token, choice) of an own token that was not dropped, by expert, then token.
 * Results are in blocks, one for each expert rank; where they are gathered, a block has those of
 * all tensor ranks, one rank's after the other's. */
#ifndef TRIDENT_MOE_FUSED_H
#define TRIDENT_MOE_FUSED_H

#include "moe/route_plan.h"
#include "moe/schedule.h"

struct tri_fused {
    const struct tri_context *context;
    struct tri_exchange *exchange;
    struct tri_peers peers; /* homes: {tensor, expert} */
    bool gathers;           /* every tensor rank gets the results of all of them */
};

/* A part of the routing. */
struct tri_fused_plan {
    const struct tri_route_plan *route;
    int64_t results;    /* rows */
    int64_t *slot_at;   /* [homes] first slot for each home */
    int64_t *result_at; /* [homes] where its result is */
    int64_t *block_at;  /* [expert ranks] first result of each block, and */
    int64_t *parts;     /* [expert ranks, tensor ranks] elements of its parts; where gathered */
    int32_t *result_of; /* [tokens whose results are here, k] -> result, -1 where dropped */
};

struct tri_fused tri_fused_create(const struct tri_context *context, struct tri_exchange *exchange,
                                  bool gathers);
/* No other rank has to do with this one's rows. */
bool tri_fused_is_alone(const struct tri_fused *fused);
/* The plan for tokens `own`; in a recompute the one that was made. Collective over the homes. */
struct tri_fused_plan *tri_fused_plan_make(const struct tri_fused *fused,
                                           const struct tri_frame *frame,
                                           const struct tri_routes *routes, struct tri_range own);
/* rows [route->rows, hidden] <- what all owners send of `from`: the rows for home h at row at[h] of
 * it, route->send_rows[h] of them. May take exchange buffer 1. Collective over the homes. */
void tri_fused_send(const struct tri_fused *fused, const struct tri_fused_plan *plan,
                    enum tri_phase phase, const void *from, const int64_t *at, void *rows);
/* results [plan->results, hidden] <- the holders' `rows` [route->rows, hidden] sum_dt of exchange
 * buffer 0, added in one tree over the holders and rounded once. Takes both exchange buffers.
 * Collective over the homes, where gathered over tensor too. */
void tri_fused_return(const struct tri_fused *fused, const struct tri_frame *frame,
                      const struct tri_fused_plan *plan, enum tri_phase phase, const void *rows,
                      void *results);

#endif
