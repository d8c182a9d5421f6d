/* The two-product network that dense MLPs, experts and shared experts are: y = act(x W_in^T)
 * W_down^T, for one network or for many at once (experts), each on its own rows. Local: the caller
 * reduces the outputs over the tensor group and then adds the down bias. */
#ifndef TRIDENT_MODEL_NETWORK_H
#define TRIDENT_MODEL_NETWORK_H

#include "model/linear.h"
#include "model/low_rank.h"
#include "model/frame.h"

enum tri_network_part {
    TRI_NETWORK_IN,      /* [in_rows, hidden]: gate rows then up rows, or up alone */
    TRI_NETWORK_DOWN,    /* [hidden, inner] */
    TRI_NETWORK_IN_BIAS, /* biases, or none */
    TRI_NETWORK_DOWN_BIAS,
    TRI_NETWORK_PARTS
};

/* What is read of it is opened for each product: of a network without rows, nothing. */
struct tri_network {
    int64_t inner;      /* this rank's part of the intermediate size */
    int64_t hidden;     /* of the hidden size what its products see; a part where it is crossed */
    bool crossed;       /* sums over the hidden size are completed over cross (model/stream.h) */
    enum tri_kind kind; /* what they are booked as */
    struct tri_span part[TRI_NETWORK_PARTS];
    enum tri_dtype gradient_dtype; /* of the matrices */
    struct tri_virtual shards;     /* this rank's part of the model's inner size */
    int64_t inner_extent;
    struct tri_low_rank low[2]; /* of TRI_NETWORK_IN and TRI_NETWORK_DOWN */
};

/* The network of (place, layer, expert) from the parameter table; it must be held here. */
struct tri_network tri_network_get(const struct tri_context *context, enum tri_place place,
                                   int64_t layer, int64_t expert);

/* What the backward needs, in the arena. Sizes follow from rows = offsets[count]. */
struct tri_network_saved {
    const void *x; /* [rows, hidden], borrowed: must stay until the backward */
    void *pre;     /* [rows, in_rows] */
    void *act;     /* [rows, inner] */
    void *low[2];  /* of the low-rank pairs, or NULL */
};

/* All networks of a layer, where a call has some of them. Whoever works on them in several calls
 * says which there are: each then has the bits that it has in one call. */
struct tri_network_group {
    const struct tri_network *networks;
    int64_t count;
    const int64_t *offsets; /* [count + 1] */
};

/* act(x W_in^T), kept in `saved`; network i works on rows offsets[i] to offsets[i + 1]. All
 * networks have the same inner size. group: NULL where these are all. */
void tri_networks_forward(const struct tri_frame *frame, const struct tri_network *networks,
                          int64_t count, const int64_t *offsets,
                          const struct tri_network_group *group, const void *x,
                          struct tri_network_saved *saved);
/* y [rows, hidden] sum_dt = act W_down^T; with_down_bias only where that is the whole sum
 * (tri_sum_is_whole, or whole experts). A recompute whose y is known does without. */
void tri_networks_output(const struct tri_frame *frame, const struct tri_network *networks,
                         int64_t count, const int64_t *offsets,
                         const struct tri_network_group *group,
                         const struct tri_network_saved *saved, void *y, bool with_down_bias);
void tri_networks_add_down_bias(const struct tri_context *context,
                                const struct tri_network *networks, int64_t count,
                                const int64_t *offsets, void *y);
/* dx [rows, hidden] sum_dt is overwritten (a partial sum over the tensor group). Gradients of
 * weights are added to, those of matrices set where they are the step's first: one call a
 * micro-batch for each network. cuts: of each network's rows. */
void tri_networks_backward(const struct tri_frame *frame, const struct tri_network *networks,
                           int64_t count, const int64_t *offsets,
                           const struct tri_network_group *group, const struct tri_cuts *cuts,
                           const struct tri_network_saved *saved, const void *dy, void *dx);

/* The backward of one network that is a branch of the stream, from dy [stream, hidden] to dx
 * [stream, hidden]: biases, tokens gathered, and the sum over tensor, beside which the gradients of
 * the first product's weights are made. Collective over tensor and cross. */
void tri_network_backward(const struct tri_frame *frame, const struct tri_network *network,
                          const struct tri_network_saved *saved, const void *dy, void *dx);

#endif
