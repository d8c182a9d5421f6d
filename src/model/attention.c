/* Attention with heads cut over tensor. q, k and v come from one product, [tokens, (q + 2 kv)
 * dim]:
 *
 *     | q heads of this rank | k heads | v heads |
 *
 * Where tensor does not divide the KV heads, a KV head lives on every rank that uses it; the
 * gradient of its k and v is then a partial sum on each of them, added up by the gradient reduction
 * (TRI_SYNC_OVERLAP). */
#include "model/layers.h"
#include "model/gradient.h"
#include "model/low_rank.h"
#include "model/partial.h"
#include "model/stream.h"
#include "model/window.h"

#include <math.h>
#include <string.h>

enum { LOOP_PIECE = 4096 };

struct attention {
    struct tri_sublayer base;
    int64_t heads, kv_heads, first_head, first_kv, group, dim, window;
    int64_t counted_kv; /* first local KV column that this rank counts in sums over tensor */
    struct tri_linear qkv, o;
    struct tri_low_rank low[2];                /* of them */
    struct tri_span qkv_bias, o_bias, norm[2]; /* or none */
};

/* What the forward leaves in a frame. */
struct kept {
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

static int64_t width_of(const struct attention *a)
{
    return (a->heads + 2 * a->kv_heads) * a->dim;
}

static void *column(const struct attention *a, const void *base, int64_t at)
{
    return (char *)(uintptr_t)base + (size_t)at * tri_dtype_size(a->base.context->dt);
}

/* Columns [begin, end) of a [tokens, ld] tensor as rows of rows, `inner` in a row. */
static struct tri_rows view(const struct attention *a, const void *base, int64_t tokens, int64_t ld,
                            int64_t begin, int64_t inner, int64_t width)
{
    return (struct tri_rows){column(a, base, begin), tokens, inner, width, ld, width};
}

/* ---- q/k norm -------------------------------------------------------------------------------- */

/* What q (which 0) or k (which 1) is normalised over: each head, or all heads of all ranks. */
struct norm_part {
    int64_t begin;        /* first column in the q, k, v row */
    int64_t inner, width; /* rows in a row */
    int64_t total;        /* width of what is normalised, over all ranks */
    int64_t shared;       /* leading columns that a lower tensor rank counts (full norm of k) */
};

static struct norm_part norm_part(const struct attention *a, int which)
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
    const struct attention *a;
    const struct kept *kept;
    const struct norm_part *parts;
    void *d;              /* gradients at the normalised q, k */
    const float *norm[2]; /* open, for the dot products */
    int64_t tokens;
};

static void open_norm(const struct attention *a, enum tri_use use, const float *norm[2])
{
    for (int i = 0; i < 2; i++) {
        norm[i] = tri_weights_open(a->base.context->params, a->norm[i], use);
    }
}

static void close_norm(const struct attention *a, const float *const norm[2])
{
    for (int i = 0; i < 2; i++) {
        tri_weights_close(a->base.context->params, a->norm[i], norm[i]);
    }
}

/* Columns of own shard `shard` of q or k. */
static struct tri_range shard_columns(const struct attention *a, int which, int shard)
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
    return view(s->a, base, s->tokens, width_of(s->a), s->parts[which].begin + columns.begin, 1,
                tri_range_size(columns));
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

static void norm_forward(const struct attention *a, const struct tri_frame *frame,
                         struct kept *kept)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_context *context = a->base.context;
    const struct tri_kernels *kernels = context->kernels;
    int64_t n = tri_pass_tokens(pass);
    int64_t ld = width_of(a);
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
            .x = view(a, kept->raw, n, ld, p.begin + p.shared, p.inner, p.width - p.shared),
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
            .x = view(a, kept->raw, n, ld, p.begin, p.inner, p.width),
            .rstd = kept->rstd[i],
            .weight = norm[i],
            .y = view(a, kept->turned, n, kept->ld_turned, p.begin, p.inner, p.width),
            .dt = context->dt,
        };
        kernels->rms_apply(kernels, &apply);
    }
    close_norm(a, norm);
}

