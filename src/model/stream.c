#include "model/stream.h"

bool tri_stream_is_cut(const struct tri_config *config, const struct tri_mesh *mesh)
{
    return config->train.sequence_parallel && mesh->size[TRI_AXIS_TENSOR] > 1;
}

bool tri_moe_splits_tokens(const struct tri_config *config, const struct tri_mesh *mesh)
{
    return config->moe.schedule->splits_tokens(config, mesh->size[TRI_AXIS_TENSOR],
                                               mesh->size[TRI_AXIS_EXPERT]);
}

static struct tri_range part_of(const struct tri_frame *frame, int rank)
{
    const struct tri_context *context = frame->context;
    const struct tri_pass *pass = &frame->pass;
    return tri_range_part(tri_pass_tokens(pass), context->mesh->size[TRI_AXIS_TENSOR], rank);
}

struct tri_range tri_tokens_part(const struct tri_frame *frame)
{
    const struct tri_context *context = frame->context;
    return part_of(frame, context->mesh->coord[TRI_AXIS_TENSOR]);
}

struct tri_range tri_stream_tokens(const struct tri_frame *frame)
{
    const struct tri_context *context = frame->context;
    const struct tri_pass *pass = &frame->pass;
    if (tri_stream_is_cut(context->config, context->mesh)) {
        return tri_tokens_part(frame);
    }
    return (struct tri_range){0, tri_pass_tokens(pass)};
}

int64_t tri_stream_count(const struct tri_frame *frame)
{
    return tri_range_size(tri_stream_tokens(frame));
}

/* Elements of each tensor rank's part, in the arena. */
static int64_t *part_counts(const struct tri_frame *frame, int64_t width)
{
    const struct tri_context *context = frame->context;
    int ranks = context->mesh->size[TRI_AXIS_TENSOR];
    int64_t *counts = tri_arena_alloc(frame->arena, (size_t)ranks * sizeof(*counts));
    for (int r = 0; r < ranks; r++) {
        counts[r] = tri_range_size(part_of(frame, r)) * width;
    }
    return counts;
}

void tri_tokens_gather(const struct tri_frame *frame, struct tri_where where, void *whole,
                       int64_t width, enum tri_dtype dtype)
{
    const struct tri_context *context = frame->context;
    size_t mark = tri_arena_mark(frame->arena);
    tri_all_gather_v(tri_mesh_group(context->mesh, TRI_ON_TENSOR), where, whole,
                     part_counts(frame, width), dtype);
    tri_arena_rewind(frame->arena, mark);
}

static int64_t hidden_of(const struct tri_context *context)
{
    return context->config->model.hidden_size;
}

/* Own tokens' place in a tensor of all of them. */
static void *own_place(const struct tri_frame *frame, void *whole, enum tri_dtype dtype)
{
    const struct tri_context *context = frame->context;
    size_t row = (size_t)hidden_of(context) * tri_dtype_size(dtype);
    return (char *)whole + (size_t)tri_tokens_part(frame).begin * row;
}

static void copy_and_gather(const struct tri_frame *frame, struct tri_where where, const void *x,
                            void *whole)
{
    const struct tri_context *context = frame->context;
    int64_t hidden = hidden_of(context);
    const struct tri_cast_args args = {
        .src = x,
        .from = context->dt,
        .dst = own_place(frame, whole, context->dt),
        .to = context->dt,
        .n = tri_stream_count(frame) * hidden,
    };
    context->kernels->cast(context->kernels, &args);
    tri_tokens_gather(frame, where, whole, hidden, context->dt);
}

const void *tri_stream_whole(const struct tri_frame *frame, struct tri_where where, const void *x)
{
    const struct tri_context *context = frame->context;
    const struct tri_pass *pass = &frame->pass;
    bool filled;
    if (!tri_stream_is_cut(context->config, context->mesh)) {
        return x;
    }
    void *whole = tri_keep_result(frame, tri_mesh_group(context->mesh, TRI_ON_TENSOR),
                                  tri_pass_tokens(pass) * hidden_of(context), context->dt, &filled);
    if (!filled) {
        copy_and_gather(frame, where, x, whole);
    }
    return whole;
}

const void *tri_stream_whole_gradient(const struct tri_frame *frame, struct tri_where where,
                                      const void *dy)
{
    const struct tri_context *context = frame->context;
    const struct tri_pass *pass = &frame->pass;
    if (!tri_stream_is_cut(context->config, context->mesh)) {
        return dy;
    }
    void *whole = tri_frame_take(frame, tri_pass_tokens(pass) * hidden_of(context));
    copy_and_gather(frame, where, dy, whole);
    return whole;
}

void *tri_stream_partial(const struct tri_frame *frame, void *y, enum tri_dtype dtype)
{
    const struct tri_context *context = frame->context;
    const struct tri_pass *pass = &frame->pass;
    if (!tri_stream_is_cut(context->config, context->mesh) && dtype == context->dt) {
        return y;
    }
    return tri_arena_alloc(frame->arena, (size_t)(tri_pass_tokens(pass) * hidden_of(context)) *
                                             tri_dtype_size(dtype));
}

void tri_stream_sum(const struct tri_frame *frame, struct tri_where where, void *partial,
                    enum tri_dtype dtype, void *y)
{
    const struct tri_context *context = frame->context;
    const struct tri_pass *pass = &frame->pass;
    int64_t hidden = hidden_of(context);
    struct tri_group *tensor = tri_mesh_group(context->mesh, TRI_ON_TENSOR);
    const void *sum = partial;
    if (tri_stream_is_cut(context->config, context->mesh)) {
        size_t mark = tri_arena_mark(frame->arena);
        tri_reduce_scatter_v(tensor, where, partial, part_counts(frame, hidden), dtype);
        tri_arena_rewind(frame->arena, mark);
        sum = own_place(frame, partial, dtype);
    } else {
        tri_all_reduce_sum(tensor, where, partial, tri_pass_tokens(pass) * hidden, dtype);
    }
    if (sum != y) {
        const struct tri_cast_args args = {
            .src = sum,
            .from = dtype,
            .dst = y,
            .to = context->dt,
            .n = tri_stream_count(frame) * hidden,
        };
        context->kernels->cast(context->kernels, &args);
    }
}
