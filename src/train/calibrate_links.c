/* Collectives inside a host and between hosts. The amounts that a rate is fitted to are those that
 * a plan multiplies it with: they are asked of a cluster whose rates are 1. */
#include "base/clock.h"
#include "base/memory.h"
#include "train/calibrate_internal.h"

#include <stdio.h>
#include <string.h>

/* Elements of the whole, f32. */
static const int64_t sizes[] = {2, 1024, 16384, 262144, 2097152};
enum { SIZES = sizeof(sizes) / sizeof(*sizes), QUICK_SIZES = 4, LARGEST = 2097152 };

static const struct tri_where meta = {TRI_PHASE_SETUP, TRI_KIND_META};

struct link_case {
    struct tri_group *group;
    enum tri_op op;
    int64_t n; /* elements of the whole */
    float *data, *other;
    int64_t *counts; /* [ranks] */
};

static void run(void *state)
{
    const struct link_case *c = state;
    int ranks = tri_group_size(c->group);
    int rank = tri_group_rank(c->group);
    switch (c->op) {
    case TRI_OP_ALL_REDUCE:
        tri_all_reduce_sum(c->group, meta, c->data, c->n, TRI_F32);
        break;
    case TRI_OP_ALL_GATHER:
        tri_all_gather_v(c->group, meta, c->data, c->counts, TRI_F32);
        break;
    case TRI_OP_REDUCE_SCATTER:
        tri_reduce_scatter_v(c->group, meta, c->data, c->counts, TRI_F32);
        break;
    case TRI_OP_ALL_TO_ALL:
        tri_all_to_all_v(c->group, meta, c->data, c->counts, c->other, c->counts, 1, TRI_F32);
        break;
    case TRI_OP_BROADCAST:
        tri_broadcast(c->group, meta, c->data, c->n, TRI_F32, 0);
        break;
    case TRI_OP_SEND: {
        struct tri_request *sent =
            tri_send_begin(c->group, meta, (rank + 1) % ranks, c->data, c->n, TRI_F32);
        tri_receive(c->group, meta, (rank + ranks - 1) % ranks, c->other, c->n, TRI_F32);
        tri_request_end(sent);
        break;
    }
    case TRI_OP_COUNT:
        break;
    }
}

/* Bytes as the ledger has them. */
static double booked(const struct link_case *c)
{
    double ranks = (double)tri_group_size(c->group);
    double bytes = (double)c->n * (double)sizeof(float);
    return c->op == TRI_OP_ALL_GATHER   ? bytes / ranks
           : c->op == TRI_OP_ALL_TO_ALL ? bytes * (ranks - 1.0) / ranks
                                        : bytes;
}

static void measure(struct tri_calibrator *calibrator, enum tri_link link, struct link_case *c,
                    struct tri_sample *sample)
{
    int ranks = tri_group_size(c->group);
    const struct tri_cluster *cluster = calibrator->cluster;
    bool inside = link == TRI_LINK_INSIDE;
    struct tri_traffic traffic = {
        .op = c->op,
        .ranks = ranks,
        .local = inside ? ranks : 1,
        .neighbours = cluster->ranks_per_host,
        .bytes = booked(c),
        .small = c->op == TRI_OP_ALL_REDUCE && c->n <= 2048,
    };
    traffic.sent[link] = traffic.bytes;
    struct tri_cluster messages = {0};
    struct tri_cluster bytes = {0};
    messages.link[link][c->op].message = 1.0;
    bytes.link[link][c->op].bytes = 1.0;
    *sample = (struct tri_sample){
        .seconds = tri_calibrate_time(calibrator, run, c),
        .amount = {tri_cluster_transfer(&messages, &traffic).seconds[link],
                   tri_cluster_transfer(&bytes, &traffic).seconds[link]},
        .weight = 1.0,
    };
}

/* ---- overlap --------------------------------------------------------------------------------- */

/* Products of small pieces, as a layer makes them, asking for messages between them. */
struct overlap {
    struct link_case link;
    const struct tri_mesh *mesh;
    const struct tri_kernels *kernels;
    struct tri_matmul product;
    int products;
    bool sends;
};

static void run_overlap(void *state)
{
    const struct overlap *o = state;
    struct tri_request *request = NULL;
    if (o->sends) {
        request = tri_all_to_all_v_begin(o->link.group, meta, o->link.data, o->link.counts,
                                         o->link.other, o->link.counts, 1, TRI_F32);
    }
    for (int i = 0; i < o->products; i++) {
        o->kernels->matmul(o->kernels, &o->product);
        tri_mesh_progress(o->mesh);
    }
    tri_request_end(request);
}

