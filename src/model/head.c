#include "model/layers.h"

#include "kernel/note.h"
#include "model/gradient.h"
#include "model/partial.h"
#include "model/stream.h"

#include <math.h>
#include <string.h>

/* Logits of at most this many elements exist at once. */
enum { CHUNK_ELEMENTS = 1 << 23, CHUNK_ROWS_MIN = 64 };

struct head {
    struct tri_linear linear; /* [cols, hidden] */
    struct tri_range cols;    /* this rank's part of the vocabulary */
};

static struct head open_head(const struct tri_context *context, enum tri_use use)
{
    enum tri_role role = context->config->model.tie_embeddings ? TRI_ROLE_EMBEDDING : TRI_ROLE_HEAD;
    const struct tri_span rows = tri_span_find(context->params, role, TRI_PLACE_DENSE, -1, -1);
    const struct tri_param *row = rows.row;
    struct head head = {tri_linear_get(context->params, rows, tri_range_size(row->opened[0]),
                                       tri_stream_hidden(context)),
                        row->opened[0]};
    head.linear.block[0] = (struct tri_block){row->shape[0], 1};
    head.linear.blocks = 1;
    head.linear = tri_linear_open(context->params, &head.linear, use);
    return head;
}

/* The head, with an f32 copy in the arena for its gradient where that is bf16 and comes in several
 * sums: rounding after each would add up. narrow_gradient is what writes the copy back, once. */
static struct tri_linear widen_gradient(const struct tri_frame *frame,
                                        const struct tri_linear *linear)
{
    const struct tri_context *context = frame->context;
    struct tri_linear wide = *linear;
    wide.gradient = tri_frame_take_f32(frame, linear->out * linear->in);
    wide.gradient_dtype = TRI_F32;
    const struct tri_cast_args args = {
        .src = linear->gradient,
        .from = linear->gradient_dtype,
        .dst = wide.gradient,
        .to = TRI_F32,
        .n = linear->out * linear->in,
    };
    context->kernels->cast(context->kernels, &args);
    return wide;
}

static void narrow_gradient(const struct tri_context *context, const struct tri_linear *wide,
                            const struct tri_linear *linear)
{
    const struct tri_cast_args args = {
        .src = wide->gradient,
        .from = TRI_F32,
        .dst = linear->gradient,
        .to = linear->gradient_dtype,
        .n = linear->out * linear->in,
    };
    context->kernels->cast(context->kernels, &args);
}

/* One chunk of tokens of the loss. */
struct chunk {
    int64_t first; /* its place in the micro-batch */
    int64_t n;
    const void *h;          /* [n, hidden] */
    void *dh;               /* [n, hidden] sum_dt or NULL */
    const int32_t *targets; /* [n] */
    float *logits;          /* [n, cols] */
    float *maxima;          /* [n] */
    float *sums;            /* [2, n]: sums of exponentials, then the target's logits */
    void *dlogits;          /* [n, cols] */
    struct tri_cuts cuts;   /* of the tokens, for the weight's gradient */
};

/* A chunk's sums over own shard `shard` of the vocabulary; state: head, chunk. */
struct shard_sums {
    const struct tri_context *context;
    const struct head *head;
    const struct chunk *chunk;
};

static void shard_sums(void *state, int shard, float *sums)
{
    const struct shard_sums *s = state;
    const struct chunk *chunk = s->chunk;
    struct tri_range cols =
        tri_virtual_part(s->context->shards, s->head->linear.block[0].extent, shard);
    const struct tri_cross_entropy_args args = {
        .logits = chunk->logits + cols.begin,
        .ld = tri_range_size(s->head->cols),
        .cols = tri_range_size(cols),
        .maxima = chunk->maxima,
        .targets = chunk->targets,
        .first_col = s->head->cols.begin + cols.begin,
        .sums = sums,
        .picked = sums + chunk->n,
        .n = chunk->n,
        .dt = TRI_F32,
    };
    s->context->kernels->cross_entropy_sum(s->context->kernels, &args);
}

static void chunk_backward(const struct tri_frame *frame, const struct head *head,
                           const struct chunk *chunk)
{
    const struct tri_context *context = frame->context;
    const struct tri_pass *pass = &frame->part;
    int64_t cols = tri_range_size(head->cols);
    const struct tri_cross_entropy_args args = {
        .logits = chunk->logits,
        .ld = cols,
        .cols = cols,
        .maxima = chunk->maxima,
        .sums = chunk->sums,
        .targets = chunk->targets,
        .first_col = head->cols.begin,
        .scale = pass->global_tokens > 0 ? 1.0 / (double)pass->global_tokens : 0.0,
        .d = chunk->dlogits,
        .ld_d = cols,
        .n = chunk->n,
        .dt = context->dt,
    };
    context->kernels->cross_entropy_backward(context->kernels, &args);
    tri_partial_input_gradient(frame, &head->linear, chunk->n, chunk->dlogits,
                               (struct tri_partial_more){NULL, NULL}, chunk->dh);
    tri_linear_weight_gradient(&head->linear, context->kernels, chunk->n, chunk->dlogits, chunk->h,
                               chunk->cuts);
}

