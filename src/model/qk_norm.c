/* The norm of queries and keys: of each head (Qwen3), or of all heads of all tensor ranks
 * (OLMoE). */
#include "model/attention.h"
#include "model/gradient.h"
#include "model/partial.h"

#include <math.h>

enum { LOOP_PIECE = 4096 };

/* What q (which 0) or k (which 1) is normalised over: each head, or all heads of all ranks. */
struct norm_part {
    int64_t begin;        /* first column in the q, k, v row */
    int64_t inner, width; /* rows in a row */
    int64_t total;        /* width of what is normalised, over all ranks */
    int64_t shared;       /* leading columns that a lower tensor rank counts (full norm of k) */
};

static struct norm_part norm_part(const struct tri_attention_layer *a, int which)
{
    const struct tri_config_model *model = &a->base.context->config->model;
    int64_t heads = which ? a->kv_heads : a->heads;
    struct norm_part part = {.begin = which ? a->heads * a->dim : 0};
    if (model->qk_norm == TRI_QK_NORM_HEAD) {
        part.inner = heads;
        part.width = part.total = a->dim;
    } else {
        part.inner = 1;
        part.width = heads * a->dim;
        part.total = (which ? model->num_kv_heads : model->num_heads) * a->dim;
        part.shared = which ? a->counted_kv : 0;
    }
    return part;
}

/* Virtual shards of a norm over all heads. */
struct shard_sums {
    const struct tri_attention_layer *a;
    const struct tri_attention_kept *kept;
    const struct norm_part *parts;
    void *d;              /* gradients at the normalised q, k */
    const float *norm[2]; /* open, for the dot products */
    int64_t tokens;
};

static void open_norm(const struct tri_attention_layer *a, enum tri_use use, const float *norm[2])
{
    for (int i = 0; i < 2; i++) {
        norm[i] = tri_weights_open(a->base.context->params, a->norm[i], use);
    }
}

static void close_norm(const struct tri_attention_layer *a, const float *const norm[2])
{
    for (int i = 0; i < 2; i++) {
        tri_weights_close(a->base.context->params, a->norm[i], norm[i]);
    }
}

/* Columns of own shard `shard` of q or k. */
static struct tri_range shard_columns(const struct tri_attention_layer *a, int which, int shard)
{
    const struct tri_config_model *model = &a->base.context->config->model;
    struct tri_range heads = tri_virtual_part(
        a->base.context->shards, which ? model->num_kv_heads : model->num_heads, shard);
    return (struct tri_range){heads.begin * a->dim, heads.end * a->dim};
}

static struct tri_rows shard_view(const struct shard_sums *s, const void *base, int which,
                                  int shard)
{
    struct tri_range columns = shard_columns(s->a, which, shard);
    return tri_attention_view(s->a, base, s->tokens, tri_attention_width(s->a),
                              s->parts[which].begin + columns.begin, 1, tri_range_size(columns));
}

/* sums [2, tokens] */
static void shard_squares(void *state, int shard, float *sums)
{
    const struct shard_sums *s = state;
    const struct tri_context *context = s->a->base.context;
    for (int i = 0; i < 2; i++) {
        context->kernels->rms_squares(
            context->kernels, &(struct tri_rms_args){.x = shard_view(s, s->kept->raw, i, shard),
                                                     .squares = sums + i * s->tokens,
                                                     .dt = context->dt});
    }
}

static void shard_dots(void *state, int shard, float *sums)
{
    const struct shard_sums *s = state;
    const struct tri_context *context = s->a->base.context;
    for (int i = 0; i < 2; i++) {
        const struct tri_rms_args args = {
            .dy = shard_view(s, s->d, i, shard),
            .x = shard_view(s, s->kept->raw, i, shard),
            .weight = s->norm[i] + shard_columns(s->a, i, shard).begin,
            .dots = sums + i * s->tokens,
            .dt = context->dt,
        };
        context->kernels->rms_dots(context->kernels, &args);
    }
}

