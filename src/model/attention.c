/* Attention with heads cut over tensor. q, k and v come from one product, [tokens, (q + 2 kv)
 * dim]:
 *
 *     | q heads of this rank | k heads | v heads |
 *
 * Where tensor does not divide the KV heads, a KV head lives on every rank that uses it; the
 * gradient of its k and v is then a partial sum on each of them, added up by the gradient reduction
 * (TRI_SYNC_OVERLAP). */
#include "model/attention.h"
#include "model/gradient.h"
#include "model/layers.h"
#include "model/param_part.h"
#include "model/partial.h"
#include "model/stream.h"
#include "model/window.h"

#include <math.h>
#include <string.h>

/* ---- forward --------------------------------------------------------------------------------- */

static struct tri_attention arguments(const struct tri_attention_layer *a,
                                      const struct tri_frame *frame,
                                      const struct tri_attention_kept *kept)
{
    const struct tri_pass *pass = &frame->part;
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
        .k = tri_attention_column(a, kept->turned, k_at),
        .v = tri_attention_column(a, kept->raw, k_at + a->kv_heads * a->dim),
        .ld_q = kept->ld_turned,
        .ld_k = kept->ld_turned,
        .ld_v = tri_attention_width(a),
        .out = kept->out,
        .ld_out = a->heads * a->dim,
        .lse = kept->lse,
    };
}

/* Appends this call's keys and values to the cache, and attends to all of them, a row at a time.
 * There is no backward: the rows share the room for lse. */
