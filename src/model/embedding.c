#include "model/gradient.h"
#include "model/layers.h"
#include "model/stream.h"

static const struct tri_param *find(const struct tri_context *context, enum tri_role role)
{
    return tri_params_find(context->params, role, TRI_PLACE_DENSE, -1, -1);
}

void tri_embedding_forward(const struct tri_frame *frame, void *x)
{
    const struct tri_context *context = frame->context;
    const struct tri_pass *pass = &frame->pass;
    const struct tri_kernels *kernels = context->kernels;
    const struct tri_param *table = find(context, TRI_ROLE_EMBEDDING);
    const struct tri_param *position = find(context, TRI_ROLE_POSITION);
    int64_t hidden = context->config->model.hidden_size;
    struct tri_range own = tri_stream_tokens(frame);
    int64_t n = tri_range_size(own);
    size_t mark = tri_arena_mark(frame->arena);
    void *partial = tri_stream_partial(frame, x, context->dt);
    kernels->embedding_forward(tri_param_weights(context->params, table), pass->tokens,
                               table->local[0].begin, tri_range_size(table->local[0]), partial,
                               tri_pass_tokens(pass), hidden, context->dt);
    tri_stream_sum(frame, (struct tri_where){pass->phase, TRI_KIND_EMBEDDING}, partial, context->dt,
                   x);
    tri_arena_rewind(frame->arena, mark);
    if (position) {
        void *rows = tri_frame_take(frame, n * hidden);
        kernels->embedding_forward(tri_param_weights(context->params, position),
                                   pass->positions + own.begin, 0, position->shape[0], rows, n,
                                   hidden, context->dt);
        kernels->add(x, rows, x, n * hidden, context->dt);
        tri_arena_rewind(frame->arena, mark);
    }
}

void tri_embedding_backward(const struct tri_frame *frame, const void *dx)
{
    const struct tri_context *context = frame->context;
    const struct tri_pass *pass = &frame->pass;
    const struct tri_param *position = find(context, TRI_ROLE_POSITION);
    int64_t n = tri_pass_tokens(pass);
    size_t mark = tri_arena_mark(frame->arena);
    dx = tri_stream_whole_gradient(frame,
                                   (struct tri_where){TRI_PHASE_BACKWARD, TRI_KIND_EMBEDDING}, dx);
    tri_gradient_rows(context, find(context, TRI_ROLE_EMBEDDING), pass->tokens, dx, n);
    if (position) {
        tri_gradient_rows(context, position, pass->positions, dx, n);
    }
    tri_arena_rewind(frame->arena, mark);
}
