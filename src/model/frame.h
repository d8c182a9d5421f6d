/* A frame is where a micro-batch's state lives: all that its forward leaves for its backward.
 * Layers are constant once they are made, so several frames may be open at once, and be closed in
 * any order.
 *
 *   pass    the micro-batch; part: the rows of it that attention, dense products and the loss are
 *           this rank's to do, of as many parts as depth has ranks
 *   kept    what the model and each of its layers leave: pointers, mostly into the arena
 *   arena   activations, a stack: what the forward leaves, above it scratch of the call at hand
 *   tape    what is made once and handed back to a recompute (model/tape.h)
 *
 * A layer gets its part of `kept` beside the frame. So a forward may be split (halves of a
 * micro-batch, chunks of tokens): its parts are frames of their own, or share one and have each a
 * part of `kept`. */
#ifndef TRIDENT_MODEL_FRAME_H
#define TRIDENT_MODEL_FRAME_H

#include "base/arena.h"
#include "config/config.h"
#include "kernel/kernel.h"
#include "model/param_open.h"
#include "model/pass.h"
#include "model/tape.h"
#include "shard/virtual.h"

#include <string.h>

/* The parts of a model that its layers share; borrowed by each of them. */
struct tri_context {
    const struct tri_config *config;
    const struct tri_mesh *mesh;
    struct tri_params *params;
    const struct tri_kernels *kernels;
    enum tri_dtype dt;     /* of activations */
    enum tri_dtype sum_dt; /* of partial sums over tensor */
    bool reproducible;
    struct tri_virtual shards; /* of what tensor cuts; one for each rank unless reproducible */
    struct tri_virtual expert_shards; /* of experts, which tensor and depth cut */
    const float *rope_table;          /* [max_position, head_dim] or NULL */
};

/* Whether a rank's sum over what tensor cuts is whole as one product makes it. */
static inline bool tri_sum_is_whole(const struct tri_context *context)
{
    return tri_group_size(tri_mesh_group(context->mesh, TRI_ON_TENSOR)) == 1 &&
           context->mesh->size[TRI_AXIS_CROSS] == 1 && !context->reproducible;
}

enum tri_stage {
    TRI_STAGE_CLOSED,
    TRI_STAGE_OPEN,
    TRI_STAGE_FORWARD,
    TRI_STAGE_LOSS,
    TRI_STAGE_DONE
};

struct tri_frame {
    const struct tri_context *context;
    struct tri_pass pass;
    struct tri_pass part; /* of its rows those that this rank's place in depth works on */
    struct tri_arena *arena;
    struct tri_tape *tape;
    char *kept;
    void *moe;              /* the part of `kept` that the MoE layers have together */
    enum tri_stage stage;   /* what has been done with it */
    struct tri_frame *next; /* of the model */
};

/* The frames of a model: as many as were ever open at once, each with memory of its own. */
struct tri_frames {
    const struct tri_context *context;
    size_t kept, moe; /* bytes of `kept`; where in it the MoE layers' part is */
    struct tri_frame *first;
};

/* With one frame. context is borrowed. Local, as are the others. */
void tri_frames_init(struct tri_frames *frames, const struct tri_context *context, size_t kept,
                     size_t moe);
/* All must be closed. */
void tri_frames_release(struct tri_frames *frames);
/* The first frame that is free, or a further one. pass is copied. */
struct tri_frame *tri_frames_open(struct tri_frames *frames, const struct tri_pass *pass);
/* Forgets all that is in it. */
void tri_frame_close(struct tri_frame *frame);

/* n elements of the activation dtype from the arena. */
static inline void *tri_frame_take(const struct tri_frame *frame, int64_t n)
{
    return tri_arena_alloc(frame->arena, (size_t)n * tri_dtype_size(frame->context->dt));
}

static inline float *tri_frame_take_f32(const struct tri_frame *frame, int64_t n)
{
    return tri_arena_alloc(frame->arena, (size_t)n * sizeof(float));
}

/* Zeros, which in a rehearsal nobody reads: they would take the memory that it only counts. */
static inline void *tri_context_zero(const struct tri_context *context, void *block, size_t bytes)
{
    context->kernels->zero(context->kernels, &(struct tri_zero_args){.dst = block, .bytes = bytes});
    return block;
}

/* Memory for a part of the routing, which is decided once: bytes in the stash, or in the arena.
 * *filled: a recompute, and it is decided already. */
static inline void *tri_keep_routing(const struct tri_frame *frame, size_t bytes, bool *filled)
{
    void *block = tri_tape_take(frame->tape, TRI_STASH_ROUTING, bytes, filled);
    return block ? block : tri_arena_alloc(frame->arena, bytes);
}

/* More memory with the lifetime of the routing; not in a recompute. */
static inline void *tri_keep_more_routing(const struct tri_frame *frame, size_t bytes)
{
    void *block = tri_tape_room(frame->tape, TRI_STASH_ROUTING, bytes);
    return block ? block : tri_arena_alloc(frame->arena, bytes);
}

/* Memory for n elements that a collective over group gives, after any local work on them. *filled:
 * a recompute, and they are there: neither the collective nor what leads to it is needed. */
static inline void *tri_keep_result(const struct tri_frame *frame, const struct tri_group *group,
                                    int64_t n, enum tri_dtype dtype, bool *filled)
{
    size_t bytes = (size_t)n * tri_dtype_size(dtype);
    void *block = NULL;
    *filled = false;
    if (tri_group_size(group) > 1) {
        block = tri_tape_take(frame->tape, TRI_STASH_RESULT, bytes, filled);
    }
    return block ? block : tri_arena_alloc(frame->arena, bytes);
}

/* A branch of a block: y = f(x), both [stream tokens, hidden] (model/stream.h). The forward leaves
 * what its backward needs in the arena, on the tape and in `kept`, and returns y, likewise; when
 * `output` is false only the backward will follow: y is not needed, and NULL. The backward
 * overwrites dx with the gradient at x and adds to the gradients of the weights. Collective over
 * the model's groups. */
struct tri_sublayer;
struct tri_sublayer_ops {
    void *(*forward)(const struct tri_sublayer *self, const struct tri_frame *frame, void *kept,
                     const void *x, bool output);
    void (*backward)(const struct tri_sublayer *self, const struct tri_frame *frame,
                     const void *kept, const void *dy, void *dx);
    void (*destroy)(struct tri_sublayer *self);
};
struct tri_sublayer {
    const struct tri_sublayer_ops *ops;
    const struct tri_context *context;
    int64_t layer;
    size_t kept; /* bytes */
};

#endif
