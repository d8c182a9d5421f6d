/* What the files of attention share. */
#ifndef TRIDENT_MODEL_ATTENTION_H
#define TRIDENT_MODEL_ATTENTION_H

#include "model/frame.h"
#include "model/linear.h"
#include "model/low_rank.h"

struct tri_attention_layer {
    struct tri_sublayer base;
    int64_t heads, kv_heads, first_head, first_kv, group, dim, window;
    int64_t counted_kv; /* first local KV column that this rank counts in sums over tensor */
    struct tri_linear qkv, o;
    struct tri_low_rank low[2];                /* of them */
    struct tri_span qkv_bias, o_bias, norm[2]; /* or none */
};

/* What the forward leaves in a frame. */
struct tri_attention_kept {
    const void *x; /* [tokens, hidden], borrowed */
    void *raw;     /* [tokens, width()] q, k, v; rotated in place when there is no q/k norm */
    void *turned;  /* [tokens, (q + kv) * dim] after q/k norm and rotation; raw without the norm */
    int64_t ld_turned;
    float *rstd[2];           /* of q/k norm */
    void *out;                /* [tokens, heads * dim] */
    float *lse;               /* [tokens, heads] */
    const int32_t *first_key; /* [tokens] or NULL: of the documents and of the window */
    void *low[2];             /* of the low-rank pairs of qkv and o, or NULL */
};

static inline int64_t tri_attention_width(const struct tri_attention_layer *a)
{
    return (a->heads + 2 * a->kv_heads) * a->dim;
}

static inline void *tri_attention_column(const struct tri_attention_layer *a, const void *base,
                                         int64_t at)
{
    return (char *)(uintptr_t)base + (size_t)at * tri_dtype_size(a->base.context->dt);
}

/* Columns [begin, end) of a [tokens, ld] tensor as rows of rows, `inner` in a row. */
static inline struct tri_rows tri_attention_view(const struct tri_attention_layer *a,
                                                 const void *base, int64_t tokens, int64_t ld,
                                                 int64_t begin, int64_t inner, int64_t width)
{
    return (struct tri_rows){tri_attention_column(a, base, begin), tokens, inner, width, ld, width};
}

/* Normalises what kept->raw has of q and k, into kept->turned; and the way back: d [tokens,
 * width], gradients at the normalised q and k, become those at the raw ones. Collective over tensor
 * where the norm is over all heads. */
void tri_qk_norm_forward(const struct tri_attention_layer *a, const struct tri_frame *frame,
                         struct tri_attention_kept *kept);
void tri_qk_norm_backward(const struct tri_attention_layer *a, const struct tri_frame *frame,
                          const struct tri_attention_kept *kept, void *d);

#endif