static void attend_cached(const struct tri_attention_layer *a, const struct tri_frame *frame,
                          const struct tri_attention *all)
{
    const struct tri_pass *pass = &frame->part;
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
            memcpy(k + at, tri_attention_column(a, all->k, (row * seq + i) * all->ld_k), bytes);
            memcpy(v + at, tri_attention_column(a, all->v, (row * seq + i) * all->ld_v), bytes);
        }
        args.batch = 1;
        args.q = tri_attention_column(a, all->q, row * seq * all->ld_q);
        args.out = tri_attention_column(a, all->out, row * seq * all->ld_out);
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
static void *project_out(const struct tri_attention_layer *a, const struct tri_frame *frame,
                         const struct tri_attention_kept *kept)
{
    const struct tri_pass *pass = &frame->part;
    const struct tri_context *context = a->base.context;
    int64_t hidden = context->config->model.hidden_size;
    int64_t own = tri_stream_count(frame);
    bool whole = tri_sum_is_whole(context);
    bool filled;
    void *y = tri_keep_result(frame, tri_stream_group(context), own * hidden, context->dt, &filled);
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

/* raw [n, width] = x W_qkv and the bias, where cross cuts the hidden size summed over it. */
static void project_in(const struct tri_attention_layer *a, const struct tri_frame *frame,
                       const void *x, void *raw)
{
    const struct tri_context *context = a->base.context;
    int64_t n = tri_pass_tokens(&frame->part);
    size_t mark = tri_arena_mark(frame->arena);
    bool crossed = tri_stream_is_crossed(context), filled = false;
    void *y = crossed ? tri_keep_result(frame, tri_mesh_group(context->mesh, TRI_ON_CROSS),
                                        n * tri_attention_width(a), context->dt, &filled)
                      : raw;
    if (!filled) {
        const struct tri_linear qkv = tri_linear_open(context->params, &a->qkv, TRI_USE_FORWARD);
        const float *bias = tri_weights_open(context->params, a->qkv_bias, TRI_USE_FORWARD);
        bool adds = context->mesh->coord[TRI_AXIS_CROSS] == 0;
        tri_linear_forward(&qkv, context->kernels, n, x, adds ? bias : NULL, y, context->dt);
        tri_weights_close(context->params, a->qkv_bias, bias);
        tri_linear_close(context->params, &qkv);
        tri_cross_sum(context, (struct tri_where){frame->part.phase, TRI_KIND_ATTENTION}, y,
                      n * tri_attention_width(a), context->dt);
    }
    if (crossed) { /* what is stashed stays as it is: raw is turned in place */
        size_t bytes = (size_t)(n * tri_attention_width(a)) * tri_dtype_size(context->dt);
        context->kernels->copy(context->kernels,
                               &(struct tri_copy_args){.src = y, .dst = raw, .bytes = bytes});
    }
    tri_arena_rewind(frame->arena, mark);
}

static void *forward(const struct tri_sublayer *self, const struct tri_frame *frame, void *left,
                     const void *x, bool output)
{
    const struct tri_pass *pass = &frame->part;
    const struct tri_attention_layer *a = (const struct tri_attention_layer *)self;
    struct tri_attention_kept *kept = left;
    const struct tri_context *context = self->context;
    int64_t n = tri_pass_tokens(pass);
    x = tri_stream_whole(frame, (struct tri_where){pass->phase, TRI_KIND_ATTENTION}, x);
    kept->x = x;
    kept->raw = tri_frame_take(frame, n * tri_attention_width(a));
    kept->out = tri_frame_take(frame, n * a->heads * a->dim);
    kept->lse = tri_frame_take_f32(frame, n * a->heads);
    kept->first_key = tri_window_first_keys(frame, a->window);
    kept->turned = kept->raw;
    kept->ld_turned = tri_attention_width(a);
    project_in(a, frame, x, kept->raw);
    const struct tri_low_batch low[2] = {{frame, 1, NULL, &a->low[0], 0, NULL},
                                         {frame, 1, NULL, &a->low[1], 0, NULL}};
    kept->low[0] = tri_low_rank_down(&low[0], x);
    tri_low_rank_up(&low[0], kept->low[0], kept->raw);
    if (a->norm[0].row) {
        kept->ld_turned = (a->heads + a->kv_heads) * a->dim;
        kept->turned = tri_frame_take(frame, n * kept->ld_turned);
        tri_qk_norm_forward(a, frame, kept);
    }
    if (context->rope_table) {
        const struct tri_rope_args turn = {
            .x = tri_attention_view(a, kept->turned, n, kept->ld_turned, 0, a->heads + a->kv_heads,
                                    a->dim),
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
    const struct tri_pass *pass = &frame->part;
    const struct tri_attention_layer *a = (const struct tri_attention_layer *)self;
    const struct tri_attention_kept *kept = left;
    const struct tri_context *context = self->context;
    const struct tri_kernels *kernels = context->kernels;
    int64_t n = tri_pass_tokens(pass);
    int64_t inner = a->heads * a->dim;
    int64_t width = tri_attention_width(a);
    const struct tri_where where = {TRI_PHASE_BACKWARD, TRI_KIND_ATTENTION};
    size_t mark = tri_arena_mark(frame->arena);
    const void *of_stream = dy;
    dy = tri_stream_whole_gradient(frame, where, dy);
    void *partial = tri_stream_partial(frame, dx, context->sum_dt);
    struct tri_cuts cuts = tri_cuts_by_rows(frame, frame->part.rows, frame->part.seq);
    void *d_out = tri_frame_take(frame, n * inner);
    void *d = tri_frame_take(frame, n * width);
    if (tri_stream_is_crossed(context)) {
        bias_gradient(frame, cuts, a->o_bias, of_stream, tri_stream_count(frame));
    } else {
        bias_gradient(frame, cuts, a->o_bias, dy, n);
    }
    const struct tri_linear o = tri_linear_open(context->params, &a->o, TRI_USE_BACKWARD);
    tri_linear_input_gradient(&o, kernels, n, dy, d_out);
    struct tri_request *summing =
        tri_cross_sum_begin(context, where, d_out, n * inner, context->dt);
    tri_linear_weight_gradient(&o, kernels, n, dy, kept->out, cuts);
    tri_linear_close(context->params, &o);
    tri_request_end(summing);
    const struct tri_low_batch low[2] = {{frame, 1, NULL, &a->low[0], 0, NULL},
                                         {frame, 1, NULL, &a->low[1], 0, NULL}};
    tri_low_rank_input_gradient(
        &low[1], tri_low_rank_backward(&low[1], &cuts, kept->out, kept->low[1], dy), d_out);
    struct tri_attention args = arguments(a, frame, kept);
    args.dout = d_out;
    args.ld_dout = inner;
    args.dq = d;
    args.dk = tri_attention_column(a, d, inner);
    args.dv = tri_attention_column(a, d, inner + a->kv_heads * a->dim);
    args.ld_dq = args.ld_dk = args.ld_dv = width;
    kernels->attention_backward(kernels, &args);
    if (context->rope_table) {
        const struct tri_rope_args turn = {
            .x = tri_attention_view(a, d, n, width, 0, a->heads + a->kv_heads, a->dim),
            .table = context->rope_table,
            .positions = pass->positions,
            .inverse = true,
            .dt = context->dt,
        };
        kernels->rope(kernels, &turn);
    }
    if (a->norm[0].row) {
        tri_qk_norm_backward(a, frame, kept, d);
    }
    const struct tri_linear qkv = tri_linear_open(context->params, &a->qkv, TRI_USE_BACKWARD);
    const struct tri_low_sum sum = {
        &low[0], tri_low_rank_backward(&low[0], &cuts, kept->x, kept->low[0], d)};
    tri_partial_input_gradient(frame, &qkv, n, d, tri_low_rank_input_more(&sum), partial);
    summing = tri_stream_sum_begin(frame, where, partial, context->sum_dt);
    bias_gradient(frame, cuts, a->qkv_bias, d, n);
    tri_linear_weight_gradient(&qkv, kernels, n, d, kept->x, cuts);
    tri_linear_close(context->params, &qkv);
    tri_stream_sum_end(frame, where, summing, partial, context->sum_dt, dx);
    tri_arena_rewind(frame->arena, mark);
}

/* ---- setup ----------------------------------------------------------------------------------- */

static void destroy(struct tri_sublayer *self)
{
    tri_free(self);
}

static struct tri_span find(const struct tri_attention_layer *a, enum tri_role role, int rows)
{
    const struct tri_params *params = a->base.context->params;
    return tri_span_make(params, tri_params_find(params, role, TRI_PLACE_DENSE, a->base.layer, -1),
                         rows);
}

static void bind(struct tri_attention_layer *a)
{
    struct tri_params *params = a->base.context->params;
    const struct tri_config_model *model = &a->base.context->config->model;
    int64_t hidden = tri_stream_hidden(a->base.context);
    a->qkv = tri_linear_get(params, find(a, TRI_ROLE_Q, 3), tri_attention_width(a), hidden);
    a->o = tri_linear_get(params, find(a, TRI_ROLE_O, 1), hidden, a->heads * a->dim);
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
    a->counted_kv =
        (tri_kv_heads_counted(model, a->base.context->mesh).begin - a->first_kv) * a->dim;
}

struct tri_sublayer *tri_attention_create(const struct tri_context *context, int64_t layer)
{
    static const struct tri_sublayer_ops ops = {forward, backward, destroy};
    const struct tri_config_model *model = &context->config->model;
    const struct tri_mesh *mesh = context->mesh;
    struct tri_attention_layer *a = tri_alloc(TRI_MEMORY_OTHER, sizeof(*a));
    a->base = (struct tri_sublayer){&ops, context, layer, sizeof(struct tri_attention_kept)};
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
