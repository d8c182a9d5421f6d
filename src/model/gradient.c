#include "model/gradient.h"

static struct tri_cuts no_cuts(void)
{
    return (struct tri_cuts){NULL, 0};
}

struct tri_cuts tri_cuts_by_rows(const struct tri_frame *frame, int64_t rows, int64_t seq)
{
    if (!frame->context->reproducible) {
        return no_cuts();
    }
    int64_t *cut = tri_arena_alloc(frame->arena, (size_t)(rows + 1) * sizeof(*cut));
    for (int64_t row = 0; row <= rows; row++) {
        cut[row] = row * seq;
    }
    return (struct tri_cuts){cut, rows};
}

struct tri_cuts tri_cuts_by_tokens(const struct tri_frame *frame, struct tri_range tokens)
{
    const struct tri_context *context = frame->context;
    const struct tri_pass *pass = &frame->pass;
    if (!context->reproducible) {
        return no_cuts();
    }
    int parts = context->shards.total;
    int64_t *cut = tri_arena_alloc(frame->arena, (size_t)(pass->rows * parts + 1) * sizeof(*cut));
    int64_t count = 0;
    cut[0] = 0;
    for (int64_t i = 0; i < pass->rows * parts; i++) {
        int64_t end =
            i / parts * pass->seq + tri_range_part(pass->seq, parts, (int)(i % parts)).end;
        if (end > tokens.begin + cut[count] && end <= tokens.end) {
            cut[++count] = end - tokens.begin;
        }
    }
    TRI_REQUIRE(cut[count] == tri_range_size(tokens));
    return (struct tri_cuts){cut, count};
}

/* f32 zeros that a kernel adds one part's sum to. */
static float *take_zeros(const struct tri_frame *frame, int64_t n)
{
    const struct tri_context *context = frame->context;
    return tri_context_zero(context, tri_frame_take_f32(frame, n), (size_t)n * sizeof(float));
}

static void add_term(const struct tri_context *context, const float *term, void *sums, int64_t n)
{
    context->kernels->fixed_add(
        context->kernels,
        &(struct tri_fixed_add_args){
            .x = term, .sums = sums, .n = n, .fixed = &context->params->fixed, .dt = TRI_F32});
}

static void *row_of(const struct tri_context *context, const void *base, int64_t row, int64_t width)
{
    return (char *)(uintptr_t)base + (size_t)(row * width) * tri_dtype_size(context->dt);
}

void tri_gradient_norm(const struct tri_frame *frame, struct tri_cuts cuts, bool rms,
                       const void *dy, const void *x, const void *weight, float *stats, void *dx,
                       void *dweight, void *dbias, int64_t n)
{
    const struct tri_context *context = frame->context;
    const struct tri_kernels *kernels = context->kernels;
    int64_t width = context->config->model.hidden_size;
    struct tri_norm_args args = {
        .rms = rms,
        .n = n,
        .width = width,
        .dt = context->dt,
        .x = x,
        .weight = weight,
        .stats = stats,
        .dy = dy,
        .dx = dx,
        .dweight = dweight,
        .dbias = dbias,
    };
    if (!dweight) {
        size_t mark = tri_arena_mark(frame->arena);
        float *nobody = take_zeros(frame, 2 * width);
        args.dweight = nobody;
        args.dbias = rms ? NULL : nobody + width;
        kernels->norm_backward(kernels, &args);
        tri_arena_rewind(frame->arena, mark);
        return;
    }
    if (!cuts.cut) {
        kernels->norm_backward(kernels, &args);
        return;
    }
    for (int64_t i = 0; i < cuts.parts; i++) {
        int64_t row = cuts.cut[i];
        size_t mark = tri_arena_mark(frame->arena);
        float *terms = take_zeros(frame, 2 * width);
        args.n = cuts.cut[i + 1] - row;
        args.x = row_of(context, x, row, width);
        args.stats = stats + 2 * row;
        args.dy = row_of(context, dy, row, width);
        args.dx = row_of(context, dx, row, width);
        args.dweight = terms;
        args.dbias = dbias ? terms + width : NULL;
        kernels->norm_backward(kernels, &args);
        add_term(context, terms, dweight, width);
        if (dbias) {
            add_term(context, terms + width, dbias, width);
        }
        tri_arena_rewind(frame->arena, mark);
    }
}

void tri_gradient_bias(const struct tri_frame *frame, struct tri_cuts cuts, const void *dy,
                       int64_t ld, void *db, int64_t n, int64_t width)
{
    const struct tri_context *context = frame->context;
    struct tri_bias_args args = {
        .n = n, .width = width, .dt = context->dt, .dy = dy, .ld = ld, .dbias = db};
    if (!cuts.cut) {
        context->kernels->bias_backward(context->kernels, &args);
        return;
    }
    for (int64_t i = 0; i < cuts.parts; i++) {
        size_t mark = tri_arena_mark(frame->arena);
        float *term = take_zeros(frame, width);
        args.n = cuts.cut[i + 1] - cuts.cut[i];
        args.dy = row_of(context, dy, cuts.cut[i], ld);
        args.dbias = term;
        context->kernels->bias_backward(context->kernels, &args);
        add_term(context, term, db, width);
        tri_arena_rewind(frame->arena, mark);
    }
}

