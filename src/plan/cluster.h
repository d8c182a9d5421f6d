/* What a machine does in a second: the rates of a rank's kernels and of the links between ranks, as
 * `trident calibrate` measures them or as one writes them for a machine that one does not have. */
#ifndef TRIDENT_PLAN_CLUSTER_H
#define TRIDENT_PLAN_CLUSTER_H

#include "comm/ledger.h"
#include "config/config.h"
#include "kernel/note.h"
#include "plan/lanes.h"

#include <stdio.h>

/* Kernels by their main operands, of a usual run and of a reproducible one, which has others. */
enum tri_cluster_kernels {
    TRI_CLUSTER_F32,
    TRI_CLUSTER_BF16,
    TRI_CLUSTER_REPRODUCIBLE, /* and so many further on of the same operands */
    TRI_CLUSTER_KERNELS = 2 * TRI_CLUSTER_REPRODUCIBLE
};
const char *tri_cluster_kernels_name(int kernels);

/* A call takes `call` seconds, and its operations and its bytes their part of a second each; 0: as
 * many as one likes. */
struct tri_rate {
    double call, flops, bytes;
};

/* A message takes `message` seconds of its sender; bytes: a second. Of a call those beyond `from`
 * go at `large` a second; from 0: all go alike. */
struct tri_link_rate {
    double message, bytes, from, large;
};

enum { TRI_CLUSTER_NAME = 256 };

struct tri_cluster {
    char name[TRI_CLUSTER_NAME];
    int ranks_per_host;
    int64_t memory; /* bytes that a rank may take; 0: not said */
    bool one_link;  /* what goes between hosts and what goes inside them share their way */
    bool ring;      /* sums and gathers cross each host's border once (NCCL), not rank by rank */
    bool has_kernels[TRI_CLUSTER_KERNELS], has_link[TRI_LINK_COUNT];
    struct tri_rate rate[TRI_CLUSTER_KERNELS][TRI_TASK_COUNT];
    /* Inside: bytes of a rank. Between: of a host, all its ranks together. */
    struct tri_link_rate link[TRI_LINK_COUNT][TRI_OP_COUNT];
    double hidden[TRI_LINK_COUNT]; /* see struct tri_transfer */
};

/* Reads the YAML file; fails with one line that names file, line, key, what was found and what was
 * expected. */
enum tri_status tri_cluster_read(const char *path, struct tri_cluster *cluster,
                                 struct tri_error *error) TRI_NODISCARD;
/* Writes such a file's text; `notes` are put before it as a comment, a line each. */
void tri_cluster_print(const struct tri_cluster *cluster, const char *notes, FILE *out);

/* BAD_INPUT unless it knows what a run of the config on so many ranks needs. */
enum tri_status tri_cluster_check(const struct tri_cluster *cluster,
                                  const struct tri_config *config, int ranks,
                                  struct tri_error *error) TRI_NODISCARD;

double tri_cluster_compute(const struct tri_cluster *cluster, bool reproducible,
                           const struct tri_kernel_note *note);

/* One rank's part of a collective over `ranks`, `local` of them on its host with it. */
struct tri_traffic {
    enum tri_op op;
    int ranks, local;
    int neighbours;              /* ranks of the job on a host: they send at the same time */
    double bytes;                /* as the ledger has them */
    double sent[TRI_LINK_COUNT]; /* all_to_all and send: the bytes by their way */
    bool small;                  /* an all-reduce that sends all to all */
    double idle[TRI_LINK_COUNT]; /* all_to_all: members that get nothing, and so no message */
    double spent; /* of the bytes between hosts that go before those beyond `from`: earlier calls */
};
/* Bytes that it gives the link between hosts. */
double tri_cluster_between(const struct tri_cluster *cluster, const struct tri_traffic *traffic);
struct tri_transfer tri_cluster_transfer(const struct tri_cluster *cluster,
                                         const struct tri_traffic *traffic);

#endif
