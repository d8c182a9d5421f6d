#include "model/model.h"

#include "base/clock.h"
#include "base/trace.h"
#include "model/gradient.h"
#include "model/layers.h"
#include "model/rope.h"
#include "model/stream.h"

#include <stddef.h>
#include <string.h>

/* One pre-norm block: sum1 = x + pending; h = sum1 + attention(norm1(sum1)); then the same with the
 * MLP or MoE. The residual addition is fused into the norm that reads it, so what travels between
 * sublayers is the pair (sum, branch to be added). All of it is on the tokens of the stream. */
struct half {
    struct tri_sublayer *branch;
    struct tri_span norm;     /* its weight, and its bias where it has one */
    size_t kept, branch_kept; /* places in a frame */
};

/* What a half leaves in a frame. */
struct half_kept {
    void *sum;    /* [stream, hidden] what is normalised */
    void *normed; /* [stream, hidden] */
    float *stats; /* [stream, 2] */
};

/* What the model leaves beside that, at the beginning. */
struct ends {
    const void *h; /* [tokens, hidden] the final norm's output */
    void *dh;      /* [tokens, hidden] sum_dt, the gradient there: a partial sum over tensor */
};

struct tri_model {
    struct tri_context context;
    struct tri_frames frames;
    int64_t layers;
    struct half *half; /* [2 * layers] */
    struct half final; /* without a branch */
    int64_t lowest;    /* the first half with something to train; -1: the embeddings have */
    float *rope_table;
    const struct tri_moe_factory *moe;
    void *moe_shared;
};

/* What has been summed so far, and the last branch's output, not yet added; add may be NULL. */
struct stream {
    void *x, *add;
};

static void *kept_at(const struct tri_frame *frame, size_t place)
{
    return frame->kept + place;
}

static struct half_kept *kept_of(const struct tri_frame *frame, const struct half *half)
{
    return kept_at(frame, half->kept);
}

static struct ends *ends_of(const struct tri_frame *frame)
{
    return kept_at(frame, 0);
}

static bool is_rms(const struct tri_model *model)
{
    return model->context.config->model.norm == TRI_NORM_RMS;
}

static int64_t elements(const struct tri_frame *frame)
{
    return tri_stream_count(frame) * frame->context->config->model.hidden_size;
}

/* sum = x + add, normed = norm(sum). */
static void half_norm(const struct tri_model *model, const struct tri_frame *frame,
                      const struct half *half, struct stream stream)
{
    struct half_kept *kept = kept_of(frame, half);
    const struct tri_context *context = &model->context;
    double began = tri_trace_begin();
    int64_t n = tri_stream_count(frame);
    int64_t hidden = context->config->model.hidden_size;
    kept->sum = stream.add ? tri_frame_take(frame, n * hidden) : stream.x;
    kept->normed = tri_frame_take(frame, n * hidden);
    kept->stats = tri_frame_take_f32(frame, 2 * n);
    const float *weight = tri_weights_open(context->params, half->norm, TRI_USE_FORWARD);
    const struct tri_norm_args args = {
        .rms = is_rms(model),
        .x = stream.x,
        .add = stream.add,
        .sum = kept->sum,
        .weight = weight,
        .bias = is_rms(model) ? NULL : weight + hidden,
        .epsilon = context->config->model.norm_epsilon,
        .y = kept->normed,
        .stats = kept->stats,
        .n = n,
        .width = hidden,
        .dt = context->dt,
    };
    context->kernels->norm_forward(context->kernels, &args);
    tri_weights_close(context->params, half->norm, weight);
    tri_trace_end(began, "norm", NULL, 0);
}