/* The part of a call that computing hides, when it takes about as long. */
static double measure_overlap(const struct tri_calibrator *calibrator, const struct link_case *link)
{
    enum { WIDTH = 256 };
    float *operands = tri_alloc(TRI_MEMORY_OTHER, (size_t)3 * WIDTH * WIDTH * sizeof(*operands));
    struct overlap o = {
        .link = *link,
        .mesh = calibrator->mesh,
        .kernels = calibrator->kernels,
        .product = {.m = WIDTH,
                    .n = WIDTH,
                    .k = WIDTH,
                    .a = operands,
                    .b = operands + WIDTH * WIDTH,
                    .c = operands + 2 * WIDTH * WIDTH,
                    .lda = WIDTH,
                    .ldb = WIDTH,
                    .ldc = WIDTH,
                    .ab_dtype = TRI_F32,
                    .c_dtype = TRI_F32},
        .products = 1,
    };
    double one = tri_calibrate_time(calibrator, run_overlap, &o);
    o.products = 0;
    o.sends = true;
    double sent = tri_calibrate_time(calibrator, run_overlap, &o);
    double products = sent / one;
    tri_all_reduce_max(tri_mesh_group(calibrator->mesh, TRI_ON_ALL), meta, &products, 1, TRI_F64);
    o.products = products < 1.0 ? 1 : products > 1e4 ? 10000 : (int)products;
    double both = tri_calibrate_time(calibrator, run_overlap, &o);
    o.sends = false;
    double alone = tri_calibrate_time(calibrator, run_overlap, &o);
    double saved[2] = {alone + sent - both, alone < sent ? alone : sent};
    tri_all_reduce_sum(tri_mesh_group(calibrator->mesh, TRI_ON_ALL), meta, saved, 2, TRI_F64);
    tri_free(operands);
    double hidden = saved[0] / saved[1];
    return hidden < 0.0 ? 0.0 : hidden > 1.0 ? 1.0 : hidden;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static int take_sizes(struct tri_calibrator *calibrator, enum tri_link link, struct link_case *c,
                      struct tri_sample samples[SIZES])
{
    int ranks = tri_group_size(c->group);
    int count = calibrator->quick ? QUICK_SIZES : SIZES;
    for (int i = 0; i < count; i++) {
        c->n = sizes[i] / ranks * ranks;
        c->n = c->n > ranks ? c->n : ranks;
        for (int r = 0; r < ranks; r++) {
            c->counts[r] = c->n / ranks;
        }
        measure(calibrator, link, c, &samples[i]);
    }
    return count;
}

static void calibrate_link(struct tri_calibrator *calibrator, enum tri_link link,
                           struct tri_group *group)
{
    struct tri_cluster *cluster = calibrator->cluster;
    static const char *const names[TRI_LINK_COUNT] = {"inside", "between"};
    size_t bytes = (LARGEST + (size_t)tri_comm_size(calibrator->comm)) * sizeof(float);
    struct link_case c = {
        .group = group,
        .data = tri_alloc(TRI_MEMORY_OTHER, bytes),
        .other = tri_alloc(TRI_MEMORY_OTHER, bytes),
        .counts =
            tri_alloc(TRI_MEMORY_OTHER, (size_t)tri_comm_size(calibrator->comm) * sizeof(int64_t)),
    };
    for (int op = 0; op < TRI_OP_COUNT; op++) {
        struct tri_sample samples[SIZES];
        char name[64];
        double costs[TRI_FIT_UNKNOWNS];
        c.op = (enum tri_op)op;
        int count = take_sizes(calibrator, link, &c, samples);
        (void)snprintf(name, sizeof(name), "%s.%s", names[link], tri_op_name(c.op));
        (void)tri_samples_fit(calibrator, name, samples, count, costs);
        cluster->link[link][op] =
            (struct tri_link_rate){costs[0], costs[1] > 0.0 ? 1.0 / costs[1] : 0.0};
    }
    cluster->hidden[link] = measure_overlap(calibrator, &c);
    cluster->has_link[link] = true;
    tri_free(c.counts);
    tri_free(c.other);
    tri_free(c.data);
}

void tri_calibrate_links(struct tri_calibrator *calibrator)
{
    struct tri_group *inside = tri_mesh_group(calibrator->mesh, TRI_ON_TENSOR);
    struct tri_group *between = tri_mesh_group(calibrator->mesh, TRI_ON_EXPERT);
    if (tri_group_size(inside) > 1) {
        calibrate_link(calibrator, TRI_LINK_INSIDE, inside);
    }
    if (tri_group_size(between) > 1) {
        calibrate_link(calibrator, TRI_LINK_BETWEEN, between);
    }
}