/* Columns [begin, begin + width) of a norm's weight and of q or k, rows of `inner` heads. */
static void norm_gradient(const struct attention *a, const struct tri_frame *frame,
                          const struct kept *kept, void *d, int which, const float *norm,
                          struct tri_range columns, float *dots)
{
    struct tri_params *params = a->base.context->params;
    const struct tri_pass *pass = &frame->pass;
    struct norm_part p = norm_part(a, which);
    int64_t n = tri_pass_tokens(pass);
    int64_t ld = width_of(a);
    const struct tri_span rows = a->norm[which];
    enum tri_dtype dtype = params->buffer[rows.row->buffer].gradient_dtype;
    char *gradients = rows.row->trained ? tri_gradients_open_sum(params, rows) : NULL;
    tri_gradient_rms(
        frame, tri_cuts_by_rows(frame, frame->pass.rows, frame->pass.seq),
        view(a, d, n, ld, p.begin + columns.begin, p.inner, tri_range_size(columns)),
        view(a, kept->raw, n, ld, p.begin + columns.begin, p.inner, tri_range_size(columns)),
        kept->rstd[which], norm + columns.begin, dots, p.total,
        gradients ? gradients + (size_t)columns.begin * tri_dtype_size(dtype) : NULL);
    if (gradients) {
        tri_gradients_close(params, rows, gradients);
    }
}

/* d [tokens, width()]: gradients at the normalised q, k become those at the raw ones. */
static void norm_backward(const struct attention *a, const struct tri_frame *frame,
                          const struct kept *kept, void *d)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_context *context = a->base.context;
    const struct tri_kernels *kernels = context->kernels;
    int64_t n = tri_pass_tokens(pass);
    int64_t ld = width_of(a);
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
            .dy = view(a, d, n, ld, p.begin, p.inner, p.width),
            .x = view(a, kept->raw, n, ld, p.begin, p.inner, p.width),
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

/* ---- forward --------------------------------------------------------------------------------- */

static struct tri_attention arguments(const struct attention *a, const struct tri_frame *frame,
                                      const struct kept *kept)
{
    const struct tri_pass *pass = &frame->pass;
    int64_t k_at = a->heads * a->dim;
    return (struct tri_attention){
        .batch = pass->rows,
        .q_len = pass->seq,
        .k_len = pass->seq,
        .heads = a->heads,
        .kv_heads = a->kv_heads,
        .dim = a->dim,
        .first_head = a->first_head,
        .first_kv = a->first_kv,
        .group = a->group,
        .scale = 1.0 / sqrt((double)a->dim),
        .dt = a->base.context->dt,
        .first_key = kept->first_key,
        .q = kept->turned,
        .k = column(a, kept->turned, k_at),
        .v = column(a, kept->raw, k_at + a->kv_heads * a->dim),
        .ld_q = kept->ld_turned,
        .ld_k = kept->ld_turned,
        .ld_v = width_of(a),
        .out = kept->out,
        .ld_out = a->heads * a->dim,
        .lse = kept->lse,
    };
}

/* Appends this call's keys and values to the cache, and attends to all of them, a row at a time.
 * There is no backward: the rows share the room for lse. */
static void attend_cached(const struct attention *a, const struct tri_frame *frame,
                          const struct tri_attention *all)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_cache *cache = pass->cache;
    const struct tri_kernels *kernels = a->base.context->kernels;
    int64_t seq = pass->seq;
    int64_t width = a->kv_heads * a->dim;
    size_t bytes = (size_t)width * tri_dtype_size(a->base.context->dt);
    TRI_REQUIRE(cache->length + seq <= cache->capacity);
    for (int64_t row = 0; row < pass->rows; row++) {
        struct tri_attention args = *all;
        char *k = (char *)cache->k[a->base.layer] + (size_t)(row * cache->capacity) * bytes;
        char *v = (char *)cache->v[a->base.layer] + (size_t)(row * cache->capacity) * bytes;
        for (int64_t i = 0; i < seq; i++) {
            size_t at = (size_t)(cache->length + i) * bytes;
            memcpy(k + at, column(a, all->k, (row * seq + i) * all->ld_k), bytes);
            memcpy(v + at, column(a, all->v, (row * seq + i) * all->ld_v), bytes);
        }
        args.batch = 1;
        args.q = column(a, all->q, row * seq * all->ld_q);
        args.out = column(a, all->out, row * seq * all->ld_out);
        args.first_key = all->first_key ? all->first_key + row * seq : NULL;
        args.k = k;
        args.v = v;
        args.ld_k = args.ld_v = width;
        args.k_len = cache->length + seq;
        args.q_offset = cache->length;
        kernels->attention_forward(kernels, &args);
    }
}