/* Means of squares over `total` columns become what their roots are divided by. */
struct roots {
    float *rstd;
    int64_t total;
    double epsilon;
};

static void take_roots(void *state, int64_t begin, int64_t end)
{
    const struct roots *roots = state;
    for (int64_t j = begin; j < end; j++) {
        double mean = (double)roots->rstd[j] / (double)roots->total;
        roots->rstd[j] = (float)(1.0 / sqrt(mean + roots->epsilon));
    }
}

void tri_qk_norm_forward(const struct tri_attention_layer *a, const struct tri_frame *frame,
                         struct tri_attention_kept *kept)
{
    const struct tri_pass *pass = &frame->part;
    const struct tri_context *context = a->base.context;
    const struct tri_kernels *kernels = context->kernels;
    int64_t n = tri_pass_tokens(pass);
    int64_t ld = tri_attention_width(a);
    bool full = context->config->model.qk_norm == TRI_QK_NORM_FULL;
    struct norm_part parts[2] = {norm_part(a, 0), norm_part(a, 1)};
    int64_t stats = n * (parts[0].inner + parts[1].inner);
    bool filled = false;
    float *squares = full ? tri_keep_result(frame, tri_mesh_group(context->mesh, TRI_ON_TENSOR),
                                            stats, TRI_F32, &filled)
                          : tri_frame_take_f32(frame, stats);
    kept->rstd[0] = squares;
    kept->rstd[1] = squares + n * parts[0].inner;
    struct shard_sums sums = {.a = a, .kept = kept, .parts = parts, .tokens = n};
    if (full && context->reproducible && !filled) {
        tri_partial_sum(frame, context->shards, shard_squares, &sums, stats, squares);
    }
    for (int i = 0; i < 2 && !filled && !(full && context->reproducible); i++) {
        struct norm_part p = parts[i];
        const struct tri_rms_args args = {
            .x = tri_attention_view(a, kept->raw, n, ld, p.begin + p.shared, p.inner,
                                    p.width - p.shared),
            .squares = kept->rstd[i],
            .dt = context->dt,
        };
        kernels->rms_squares(kernels, &args);
    }
    if (full && !filled) {
        tri_all_reduce_sum(tri_mesh_group(context->mesh, TRI_ON_TENSOR),
                           (struct tri_where){pass->phase, TRI_KIND_ATTENTION}, squares, 2 * n,
                           TRI_F32);
    }
    const float *norm[2];
    open_norm(a, TRI_USE_FORWARD, norm);
    for (int i = 0; i < 2; i++) {
        struct norm_part p = parts[i];
        struct roots roots = {kept->rstd[i], p.total, context->config->model.norm_epsilon};
        const struct tri_loop_args loop = {
            .n = filled ? 0 : n * p.inner,
            .piece = LOOP_PIECE,
            .run = take_roots,
            .state = &roots,
        };
        kernels->loop(kernels, &loop);
        const struct tri_rms_args apply = {
            .x = tri_attention_view(a, kept->raw, n, ld, p.begin, p.inner, p.width),
            .rstd = kept->rstd[i],
            .weight = norm[i],
            .y = tri_attention_view(a, kept->turned, n, kept->ld_turned, p.begin, p.inner, p.width),
            .dt = context->dt,
        };
        kernels->rms_apply(kernels, &apply);
    }
    close_norm(a, norm);
}

