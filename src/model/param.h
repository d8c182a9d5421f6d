/* The parameter table: one row for every weight of the whole model, the same rows on every rank.
 * The optimizer, the checkpoint, the Hugging Face mapping, the memory plan, `inspect`, `verify` and
 * the gradient reduction loop over it; nobody lists the weights a second time.
 *
 * A rank holds, of each row, the slice `local` (rows or columns of the global matrix), inside one
 * of a few flat buffers, one for each (replica group, dtype). Rows that a fused product reads
 * together (q, k, v; gate, up) lie next to each other.
 *
 *   buffer NONEXPERT/bf16: | embedding | l0.q | l0.k | l0.v | l0.o | l0.gate | … | l1.q | … | head|
 *                           weights (dtype), gradients (gradient_dtype)
 *   segments, by block:    |---- -1 ---|-------------------- 0 ------------------|--- 1 ----|- L -|
 *   rank 1 of 3 owns:          |===|                 |=============|                |===|     |==|
 *   its shard, packed:     |===|=============|===|==|   master, m, v (f32): ZeRO-1
 *
 * A segment is what a block has in a buffer, and is cut evenly over the replicas: a block's
 * gradients can be reduced as soon as its backward is done, by all ranks at once.
 *
 * Rows that are not trained (train.freeze) lie in buffers of their own, which have weights and
 * nothing else. */
#ifndef TRIDENT_MODEL_PARAM_H
#define TRIDENT_MODEL_PARAM_H

#include "comm/comm.h"
#include "config/config.h"
#include "kernel/kernel.h"
#include "shard/range.h"
#include "tensor/dtype.h"

enum { TRI_NAME_MAX = 96 };

enum tri_role {
    TRI_ROLE_EMBEDDING,
    TRI_ROLE_POSITION,
    TRI_ROLE_NORM1, /* before attention */
    TRI_ROLE_NORM1_BIAS,
    TRI_ROLE_Q,
    TRI_ROLE_K,
    TRI_ROLE_V,
    TRI_ROLE_O,
    TRI_ROLE_Q_BIAS,
    TRI_ROLE_K_BIAS,
    TRI_ROLE_V_BIAS,
    TRI_ROLE_O_BIAS,
    TRI_ROLE_Q_NORM,
    TRI_ROLE_K_NORM,
    TRI_ROLE_NORM2, /* before the MLP or MoE */
    TRI_ROLE_NORM2_BIAS,
    TRI_ROLE_GATE, /* the three matrices of a dense MLP, an expert or a shared expert; */
    TRI_ROLE_UP,   /* gelu MLPs have no gate */
    TRI_ROLE_DOWN,
    TRI_ROLE_GATE_BIAS,
    TRI_ROLE_UP_BIAS,
    TRI_ROLE_DOWN_BIAS,
    TRI_ROLE_ROUTER,
    TRI_ROLE_SHARED_GATE, /* [1, hidden]: sigmoid gate of the shared expert */
    TRI_ROLE_FINAL_NORM,
    TRI_ROLE_FINAL_NORM_BIAS,
    TRI_ROLE_HEAD,
    /* Low-rank pairs (train.lora): W + alpha / rank B A, A [rank, in], B [out, rank]. */
    TRI_ROLE_Q_A,
    TRI_ROLE_K_A,
    TRI_ROLE_V_A,
    TRI_ROLE_O_A,
    TRI_ROLE_Q_B,
    TRI_ROLE_K_B,
    TRI_ROLE_V_B,
    TRI_ROLE_O_B,
    TRI_ROLE_GATE_A,
    TRI_ROLE_UP_A,
    TRI_ROLE_DOWN_A,
    TRI_ROLE_GATE_B,
    TRI_ROLE_UP_B,
    TRI_ROLE_DOWN_B,
    TRI_ROLE_COUNT
};

/* Which network a GATE/UP/DOWN row belongs to. */
enum tri_place { TRI_PLACE_DENSE, TRI_PLACE_EXPERT, TRI_PLACE_SHARED };

enum tri_replicas { TRI_NONEXPERT /* over {expert, data} */, TRI_EXPERT /* over {data} */ };

/* What must happen over the grid to a gradient before it is reduced over the replicas. */
enum tri_tensor_sync {
    TRI_SYNC_NONE,   /* cut over the grid, or already the same on each of its ranks */
    TRI_SYNC_SUM,    /* ranks hold partial sums of what they have */
    TRI_SYNC_OVERLAP /* KV heads shared by several tensor ranks: sum over the ranks of the grid that
                        hold a row */
};

enum tri_init { TRI_INIT_NORMAL, TRI_INIT_ZERO, TRI_INIT_ONE, TRI_INIT_UNIFORM /* +- init_std */ };