static void half_norm_backward(const struct tri_model *model, const struct tri_frame *frame,
                               const struct half *half, const void *dy, void *dx)
{
    const struct half_kept *kept = kept_of(frame, half);
    struct tri_params *params = model->context.params;
    double began = tri_trace_begin();
    size_t mark = tri_arena_mark(frame->arena);
    struct tri_range stream = tri_stream_tokens(frame);
    const float *weight = tri_weights_open(params, half->norm, TRI_USE_BACKWARD);
    bool trained = tri_span_is_trained(half->norm);
    char *gradients = trained ? tri_gradients_open_sum(params, half->norm) : NULL;
    size_t bytes = (size_t)half->norm.row->count *
                   tri_dtype_size(params->buffer[half->norm.row->buffer].gradient_dtype);
    tri_gradient_norm(frame, tri_cuts_by_tokens(frame, stream), is_rms(model), dy, kept->sum,
                      weight, kept->stats, dx, gradients,
                      is_rms(model) || !trained ? NULL : gradients + bytes, tri_range_size(stream));
    if (trained) {
        tri_gradients_close(params, half->norm, gradients);
    }
    tri_weights_close(params, half->norm, weight);
    tri_arena_rewind(frame->arena, mark);
    tri_trace_end(began, "norm", NULL, 0);
}

/* Whether the block's backward leads to something that is trained. */
static bool has_backward(const struct tri_model *model, int64_t block)
{
    return 2 * block + 1 >= model->lowest;
}

static void tell_after(const struct tri_pass *pass, int64_t block)
{
    if (pass->hooks) {
        pass->hooks->after(pass->hooks->state, block);
    }
}

/* Where the time of a sublayer belongs. */
static void book_half(const struct tri_model *model, const struct tri_pass *pass, int64_t block,
                      int which, double start)
{
    bool moe = which == 1 && tri_config_layer_is_moe(model->context.config, block);
    double now = tri_clock_now();
    if (which == 0 && pass->tally) {
        pass->tally->seconds_attention += now - start;
    }
    tri_trace_span(start, now, which == 0 ? "attention" : moe ? "moe" : "dense", NULL, 0);
}

/* ---- one block ------------------------------------------------------------------------------- */

static void *branch_forward(const struct tri_frame *frame, const struct half *half, bool output)
{
    const struct tri_sublayer *branch = half->branch;
    return branch->ops->forward(branch, frame, kept_at(frame, half->branch_kept),
                                kept_of(frame, half)->normed, output);
}

/* The block's two halves; without `output` only what its backward needs. */
static struct stream run_block(const struct tri_model *model, const struct tri_frame *frame,
                               int64_t block, struct stream stream, bool output)
{
    const struct half *half = &model->half[2 * block];
    double began = tri_trace_begin();
    for (int i = 0; i < 2; i++) {
        half_norm(model, frame, &half[i], stream);
        double start = tri_clock_now();
        stream.add = branch_forward(frame, &half[i], i == 0 || output);
        book_half(model, &frame->pass, block, i, start);
        stream.x = kept_of(frame, &half[i])->sum;
    }
    tri_trace_end(began, "layer", "layer", block);
    return stream;
}

/* The same, leaving behind only the block's input and what the tape stashes. */
static struct stream run_block_and_drop(const struct tri_model *model,
                                        const struct tri_frame *frame, int64_t block,
                                        struct stream stream)
{
    const struct tri_context *context = &model->context;
    int64_t n = elements(frame);
    if (stream.add) {
        void *sum = tri_frame_take(frame, n);
        context->kernels->add(
            context->kernels,
            &(struct tri_add_args){
                .left = stream.x, .right = stream.add, .y = sum, .n = n, .dt = context->dt});
        stream = (struct stream){sum, NULL};
    }
    void *out = tri_frame_take(frame, n);
    size_t mark = tri_arena_mark(frame->arena);
    bool again = frame->pass.backward && has_backward(model, block);
    if (again) {
        tri_tape_record(frame->tape, block);
    }
    struct stream end = run_block(model, frame, block, stream, true);
    if (again) {
        tri_tape_stop(frame->tape);
    }
    context->kernels->add(
        context->kernels,
        &(struct tri_add_args){
            .left = end.x, .right = end.add, .y = out, .n = n, .dt = context->dt});
    tri_arena_rewind(frame->arena, mark);
    return (struct stream){out, NULL};
}

/* Brings back what run_block would have left; the first half still knows the block's input. */
static void replay_block(const struct tri_model *model, const struct tri_frame *frame,
                         int64_t block)
{
    struct tri_frame again = *frame;
    struct stream stream = {kept_of(frame, &model->half[2 * block])->sum, NULL};
    double began = tri_trace_begin();
    again.pass.phase = again.part.phase = TRI_PHASE_RECOMPUTE;
    model->context.params->phase = TRI_PHASE_RECOMPUTE;
    tri_tape_replay(frame->tape, block);
    (void)run_block(model, &again, block, stream, false);
    tri_tape_stop(frame->tape);
    model->context.params->phase = TRI_PHASE_BACKWARD;
    tri_trace_end(began, "recompute", NULL, 0);
}