/* Columns [begin, begin + width) of a norm's weight and of q or k, rows of `inner` heads. */
static void norm_gradient(const struct tri_attention_layer *a, const struct tri_frame *frame,
                          const struct tri_attention_kept *kept, void *d, int which,
                          const float *norm, struct tri_range columns, float *dots)
{
    struct tri_params *params = a->base.context->params;
    const struct tri_pass *pass = &frame->part;
    struct norm_part p = norm_part(a, which);
    int64_t n = tri_pass_tokens(pass);
    int64_t ld = tri_attention_width(a);
    const struct tri_span rows = a->norm[which];
    enum tri_dtype dtype = params->buffer[rows.row->buffer].gradient_dtype;
    char *gradients = rows.row->trained ? tri_gradients_open_sum(params, rows) : NULL;
    tri_gradient_rms(
        frame, tri_cuts_by_rows(frame, frame->part.rows, frame->part.seq),
        tri_attention_view(a, d, n, ld, p.begin + columns.begin, p.inner, tri_range_size(columns)),
        tri_attention_view(a, kept->raw, n, ld, p.begin + columns.begin, p.inner,
                           tri_range_size(columns)),
        kept->rstd[which], norm + columns.begin, dots, p.total,
        gradients ? gradients + (size_t)columns.begin * tri_dtype_size(dtype) : NULL);
    if (gradients) {
        tri_gradients_close(params, rows, gradients);
    }
}

void tri_qk_norm_backward(const struct tri_attention_layer *a, const struct tri_frame *frame,
                          const struct tri_attention_kept *kept, void *d)
{
    const struct tri_pass *pass = &frame->part;
    const struct tri_context *context = a->base.context;
    const struct tri_kernels *kernels = context->kernels;
    int64_t n = tri_pass_tokens(pass);
    int64_t ld = tri_attention_width(a);
    bool full = context->config->model.qk_norm == TRI_QK_NORM_FULL;
    bool by_shards = full && context->reproducible;
    struct norm_part parts[2] = {norm_part(a, 0), norm_part(a, 1)};
    size_t mark = tri_arena_mark(frame->arena);
    int64_t stats = n * (parts[0].inner + parts[1].inner);
    float *dots[2];
    dots[0] = tri_frame_take_f32(frame, stats);
    dots[1] = dots[0] + n * parts[0].inner;
    struct shard_sums sums = {.a = a, .kept = kept, .parts = parts, .d = d, .tokens = n};
    open_norm(a, TRI_USE_BACKWARD, sums.norm);
    if (by_shards) {
        tri_partial_sum(frame, context->shards, shard_dots, &sums, stats, dots[0]);
    }
    for (int i = 0; i < 2 && !by_shards; i++) {
        struct norm_part p = parts[i];
        const struct tri_rms_args args = {
            .dy = tri_attention_view(a, d, n, ld, p.begin, p.inner, p.width),
            .x = tri_attention_view(a, kept->raw, n, ld, p.begin, p.inner, p.width),
            .weight = sums.norm[i],
            .dots = dots[i],
            .dt = context->dt,
        };
        kernels->rms_dots(kernels, &args);
    }
    if (full) {
        tri_all_reduce_sum(tri_mesh_group(context->mesh, TRI_ON_TENSOR),
                           (struct tri_where){TRI_PHASE_BACKWARD, TRI_KIND_ATTENTION}, dots[0],
                           2 * n, TRI_F32);
    }
    for (int i = 0; i < 2; i++) {
        struct norm_part p = parts[i];
        for (int shard = 0; by_shards && shard < context->shards.own; shard++) {
            norm_gradient(a, frame, kept, d, i, sums.norm[i], shard_columns(a, i, shard), dots[i]);
        }
        if (by_shards) {
            continue;
        }
        norm_gradient(a, frame, kept, d, i, sums.norm[i], (struct tri_range){p.shared, p.width},
                      dots[i]);
        if (p.shared) {
            /* The term with the dot product belongs to the rank that counts these columns. */
            tri_context_zero(context, dots[i], (size_t)n * sizeof(float));
            norm_gradient(a, frame, kept, d, i, sums.norm[i], (struct tri_range){0, p.shared},
                          dots[i]);
        }
    }
    close_norm(a, sums.norm);
    tri_arena_rewind(frame->arena, mark);
}