/* y [stream, hidden] = the heads' outputs times W_o, summed over tensor. */
static void *project_out(const struct attention *a, const struct tri_frame *frame,
                         const struct kept *kept)
{
    const struct tri_pass *pass = &frame->pass;
    const struct tri_context *context = a->base.context;
    struct tri_group *tensor = tri_mesh_group(context->mesh, TRI_ON_TENSOR);
    int64_t hidden = context->config->model.hidden_size;
    int64_t own = tri_stream_count(frame);
    bool whole = tri_sum_is_whole(context);
    bool filled;
    void *y = tri_keep_result(frame, tensor, own * hidden, context->dt, &filled);
    if (filled) {
        return y;
    }
    size_t mark = tri_arena_mark(frame->arena);
    void *partial = tri_stream_partial(frame, y, context->sum_dt);
    const struct tri_linear o = tri_linear_open(context->params, &a->o, TRI_USE_FORWARD);
    const float *bias = tri_weights_open(context->params, a->o_bias, TRI_USE_FORWARD);
    const struct tri_low_batch low = {frame, 1, NULL, &a->low[1], 0, NULL};
    const struct tri_low_sum sum = {&low, kept->low[1]};
    tri_partial_forward(frame, &o, tri_pass_tokens(pass), kept->out, whole ? bias : NULL,
                        tri_low_rank_up_more(&sum), partial);
    tri_linear_close(context->params, &o);
    if (!whole) {
        tri_stream_sum(frame, (struct tri_where){pass->phase, TRI_KIND_ATTENTION}, partial,
                       context->sum_dt, y);
        if (bias) {
            context->kernels->add_bias(
                context->kernels,
                &(struct tri_bias_args){
                    .y = y, .bias = bias, .n = own, .width = hidden, .dt = context->dt});
        }
    }
    tri_weights_close(context->params, a->o_bias, bias);
    tri_arena_rewind(frame->arena, mark);
    return y;
}

static void *forward(const struct tri_sublayer *self, const struct tri_frame *frame, void *left,
                     const void *x, bool output)
{
    const struct tri_pass *pass = &frame->pass;
    const struct attention *a = (const struct attention *)self;
    struct kept *kept = left;
    const struct tri_context *context = self->context;
    int64_t n = tri_pass_tokens(pass);
    x = tri_stream_whole(frame, (struct tri_where){pass->phase, TRI_KIND_ATTENTION}, x);
    kept->x = x;
    kept->raw = tri_frame_take(frame, n * width_of(a));
    kept->out = tri_frame_take(frame, n * a->heads * a->dim);
    kept->lse = tri_frame_take_f32(frame, n * a->heads);
    kept->first_key = tri_window_first_keys(frame, a->window);
    kept->turned = kept->raw;
    kept->ld_turned = width_of(a);
    const struct tri_linear qkv = tri_linear_open(context->params, &a->qkv, TRI_USE_FORWARD);
    const float *bias = tri_weights_open(context->params, a->qkv_bias, TRI_USE_FORWARD);
    tri_linear_forward(&qkv, context->kernels, n, x, bias, kept->raw, context->dt);
    tri_weights_close(context->params, a->qkv_bias, bias);
    tri_linear_close(context->params, &qkv);
    const struct tri_low_batch low[2] = {{frame, 1, NULL, &a->low[0], 0, NULL},
                                         {frame, 1, NULL, &a->low[1], 0, NULL}};
    kept->low[0] = tri_low_rank_down(&low[0], x);
    tri_low_rank_up(&low[0], kept->low[0], kept->raw);
    if (a->norm[0].row) {
        kept->ld_turned = (a->heads + a->kv_heads) * a->dim;
        kept->turned = tri_frame_take(frame, n * kept->ld_turned);
        norm_forward(a, frame, kept);
    }
    if (context->rope_table) {
        const struct tri_rope_args turn = {
            .x = view(a, kept->turned, n, kept->ld_turned, 0, a->heads + a->kv_heads, a->dim),
            .table = context->rope_table,
            .positions = pass->positions,
            .dt = context->dt,
        };
        context->kernels->rope(context->kernels, &turn);
    }
    struct tri_attention args = arguments(a, frame, kept);
    if (pass->cache) {
        attend_cached(a, frame, &args);
    } else {
        context->kernels->attention_forward(context->kernels, &args);
    }
    kept->low[1] = tri_low_rank_down(&low[1], kept->out);
    return output ? project_out(a, frame, kept) : NULL;
}