/* dx: gradient at the residual stream, on both sides of the block; branch: room for a branch's. */
static void block_backward(const struct tri_model *model, const struct tri_frame *frame,
                           int64_t block, void *dx, void *branch)
{
    const struct tri_context *context = &model->context;
    bool again = tri_config_layer_recomputes(context->config, block);
    size_t mark = tri_arena_mark(frame->arena);
    double began = tri_trace_begin();
    if (again) {
        replay_block(model, frame, block);
    }
    for (int i = 1; i >= 0 && 2 * block + i >= model->lowest; i--) {
        const struct half *half = &model->half[2 * block + i];
        double start = tri_clock_now();
        half->branch->ops->backward(half->branch, frame, kept_at(frame, half->branch_kept), dx,
                                    branch);
        book_half(model, &frame->pass, block, i, start);
        half_norm_backward(model, frame, half, branch, dx);
    }
    tri_trace_gauge("activations in use", (int64_t)tri_arena_mark(frame->arena));
    if (again) {
        tri_arena_rewind(frame->arena, mark);
        tri_tape_forget(frame->tape, block);
    }
    tri_trace_end(began, "layer", "layer", block);
}

/* ---- the whole ------------------------------------------------------------------------------- */

static void move_on(const struct tri_model *model, struct tri_frame *frame, enum tri_stage from,
                    enum tri_stage to)
{
    TRI_REQUIRE(frame->context == &model->context && frame->stage == from);
    frame->stage = to;
}

struct tri_frame *tri_frame_open(struct tri_model *model, const struct tri_pass *pass)
{
    return tri_frames_open(&model->frames, pass);
}

void tri_model_forward(const struct tri_model *model, struct tri_frame *frame)
{
    const struct tri_context *context = &model->context;
    move_on(model, frame, TRI_STAGE_OPEN, TRI_STAGE_FORWARD);
    double began = tri_trace_begin();
    context->params->phase = frame->pass.phase;
    struct stream stream = {tri_frame_take(frame, elements(frame)), NULL};
    tri_embedding_forward(frame, stream.x);
    tri_trace_end(began, "embedding", NULL, 0);
    if (model->moe_shared) {
        model->moe->begin(model->moe_shared, frame);
    }
    for (int64_t block = 0; block < model->layers; block++) {
        bool drop = !frame->pass.backward || !has_backward(model, block) ||
                    tri_config_layer_recomputes(context->config, block);
        stream = drop ? run_block_and_drop(model, frame, block, stream)
                      : run_block(model, frame, block, stream, true);
        tri_trace_gauge("activations in use", (int64_t)tri_arena_mark(frame->arena));
    }
    if (model->moe_shared) {
        model->moe->end(model->moe_shared, frame);
    }
    half_norm(model, frame, &model->final, stream);
    ends_of(frame)->h =
        tri_stream_whole(frame, (struct tri_where){frame->pass.phase, TRI_KIND_HEAD},
                         kept_of(frame, &model->final)->normed);
    tri_trace_end(began, "forward", NULL, 0);
}

void tri_model_loss(const struct tri_model *model, struct tri_frame *frame)
{
    struct ends *ends = ends_of(frame);
    move_on(model, frame, TRI_STAGE_FORWARD, TRI_STAGE_LOSS);
    double began = tri_trace_begin();
    model->context.params->phase = frame->pass.phase;
    ends->dh = tri_head_loss(frame, ends->h);
    tri_trace_end(began, "head", NULL, 0);
}