struct tri_param {
    char name[TRI_NAME_MAX]; /* "layers.3.moe.experts.5.up.weight" */
    enum tri_role role;
    enum tri_place place;
    int64_t layer, expert; /* -1 where there is none */
    int dims;              /* 1 or 2 */
    int64_t shape[2];      /* global; [n] has shape[1] = 1. Matrices are [out, in] */
    enum tri_dtype dtype;  /* of the stored weight; masters are f32 */
    enum tri_replicas replicas;
    enum tri_tensor_sync sync;
    int sum_axes; /* of TRI_SYNC_SUM: the axes of the grid whose ranks hold partial sums */
    bool decay;
    bool trained; /* false: it has no gradient, no moments and no master, and never changes */
    enum tri_init init;
    double init_std;
    /* This rank's part. */
    bool held; /* false: an expert that lives on another rank; then local is empty */
    struct tri_range local[2];  /* rows and columns of the global matrix */
    struct tri_range opened[2]; /* those of what is opened: local, or of a row that is parted all
                                   that the ranks of depth have together */
    bool parted;                /* depth cuts its rows (model/residency_depth.c) */
    struct tri_range counted; /* rows that this rank counts in norms and writes: local[0], less the
                                  KV rows that a lower tensor rank holds too; empty on tensor ranks
                                  above 0 for rows that are replicated over tensor */
    int buffer, segment;      /* which flat buffer; which of its segments, where count > 0 */
    int64_t offset, count;    /* elements, in the buffer */
    struct tri_residency *residency; /* NULL: plain (model/param_open.h) */
};

/* Of a row's gradient. */
struct tri_gradient_state {
    bool fresh; /* of the last step: whoever writes it sets it; tri_param_overwritten rows only */
    bool open;
};

enum { TRI_BUFFERS = 8 };

/* What a block has in a buffer. Blocks: -1, the embeddings; 0 to num_layers - 1; num_layers, the
 * final norm and the head. */
struct tri_segment {
    int64_t block;
    struct tri_range whole, own; /* elements of the buffer: all of it; this rank's piece */
    int64_t place;               /* where the piece begins in this rank's packed shard */
    int64_t *counts;             /* [replicas] elements of each replica's piece */
    /* Begun and not yet ended, or NULL. */
    struct tri_request *reduction; /* of its gradients */
    struct tri_request *gathering; /* of its weights */
};

/* A flat buffer: (trained, replicas, dtype). Pointers are NULL until tri_params_allocate / the
 * optimizer; gradients, moments and masters of what is not trained always. */
struct tri_buffer {
    enum tri_replicas replicas;
    enum tri_dtype dtype;
    bool trained;
    int64_t count;   /* elements this rank holds; tight, no padding */
    void *weights;   /* [count] dtype */
    void *gradients; /* [count] gradient_dtype */
    enum tri_dtype gradient_dtype;
    struct tri_group *group; /* its replicas */
    int segments;
    struct tri_segment *segment; /* [segments] in the order of blocks; none is empty */
    int64_t *counts;             /* of the segments */
    int64_t shard;               /* elements that this rank owns */
    float *m, *v;                /* [shard] */
    float *master;               /* [shard]; NULL for f32 weights, which are their own masters */
};

struct tri_params {
    int count;
    struct tri_param *param;
    struct tri_buffer buffer[TRI_BUFFERS];
    const struct tri_mesh *mesh; /* borrowed */
    int *first_of_layer; /* [num_layers + 1]: where each layer's rows begin, and their end */
    int *first_expert;   /* [num_layers]: where the rows of its experts begin: they come last */
    int expert_rows;     /* of one expert */
    int64_t layers;
    struct tri_gradient_state *state;  /* [count] */
    int open;                          /* weights and gradients that are open */
    struct tri_residency *residencies; /* that keep rows, or NULL; owned */
    struct tri_fixed fixed;            /* what gradients of i64 (reproducible mode) refuse */
    enum tri_phase phase; /* of the pass that opens rows: where it is booked what they send */
    void *scratch;        /* of the gradient reduction; grows once */
    size_t scratch_bytes;
    int64_t total, active; /* parameters of the whole model; those a token meets */
    int64_t trained;       /* those that are */
};

/* Builds the table for this rank of mesh; takes no memory for weights. Local. */
struct tri_params *tri_params_create(const struct tri_config *config, const struct tri_mesh *mesh);
void tri_params_destroy(struct tri_params *params);
/* Whether what the config freezes can be frozen: each pattern is the name of some weight, weights
 * that one product reads together are frozen together, and something is left to be trained. Local;
 * takes the memory of a table for a while. */
