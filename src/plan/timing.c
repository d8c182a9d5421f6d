#include "plan/timing.h"

#include "base/clock.h"

const char *tri_part_name(enum tri_part part)
{
    static const char *const names[TRI_PART_COUNT] = {
        "rest", "attention", "router", "exchange", "experts", "head", "optimizer"};
    return names[part];
}

static void compute(void *state, const struct tri_kernel_note *note)
{
    struct tri_timing *timing = state;
    tri_lanes_compute(&timing->lanes,
                      tri_cluster_compute(timing->cluster, timing->reproducible, note));
}

static void head(void *state, bool begins)
{
    struct tri_timing *timing = state;
    if (begins) {
        timing->head_began = timing->lanes.now;
    } else {
        timing->head += timing->lanes.now - timing->head_began;
    }
}

/* ---- calls ----------------------------------------------------------------------------------- */

static bool is_near(const struct tri_timing *timing, const struct tri_group *group, int index)
{
    int hosts = timing->cluster->ranks_per_host;
    int me = tri_group_member(group, tri_group_rank(group));
    return tri_group_member(group, index) / hosts == me / hosts;
}

static struct tri_traffic traffic_of(const struct tri_timing *timing,
                                     const struct tri_call_note *note)
{
    const struct tri_group *group = note->group;
    struct tri_traffic traffic = {
        .op = note->op,
        .ranks = tri_group_size(group),
        .local = timing->local[tri_group_index(group)],
        .neighbours = timing->neighbours,
        .bytes = (double)note->bytes,
        .small = note->small,
    };
    double out = (double)(traffic.ranks - traffic.local) / (double)(traffic.ranks - 1);
    if (note->peer >= 0) {
        out = is_near(timing, group, note->peer) ? 0.0 : 1.0;
    }
    traffic.sent[TRI_LINK_BETWEEN] = out * traffic.bytes;
    if (note->sent) {
        traffic.sent[TRI_LINK_BETWEEN] = 0.0;
        for (int r = 0; r < traffic.ranks; r++) {
            bool near = is_near(timing, group, r);
            bool other = r != tri_group_rank(group);
            traffic.sent[TRI_LINK_BETWEEN] += near ? 0.0 : (double)(note->sent[r] * note->width);
            traffic.idle[near ? TRI_LINK_INSIDE : TRI_LINK_BETWEEN] +=
                other && note->sent[r] == 0 ? 1.0 : 0.0;
        }
    }
    traffic.sent[TRI_LINK_INSIDE] = traffic.bytes - traffic.sent[TRI_LINK_BETWEEN];
    return traffic;
}

/* A large all-reduce is begun as a reduce-scatter, and gathers when it is ended. */
static bool in_two(const struct tri_call_note *note)
{
    return note->op == TRI_OP_ALL_REDUCE && !note->small;
}

/* A link between hosts that carries the first bytes faster does so again once it has idled as long
 * as it would take to carry them at its usual rate. */
static struct tri_transfer carry(struct tri_timing *timing, struct tri_traffic *traffic)
{
    const struct tri_link_rate *rate = &timing->cluster->link[TRI_LINK_BETWEEN][traffic->op];
    const struct tri_lanes *lanes = &timing->lanes;
    double since = lanes->free[lanes->one_link ? 0 : TRI_LINK_BETWEEN];
    double forgotten = lanes->now > since ? (lanes->now - since) * rate->large : 0.0;
    double spent = timing->spent > forgotten ? timing->spent - forgotten : 0.0;
    traffic->spent = rate->large < rate->bytes ? spent : 0.0;
    double bytes = tri_cluster_between(timing->cluster, traffic);
    if (bytes > 0.0 && rate->from > 0.0) {
        timing->spent = spent + bytes < rate->from ? spent + bytes : rate->from;
    }
    return tri_cluster_transfer(timing->cluster, traffic);
}

static void gather(struct tri_timing *timing, struct tri_traffic traffic)
{
    traffic.op = TRI_OP_ALL_GATHER;
    traffic.bytes /= (double)traffic.ranks;
    struct tri_transfer transfer = carry(timing, &traffic);
    tri_lanes_block(&timing->lanes, &transfer);
}

static void call(void *state, struct tri_call_note *note)
{
    struct tri_timing *timing = state;
    struct tri_traffic traffic = traffic_of(timing, note);
    if (note->stage == TRI_CALL_BEGIN && in_two(note)) {
        traffic.op = TRI_OP_REDUCE_SCATTER;
    }
    struct tri_transfer transfer;
    switch (note->stage) {
    case TRI_CALL_WHOLE:
        transfer = carry(timing, &traffic);
        tri_lanes_block(&timing->lanes, &transfer);
        break;
    case TRI_CALL_BEGIN:
        transfer = carry(timing, &traffic);
        note->arrival = tri_lanes_begin(&timing->lanes, &transfer, timing->lanes.now);
        break;
    case TRI_CALL_END:
        tri_lanes_wait(&timing->lanes, note->arrival);
        if (in_two(note)) {
            gather(timing, traffic);
        }
        break;
    }
}

/* ---- beginning and end ----------------------------------------------------------------------- */

/* Calls take the time 0 for none. */
#define BEGINNING 1.0

void tri_timing_begin(struct tri_timing *timing, const struct tri_cluster *cluster,
                      bool reproducible, struct tri_kernels *kernels, struct tri_mesh *mesh)
{
    int hosts = cluster->ranks_per_host;
    *timing = (struct tri_timing){
        .cluster = cluster,
        .reproducible = reproducible,
        .kernels = kernels,
        .lanes = {.now = BEGINNING, .one_link = cluster->one_link},
        .calls = {.call = call, .state = timing},
        .works = {compute, head, timing},
        .neighbours = mesh->ranks < hosts ? mesh->ranks : hosts,
    };
    for (int id = 0; id < TRI_GROUP_COUNT; id++) {
        const struct tri_group *group = tri_mesh_group(mesh, tri_groups[id].axes);
        for (int r = 0; r < tri_group_size(group); r++) {
            timing->local[id] += is_near(timing, group, r) ? 1 : 0;
        }
    }
    tri_mesh_listen(mesh, &timing->calls);
    tri_kernels_listen(kernels, &timing->works);
    tri_clock_plan(&timing->lanes.now);
}

void tri_timing_end(struct tri_timing *timing)
{
    tri_clock_plan(NULL);
    tri_kernels_listen(timing->kernels, NULL);
}
