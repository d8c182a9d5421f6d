#include "model/layers.h"
#include "model/linear.h"

#include <math.h>
#include <string.h>

/* Logits of at most this many elements exist at once. */
enum { CHUNK_ELEMENTS = 1 << 23, CHUNK_ROWS_MIN = 64 };

struct head {
    struct tri_linear linear; /* [cols, hidden] */
    struct tri_range cols;    /* this rank's part of the vocabulary */
};

static struct head get(const struct tri_context *context)
{
    enum tri_role role = context->config->model.tie_embeddings ? TRI_ROLE_EMBEDDING : TRI_ROLE_HEAD;
    const struct tri_param *row = tri_params_find(context->params, role, TRI_PLACE_DENSE, -1, -1);
    return (struct head){
        tri_linear_get(context->params, row, tri_range_size(row->local[0]), row->shape[1]),
        row->local[0]};
}

/* One chunk of tokens of the loss. */
struct chunk {
    int64_t n;
    const void *h;          /* [n, hidden] */
    void *dh;               /* [n, hidden] or NULL */
    const int32_t *targets; /* [n] */
    float *logits;          /* [n, cols] */
    float *maxima;          /* [n] */
    float *sums;            /* [2, n]: sums of exponentials, then the target's logits */
    void *dlogits;          /* [n, cols] */
};

static void chunk_backward(const struct tri_context *context, const struct tri_pass *pass,
                           const struct head *head, const struct chunk *chunk)
{
    int64_t cols = tri_range_size(head->cols);
    context->kernels->cross_entropy_backward(
        chunk->logits, cols, cols, chunk->maxima, chunk->sums, chunk->targets, head->cols.begin,
        1.0 / (double)pass->global_tokens, chunk->dlogits, cols, chunk->n, context->dt);
    tri_linear_input_gradient(&head->linear, context->kernels, chunk->n, chunk->dlogits, chunk->dh);
    tri_linear_weight_gradient(&head->linear, context->kernels, chunk->n, chunk->dlogits, chunk->h,
                               true);
}

static void chunk_loss(const struct tri_context *context, const struct tri_pass *pass,
                       const struct head *head, const struct chunk *chunk)
{
    const struct tri_kernels *kernels = context->kernels;
    struct tri_group *tensor = context->mesh->tensor;
    struct tri_where where = {pass->phase, TRI_KIND_HEAD};
    int64_t cols = tri_range_size(head->cols);
    int64_t n = chunk->n;
    tri_linear_forward(&head->linear, kernels, n, chunk->h, NULL, chunk->logits, TRI_F32);
    kernels->cross_entropy_max(chunk->logits, cols, cols, chunk->maxima, n, TRI_F32);
    tri_all_reduce_max(tensor, where, chunk->maxima, n, TRI_F32);
    kernels->cross_entropy_sum(chunk->logits, cols, cols, chunk->maxima, chunk->targets,
                               head->cols.begin, chunk->sums, chunk->sums + n, n, TRI_F32);
    tri_all_reduce_sum(tensor, where, chunk->sums, 2 * n, TRI_F32);
    for (int64_t i = 0; i < n; i++) {
        if (chunk->targets[i] >= 0) {
            pass->tally->cross_entropy += log((double)chunk->sums[i]) - (double)chunk->sums[n + i];
            pass->tally->targets++;
        }
    }
    if (chunk->dh) {
        chunk_backward(context, pass, head, chunk);
    }
}

void *tri_head_loss(const struct tri_context *context, const struct tri_pass *pass, const void *h)
{
    struct head head = get(context);
    int64_t hidden = context->config->model.hidden_size;
    int64_t tokens = tri_pass_tokens(pass);
    /* Every tensor rank must cut the same chunks, so they follow from the whole vocabulary. */
    int64_t most = CHUNK_ELEMENTS / context->config->model.vocab_size;
    most = most < CHUNK_ROWS_MIN ? CHUNK_ROWS_MIN : most;
    most = most < tokens ? most : tokens;
    void *dh = pass->backward ? tri_context_take(context, tokens * hidden) : NULL;
    size_t mark = tri_arena_mark(context->arena);
    int64_t cols = tri_range_size(head.cols);
    struct chunk chunk = {.logits = tri_context_take_f32(context, most * cols),
                          .maxima = tri_context_take_f32(context, most),
                          .sums = tri_context_take_f32(context, 2 * most),
                          .dlogits =
                              pass->backward ? tri_context_take(context, most * cols) : NULL};
    size_t row_bytes = (size_t)hidden * tri_dtype_size(context->dt);
    for (int64_t first = 0; first < tokens; first += most) {
        chunk.n = most < tokens - first ? most : tokens - first;
        chunk.h = (const char *)h + (size_t)first * row_bytes;
        chunk.dh = dh ? (char *)dh + (size_t)first * row_bytes : NULL;
        chunk.targets = pass->targets + first;
        chunk_loss(context, pass, &head, &chunk);
    }
    tri_arena_rewind(context->arena, mark);
    return dh;
}

void tri_head_logits(const struct tri_context *context, const void *h, int64_t n,
                     enum tri_phase phase, float *logits)
{
    struct head head = get(context);
    struct tri_group *tensor = context->mesh->tensor;
    int ranks = tri_group_size(tensor);
    int64_t vocab = context->config->model.vocab_size;
    if (ranks == 1) {
        tri_linear_forward(&head.linear, context->kernels, n, h, NULL, logits, TRI_F32);
        return;
    }
    /* Each rank's columns as one part [n, cols], gathered one after another, then put in rows. */
    size_t mark = tri_arena_mark(context->arena);
    float *parts = tri_context_take_f32(context, n * vocab);
    int64_t *counts = tri_arena_alloc(context->arena, (size_t)ranks * sizeof(*counts));
    for (int r = 0; r < ranks; r++) {
        counts[r] = n * tri_range_size(tri_range_part(vocab, ranks, r));
    }
    tri_linear_forward(&head.linear, context->kernels, n, h, NULL, parts + n * head.cols.begin,
                       TRI_F32);
    tri_all_gather_v(tensor, (struct tri_where){phase, TRI_KIND_HEAD}, parts, counts, TRI_F32);
    for (int r = 0; r < ranks; r++) {
        struct tri_range cols = tri_range_part(vocab, ranks, r);
        int64_t width = tri_range_size(cols);
        for (int64_t i = 0; i < n; i++) {
            memcpy(logits + i * vocab + cols.begin, parts + n * cols.begin + i * width,
                   (size_t)width * sizeof(float));
        }
    }
    tri_arena_rewind(context->arena, mark);
}