enum tri_status tri_params_check_frozen(const struct tri_config *config,
                                        struct tri_error *error) TRI_NODISCARD;
/* Memory for weights, and for gradients of what is trained when training (zeroed). Local. */
void tri_params_allocate(struct tri_params *params, bool gradients);
/* Initial values from (seed, name, global index). Local. */
void tri_params_init(struct tri_params *params, const struct tri_kernels *kernels, uint64_t seed);

/* Whether a row is half of a low-rank pair. */
static inline bool tri_role_is_low(enum tri_role role)
{
    return role >= TRI_ROLE_Q_A && role <= TRI_ROLE_DOWN_B;
}

/* Whether the row's gradient is one product for each micro-batch, so that the step's first can set
 * it instead of adding to zeros. */
static inline bool tri_param_overwritten(const struct tri_param *param)
{
    switch (param->role) {
    case TRI_ROLE_Q:
    case TRI_ROLE_K:
    case TRI_ROLE_V:
    case TRI_ROLE_O:
    case TRI_ROLE_GATE:
    case TRI_ROLE_UP:
    case TRI_ROLE_DOWN:
        return true;
    default:
        return tri_role_is_low(param->role);
    }
}

/* The target that a weight or half of its pair belongs to. */
static inline enum tri_lora_target tri_role_target(enum tri_role role, enum tri_place place)
{
    static const enum tri_lora_target of_place[] = {[TRI_PLACE_DENSE] = TRI_LORA_MLP,
                                                    [TRI_PLACE_EXPERT] = TRI_LORA_EXPERTS,
                                                    [TRI_PLACE_SHARED] = TRI_LORA_SHARED};
    bool attention = (role >= TRI_ROLE_Q && role <= TRI_ROLE_O) ||
                     (role >= TRI_ROLE_Q_A && role <= TRI_ROLE_O_B);
    return attention ? TRI_LORA_ATTENTION : of_place[place];
}

/* Row by identity; NULL when the model has none. expert -1 for what is no expert's. */
struct tri_param *tri_params_find(const struct tri_params *params, enum tri_role role,
                                  enum tri_place place, int64_t layer, int64_t expert);
struct tri_param *tri_params_by_name(const struct tri_params *params, const char *name);

/* Rows of the table that belong to a block. */
struct tri_range tri_params_rows(const struct tri_params *params, int64_t block);
/* A buffer's segment of a block; NULL where the block has none there. */
struct tri_segment *tri_buffer_segment(const struct tri_buffer *buffer, int64_t block);
/* Those elements of a range of the buffer that lie in this rank's piece of the segment. */
struct tri_range tri_segment_own(const struct tri_segment *segment, struct tri_range range);
/* The elements of a row that this rank owns, as elements of its buffer. */
struct tri_range tri_param_own(const struct tri_params *params, const struct tri_param *param);
/* Where an element that this rank owns is in its shard. */
static inline int64_t tri_segment_place(const struct tri_segment *segment, int64_t element)
{
    return segment->place + (element - segment->own.begin);
}

/* Waits for weights that are still being gathered after an update: of one block, of that of a row,
 * of all; and refreshes those rows. Who reads or writes weights in the buffers calls it first
 * (opening a row does); without anything on its way it does nothing. Collective over the groups of
 * the buffers. */
void tri_params_settle_block(const struct tri_params *params, int64_t block);
void tri_params_settle_row(const struct tri_params *params, const struct tri_param *param);
void tri_params_settle(const struct tri_params *params);

/* Tells the residencies of what a block has in a buffer, and that of a row, that there are new
 * weights: called when the optimizer has passed a block and its weights are gathered, and by
 * whatever else writes weights. Nothing to do for plain rows. Local. */
void tri_params_refresh(const struct tri_params *params, int64_t block, int buffer);
void tri_params_refresh_row(const struct tri_params *params, const struct tri_param *param);

/* Where elements of a buffer, and of a row, are in the buffers: what the reduction, the optimizer
 * and checkpoints work on. Who computes with the model opens rows instead (model/param_open.h).
 * NULL for gradients in a model without them, and of what is not trained. */
static inline void *tri_buffer_weights(const struct tri_buffer *buffer, int64_t element)
{
    return (char *)buffer->weights + (size_t)element * tri_dtype_size(buffer->dtype);
}

static inline void *tri_buffer_gradients(const struct tri_buffer *buffer, int64_t element)
{
    size_t bytes = (size_t)element * tri_dtype_size(buffer->gradient_dtype);
    return buffer->gradients ? (char *)buffer->gradients + bytes : NULL;
}

