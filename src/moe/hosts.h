/* How hosts cut the homes of experts, and what passes where (MoESys, arXiv 2205.10034; one copy a
 * host: X-MoE, arXiv 2508.13337). What a home has for another host goes to one rank there, its
 * relay, which hands it on inside:
 *
 *   home ── between hosts ──> its relay on each other host ── inside ──> homes there, and back
 *
 * The relay is the home with the same place on its host; where that host has fewer, places start
 * again from its first one. On its own host each home is its own relay. So every home sends at most
 * one message to each other host, however hosts cut them; where all hosts have as many homes each
 * gets one too. */
#ifndef TRIDENT_MOE_HOSTS_H
#define TRIDENT_MOE_HOSTS_H

#include "model/frame.h"

struct tri_hosts {
    struct tri_group *group; /* the homes */
    int hosts, mine;         /* those that have homes; this rank's */
    int *of, *place;         /* [homes] the host of each; its place on it */
    int *begin, *member;     /* [hosts + 1], [homes] the homes of each host */
    int *order;              /* [parts, homes] sources in the order in which their rows arrive here
                                over the homes of each tensor rank */
    int sources, *source;    /* those that this rank is the relay of, itself too */
};

/* The homes are those of all grid ranks (`whole`) or of this one; rows arrive in so many tensor
 * parts. Local. */
struct tri_hosts *tri_hosts_create(const struct tri_mesh *mesh, struct tri_group *homes, bool whole,
                                   int parts);
void tri_hosts_destroy(struct tri_hosts *hosts);
/* Whether all ranks that share the experts of this one's layers share its host. The same on all of
 * them. Local. */
bool tri_hosts_is_one(const struct tri_mesh *mesh);

static inline int tri_hosts_homes(const struct tri_hosts *hosts, int host)
{
    return hosts->begin[host + 1] - hosts->begin[host];
}

/* Who hands on what `source` has for `host`. */
static inline int tri_hosts_relay(const struct tri_hosts *hosts, int source, int host)
{
    if (hosts->of[source] == host) {
        return source;
    }
    return hosts->member[hosts->begin[host] + hosts->place[source] % tri_hosts_homes(hosts, host)];
}

/* Numbers that every home has for every other one, `size` for each, by way of the relays, and one
 * for each relay itself. */
struct tri_host_counts {
    int64_t size;
    const int64_t *send, *told; /* [homes, size], [hosts] */
    int64_t *received;          /* [homes, size] */
    int64_t *passed, *heard;    /* [sources, homes of this host, size], [sources] */
};
/* part: this tensor rank's. Booked as META. Collective over the homes. */
void tri_hosts_exchange_counts(const struct tri_hosts *hosts, const struct tri_frame *frame,
                               const struct tri_host_counts *counts, int part);

#endif