/* ---- backward -------------------------------------------------------------------------------- */

/* dy [n, as wide as the bias], whose column sums the bias takes; where one is trained. */
static void bias_gradient(const struct tri_frame *frame, struct tri_cuts cuts, struct tri_span bias,
                          const void *dy, int64_t n)
{
    struct tri_params *params = frame->context->params;
    if (tri_span_is_trained(bias)) {
        void *gradients = tri_gradients_open_sum(params, bias);
        tri_gradient_bias(frame, cuts, dy, bias.count, gradients, n, bias.count);
        tri_gradients_close(params, bias, gradients);
    }
}

static void backward(const struct tri_sublayer *self, const struct tri_frame *frame,
                     const void *left, const void *dy, void *dx)
{
    const struct tri_pass *pass = &frame->pass;
    const struct attention *a = (const struct attention *)self;
    const struct kept *kept = left;
    const struct tri_context *context = self->context;
    const struct tri_kernels *kernels = context->kernels;
    int64_t n = tri_pass_tokens(pass);
    int64_t inner = a->heads * a->dim;
    int64_t width = width_of(a);
    const struct tri_where where = {TRI_PHASE_BACKWARD, TRI_KIND_ATTENTION};
    size_t mark = tri_arena_mark(frame->arena);
    dy = tri_stream_whole_gradient(frame, where, dy);
    void *partial = tri_stream_partial(frame, dx, context->sum_dt);
    struct tri_cuts cuts = tri_cuts_by_rows(frame, frame->pass.rows, frame->pass.seq);
    void *d_out = tri_frame_take(frame, n * inner);
    void *d = tri_frame_take(frame, n * width);
    bias_gradient(frame, cuts, a->o_bias, dy, n);
    const struct tri_linear o = tri_linear_open(context->params, &a->o, TRI_USE_BACKWARD);
    tri_linear_input_gradient(&o, kernels, n, dy, d_out);
    tri_linear_weight_gradient(&o, kernels, n, dy, kept->out, cuts);
    tri_linear_close(context->params, &o);
    const struct tri_low_batch low[2] = {{frame, 1, NULL, &a->low[0], 0, NULL},
                                         {frame, 1, NULL, &a->low[1], 0, NULL}};
    tri_low_rank_input_gradient(
        &low[1], tri_low_rank_backward(&low[1], &cuts, kept->out, kept->low[1], dy), d_out);
    struct tri_attention args = arguments(a, frame, kept);
    args.dout = d_out;
    args.ld_dout = inner;
    args.dq = d;
    args.dk = column(a, d, inner);
    args.dv = column(a, d, inner + a->kv_heads * a->dim);
    args.ld_dq = args.ld_dk = args.ld_dv = width;
    kernels->attention_backward(kernels, &args);
    if (context->rope_table) {
        const struct tri_rope_args turn = {
            .x = view(a, d, n, width, 0, a->heads + a->kv_heads, a->dim),
            .table = context->rope_table,
            .positions = pass->positions,
            .inverse = true,
            .dt = context->dt,
        };
        kernels->rope(kernels, &turn);
    }
    if (a->norm[0].row) {
        norm_backward(a, frame, kept, d);
    }
    bias_gradient(frame, cuts, a->qkv_bias, d, n);
    const struct tri_linear qkv = tri_linear_open(context->params, &a->qkv, TRI_USE_BACKWARD);
    tri_linear_weight_gradient(&qkv, kernels, n, d, kept->x, cuts);
    const struct tri_low_sum sum = {
        &low[0], tri_low_rank_backward(&low[0], &cuts, kept->x, kept->low[0], d)};
    tri_partial_input_gradient(frame, &qkv, n, d, tri_low_rank_input_more(&sum), partial);
    tri_linear_close(context->params, &qkv);
    tri_stream_sum(frame, where, partial, context->sum_dt, dx);
    tri_arena_rewind(frame->arena, mark);
}

