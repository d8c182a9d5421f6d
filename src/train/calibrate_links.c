/* Collectives inside a host and between hosts. The amounts that a rate is fitted to are those that
 * a plan multiplies it with: they are asked of a cluster whose rates are 1. */
#include "base/clock.h"
#include "base/memory.h"
#include "base/meter.h"
#include "train/calibrate_internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

/* Elements of the whole, f32: up to what a block's gradients have. */
static const int64_t sizes[] = {2, 1024, 16384, 131072, 524288, 2097152, 8388608, 16777216};
enum { SIZES = sizeof(sizes) / sizeof(*sizes), QUICK_SIZES = 5 };
static_assert((int)SIZES <= (int)TRI_BENT_MOST, "fits take as many");
/* What overlap is measured with is no longer than a layer's exchange. */
enum { EXCHANGED = 2097152 };

/* Calls of fewer elements take little of a step: a fit gives way there first. */
enum { SMALL = 8192 };
#define SMALL_WEIGHT 0.1

/* Seconds that one call may take, and the part of the memory that its data may. */
#define LONGEST      0.4
#define MEMORY_SHARE 8

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
        .weight = c->n < SMALL ? SMALL_WEIGHT : 1.0,
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

static void cut(struct link_case *c, int64_t n)
{
    int ranks = tri_group_size(c->group);
    c->n = n / ranks * ranks;
    c->n = c->n > ranks ? c->n : ranks;
    for (int r = 0; r < ranks; r++) {
        c->counts[r] = c->n / ranks;
    }
}

/* How many sizes there is memory for. */
static int count_sizes(const struct tri_calibrator *calibrator)
{
    int64_t memory = calibrator->cluster->memory;
    int count = calibrator->quick ? QUICK_SIZES : SIZES;
    while (count > 1 && memory > 0 &&
           2 * sizes[count - 1] * (int64_t)sizeof(float) > memory / MEMORY_SHARE) {
        count--;
    }
    return count;
}

/* Whether the next size, number `count`, takes too long by what the last one took. */
static bool is_long(const struct tri_sample samples[SIZES], int count)
{
    double times = (double)sizes[count] / (double)sizes[count - 1];
    return sizes[count] >= EXCHANGED && times * samples[count - 1].seconds > LONGEST;
}

/* Until a call takes long. Their times are the means over all ranks, and so the same on all. */
static int take_sizes(struct tri_calibrator *calibrator, enum tri_link link, struct link_case *c,
                      struct tri_sample samples[SIZES])
{
    struct tri_group *world = tri_mesh_group(calibrator->mesh, TRI_ON_ALL);
    int most = count_sizes(calibrator);
    int count = 0;
    do {
        double *seconds = &samples[count].seconds;
        cut(c, sizes[count]);
        measure(calibrator, link, c, &samples[count]);
        tri_all_reduce_sum(world, meta, seconds, 1, TRI_F64);
        *seconds /= (double)tri_group_size(world);
        count++;
        tri_meter_add(TRI_METER_MEASUREMENTS, 1);
    } while (count < most && !is_long(samples, count));
    tri_meter_add(TRI_METER_MEASUREMENTS, most - count);
    return count;
}

static void fit(struct tri_calibrator *calibrator, const char *name,
                const struct tri_sample samples[SIZES], int count, struct tri_link_rate *rate)
{
    struct tri_bent_costs costs;
    double error = tri_fit_bent(samples, count, &costs);
    *rate = (struct tri_link_rate){costs.message, costs.byte > 0.0 ? 1.0 / costs.byte : 0.0,
                                   costs.knee, costs.knee > 0.0 ? 1.0 / costs.beyond : 0.0};
    tri_calibrate_note(calibrator, "  %-26s %3d measured, off by %5.1f %%\n", name, count,
                       1e2 * error);
}

static void calibrate_link(struct tri_calibrator *calibrator, enum tri_link link,
                           struct tri_group *group)
{
    struct tri_cluster *cluster = calibrator->cluster;
    static const char *const names[TRI_LINK_COUNT] = {"inside", "between"};
    int64_t most = sizes[count_sizes(calibrator) - 1] + tri_comm_size(calibrator->comm);
    size_t bytes = (size_t)most * sizeof(float);
    struct link_case c = {
        .group = group,
        .data = tri_alloc(TRI_MEMORY_OTHER, bytes),
        .other = tri_alloc(TRI_MEMORY_OTHER, bytes),
        .counts =
            tri_alloc(TRI_MEMORY_OTHER, (size_t)tri_comm_size(calibrator->comm) * sizeof(int64_t)),
    };
    tri_meter_begin(TRI_METER_MEASUREMENTS, TRI_OP_COUNT * count_sizes(calibrator),
                    "measuring links %s", names[link]);
    for (int op = 0; op < TRI_OP_COUNT; op++) {
        struct tri_sample samples[SIZES];
        char name[64];
        c.op = (enum tri_op)op;
        int count = take_sizes(calibrator, link, &c, samples);
        (void)snprintf(name, sizeof(name), "%s.%s", names[link], tri_op_name(c.op));
        fit(calibrator, name, samples, count, &cluster->link[link][op]);
    }
    tri_meter_end();
    cut(&c, c.n < EXCHANGED ? c.n : EXCHANGED);
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
