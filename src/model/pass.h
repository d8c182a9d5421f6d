/* One micro-batch on its way through the model, and the sublayer interface that a block calls.
 *
 * Activations live in the step arena: a forward that will be followed by its backward leaves there
 * what the backward needs, and the whole arena is rewound when the micro-batch is done. */
#ifndef TRIDENT_MODEL_PASS_H
#define TRIDENT_MODEL_PASS_H

#include "base/arena.h"
#include "base/exact.h"
#include "comm/comm.h"
#include "config/config.h"
#include "kernel/kernel.h"
#include "model/param.h"
#include "model/tape.h"
#include "shard/virtual.h"

#include <string.h>

/* Keys and values of the tokens decoded so far, one block's: [rows, capacity, kv_heads * dim]. */
struct tri_cache {
    int64_t capacity, length; /* tokens; all rows have the same length */
    void **k, **v;            /* [layers] */
};

/* Records the experts that each MoE layer chose, or imposes recorded ones; indexed by the token's
 * place in the global batch, so that layouts can be compared. */
struct tri_route_tap {
    bool impose;
    int64_t tokens, k; /* of the global batch */
    int32_t *chosen;   /* [MoE layers, tokens, k] */
    int32_t *expert;   /* [MoE layers, tokens, k] -1 where capacity dropped it; may be NULL */
    float *gap;        /* [MoE layers, tokens] between probabilities; recorded only; may be NULL */
    float *logits;     /* [MoE layers, tokens, experts]; recorded only; may be NULL */
};

/* This rank's share of the sums that the step reports. */
struct tri_tally {
    struct tri_exact cross_entropy;    /* sum over counted targets of -log p */
    int64_t targets;                   /* counted targets */
    struct tri_exact aux_loss, z_loss; /* shares of the global means: add over {expert, data} */
    int64_t dropped;
    int64_t *load; /* [MoE layers, experts] tokens chosen, before capacity */
    double seconds_attention, seconds_router, seconds_exchange, seconds_experts;
};

/* Told about a model's parts as a micro-batch passes: block 0 to num_layers - 1; -1, the
 * embeddings; num_layers, the final norm and the head. */
struct tri_hooks {
    void *state;
    void (*before)(void *state, int64_t block); /* its weights are about to be read */
    void (*after)(void *state,
                  int64_t block); /* its gradients are complete, this micro-batch's too */
};

struct tri_pass {
    /* the micro-batch: whole rows of the global batch; rows may be 0 */
    int64_t rows, seq;
    const int32_t *tokens;          /* [rows, seq] */
    const int32_t *targets;         /* [rows, seq], -1: not counted; NULL when no loss is wanted */
    const int32_t *positions;       /* [rows, seq] */
    const int32_t *first_key;       /* [rows, seq] or NULL: see struct tri_attention */
    int64_t first_row;              /* of the global batch */
    int64_t batch_rows, micro_step; /* rows of the global batch, and which of its micro-steps this
                                       is: what tri_rows_micro takes, for any replica */
    int64_t global_tokens; /* counted targets of the global batch: every mean is over these */
    uint64_t seed, step;
    bool training; /* noise, training capacity */
    bool backward; /* a backward follows */
    enum tri_phase phase;
    struct tri_cache *cache;   /* decoding; or NULL */
    struct tri_route_tap *tap; /* or NULL */
    struct tri_tally *tally;
    const struct tri_hooks *hooks; /* or NULL */
};

/* The parts of a model that its layers share; borrowed by each of them. */
struct tri_context {
    const struct tri_config *config;
    const struct tri_mesh *mesh;
    struct tri_params *params;
    const struct tri_kernels *kernels;
    struct tri_arena *arena;
    struct tri_tape *tape;
    enum tri_dtype dt;     /* of activations */
    enum tri_dtype sum_dt; /* of partial sums over tensor */
    bool reproducible;
    struct tri_virtual shards; /* of what tensor cuts; one for each rank unless reproducible */
    const float *rope_table;   /* [max_position, head_dim] or NULL */
};

/* Whether a rank's sum over what tensor cuts is whole as one product makes it. */
static inline bool tri_sum_is_whole(const struct tri_context *context)
{
    return tri_group_size(context->mesh->tensor) == 1 && !context->reproducible;
}

static inline int64_t tri_pass_tokens(const struct tri_pass *pass)
{
    return pass->rows * pass->seq;
}

/* n elements of the activation dtype from the step arena. */
static inline void *tri_context_take(const struct tri_context *context, int64_t n)
{
    return tri_arena_alloc(context->arena, (size_t)n * tri_dtype_size(context->dt));
}

static inline float *tri_context_take_f32(const struct tri_context *context, int64_t n)
{
    return tri_arena_alloc(context->arena, (size_t)n * sizeof(float));
}

/* Zeros, which in a rehearsal nobody reads: they would take the memory that it only counts. */
static inline void *tri_context_zero(const struct tri_context *context, void *block, size_t bytes)
{
    return context->mesh->planned ? block : memset(block, 0, bytes);
}

/* Memory for a part of the routing, which is decided once: bytes in the stash, or in the arena.
 * *filled: a recompute, and it is decided already. */
static inline void *tri_keep_routing(const struct tri_context *context, size_t bytes, bool *filled)
{
    void *block = tri_tape_take(context->tape, TRI_STASH_ROUTING, bytes, filled);
    return block ? block : tri_arena_alloc(context->arena, bytes);
}

/* More memory with the lifetime of the routing; not in a recompute. */
static inline void *tri_keep_more_routing(const struct tri_context *context, size_t bytes)
{
    void *block = tri_tape_room(context->tape, TRI_STASH_ROUTING, bytes);
    return block ? block : tri_arena_alloc(context->arena, bytes);
}

/* Memory for n elements that a collective over group gives, after any local work on them. *filled:
 * a recompute, and they are there: neither the collective nor what leads to it is needed. */
static inline void *tri_keep_result(const struct tri_context *context,
                                    const struct tri_group *group, int64_t n, enum tri_dtype dtype,
                                    bool *filled)
{
    size_t bytes = (size_t)n * tri_dtype_size(dtype);
    void *block = NULL;
    *filled = false;
    if (tri_group_size(group) > 1) {
        block = tri_tape_take(context->tape, TRI_STASH_RESULT, bytes, filled);
    }
    return block ? block : tri_arena_alloc(context->arena, bytes);
}

/* A branch of a block: y = f(x), both [stream tokens, hidden] (model/stream.h). The forward keeps
 * what its backward needs, in the arena or on the tape, and returns y, likewise; when `output` is
 * false only the backward will follow: y is not needed, and NULL. The backward overwrites dx with
 * the gradient at x and adds to the gradients of the weights. Collective over the model's
 * groups. */
struct tri_sublayer;
struct tri_sublayer_ops {
    void *(*forward)(struct tri_sublayer *self, const struct tri_pass *pass, const void *x,
                     bool output);
    void (*backward)(struct tri_sublayer *self, const struct tri_pass *pass, const void *dy,
                     void *dx);
    void (*destroy)(struct tri_sublayer *self);
};
struct tri_sublayer {
    const struct tri_sublayer_ops *ops;
    const struct tri_context *context;
    int64_t layer;
};

#endif