void tri_model_backward(const struct tri_model *model, struct tri_frame *frame)
{
    const struct tri_context *context = &model->context;
    void *dh = ends_of(frame)->dh;
    double began = tri_trace_begin();
    TRI_REQUIRE(frame->pass.backward);
    move_on(model, frame, TRI_STAGE_LOSS, TRI_STAGE_DONE);
    context->params->phase = TRI_PHASE_BACKWARD;
    int64_t n = elements(frame);
    void *branch = tri_frame_take(frame, n);
    bool in_place = !tri_stream_is_cut(context->config, context->mesh) &&
                    !tri_stream_is_crossed(context) && context->sum_dt == context->dt;
    void *dy = in_place ? dh : branch;
    tri_stream_sum(frame, (struct tri_where){TRI_PHASE_BACKWARD, TRI_KIND_HEAD}, dh,
                   context->sum_dt, dy);
    void *dx = tri_frame_take(frame, n);
    tri_context_zero(context, dx, (size_t)n * tri_dtype_size(context->dt));
    half_norm_backward(model, frame, &model->final, dy, dx);
    tell_after(&frame->pass, model->layers);
    for (int64_t block = model->layers - 1; block >= 0; block--) {
        if (has_backward(model, block)) {
            block_backward(model, frame, block, dx, branch);
        }
        tell_after(&frame->pass, block);
    }
    if (model->lowest < 0) {
        double embedding = tri_trace_begin();
        tri_embedding_backward(frame, dx);
        tri_trace_end(embedding, "embedding", NULL, 0);
    }
    tell_after(&frame->pass, -1);
    tri_trace_end(began, "backward", NULL, 0);
}

void tri_model_step(struct tri_model *model, const struct tri_pass *pass)
{
    struct tri_frame *frame = tri_frame_open(model, pass);
    tri_params_begin_pass(model->context.params, pass->backward);
    tri_model_forward(model, frame);
    tri_model_loss(model, frame);
    if (pass->backward) {
        tri_model_backward(model, frame);
    }
    tri_params_end_pass(model->context.params);
    tri_frame_close(frame);
}

void tri_model_logits(struct tri_model *model, const struct tri_pass *pass, bool last_only,
                      float *logits)
{
    size_t row_bytes =
        (size_t)tri_stream_hidden(&model->context) * tri_dtype_size(model->context.dt);
    struct tri_frame *frame = tri_frame_open(model, pass);
    tri_params_begin_pass(model->context.params, false);
    tri_model_forward(model, frame);
    char *h = (char *)(uintptr_t)ends_of(frame)->h;
    for (int64_t row = 0; last_only && pass->seq > 0 && row < frame->part.rows; row++) {
        memmove(h + (size_t)row * row_bytes, h + (size_t)((row + 1) * pass->seq - 1) * row_bytes,
                row_bytes);
    }
    tri_head_logits(frame, h, last_only && pass->seq > 0 ? 1 : pass->seq, logits);
    tri_params_end_pass(model->context.params);
    tri_frame_close(frame);
}

/* ---- setup ----------------------------------------------------------------------------------- */

static struct tri_span find_norm(const struct tri_model *model, enum tri_role role, int64_t layer)
{
    const struct tri_params *params = model->context.params;
    return tri_span_make(params, tri_params_find(params, role, TRI_PLACE_DENSE, layer, -1),
                         is_rms(model) ? 1 : 2);
}

/* The half of a block that a row belongs to; -1: the embeddings, 2 * layers: the ends. */
static int64_t half_of(const struct tri_params *params, int p)
{
    const struct tri_param *row = &params->param[p];
    if (row->layer < 0) {
        return p < params->first_of_layer[0] ? -1 : 2 * params->layers;
    }
    bool first = (row->role >= TRI_ROLE_NORM1 && row->role <= TRI_ROLE_K_NORM) ||
                 (row->role >= TRI_ROLE_Q_A && row->role <= TRI_ROLE_O_B);
    return 2 * row->layer + (first ? 0 : 1);
}

static int64_t find_lowest(const struct tri_params *params)
{
    int p = 0;
    while (p < params->count && !params->param[p].trained) {
        p++;
    }
    /* Rows are in the order of halves. */
    return p < params->count ? half_of(params, p) : 2 * params->layers;
}

