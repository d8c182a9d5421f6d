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
    const struct tri_embedding_args args = {
        .table = tri_param_weights(context->params, table),
        .tokens = pass->tokens,
        .first_row = table->local[0].begin,
        .rows = tri_range_size(table->local[0]),
        .y = partial,
        .n = tri_pass_tokens(pass),
        .width = hidden,
        .dt = context->dt,
    };
    kernels->embedding_forward(kernels, &args);
    tri_stream_sum(frame, (struct tri_where){pass->phase, TRI_KIND_EMBEDDING}, partial, context->dt,
                   x);
    tri_arena_rewind(frame->arena, mark);
    if (position) {
        void *rows = tri_frame_take(frame, n * hidden);
        const struct tri_embedding_args by_position = {
            .table = tri_param_weights(context->params, position),
            .tokens = pass->positions + own.begin,
            .first_row = 0,
            .rows = position->shape[0],
            .y = rows,
            .n = n,
            .width = hidden,
            .dt = context->dt,
        };
        kernels->embedding_forward(kernels, &by_position);
        kernels->add(kernels,
                     &(struct tri_add_args){
                         .left = x, .right = rows, .y = x, .n = n * hidden, .dt = context->dt});
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
