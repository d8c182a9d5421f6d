#include "moe/hosts.h"

#include "base/memory.h"

#include <string.h>

/* Where the homes of this rank's experts are, seen over the homes of one tensor rank. */
struct cut {
    int homes, hosts;
    int *of, *place, *begin, *member;
};

/* The lowest rank of those that share experts: over grid x expert, which are numbered first. */
static int first_of(const struct tri_mesh *mesh)
{
    return mesh->rank - mesh->rank % (tri_mesh_grid(mesh) * mesh->size[TRI_AXIS_EXPERT]);
}

/* Hosts in the order of their first homes. */
static void make_cut(const struct tri_mesh *mesh, bool whole, int part, struct cut *cut)
{
    int stride = whole ? 1 : tri_mesh_grid(mesh);
    const int *host = mesh->host + first_of(mesh) + (whole ? 0 : part);
    cut->hosts = 0;
    for (int i = 0; i < cut->homes; i++) {
        int same = 0;
        while (same < i && host[same * stride] != host[i * stride]) {
            same++;
        }
        cut->of[i] = same < i ? cut->of[same] : cut->hosts++;
    }
    int at = 0;
    for (int h = 0; h < cut->hosts; h++) {
        cut->begin[h] = at;
        for (int i = 0; i < cut->homes; i++) {
            if (cut->of[i] == h) {
                cut->place[i] = at - cut->begin[h];
                cut->member[at++] = i;
            }
        }
    }
    cut->begin[cut->hosts] = at;
}

static struct cut take_cut(int homes)
{
    struct cut cut = {.homes = homes};
    size_t n = (size_t)homes;
    cut.of = tri_alloc(TRI_MEMORY_OTHER, (4 * n + 1) * sizeof(int));
    cut.place = cut.of + n;
    cut.member = cut.place + n;
    cut.begin = cut.member + n;
    return cut;
}

static struct tri_hosts hosts_of(const struct cut *cut, int me)
{
    return (struct tri_hosts){.hosts = cut->hosts,
                              .mine = cut->of[me],
                              .of = cut->of,
                              .place = cut->place,
                              .begin = cut->begin,
                              .member = cut->member};
}

/* Relay by relay of the host, those that it is one of. */
static void order_sources(const struct cut *cut, int me, int *order)
{
    struct tri_hosts hosts = hosts_of(cut, me);
    for (int i = hosts.begin[hosts.mine]; i < hosts.begin[hosts.mine + 1]; i++) {
        for (int s = 0; s < cut->homes; s++) {
            if (tri_hosts_relay(&hosts, s, hosts.mine) == hosts.member[i]) {
                *order++ = s;
            }
        }
    }
}

struct tri_hosts *tri_hosts_create(const struct tri_mesh *mesh, struct tri_group *homes, bool whole,
                                   int parts)
{
    int count = tri_group_size(homes);
    int me = tri_group_rank(homes);
    struct tri_hosts *hosts = tri_alloc(TRI_MEMORY_OTHER, sizeof(*hosts));
    struct cut cut = take_cut(count);
    int *order = tri_alloc(TRI_MEMORY_OTHER, (size_t)(parts + 1) * (size_t)count * sizeof(*order));
    for (int p = 0; p < parts && parts > 1; p++) {
        make_cut(mesh, whole, p, &cut);
        order_sources(&cut, me, order + p * count);
    }
    make_cut(mesh, whole, tri_mesh_grid_rank(mesh), &cut);
    if (parts == 1) {
        order_sources(&cut, me, order);
    }
    *hosts = hosts_of(&cut, me);
    hosts->group = homes;
    hosts->order = order;
    hosts->source = order + parts * count;
    for (int s = 0; s < count; s++) {
        if (tri_hosts_relay(hosts, s, hosts->mine) == me) {
            hosts->source[hosts->sources++] = s;
        }
    }
    return hosts;
}

void tri_hosts_destroy(struct tri_hosts *hosts)
{
    if (hosts) {
        tri_free(hosts->of);
        tri_free(hosts->order);
        tri_free(hosts);
    }
}

bool tri_hosts_is_one(const struct tri_mesh *mesh)
{
    int ranks = tri_mesh_grid(mesh) * mesh->size[TRI_AXIS_EXPERT];
    for (int i = 0; i < ranks; i++) {
        if (mesh->host[first_of(mesh) + i] != mesh->host[mesh->rank]) {
            return false;
        }
    }
    return true;
}

