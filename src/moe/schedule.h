/* How an MoE layer moves tokens: a strategy behind one interface, chosen once at setup. What others
 * ask of one are fields of struct tri_schedule_kind; here are its functions. */
#ifndef TRIDENT_MOE_SCHEDULE_H
#define TRIDENT_MOE_SCHEDULE_H

#include "model/network.h"
#include "moe/router.h"

/* Send and receive buffers, those that a schedule takes, shared by all MoE layers of a model:
 * nothing in them outlives a layer's forward or backward. They start at `headroom` times a balanced
 * share and grow when a micro-batch needs more. */
enum { TRI_EXCHANGE_BUFFERS = 4 };
struct tri_exchange {
    void *buffer[TRI_EXCHANGE_BUFFERS];
    size_t capacity[TRI_EXCHANGE_BUFFERS];
    int64_t growths;
    double load; /* 0: peers say what they send. Else nobody is there to say, and it is so many
                    times what the config's router sends by tokens' places (moe/peers.h) */
};

struct tri_schedule;
struct tri_schedule_ops {
    /* One of a layer; all is borrowed. */
    struct tri_schedule *(*create)(const struct tri_context *context, struct tri_exchange *exchange,
                                   int64_t layer);
    /* The tokens whose routes this rank sends. */
    struct tri_range (*own)(const struct tri_schedule *self, const struct tri_frame *frame);
    /* Returns y [stream tokens, hidden] = sum over choices of weight * expert(x), or NULL without
     * `output`; see struct tri_sublayer_ops. x [stream tokens, hidden]. */
    void *(*forward)(const struct tri_schedule *self, const struct tri_frame *frame, void *kept,
                     const struct tri_routes *routes, const void *x, bool output);
    /* dx [stream tokens, hidden] is set to the gradient through the experts for own tokens
     * (undefined for others); dweight [tokens, k] likewise, <dy, expert(x)>. The gradient of an
     * expert's output is dy times routes->back where there is one, else times the weight. */
    void (*backward)(const struct tri_schedule *self, const struct tri_frame *frame,
                     const void *kept, const struct tri_routes *routes, const void *dy, void *dx,
                     float *dweight);
    /* After the router has added to dx of the own tokens: makes dx whole where the stream is. */
    void (*finish_backward)(const struct tri_schedule *self, const struct tri_frame *frame,
                            void *dx);
    void (*destroy)(struct tri_schedule *self);
};
struct tri_schedule {
    const struct tri_schedule_ops *ops;
    const struct tri_context *context;
    struct tri_exchange *exchange;
    int64_t layer;
    size_t kept; /* bytes of what its forward leaves in a frame */
};

/* Buffer i of the exchange with room for rows [rows, hidden], of activations or of partial sums. */
void *tri_exchange_take(struct tri_exchange *exchange, int i, const struct tri_context *context,
                        int64_t rows);

#endif