/* How sums over what tensor cuts are taken. */
static void cut_sums(struct tri_context *context)
{
    const struct tri_config *config = context->config;
    int ranks = context->mesh->size[TRI_AXIS_TENSOR];
    context->reproducible = config->reproducible;
    int parts = config->reproducible ? tri_config_reproducible_parts(config) : ranks;
    TRI_REQUIRE(parts % ranks == 0);
    int own = parts / ranks;
    context->shards = (struct tri_virtual){parts, context->mesh->coord[TRI_AXIS_TENSOR] * own, own};
    int homes = tri_mesh_grid(context->mesh);
    parts = config->reproducible ? parts : homes;
    own = parts / homes;
    context->expert_shards =
        (struct tri_virtual){parts, tri_mesh_grid_rank(context->mesh) * own, own};
    context->sum_dt = config->reproducible ? TRI_F32 : context->dt;
}

/* cos in the first half of a row, sin in the second (formats: the NeoX pairing j, j + dim/2). */
/* The next of the parts of a frame's `kept`. */
static size_t place(size_t *used, size_t bytes)
{
    const size_t align = _Alignof(max_align_t);
    size_t at = *used;
    *used += (bytes + align - 1) / align * align;
    return at;
}

/* Frames with room for what the model and its layers leave in one. */
static void make_frames(struct tri_model *model)
{
    size_t used = 0;
    (void)place(&used, sizeof(struct ends));
    for (int64_t i = 0; i < 2 * model->layers; i++) {
        model->half[i].kept = place(&used, sizeof(struct half_kept));
        model->half[i].branch_kept = place(&used, model->half[i].branch->kept);
    }
    model->final.kept = place(&used, sizeof(struct half_kept));
    size_t moe = place(&used, model->moe_shared ? model->moe->kept : 0);
    tri_frames_init(&model->frames, &model->context, used, moe);
}

struct tri_model *tri_model_create(const struct tri_config *config, const struct tri_mesh *mesh,
                                   struct tri_params *params, const struct tri_kernels *kernels,
                                   const struct tri_moe_factory *moe)
{
    struct tri_model *model = tri_alloc(TRI_MEMORY_OTHER, sizeof(*model));
    struct tri_context *context = &model->context;
    context->config = config;
    context->mesh = mesh;
    context->params = params;
    context->kernels = kernels;
    context->dt = config->precision == TRI_PRECISION_BF16 ? TRI_BF16 : TRI_F32;
    cut_sums(context);
    if (config->model.position == TRI_POSITION_ROPE) {
        model->rope_table = tri_rope_table_create(config, kernels);
        context->rope_table = model->rope_table;
    }
    model->layers = config->model.num_layers;
    model->half = tri_alloc(TRI_MEMORY_OTHER, (size_t)(2 * model->layers) * sizeof(*model->half));
    if (tri_model_moe_layers(config) > 0) {
        model->moe = moe;
        model->moe_shared = moe->prepare(context);
    }
    for (int64_t layer = 0; layer < model->layers; layer++) {
        struct half *half = &model->half[2 * layer];
        half[0].norm = find_norm(model, TRI_ROLE_NORM1, layer);
        half[1].norm = find_norm(model, TRI_ROLE_NORM2, layer);
        half[0].branch = tri_attention_create(context, layer);
        half[1].branch = tri_config_layer_is_moe(config, layer)
                             ? moe->create(model->moe_shared, context, layer)
                             : tri_mlp_create(context, layer);
    }
    model->final.norm = find_norm(model, TRI_ROLE_FINAL_NORM, -1);
    model->lowest = find_lowest(params);
    make_frames(model);
    return model;
}

void tri_model_destroy(struct tri_model *model)
{
    if (!model) {
        return;
    }
    for (int64_t i = 0; i < 2 * model->layers; i++) {
        model->half[i].branch->ops->destroy(model->half[i].branch);
    }
    if (model->moe_shared) {
        model->moe->release(model->moe_shared);
    }
    tri_frames_release(&model->frames);
    tri_free(model->rope_table);
    tri_free(model->half);
    tri_free(model);
}

void *tri_model_moe(const struct tri_model *model)
{
    return model->moe_shared;
}

const struct tri_context *tri_model_context(const struct tri_model *model)
{
    return &model->context;
}

int64_t tri_model_moe_index(const struct tri_config *config, int64_t layer)
{
    int64_t index = 0;
    for (int64_t i = 0; i < layer; i++) {
        index += tri_config_layer_is_moe(config, i);
    }
    return index;
}

int64_t tri_model_moe_layers(const struct tri_config *config)
{
    return tri_model_moe_index(config, config->model.num_layers);
}
