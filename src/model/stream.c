#include "model/stream.h"

#include <string.h>

bool tri_stream_is_cut(const struct tri_config *config, const struct tri_mesh *mesh)
{
    return config->train.sequence_parallel && mesh->size[TRI_AXIS_TENSOR] > 1;
}

bool tri_moe_splits_tokens(const struct tri_config *config, const struct tri_mesh *mesh)
{
    return tri_mesh_grid(mesh) > mesh->size[TRI_AXIS_TENSOR] ||
           config->moe.schedule->splits_tokens(config, tri_mesh_grid(mesh),
                                               mesh->size[TRI_AXIS_EXPERT]);
}

bool tri_stream_is_part(const struct tri_context *context)
{
    const struct tri_mesh *mesh = context->mesh;
    return tri_mesh_grid(mesh) > mesh->size[TRI_AXIS_TENSOR] ||
           tri_stream_is_cut(context->config, mesh);
}

bool tri_stream_is_crossed(const struct tri_context *context)
{
    return context->mesh->size[TRI_AXIS_CROSS] > 1;
}

int64_t tri_stream_hidden(const struct tri_context *context)
{
    return context->config->model.hidden_size / context->mesh->size[TRI_AXIS_CROSS];
}

struct tri_group *tri_stream_group(const struct tri_context *context)
{
    return tri_mesh_group(context->mesh,
                          context->mesh->size[TRI_AXIS_TENSOR] > 1 ? TRI_ON_TENSOR : TRI_ON_CROSS);
}

/* Of n tokens those of a rank of cross. */
static struct tri_range cross_part(const struct tri_mesh *mesh, int64_t n, int rank)
{
    return tri_range_part(n, mesh->size[TRI_AXIS_CROSS], rank);
}

struct tri_range tri_grid_part(const struct tri_mesh *mesh, int64_t rows, int64_t seq, int t)
{
    int tensor = mesh->size[TRI_AXIS_TENSOR], cross = mesh->size[TRI_AXIS_CROSS];
    struct tri_range own = tri_range_part(rows, mesh->size[TRI_AXIS_DEPTH], t / tensor / cross);
    struct tri_range stream = cross_part(mesh, tri_range_size(own) * seq, t / tensor % cross);
    struct tri_range part = tri_range_part(tri_range_size(stream), tensor, t % tensor);
    int64_t before = own.begin * seq + stream.begin;
    return (struct tri_range){before + part.begin, before + part.end};
}

static struct tri_range part_of(const struct tri_frame *frame, int t)
{
    return tri_grid_part(frame->context->mesh, frame->pass.rows, frame->pass.seq, t);
}

struct tri_range tri_tokens_part(const struct tri_frame *frame)
{
    return part_of(frame, tri_mesh_grid_rank(frame->context->mesh));
}

/* Those of frame->part, among all. */
static struct tri_range part_tokens(const struct tri_frame *frame)
{
    int64_t begin = (frame->part.first_row - frame->pass.first_row) * frame->pass.seq;
    return (struct tri_range){begin, begin + tri_pass_tokens(&frame->part)};
}

struct tri_range tri_stream_tokens(const struct tri_frame *frame)
{
    const struct tri_context *context = frame->context;
    const struct tri_mesh *mesh = context->mesh;
    if (tri_stream_is_cut(context->config, mesh)) {
        return tri_tokens_part(frame);
    }
    struct tri_range all = part_tokens(frame);
    struct tri_range own = cross_part(mesh, tri_range_size(all), mesh->coord[TRI_AXIS_CROSS]);
    return (struct tri_range){all.begin + own.begin, all.begin + own.end};
}

int64_t tri_stream_count(const struct tri_frame *frame)
{
    return tri_range_size(tri_stream_tokens(frame));
}

/* Elements of the parts of `ranks` places of the grid from `first` on, in the arena. */
static int64_t *counts_from(const struct tri_frame *frame, int first, int ranks, int64_t width)
{
    int64_t *counts = tri_arena_alloc(frame->arena, (size_t)ranks * sizeof(*counts));
    for (int r = 0; r < ranks; r++) {
        counts[r] = tri_range_size(part_of(frame, first + r)) * width;
    }
    return counts;
}

void tri_tokens_gather(const struct tri_frame *frame, struct tri_where where, void *whole,
                       int64_t width, enum tri_dtype dtype)
{
    const struct tri_mesh *mesh = frame->context->mesh;
    size_t mark = tri_arena_mark(frame->arena);
    tri_all_gather_v(tri_mesh_group(mesh, TRI_ON_GRID), where, whole,
                     counts_from(frame, 0, tri_mesh_grid(mesh), width), dtype);
    tri_arena_rewind(frame->arena, mark);
}

