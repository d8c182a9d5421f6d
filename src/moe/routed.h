/* What schedules have in common that send each route to the rank of its expert and back: who has
 * which experts, where own tokens lie, and both ends of the way: slots, and the sum over choices. A
 * slot is one (token, choice) that was not dropped; slots are ordered by expert, then token. */
#ifndef TRIDENT_MOE_ROUTED_H
#define TRIDENT_MOE_ROUTED_H

#include "moe/route_plan.h"
#include "moe/schedule.h"

struct tri_routed {
    struct tri_schedule base;
    struct tri_peers peers;
    struct tri_network *networks; /* of the local experts */
    bool cut;                     /* experts are cut over tensor */
    bool partial; /* what the experts' products give are sums still to be completed */
    bool split;   /* tensor ranks send different tokens */
};

/* One with these functions, that leaves `kept` bytes in a frame; else as in tri_schedule_ops. */
struct tri_routed *tri_routed_create(const struct tri_schedule_ops *ops,
                                     const struct tri_context *context,
                                     struct tri_exchange *exchange, int64_t layer, size_t kept);

/* Functions of tri_schedule_ops. */
void tri_routed_destroy(struct tri_schedule *self);
struct tri_range tri_routed_own(const struct tri_schedule *self, const struct tri_frame *frame);
void tri_routed_finish_backward(const struct tri_schedule *self, const struct tri_frame *frame,
                                void *dx);

/* Row `row` of rows [.., hidden]. */
void *tri_routed_row(const struct tri_routed *routed, void *rows, int64_t row,
                     enum tri_dtype dtype);
/* The largest group that the experts' rows and results pass through. */
const struct tri_group *tri_routed_widest_group(const struct tri_routed *routed);

/* slots [slots, hidden] <- x [stream tokens, hidden] of own tokens. Local. */
void tri_routed_fill(const struct tri_routed *routed, const struct tri_frame *frame,
                     const struct tri_route_plan *plan, const void *x, void *slots);
/* y [stream tokens, hidden] of own tokens <- the sum over choices of slot, times weight[tokens, k]
 * unless NULL. Local. */
void tri_routed_combine(const struct tri_routed *routed, const struct tri_frame *frame,
                        const struct tri_route_plan *plan, const void *slots, const float *weight,
                        void *y);
/* d_slots [slots, hidden] and dweight [tokens, k] of own tokens <- the gradients at slots (the
 * experts' outputs) and weights, from dy [stream tokens, hidden]. Local. */
void tri_routed_combine_backward(const struct tri_routed *routed, const struct tri_frame *frame,
                                 const struct tri_route_plan *plan, const struct tri_routes *routes,
                                 const void *dy, const void *slots, void *d_slots, float *dweight);
/* Makes y [stream tokens, hidden] whole where the stream is and own tokens are a part of it.
 * Collective over tensor. */
void tri_routed_gather(const struct tri_routed *routed, const struct tri_frame *frame,
                       enum tri_phase phase, void *y);

/* One home and one part: slots and rows are the same, and stay here. */
bool tri_routed_is_alone(const struct tri_routed *routed);
/* Whether the experts' products go straight to the slots. */
bool tri_routed_is_direct(const struct tri_routed *routed);
/* Slots (exchange buffer 0) to the experts' rows. Takes exchange buffer 1. Collective over the
 * homes, and over tensor where rows come in parts. */
void tri_routed_send(const struct tri_routed *routed, const struct tri_route_plan *plan,
                     enum tri_phase phase, const void *slots, void *rows);
/* The experts' rows, in sum_dt and exchange buffer 0 (slots when nothing is sent or rounded),
 * summed over tensor on the way where they are partial, as they arrived: this part of them, then to
 * slots in their senders' order. with_bias: adds the down bias to the sums. Collective likewise. */
void tri_routed_return(const struct tri_routed *routed, const struct tri_route_plan *plan,
                       enum tri_phase phase, void *rows, bool with_bias, void *slots);

/* Tells the frame's tally of the time since *start, which becomes now. */
void tri_routed_add_time(const struct tri_frame *frame, double *start, bool experts);

#endif
