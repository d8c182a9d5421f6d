#include "model/gradient.h"
#include "model/layers.h"
#include "model/stream.h"

static struct tri_span find(const struct tri_context *context, enum tri_role role)
{
    return tri_span_find(context->params, role, TRI_PLACE_DENSE, -1, -1);
}

/* y [n, hidden] <- rows `index` of a table, of which this rank has some. */
static void look_up(const struct tri_context *context, struct tri_span table, const int32_t *index,
                    void *y, int64_t n)
{
    struct tri_range local = table.row->opened[0];
    const void *weights = tri_weights_open(context->params, table, TRI_USE_FORWARD);
    const struct tri_embedding_args args = {
        .table = weights,
        .tokens = index,
        .first_row = local.begin,
        .rows = tri_range_size(local),
        .y = y,
        .n = n,
        .width = tri_range_size(table.row->opened[1]),
        .dt = context->dt,
    };
    context->kernels->embedding_forward(context->kernels, &args);
    tri_weights_close(context->params, table, weights);
}

void tri_embedding_forward(const struct tri_frame *frame, void *x)
{
    const struct tri_context *context = frame->context;
    const struct tri_pass *pass = &frame->part;
    const struct tri_kernels *kernels = context->kernels;
    const struct tri_span position = find(context, TRI_ROLE_POSITION);
    int64_t hidden = context->config->model.hidden_size;
    struct tri_range own = tri_stream_tokens(frame);
    int64_t n = tri_range_size(own);
    size_t mark = tri_arena_mark(frame->arena);
    void *partial = tri_stream_partial(frame, x, context->dt);
    look_up(context, find(context, TRI_ROLE_EMBEDDING), pass->tokens, partial,
            tri_pass_tokens(pass));
    tri_stream_sum(frame, (struct tri_where){pass->phase, TRI_KIND_EMBEDDING}, partial, context->dt,
                   x);
    tri_arena_rewind(frame->arena, mark);
    if (position.row) {
        void *rows = tri_frame_take(frame, n * hidden);
        look_up(context, position, frame->pass.positions + own.begin, rows, n);
        kernels->add(kernels,
                     &(struct tri_add_args){
                         .left = x, .right = rows, .y = x, .n = n * hidden, .dt = context->dt});
        tri_arena_rewind(frame->arena, mark);
    }
}

void tri_embedding_backward(const struct tri_frame *frame, const void *dx)
{
    const struct tri_context *context = frame->context;
    const struct tri_pass *pass = &frame->part;
    const struct tri_span position = find(context, TRI_ROLE_POSITION);
    int64_t n = tri_pass_tokens(pass);
    struct tri_range own = tri_stream_tokens(frame);
    const void *of_stream = dx;
    size_t mark = tri_arena_mark(frame->arena);
    dx = tri_stream_whole_gradient(frame,
                                   (struct tri_where){TRI_PHASE_BACKWARD, TRI_KIND_EMBEDDING}, dx);
    tri_gradient_rows(context, find(context, TRI_ROLE_EMBEDDING), pass->tokens, dx, n);
    if (position.row && tri_stream_is_crossed(context)) {
        tri_gradient_rows(context, position, frame->pass.positions + own.begin, of_stream,
                          tri_range_size(own));
    } else if (position.row) {
        tri_gradient_rows(context, position, pass->positions, dx, n);
    }
    tri_arena_rewind(frame->arena, mark);
}
