#include "plan/cluster.h"

#include <math.h>

const char *tri_cluster_kernels_name(int kernels)
{
    static const char *const names[TRI_CLUSTER_KERNELS] = {"f32", "bf16", "reproducible_f32",
                                                           "reproducible_bf16"};
    return names[kernels];
}

enum tri_status tri_cluster_check(const struct tri_cluster *cluster,
                                  const struct tri_config *config, int ranks,
                                  struct tri_error *error)
{
    int first = config->reproducible ? TRI_CLUSTER_REPRODUCIBLE : 0;
    int last = first + (config->precision == TRI_PRECISION_BF16 ? TRI_CLUSTER_BF16 : 0);
    for (int kernels = first; kernels <= last; kernels++) {
        if (!cluster->has_kernels[kernels]) {
            return tri_fail(
                error, TRI_BAD_INPUT, "cluster %s: no section kernels.%s, and precision is %s%s",
                cluster->name, tri_cluster_kernels_name(kernels),
                tri_cluster_kernels_name(last - first),
                first ? ", reproducible true (calibrate --reproducible measures it)" : "");
        }
    }
    if (ranks > cluster->ranks_per_host && !cluster->has_link[TRI_LINK_BETWEEN]) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "cluster %s: no section links.between, and %d ranks are more than "
                        "ranks_per_host, %d",
                        cluster->name, ranks, cluster->ranks_per_host);
    }
    return TRI_OK;
}

static double over(double amount, double rate)
{
    return rate > 0.0 ? amount / rate : 0.0;
}

double tri_cluster_compute(const struct tri_cluster *cluster, bool reproducible,
                           const struct tri_kernel_note *note)
{
    int kernels = (note->dtype == TRI_BF16 ? TRI_CLUSTER_BF16 : TRI_CLUSTER_F32) +
                  (reproducible ? TRI_CLUSTER_REPRODUCIBLE : 0);
    const struct tri_rate *rate = &cluster->rate[kernels][note->work];
    return note->calls * rate->call + over(note->flops, rate->flops) +
           over(note->bytes, rate->bytes);
}

/* ---- links ----------------------------------------------------------------------------------- */

/* Bytes that a rank sends in all, and messages, of a call that all members take alike part in
 * (comm/algorithm.c). */
static double volume(const struct tri_traffic *t, double *messages)
{
    double others = (double)(t->ranks - 1);
    *messages = others;
    switch (t->op) {
    case TRI_OP_ALL_REDUCE:
        if (t->small) {
            *messages = ceil(log2((double)t->ranks));
            return others * t->bytes;
        }
        *messages = 2.0 * others;
        return 2.0 * others / (double)t->ranks * t->bytes;
    case TRI_OP_REDUCE_SCATTER:
        return others / (double)t->ranks * t->bytes;
    case TRI_OP_ALL_GATHER:
        return others * t->bytes;
    case TRI_OP_BROADCAST:
        *messages = ceil(log2((double)t->ranks));
        return t->bytes;
    case TRI_OP_ALL_TO_ALL:
    case TRI_OP_SEND:
    case TRI_OP_COUNT:
        break;
    }
    return t->bytes;
}

/* What a call gives its links. */
struct part {
    double bytes[TRI_LINK_COUNT], messages[TRI_LINK_COUNT];
};

static struct part part_of(const struct tri_cluster *cluster, const struct tri_traffic *t)
{
    double messages;
    double all = volume(t, &messages);
    double out = t->ranks > 1 ? (double)(t->ranks - t->local) / (double)(t->ranks - 1) : 0.0;
    struct part part = {{(1.0 - out) * all, out * all},
                        {(1.0 - out) * messages - t->idle[TRI_LINK_INSIDE],
                         out * messages - t->idle[TRI_LINK_BETWEEN]}};
    double neighbours = (double)t->neighbours;
    if (t->op == TRI_OP_ALL_TO_ALL || t->op == TRI_OP_SEND) {
        part.bytes[TRI_LINK_INSIDE] = t->sent[TRI_LINK_INSIDE];
        part.bytes[TRI_LINK_BETWEEN] = t->sent[TRI_LINK_BETWEEN];
    }
    if (t->op == TRI_OP_SEND) {
        bool crosses = part.bytes[TRI_LINK_BETWEEN] > 0.0;
        part.messages[TRI_LINK_INSIDE] = crosses ? 0.0 : 1.0;
        part.messages[TRI_LINK_BETWEEN] = crosses ? 1.0 : 0.0;
    } else if (cluster->ring && t->op != TRI_OP_ALL_TO_ALL && t->ranks > t->local) {
        part.bytes[TRI_LINK_INSIDE] = t->local > 1 ? all : 0.0;
        part.bytes[TRI_LINK_BETWEEN] = all;
        neighbours /= (double)t->local;
    }
    part.bytes[TRI_LINK_BETWEEN] *= neighbours; /* they share it */
    return part;
}

static double carry(const struct tri_link_rate *rate, double bytes, double spent)
{
    double first = rate->from > spent ? rate->from - spent : 0.0;
    double beyond = rate->from > 0.0 && bytes > first ? bytes - first : 0.0;
    return over(bytes - beyond, rate->bytes) + over(beyond, rate->large);
}

double tri_cluster_between(const struct tri_cluster *cluster, const struct tri_traffic *traffic)
{
    return part_of(cluster, traffic).bytes[TRI_LINK_BETWEEN];
}

struct tri_transfer tri_cluster_transfer(const struct tri_cluster *cluster,
                                         const struct tri_traffic *t)
{
    struct part part = part_of(cluster, t);
    struct tri_transfer transfer;
    for (int i = 0; i < TRI_LINK_COUNT; i++) {
        const struct tri_link_rate *rate = &cluster->link[i][t->op];
        transfer.seconds[i] = part.messages[i] * rate->message +
                              carry(rate, part.bytes[i], i == TRI_LINK_BETWEEN ? t->spent : 0.0);
        transfer.hidden[i] = cluster->hidden[i];
    }
    return transfer;
}