static inline void *tri_param_weights(const struct tri_params *params,
                                      const struct tri_param *param)
{
    return tri_buffer_weights(&params->buffer[param->buffer], param->offset);
}

static inline void *tri_param_gradients(const struct tri_params *params,
                                        const struct tri_param *param)
{
    return tri_buffer_gradients(&params->buffer[param->buffer], param->offset);
}

/* ---- whole tensors (f32, row-major, global shape) -------------------------------------------- */

enum tri_field {
    TRI_FIELD_WEIGHT /* the master where there is one */,
    TRI_FIELD_GRADIENT, /* of what is not trained these are zeros, and are not written */
    TRI_FIELD_M,
    TRI_FIELD_V
};

/* Elements [first, first + count), in C order, of a matrix: of some columns of a row's field, most
 * often of all. Whole on one rank, its owner. */
struct tri_param_part {
    const struct tri_param *param;
    enum tri_field field;
    int64_t first, count;
    struct tri_range columns;
    int owner; /* a rank of the world */
};

/* What goes and comes, kept from call to call; begins zeroed. */
struct tri_param_room {
    void *send, *recv;
    size_t send_bytes, recv_bytes;
};
void tri_param_room_fini(struct tri_param_room *room);

/* Collects parts from the ranks that hold their elements: WEIGHT, M, V from the optimizer's shards
 * (WEIGHT from the stored weights when there is no optimizer), GRADIENT from the shards of the
 * reduced gradients. values receives the parts that this rank owns, one behind the other, and may
 * be NULL on a rank that owns none. Beside it a rank needs memory for what it sends and receives:
 * its own elements of the parts, and as much as values holds. Every rank passes the same parts.
 * Collective over the mesh's world. */
void tri_param_collect(const struct tri_params *params, int parts,
                       const struct tri_param_part *part, float *values,
                       struct tri_param_room *room);
/* How many elements of a part this rank gives when it is collected, each being given by one rank.
 * Collective over the groups of the buffers, as tri_params_settle_row. */
int64_t tri_param_count_given(const struct tri_params *params, const struct tri_param_part *part);
/* Those elements, to their places in values; settled before. Local. */
void tri_param_read_given(const struct tri_params *params, const struct tri_param_part *part,
                          float *values);
/* The reverse: each owner's values to all ranks that hold some of them; WEIGHT is rounded to the
 * stored dtype, M and V go where they are allocated. Who deals a row in parts deals its end last.
 * Collective over the mesh's world. */
void tri_param_deal(struct tri_params *params, int parts, const struct tri_param_part *part,
                    const float *values, struct tri_param_room *room);

/* What this rank gives of a field of a row when it is collected, every element being given by one
 * rank, and takes when it is dealt: elements of the tensor, in C order, where `plain`. */
struct tri_param_share {
    struct tri_range given, taken;
    bool plain;   /* its slice is whole rows, all of which it counts: else not to be used */
    bool floats;  /* what it gives is f32 in its memory */
    bool sharded; /* no other rank has what it gives; else every replica has the tensor's values */
};
/* Collective over the groups of the buffers, as tri_params_settle_row. */
struct tri_param_share tri_param_share(const struct tri_params *params,
                                       const struct tri_param *param, enum tri_field field);
/* Where an element that this rank gives or takes is f32, those behind it following, or NULL: of a
 * bf16 weight its master, in this rank's shard. Local. */
float *tri_param_floats(const struct tri_params *params, const struct tri_param *param,
                        enum tri_field field, int64_t element);
/* Where an element that this rank takes of the weights is, in the row's dtype. Local. */
void *tri_param_stored(const struct tri_params *params, const struct tri_param *param,
                       int64_t element);
/* To n elements that this rank takes, from `element` on, as tri_param_deal. The values may be where
 * tri_param_floats says. Who stores a row in parts refreshes it at last. Local. */
void tri_param_store(struct tri_params *params, const struct tri_param *param, enum tri_field field,
                     int64_t element, int64_t n, const float *values);

/* A whole row to world rank 0; global is untouched elsewhere (may be NULL there). Collective over
 * the mesh's world. */
void tri_param_gather(const struct tri_params *params, const struct tri_param *param,
                      enum tri_field field, float *global);
/* From a whole tensor present on this rank: copies this rank's parts, as tri_param_deal. Local. */
void tri_param_scatter(struct tri_params *params, const struct tri_param *param,
                       enum tri_field field, const float *global);
/* The same of some rows of it, whole ones; who scatters a tensor in parts does its end last. */
void tri_param_scatter_rows(struct tri_params *params, const struct tri_param *param,
                            enum tri_field field, struct tri_range rows, const float *values);

#endif