/* ---- counts ---------------------------------------------------------------------------------- */

static int64_t *take(const struct tri_frame *frame, int64_t n)
{
    return tri_arena_alloc(frame->arena, (size_t)n * sizeof(int64_t));
}

/* What each home is sent for one `size`, and what comes from each. */
struct sides {
    int64_t *send, *recv; /* [homes] */
};

static struct sides take_sides(const struct tri_frame *frame, int homes)
{
    struct sides sides = {take(frame, 2 * (int64_t)homes), NULL};
    sides.recv = sides.send + homes;
    memset(sides.send, 0, 2 * (size_t)homes * sizeof(*sides.send));
    return sides;
}

/* passed, heard <- from those that this rank is the relay of. */
static void exchange_between(const struct tri_hosts *hosts, const struct tri_frame *frame,
                             const struct tri_host_counts *c)
{
    int homes = tri_group_size(hosts->group);
    int me = tri_group_rank(hosts->group);
    int64_t block = tri_hosts_homes(hosts, hosts->mine) * c->size + 1;
    struct sides sides = take_sides(frame, homes);
    int64_t *send = take(frame, homes * c->size + hosts->hosts);
    int64_t *recv = take(frame, hosts->sources * block);
    int64_t *to = send;
    for (int relay = 0; relay < homes; relay++) {
        int host = hosts->of[relay];
        if (tri_hosts_relay(hosts, me, host) != relay) {
            continue;
        }
        sides.send[relay] = tri_hosts_homes(hosts, host) * c->size + 1;
        for (int i = hosts->begin[host]; i < hosts->begin[host + 1]; i++, to += c->size) {
            memcpy(to, c->send + hosts->member[i] * c->size, (size_t)c->size * sizeof(*to));
        }
        *to++ = c->told[host];
    }
    for (int i = 0; i < hosts->sources; i++) {
        sides.recv[hosts->source[i]] = block;
    }
    tri_all_to_all_v(hosts->group, (struct tri_where){frame->pass.phase, TRI_KIND_META}, send,
                     sides.send, recv, sides.recv, 1, TRI_I64);
    for (int i = 0; i < hosts->sources; i++) {
        memcpy(c->passed + i * (block - 1), recv + i * block, (size_t)(block - 1) * sizeof(*recv));
        c->heard[i] = recv[(i + 1) * block - 1];
    }
}

/* received <- from the relays of this host, in the order of their sources. */
static void exchange_inside(const struct tri_hosts *hosts, const struct tri_frame *frame,
                            const struct tri_host_counts *c, const int *order)
{
    int homes = tri_group_size(hosts->group);
    int64_t here = tri_hosts_homes(hosts, hosts->mine);
    struct sides sides = take_sides(frame, homes);
    int64_t *send = take(frame, here * hosts->sources * c->size);
    int64_t *recv = take(frame, homes * c->size);
    int64_t *to = send;
    for (int64_t i = 0; i < here; i++) {
        sides.send[hosts->member[hosts->begin[hosts->mine] + i]] = hosts->sources * c->size;
        for (int s = 0; s < hosts->sources; s++, to += c->size) {
            memcpy(to, c->passed + (s * here + i) * c->size, (size_t)c->size * sizeof(*to));
        }
    }
    for (int s = 0; s < homes; s++) {
        sides.recv[tri_hosts_relay(hosts, s, hosts->mine)] += c->size;
    }
    tri_all_to_all_v(hosts->group, (struct tri_where){frame->pass.phase, TRI_KIND_META}, send,
                     sides.send, recv, sides.recv, 1, TRI_I64);
    for (int i = 0; i < homes; i++) {
        memcpy(c->received + order[i] * c->size, recv + i * c->size,
               (size_t)c->size * sizeof(*recv));
    }
}

void tri_hosts_exchange_counts(const struct tri_hosts *hosts, const struct tri_frame *frame,
                               const struct tri_host_counts *counts, int part)
{
    size_t mark = tri_arena_mark(frame->arena);
    exchange_between(hosts, frame, counts);
    exchange_inside(hosts, frame, counts,
                    hosts->order + part * (int64_t)tri_group_size(hosts->group));
    tri_arena_rewind(frame->arena, mark);
}
