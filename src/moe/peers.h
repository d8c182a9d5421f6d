/* In a rehearsal there are no other ranks to say what they would send. The router that it goes by
 * need not ask: what a token chooses follows from its place in the global batch alone. */
#ifndef TRIDENT_MOE_PEERS_H
#define TRIDENT_MOE_PEERS_H

#include "model/frame.h"

/* Who sends rows to the experts of this rank. */
struct tri_hosts;
struct tri_peers {
    const struct tri_context *context;
    struct tri_group *homes; /* of the experts: {expert}, or {tensor, expert} */
    int64_t experts;         /* local ones */
    int parts;               /* tensor parts of a source's tokens that arrive apart */
    /* In how many chunks rows travel, forward and backward (moe/route_chunks.h); 0: in one go. */
    int chunks[2];
    const struct tri_hosts *hosts; /* rows go by way of relays (moe/hosts.h); NULL: straight */
    int holders; /* consecutive homes that have the same experts, each a shard of them, and each get
                    a copy of a row; 1: the homes' experts are different ones */
};

/* Rows that come from source s in tensor part p for local expert e: received[s, p, e]. */
static inline int64_t tri_peers_at(const struct tri_peers *peers, const int64_t *received,
                                   int64_t s, int64_t p, int64_t e)
{
    return received[(s * peers->parts + p) * peers->experts + e];
}

/* received [homes, parts, experts] <- the rows that each source has for each local expert in this
 * micro-batch by the router's routes_by_place, times `load`, as far as the source has so many.
 * Exact for `load` 1 unless a capacity over a whole step drops tokens. Local. */
void tri_peers_counts(const struct tri_peers *peers, const struct tri_pass *pass, double load,
                      int64_t *received);

/* With hosts: rows [hosts], those of its own tokens that this rank sends each, times `load`: no
 * more than it has tokens, nor in all than these have choices. Local. */
void tri_peers_told(const struct tri_peers *peers, int64_t tokens, double load, int64_t *rows);

/* With hosts: what this rank is told as a relay, likewise. passed [sources, homes of this host,
 * parts, experts]: rows for each expert, of this tensor rank's part; heard [sources]: tokens that
 * have some. */
void tri_peers_passed(const struct tri_peers *peers, const struct tri_pass *pass, double load,
                      int64_t *passed, int64_t *heard);

#endif