static void chunk_loss(const struct tri_frame *frame, const struct head *head,
                       const struct chunk *chunk)
{
    const struct tri_context *context = frame->context;
    const struct tri_pass *pass = &frame->part;
    const struct tri_kernels *kernels = context->kernels;
    struct tri_group *tensor = tri_mesh_group(context->mesh, TRI_ON_TENSOR);
    struct tri_where where = {pass->phase, TRI_KIND_HEAD};
    int64_t cols = tri_range_size(head->cols);
    int64_t n = chunk->n;
    tri_linear_forward(&head->linear, kernels, n, chunk->h, NULL, chunk->logits, TRI_F32);
    tri_cross_sum(context, where, chunk->logits, n * cols, TRI_F32);
    const struct tri_cross_entropy_args args = {
        .logits = chunk->logits,
        .ld = cols,
        .cols = cols,
        .maxima = chunk->maxima,
        .n = n,
        .dt = TRI_F32,
    };
    kernels->cross_entropy_max(kernels, &args);
    tri_all_reduce_max(tensor, where, chunk->maxima, n, TRI_F32);
    struct shard_sums sums = {context, head, chunk};
    tri_partial_sum(frame, context->shards, shard_sums, &sums, 2 * n, chunk->sums);
    tri_all_reduce_sum(tensor, where, chunk->sums, 2 * n, TRI_F32);
    for (int64_t i = 0; i < n; i++) {
        if (chunk->targets[i] >= 0) {
            double loss = log((double)chunk->sums[i]) - (double)chunk->sums[n + i];
            tri_exact_add(&pass->tally->cross_entropy, loss);
            pass->tally->targets++;
            if (pass->row_losses) {
                pass->row_losses[pass->first_row + (chunk->first + i) / pass->seq] += loss;
            }
        }
    }
    if (chunk->dh) {
        chunk_backward(frame, head, chunk);
    }
}

/* Tokens of the chunk that begins at `first`, at most `most`. Where sums over tokens are cut,
 * chunks are whole rows, or lie within one, so that no cut depends on the rows before. */
static int64_t chunk_size(const struct tri_frame *frame, int64_t first, int64_t most)
{
    const struct tri_context *context = frame->context;
    const struct tri_pass *pass = &frame->part;
    int64_t left = tri_pass_tokens(pass) - first;
    int64_t n = most < left ? most : left;
    if (!context->reproducible) {
        return n;
    }
    if (most >= pass->seq) {
        return n / pass->seq * pass->seq;
    }
    int64_t in_row = pass->seq - first % pass->seq;
    return n < in_row ? n : in_row;
}

static struct tri_cuts chunk_cuts(const struct tri_frame *frame, int64_t n)
{
    int64_t seq = n < frame->part.seq ? n : frame->part.seq;
    return tri_cuts_by_rows(frame, n / seq, seq);
}