/* Elements of each tensor rank's part. */
static int64_t *part_counts(const struct tri_frame *frame, int64_t width)
{
    const struct tri_mesh *mesh = frame->context->mesh;
    int first = tri_mesh_grid_rank(mesh) - mesh->coord[TRI_AXIS_TENSOR];
    return counts_from(frame, first, mesh->size[TRI_AXIS_TENSOR], width);
}

void tri_part_gather(const struct tri_frame *frame, struct tri_where where, void *whole,
                     int64_t width, enum tri_dtype dtype)
{
    size_t mark = tri_arena_mark(frame->arena);
    tri_all_gather_v(tri_mesh_group(frame->context->mesh, TRI_ON_TENSOR), where, whole,
                     part_counts(frame, width), dtype);
    tri_arena_rewind(frame->arena, mark);
}

static int64_t hidden_of(const struct tri_context *context)
{
    return context->config->model.hidden_size;
}

/* Own tokens' place in a tensor of the part's. */
static void *own_place(const struct tri_frame *frame, void *whole, enum tri_dtype dtype)
{
    const struct tri_context *context = frame->context;
    size_t row = (size_t)hidden_of(context) * tri_dtype_size(dtype);
    int64_t before = tri_tokens_part(frame).begin - part_tokens(frame).begin;
    return (char *)whole + (size_t)before * row;
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
    tri_part_gather(frame, where, whole, hidden, context->dt);
}

/* ---- where cross cuts the hidden size -------------------------------------------------------- */

/* Parts of rows [n, parts * bytes] to, or from, one block [n, bytes] each. */
struct turn {
    char *rows, *blocks;
    int64_t n, parts;
    size_t bytes;
    bool back;
};

static void turn(void *state, int64_t begin, int64_t end)
{
    const struct turn *s = state;
    for (int64_t i = begin; i < end; i++) {
        for (int64_t p = 0; p < s->parts; p++) {
            char *in_row = s->rows + (size_t)(i * s->parts + p) * s->bytes;
            char *in_block = s->blocks + (size_t)(p * s->n + i) * s->bytes;
            memcpy(s->back ? in_row : in_block, s->back ? in_block : in_row, s->bytes);
        }
    }
}

/* Between own tokens [stream, hidden] and own part of the hidden size [part's tokens, part]. */
static void cross_over(const struct tri_frame *frame, struct tri_where where, void *own, void *part,
                       enum tri_dtype dtype, bool back)
{
    enum { PIECE = 64 };
    const struct tri_context *context = frame->context;
    const struct tri_mesh *mesh = context->mesh;
    int ranks = mesh->size[TRI_AXIS_CROSS];
    int64_t width = tri_stream_hidden(context);
    int64_t tokens = tri_pass_tokens(&frame->part), n = tri_stream_count(frame);
    size_t mark = tri_arena_mark(frame->arena);
    int64_t *of_own = tri_arena_alloc(frame->arena, 2 * (size_t)ranks * sizeof(*of_own));
    int64_t *of_part = of_own + ranks;
    for (int r = 0; r < ranks; r++) {
        of_own[r] = n;
        of_part[r] = tri_range_size(cross_part(mesh, tokens, r));
    }
    size_t bytes = (size_t)width * tri_dtype_size(dtype);
    char *blocks = tri_arena_alloc(frame->arena, (size_t)(n * ranks) * bytes);
    struct turn state = {own, blocks, n, ranks, bytes, back};
    const struct tri_loop_args loop = {.n = n, .piece = PIECE, .run = turn, .state = &state};
    struct tri_group *group = tri_mesh_group(mesh, TRI_ON_CROSS);
    if (back) {
        tri_all_to_all_v(group, where, part, of_part, blocks, of_own, width, dtype);
        context->kernels->loop(context->kernels, &loop);
    } else {
        context->kernels->loop(context->kernels, &loop);
        tri_all_to_all_v(group, where, blocks, of_own, part, of_part, width, dtype);
    }
    tri_arena_rewind(frame->arena, mark);
}

void tri_cross_sum(const struct tri_context *context, struct tri_where where, void *partial,
                   int64_t n, enum tri_dtype dtype)
{
    tri_all_reduce_sum(tri_mesh_group(context->mesh, TRI_ON_CROSS), where, partial, n, dtype);
}

struct tri_request *tri_cross_sum_begin(const struct tri_context *context, struct tri_where where,
                                        void *partial, int64_t n, enum tri_dtype dtype)
{
    if (context->config->comm_overlap) {
        return tri_all_reduce_sum_begin(tri_mesh_group(context->mesh, TRI_ON_CROSS), where, partial,
                                        n, dtype);
    }
    tri_cross_sum(context, where, partial, n, dtype);
    return NULL;
}

