/* The rows of a plan cut into chunks that travel one after the other. What a rank has for a home is
 * in the order of its experts; chunk c is the c-th of `count` even pieces of it, so each pair of
 * ranks sends as much in every chunk, and the experts become complete one after the other:
 *
 *   to home h   | expert 0        | expert 1   | expert 2                | expert 3   |
 *   chunks      | 0          | 1          | 2          | 3          | 4          |
 *
 * What arrives lies by (chunk, tensor part, source, expert), and goes back so. */
#ifndef TRIDENT_MOE_ROUTE_CHUNKS_H
#define TRIDENT_MOE_ROUTE_CHUNKS_H

#include "moe/route_plan.h"

struct tri_route_chunks {
    int count;
    int64_t *send_rows, *send_at; /* [count, homes] own slots for each home: how many, from where */
    int64_t *recv_rows;           /* [count, homes] rows that arrive at this rank */
    int64_t *part_counts;         /* [count, parts] elements of each tensor part */
    int64_t *begin;               /* [count + 1] rows of all parts before each chunk */
    int64_t *ready;               /* [count] experts that are complete with it, from the first on */
    int64_t *needs;               /* [count] experts that have rows in it or before, likewise */
    int32_t *row_from;            /* [rows] expert order -> arrival order */
    int32_t *row_to;              /* the inverse */
};

/* In the memory of the routing, from received[homes, parts, experts] (tri_peers_counts). Local. */
struct tri_route_chunks *tri_route_chunks_make(const struct tri_peers *peers,
                                               const struct tri_frame *frame,
                                               const struct tri_route_plan *plan,
                                               const int64_t *received, int count);

/* offsets[homes * experts + 1] <- where the runs of (source, expert) of this rank's rows in a chunk
 * begin. Local. */
void tri_route_chunk_offsets(const struct tri_peers *peers, const struct tri_route_plan *plan,
                             const struct tri_route_chunks *chunks, int chunk, int64_t *offsets);

#endif