void *tri_head_loss(const struct tri_frame *frame, const void *h)
{
    const struct tri_context *context = frame->context;
    const struct tri_pass *pass = &frame->part;
    tri_kernels_tell_head(context->kernels, true);
    const struct head whole =
        open_head(context, pass->backward ? TRI_USE_BACKWARD : TRI_USE_FORWARD);
    struct head head = whole;
    int64_t hidden = tri_stream_hidden(context);
    int64_t tokens = tri_pass_tokens(pass);
    /* Every tensor rank must cut the same chunks, so they follow from the whole vocabulary. */
    int64_t most = CHUNK_ELEMENTS / context->config->model.vocab_size;
    most = most < CHUNK_ROWS_MIN ? CHUNK_ROWS_MIN : most;
    int64_t room = most < tokens ? most : tokens;
    size_t sum_bytes = (size_t)hidden * tri_dtype_size(context->sum_dt);
    char *dh = pass->backward ? tri_arena_alloc(frame->arena, (size_t)tokens * sum_bytes) : NULL;
    size_t mark = tri_arena_mark(frame->arena);
    int64_t cols = tri_range_size(head.cols);
    struct chunk chunk = {.logits = tri_frame_take_f32(frame, room * cols),
                          .maxima = tri_frame_take_f32(frame, room),
                          .sums = tri_frame_take_f32(frame, 2 * room),
                          .dlogits = pass->backward ? tri_frame_take(frame, room * cols) : NULL};
    bool widen = head.linear.gradient && head.linear.gradient_dtype == TRI_BF16 && most < tokens;
    if (widen) {
        head.linear = widen_gradient(frame, &whole.linear);
    }
    size_t row_bytes = (size_t)hidden * tri_dtype_size(context->dt);
    for (int64_t first = 0; first < tokens; first += chunk.n) {
        size_t chunk_mark = tri_arena_mark(frame->arena);
        chunk.first = first;
        chunk.n = chunk_size(frame, first, most);
        chunk.cuts = chunk_cuts(frame, chunk.n);
        chunk.h = (const char *)h + (size_t)first * row_bytes;
        chunk.dh = dh ? dh + (size_t)first * sum_bytes : NULL;
        chunk.targets = pass->targets + first;
        chunk_loss(frame, &head, &chunk);
        tri_arena_rewind(frame->arena, chunk_mark);
    }
    if (widen) {
        narrow_gradient(context, &head.linear, &whole.linear);
    }
    tri_linear_close(context->params, &whole.linear);
    tri_arena_rewind(frame->arena, mark);
    tri_kernels_tell_head(context->kernels, false);
    return dh;
}

/* Of n rows of h, whole on every tensor rank. */
static void part_logits(const struct tri_frame *frame, const void *h, int64_t n, float *logits)
{
    const struct tri_context *context = frame->context;
    struct head head = open_head(context, TRI_USE_FORWARD);
    struct tri_group *tensor = tri_mesh_group(context->mesh, TRI_ON_TENSOR);
    int ranks = tri_group_size(tensor);
    int64_t vocab = context->config->model.vocab_size;
    const struct tri_where where = {frame->part.phase, TRI_KIND_HEAD};
    if (ranks == 1) {
        tri_linear_forward(&head.linear, context->kernels, n, h, NULL, logits, TRI_F32);
        tri_linear_close(context->params, &head.linear);
        tri_cross_sum(context, where, logits, n * vocab, TRI_F32);
        return;
    }
    /* Each rank's columns as one part [n, cols], gathered one after another, then put in rows. */
    size_t mark = tri_arena_mark(frame->arena);
    float *parts = tri_frame_take_f32(frame, n * vocab);
    int64_t *counts = tri_arena_alloc(frame->arena, (size_t)ranks * sizeof(*counts));
    for (int r = 0; r < ranks; r++) {
        counts[r] = n * tri_range_size(tri_range_part(vocab, ranks, r));
    }
    tri_linear_forward(&head.linear, context->kernels, n, h, NULL, parts + n * head.cols.begin,
                       TRI_F32);
    tri_linear_close(context->params, &head.linear);
    tri_cross_sum(context, where, parts + n * head.cols.begin, n * tri_range_size(head.cols),
                  TRI_F32);
    tri_all_gather_v(tensor, where, parts, counts, TRI_F32);
    for (int r = 0; r < ranks; r++) {
        struct tri_range cols = tri_range_part(vocab, ranks, r);
        int64_t width = tri_range_size(cols);
        for (int64_t i = 0; i < n; i++) {
            memcpy(logits + i * vocab + cols.begin, parts + n * cols.begin + i * width,
                   (size_t)width * sizeof(float));
        }
    }
    tri_arena_rewind(frame->arena, mark);
}

void tri_head_logits(const struct tri_frame *frame, const void *h, int64_t each, float *logits)
{
    const struct tri_context *context = frame->context;
    const struct tri_pass *pass = &frame->pass;
    struct tri_group *depth = tri_mesh_group(context->mesh, TRI_ON_DEPTH);
    int ranks = tri_group_size(depth);
    int64_t row = each * context->config->model.vocab_size;
    int64_t before = frame->part.first_row - pass->first_row;
    size_t mark = tri_arena_mark(frame->arena);
    int64_t *counts = tri_arena_alloc(frame->arena, (size_t)ranks * sizeof(*counts));
    for (int r = 0; r < ranks; r++) {
        counts[r] = tri_range_size(tri_range_part(pass->rows, ranks, r)) * row;
    }
    part_logits(frame, h, frame->part.rows * each, logits + before * row);
    tri_all_gather_v(depth, (struct tri_where){pass->phase, TRI_KIND_HEAD}, logits, counts,
                     TRI_F32);
    tri_arena_rewind(frame->arena, mark);
}
