#include "model/partial.h"

struct sum {
    const struct tri_frame *frame;
    tri_partial_term term;
    void *state;
    int64_t n;
};

/* The branch of the tree over shards [first, first + count); count is a power of two. */
static void sum_branch(const struct sum *sum, int first, int count, float *out)
{
    const struct tri_frame *frame = sum->frame;
    if (count == 1) {
        sum->term(sum->state, first, out);
        return;
    }
    sum_branch(sum, first, count / 2, out);
    size_t mark = tri_arena_mark(frame->arena);
    float *right = tri_frame_take_f32(frame, sum->n);
    sum_branch(sum, first + count / 2, count / 2, right);
    frame->context->kernels->add(
        frame->context->kernels,
        &(struct tri_add_args){.left = out, .right = right, .y = out, .n = sum->n, .dt = TRI_F32});
    tri_arena_rewind(frame->arena, mark);
}

void tri_partial_sum(const struct tri_frame *frame, struct tri_virtual shards,
                     tri_partial_term term, void *state, int64_t n, float *out)
{
    const struct sum sum = {frame, term, state, n};
    sum_branch(&sum, 0, shards.own, out);
}

struct products {
    const struct tri_frame *frame;
    const struct tri_partial_products *p;
};

/* Element `at` of an array. */
static const void *element(const void *base, int64_t at, enum tri_dtype dtype)
{
    return (const char *)base + (size_t)at * tri_dtype_size(dtype);
}

/* y (+)= the products over columns [begin, end) of x. */
static void add_columns(const struct products *s, int64_t begin, int64_t end, bool accumulate,
                        float *y)
{
    const struct tri_partial_products *p = s->p;
    const struct tri_frame *frame = s->frame;
    size_t mark = tri_arena_mark(frame->arena);
    struct tri_matmul *group = tri_arena_alloc(frame->arena, (size_t)p->count * sizeof(*group));
    int64_t used = 0;
    for (int64_t i = 0; i < p->count; i++) {
        int64_t row = p->offsets[i];
        if (p->offsets[i + 1] == row) {
            continue;
        }
        group[used++] = (struct tri_matmul){
            .m = p->offsets[i + 1] - row,
            .n = p->out,
            .k = end - begin,
            .a = element(p->x, row * p->in + begin, p->dtype),
            .b = element(p->weights[i], p->transposed ? begin : begin * p->out, p->dtype),
            .c = y + row * p->out,
            .lda = p->in,
            .ldb = p->transposed ? p->in : p->out,
            .ldc = p->out,
            .ab_dtype = p->dtype,
            .c_dtype = TRI_F32,
            .b_transposed = p->transposed,
            .accumulate = accumulate,
        };
    }
    tri_mesh_progress(frame->context->mesh);
    if (used > 0) {
        frame->context->kernels->matmul_grouped(frame->context->kernels, group, used);
    }
    tri_arena_rewind(frame->arena, mark);
}

/* One shard: its part of each block, block after block. */
static void shard_products(void *state, int shard, float *y)
{
    const struct products *s = state;
    int64_t before = 0;
    for (int b = 0; b < s->p->blocks; b++) {
        struct tri_block block = s->p->block[b];
        struct tri_range part = tri_virtual_part(s->p->shards, block.extent, shard);
        add_columns(s, before + part.begin * block.unit, before + part.end * block.unit, b > 0, y);
        before += tri_virtual_size(s->p->shards, block.extent) * block.unit;
    }
    TRI_REQUIRE(before == s->p->in);
    tri_partial_add_more(s->p->more, shard, y);
}

void tri_partial_products(const struct tri_frame *frame,
                          const struct tri_partial_products *products, void *y)
{
    const struct tri_context *context = frame->context;
    struct products state = {frame, products};
    TRI_REQUIRE(context->reproducible);
    tri_partial_sum(frame, products->shards, shard_products, &state,
                    products->offsets[products->count] * products->out, y);
}

void tri_partial_forward(const struct tri_frame *frame, const struct tri_linear *linear, int64_t n,
                         const void *x, const float *bias, struct tri_partial_more more, void *y)
{
    const struct tri_context *context = frame->context;
    if (!context->reproducible) {
        tri_linear_forward(linear, context->kernels, n, x, bias, y, context->sum_dt);
        tri_partial_add_more(more, 0, y);
        return;
    }
    const int64_t offsets[2] = {0, n};
    const struct tri_partial_products products = {
        .count = 1,
        .offsets = offsets,
        .out = linear->out,
        .in = linear->in,
        .x = x,
        .dtype = linear->dtype,
        .weights = &linear->weight,
        .transposed = true,
        .shards = context->shards,
        .block = linear->block,
        .blocks = linear->blocks,
        .more = more,
    };
    tri_partial_products(frame, &products, y);
}

void tri_partial_input_gradient(const struct tri_frame *frame, const struct tri_linear *linear,
                                int64_t n, const void *dy, struct tri_partial_more more, void *dx)
{
    const struct tri_context *context = frame->context;
    if (!context->reproducible) {
        tri_linear_input_gradient(linear, context->kernels, n, dy, dx);
        tri_partial_add_more(more, 0, dx);
        return;
    }
    const int64_t offsets[2] = {0, n};
    const struct tri_partial_products products = {
        .count = 1,
        .offsets = offsets,
        .out = linear->in,
        .in = linear->out,
        .x = dy,
        .dtype = linear->dtype,
        .weights = &linear->weight,
        .shards = context->shards,
        .block = linear->block,
        .blocks = linear->blocks,
        .more = more,
    };
    tri_partial_products(frame, &products, dx);
}