/* ---- into sublayers and out of them ---------------------------------------------------------- */

static int64_t part_elements(const struct tri_frame *frame)
{
    return tri_pass_tokens(&frame->part) * tri_stream_hidden(frame->context);
}

static bool is_whole(const struct tri_context *context)
{
    return !tri_stream_is_cut(context->config, context->mesh) && !tri_stream_is_crossed(context);
}

/* x of own tokens for all tokens of the part. */
static void spread(const struct tri_frame *frame, struct tri_where where, const void *x,
                   void *whole)
{
    if (tri_stream_is_crossed(frame->context)) {
        cross_over(frame, where, (void *)(uintptr_t)x, whole, frame->context->dt, false);
    } else {
        copy_and_gather(frame, where, x, whole);
    }
}

const void *tri_stream_whole(const struct tri_frame *frame, struct tri_where where, const void *x)
{
    const struct tri_context *context = frame->context;
    bool filled;
    if (is_whole(context)) {
        return x;
    }
    struct tri_group *group = tri_mesh_group(
        context->mesh, tri_stream_is_crossed(context) ? TRI_ON_CROSS : TRI_ON_TENSOR);
    void *whole = tri_keep_result(frame, group, part_elements(frame), context->dt, &filled);
    if (!filled) {
        spread(frame, where, x, whole);
    }
    return whole;
}

const void *tri_stream_whole_gradient(const struct tri_frame *frame, struct tri_where where,
                                      const void *dy)
{
    if (is_whole(frame->context)) {
        return dy;
    }
    void *whole = tri_frame_take(frame, part_elements(frame));
    spread(frame, where, dy, whole);
    return whole;
}

void *tri_stream_partial(const struct tri_frame *frame, void *y, enum tri_dtype dtype)
{
    const struct tri_context *context = frame->context;
    if (is_whole(context) && dtype == context->dt) {
        return y;
    }
    return tri_arena_alloc(frame->arena, (size_t)part_elements(frame) * tri_dtype_size(dtype));
}

/* Over tensor, of all tokens of the part, or of own ones where the stream is cut. */
static void sum_over_tensor(const struct tri_frame *frame, struct tri_where where, void *partial,
                            enum tri_dtype dtype)
{
    const struct tri_context *context = frame->context;
    struct tri_group *tensor = tri_mesh_group(context->mesh, TRI_ON_TENSOR);
    if (tri_stream_is_cut(context->config, context->mesh)) {
        size_t mark = tri_arena_mark(frame->arena);
        tri_reduce_scatter_v(tensor, where, partial, part_counts(frame, hidden_of(context)), dtype);
        tri_arena_rewind(frame->arena, mark);
    } else {
        tri_all_reduce_sum(tensor, where, partial, part_elements(frame), dtype);
    }
}

struct tri_request *tri_stream_sum_begin(const struct tri_frame *frame, struct tri_where where,
                                         void *partial, enum tri_dtype dtype)
{
    const struct tri_context *context = frame->context;
    struct tri_group *tensor = tri_mesh_group(context->mesh, TRI_ON_TENSOR);
    if (!context->config->comm_overlap) {
        sum_over_tensor(frame, where, partial, dtype);
        return NULL;
    }
    if (!tri_stream_is_cut(context->config, context->mesh)) {
        return tri_all_reduce_sum_begin(tensor, where, partial, part_elements(frame), dtype);
    }
    size_t mark = tri_arena_mark(frame->arena);
    struct tri_request *request = tri_reduce_scatter_v_begin(
        tensor, where, partial, part_counts(frame, hidden_of(context)), dtype);
    tri_arena_rewind(frame->arena, mark);
    return request;
}

void tri_stream_sum_end(const struct tri_frame *frame, struct tri_where where,
                        struct tri_request *request, void *partial, enum tri_dtype dtype, void *y)
{
    const struct tri_context *context = frame->context;
    bool cut = tri_stream_is_cut(context->config, context->mesh);
    tri_request_end(request);
    if (tri_stream_is_crossed(context)) {
        cross_over(frame, where, y, partial, dtype, true);
        return;
    }
    const void *sum = cut ? own_place(frame, partial, dtype) : partial;
    if (sum != y) {
        const struct tri_cast_args args = {
            .src = sum,
            .from = dtype,
            .dst = y,
            .to = context->dt,
            .n = tri_stream_count(frame) * hidden_of(context),
        };
        context->kernels->cast(context->kernels, &args);
    }
}

void tri_stream_sum(const struct tri_frame *frame, struct tri_where where, void *partial,
                    enum tri_dtype dtype, void *y)
{
    sum_over_tensor(frame, where, partial, dtype);
    tri_stream_sum_end(frame, where, NULL, partial, dtype, y);
}