/* ---- setup ----------------------------------------------------------------------------------- */

static void destroy(struct tri_sublayer *self)
{
    tri_free(self);
}

static struct tri_span find(const struct attention *a, enum tri_role role, int rows)
{
    const struct tri_params *params = a->base.context->params;
    return tri_span_make(params, tri_params_find(params, role, TRI_PLACE_DENSE, a->base.layer, -1),
                         rows);
}

static void bind(struct attention *a)
{
    struct tri_params *params = a->base.context->params;
    const struct tri_config_model *model = &a->base.context->config->model;
    const struct tri_param *k = find(a, TRI_ROLE_K, 1).row;
    a->qkv = tri_linear_get(params, find(a, TRI_ROLE_Q, 3), width_of(a), model->hidden_size);
    a->o = tri_linear_get(params, find(a, TRI_ROLE_O, 1), model->hidden_size, a->heads * a->dim);
    a->qkv.block[0] = a->o.block[0] = (struct tri_block){model->num_heads, a->dim};
    a->qkv.block[1] = a->qkv.block[2] = (struct tri_block){model->num_kv_heads, a->dim};
    a->qkv.blocks = 3;
    a->o.blocks = 1;
    for (int i = 0; i < 2; i++) {
        a->low[i] =
            tri_low_rank_get(params, a->base.context->shards, i ? TRI_ROLE_O_A : TRI_ROLE_Q_A,
                             i ? 1 : 3, TRI_PLACE_DENSE, a->base.layer, -1);
    }
    a->qkv_bias = find(a, TRI_ROLE_Q_BIAS, 3);
    a->o_bias = find(a, TRI_ROLE_O_BIAS, 1);
    a->norm[0] = find(a, TRI_ROLE_Q_NORM, 1);
    a->norm[1] = find(a, TRI_ROLE_K_NORM, 1);
    a->counted_kv = k->counted.begin - k->local[0].begin;
}

struct tri_sublayer *tri_attention_create(const struct tri_context *context, int64_t layer)
{
    static const struct tri_sublayer_ops ops = {forward, backward, destroy};
    const struct tri_config_model *model = &context->config->model;
    const struct tri_mesh *mesh = context->mesh;
    struct attention *a = tri_alloc(TRI_MEMORY_OTHER, sizeof(*a));
    a->base = (struct tri_sublayer){&ops, context, layer, sizeof(struct kept)};
    a->group = model->num_heads / model->num_kv_heads;
    a->dim = model->head_dim;
    a->window = tri_config_layer_window(context->config, layer);
    struct tri_range heads =
        tri_range_part(model->num_heads, mesh->size[TRI_AXIS_TENSOR], mesh->coord[TRI_AXIS_TENSOR]);
    struct tri_range kv = tri_range_kv_heads(heads, a->group);
    a->heads = tri_range_size(heads);
    a->kv_heads = tri_range_size(kv);
    a->first_head = heads.begin;
    a->first_kv = kv.begin;
    bind(a);
    return &a->base;
}