/* Of one head in rows [begin, end). */
static struct tri_rows head_of(const struct tri_context *context, struct tri_rows x, int64_t head,
                               int64_t begin, int64_t end)
{
    struct tri_rows part = x;
    part.data = row_of(context, x.data, begin * x.ld_outer + head * x.ld_inner, 1);
    part.outer = end - begin;
    part.inner = 1;
    return part;
}

/* One head's statistics, of rows from `first` on. */
struct column {
    const float *rstd, *dots;
    float *own_rstd, *own_dots;
    int64_t first, stride;
};

static void pick_column(void *state, int64_t begin, int64_t end)
{
    const struct column *c = state;
    for (int64_t i = begin; i < end; i++) {
        c->own_rstd[i] = c->rstd[(c->first + i) * c->stride];
        c->own_dots[i] = c->dots[(c->first + i) * c->stride];
    }
}

void tri_gradient_rms(const struct tri_frame *frame, struct tri_cuts cuts, struct tri_rows dy,
                      struct tri_rows x, const float *rstd, const float *weight, float *dots,
                      int64_t total_width, void *dweight)
{
    const struct tri_context *context = frame->context;
    const struct tri_kernels *kernels = context->kernels;
    struct tri_rms_args args = {
        .x = x,
        .dy = dy,
        .dt = context->dt,
        .rstd = rstd,
        .weight = weight,
        .dots = dots,
        .dweight = dweight,
        .total_width = total_width,
    };
    if (!dweight) {
        size_t mark = tri_arena_mark(frame->arena);
        args.dweight = take_zeros(frame, x.width);
        kernels->rms_backward(kernels, &args);
        tri_arena_rewind(frame->arena, mark);
        return;
    }
    if (!cuts.cut) {
        kernels->rms_backward(kernels, &args);
        return;
    }
    for (int64_t i = 0; i < cuts.parts * x.inner; i++) {
        int64_t begin = cuts.cut[i / x.inner];
        int64_t end = cuts.cut[i / x.inner + 1];
        int64_t head = i % x.inner;
        size_t mark = tri_arena_mark(frame->arena);
        float *term = take_zeros(frame, x.width);
        float *own_rstd = tri_frame_take_f32(frame, end - begin);
        float *own_dots = tri_frame_take_f32(frame, end - begin);
        struct column column = {rstd + head, dots + head, own_rstd, own_dots, begin, x.inner};
        kernels->loop(kernels, &(struct tri_loop_args){.n = end - begin,
                                                       .piece = end - begin + 1,
                                                       .run = pick_column,
                                                       .state = &column});
        args.x = head_of(context, x, head, begin, end);
        args.dy = head_of(context, dy, head, begin, end);
        args.rstd = own_rstd;
        args.dots = own_dots;
        args.dweight = term;
        kernels->rms_backward(kernels, &args);
        add_term(context, term, dweight, x.width);
        tri_arena_rewind(frame->arena, mark);
    }
}

/* A token's row of dy is one term. */
static void add_each_row(const struct tri_context *context, const struct tri_param *table,
                         const int32_t *index, const void *dy, int64_t n, int64_t *sums)
{
    int64_t width = tri_range_size(table->opened[1]);
    for (int64_t i = 0; i < n; i++) {
        int64_t row = index[i];
        if (row >= table->opened[0].begin && row < table->opened[0].end) {
            const struct tri_fixed_add_args args = {
                .x = row_of(context, dy, i, width),
                .sums = sums + (row - table->opened[0].begin) * width,
                .n = width,
                .fixed = &context->params->fixed,
                .dt = context->dt,
            };
            context->kernels->fixed_add(context->kernels, &args);
        }
    }
}

void tri_gradient_rows(const struct tri_context *context, struct tri_span table,
                       const int32_t *index, const void *dy, int64_t n)
{
    const struct tri_param *row = table.row;
    if (!tri_span_is_trained(table)) {
        return;
    }
    void *gradients = tri_gradients_open_sum(context->params, table);
    if (context->reproducible) {
        add_each_row(context, row, index, dy, n, gradients);
    } else {
        const struct tri_embedding_args args = {
            .dtable = gradients,
            .table_dtype = context->params->buffer[row->buffer].gradient_dtype,
            .tokens = index,
            .first_row = row->opened[0].begin,
            .rows = tri_range_size(row->opened[0]),
            .dy = dy,
            .n = n,
            .width = tri_range_size(row->opened[1]),
            .dt = context->dt,
        };
        context->kernels->embedding_backward(context->kernels, &args);
    }
    tri_gradients_close(context->params, table, gradients);
}
