#include "model/low_rank.h"

enum { PIECE = 4096 };

struct tri_low_rank tri_low_rank_get(const struct tri_params *params, struct tri_virtual shards,
                                     enum tri_role first_a, int parts, enum tri_place place,
                                     int64_t layer, int64_t expert)
{
    enum tri_role first_b = first_a >= TRI_ROLE_GATE_A
                                ? first_a + (TRI_ROLE_GATE_B - TRI_ROLE_GATE_A)
                                : first_a + (TRI_ROLE_Q_B - TRI_ROLE_Q_A);
    const struct tri_param *a = tri_params_find(params, first_a, place, layer, expert);
    if (!a) {
        return (struct tri_low_rank){0};
    }
    struct tri_low_rank low = {
        .parts = parts,
        .rank = a->shape[0],
        .in = tri_range_size(a->local[1]),
        .a = tri_span_make(params, a, parts),
        .gradient_dtype = params->buffer[a->buffer].gradient_dtype,
        .cut_in = first_a == TRI_ROLE_O_A || first_a == TRI_ROLE_DOWN_A,
        .shards = shards,
    };
    for (int i = 0; i < parts; i++) {
        low.b[i] = tri_span_find(params, first_b + (enum tri_role)i, place, layer, expert);
        low.out[i] = tri_range_size(low.b[i].row->local[0]);
        low.width += low.out[i];
    }
    return low;
}

bool tri_low_rank_find(const struct tri_params *params, const struct tri_param *weight,
                       const struct tri_param **a, const struct tri_param **b)
{
    enum tri_role first_a, first_b;
    if (weight->role >= TRI_ROLE_Q && weight->role <= TRI_ROLE_O) {
        first_a = TRI_ROLE_Q_A + (weight->role - TRI_ROLE_Q);
        first_b = TRI_ROLE_Q_B + (weight->role - TRI_ROLE_Q);
    } else if (weight->role >= TRI_ROLE_GATE && weight->role <= TRI_ROLE_DOWN) {
        first_a = TRI_ROLE_GATE_A + (weight->role - TRI_ROLE_GATE);
        first_b = TRI_ROLE_GATE_B + (weight->role - TRI_ROLE_GATE);
    } else {
        return false;
    }
    *a = tri_params_find(params, first_a, weight->place, weight->layer, weight->expert);
    *b = tri_params_find(params, first_b, weight->place, weight->layer, weight->expert);
    return *a && *b;
}

/* Rows before network i's. */
static int64_t offset_of(const struct tri_low_batch *b, int64_t i)
{
    return b->offsets ? b->offsets[i] : i * tri_pass_tokens(&b->frame->part);
}

static int64_t rows_of(const struct tri_low_batch *b, int64_t i)
{
    return offset_of(b, i + 1) - offset_of(b, i);
}

static const struct tri_low_rank *low_of(const struct tri_low_batch *b, int64_t i)
{
    return (const struct tri_low_rank *)(const void *)((const char *)b->low +
                                                       (size_t)i * b->stride);
}

/* Element `element` of an array. */
static void *at(const void *base, int64_t element, enum tri_dtype dtype)
{
    return (char *)(uintptr_t)base + (size_t)element * tri_dtype_size(dtype);
}

/* Partial sums that u (forward) or its gradient is: one, and in reproducible mode, of what comes
 * from what tensor cuts, one for each shard. */
static int sums_of(const struct tri_low_batch *b, bool forward)
{
    const struct tri_low_rank *low = b->low;
    bool cut = low->cut_in == forward;
    return cut && b->frame->context->reproducible ? low->shards.own : 1;
}

/* The part, of what this rank has of a dimension, that goes into one of `sums` sums. */
static struct tri_range part_of(const struct tri_low_batch *b, int sums, int sum, int64_t extent,
                                int64_t own)
{
    const struct tri_low_rank *low = b->low;
    return sums > 1 ? tri_virtual_part(low->shards, extent, sum) : (struct tri_range){0, own};
}

/* ---- products: one for each network with rows ------------------------------------------------ */

/* Which half of the pairs a product reads or makes. */
struct half {
    bool is_a;
    int part;      /* of B */
    int64_t first; /* element of it that is read */
};

static struct tri_span span_of(const struct tri_low_batch *b, struct half half, int64_t i)
{
    return half.is_a ? low_of(b, i)->a : low_of(b, i)->b[half.part];
}

/* What all products like this one are; gradients: of halves that are trained. */
static void tell_group(const struct tri_low_batch *b, struct half half, bool gradients,
                       struct tri_matmul *product)
{
    const struct tri_low_batch *group = b->group;
    int64_t rows = 0;
    for (int64_t i = 0; group && i < group->count; i++) {
        if (rows_of(group, i) > 0 && (!gradients || tri_span_is_trained(span_of(group, half, i)))) {
            product->group++;
            rows += rows_of(group, i);
        }
    }
    product->group_work =
        (double)rows * (double)product->n * (double)(gradients ? product->m : product->k);
}

static void run(const struct tri_low_batch *b, const struct tri_matmul *products, int64_t used)
{
    const struct tri_kernels *kernels = b->frame->context->kernels;
    tri_mesh_progress(b->frame->context->mesh);
    if (used == 1) {
        kernels->matmul(kernels, products);
    } else if (used > 1) {
        kernels->matmul_grouped(kernels, products, used);
    }
}

/* c = a W^T (or a W), where `product` has what all have in common; a and c begin at its elements of
 * network 0's first row and have lda and ldc elements a row. W is read from half.first on. */
static void multiply(const struct tri_low_batch *b, struct half half, enum tri_use use,
                     struct tri_matmul product)
{
    const struct tri_context *context = b->frame->context;
    size_t mark = tri_arena_mark(b->frame->arena);
    size_t count = (size_t)b->count;
    struct tri_matmul *products = tri_arena_alloc(b->frame->arena, count * sizeof(*products));
    const void **open = tri_arena_alloc(b->frame->arena, count * sizeof(*open));
    int64_t used = 0;
    product.ab_dtype = context->dt;
    tell_group(b, half, false, &product);
    for (int64_t i = 0; i < b->count; i++) {
        if (rows_of(b, i) > 0) {
            open[i] = tri_weights_open(context->params, span_of(b, half, i), use);
            products[used] = product;
            products[used].m = rows_of(b, i);
            products[used].a = at(product.a, offset_of(b, i) * product.lda, context->dt);
            products[used].b = at(open[i], half.first, context->dt);
            products[used++].c = at(product.c, offset_of(b, i) * product.ldc, product.c_dtype);
        }
    }
    run(b, products, used);
    for (int64_t i = 0; i < b->count; i++) {
        if (rows_of(b, i) > 0) {
            tri_weights_close(context->params, span_of(b, half, i), open[i]);
        }
    }
    tri_arena_rewind(b->frame->arena, mark);
}

/* dW (+)= a^T x, where they are trained. */
static void add_gradients(const struct tri_low_batch *b, struct half half,
                          const struct tri_cuts *cuts, struct tri_matmul product)
{
    const struct tri_context *context = b->frame->context;
    size_t mark = tri_arena_mark(b->frame->arena);
    size_t count = (size_t)b->count;
    struct tri_matmul *products = tri_arena_alloc(b->frame->arena, count * sizeof(*products));
    void **open = tri_arena_alloc(b->frame->arena, count * sizeof(*open));
    int64_t used = 0;
    product.ab_dtype = context->dt;
    product.a_transposed = true;
    product.ldc = product.n;
    product.fixed = &context->params->fixed;
    tell_group(b, half, true, &product);
    for (int64_t i = 0; i < b->count; i++) {
        bool first;
        open[i] = NULL;
        if (rows_of(b, i) > 0 && tri_span_is_trained(span_of(b, half, i))) {
            open[i] = tri_gradients_open(context->params, span_of(b, half, i), &first);
            products[used] = product;
            products[used].k = rows_of(b, i);
            products[used].a = at(product.a, offset_of(b, i) * product.lda, context->dt);
            products[used].b = at(product.b, offset_of(b, i) * product.ldb, context->dt);
            products[used].c = open[i];
            products[used].c_dtype = b->low->gradient_dtype;
            products[used].accumulate = !first;
            products[used].cuts = cuts[i].cut;
            products[used++].parts = cuts[i].parts;
        }
    }
    run(b, products, used);
    for (int64_t i = 0; i < b->count; i++) {
        if (open[i]) {
            tri_gradients_close(context->params, span_of(b, half, i), open[i]);
        }
    }
    tri_arena_rewind(b->frame->arena, mark);
}

/* ---- the scale ------------------------------------------------------------------------------- */

struct scaling {
    void *x;
    enum tri_dtype dt;
    float scale;
};

static void scale_piece(void *state, int64_t begin, int64_t end)
{
    const struct scaling *s = state;
    for (int64_t i = begin; i < end; i++) {
        if (s->dt == TRI_F32) {
            ((float *)s->x)[i] *= s->scale;
        } else {
            uint16_t *x = (uint16_t *)s->x + i;
            *x = tri_f32_to_bf16(s->scale * tri_bf16_to_f32(*x));
        }
    }
}

/* u [n] becomes alpha / rank times itself. */
static void scale(const struct tri_low_batch *b, int64_t n, void *u)
{
    const struct tri_context *context = b->frame->context;
    const struct tri_config_lora *lora = &context->config->train.lora;
    struct scaling scaling = {u, context->dt, (float)(lora->alpha / (double)lora->rank)};
    context->kernels->loop(
        context->kernels,
        &(struct tri_loop_args){.n = n, .piece = PIECE, .run = scale_piece, .state = &scaling});
}

/* ---- forward --------------------------------------------------------------------------------- */

/* Elements of one sum. */
static int64_t sum_size(const struct tri_low_batch *b)
{
    return offset_of(b, b->count) * b->low->parts * b->low->rank;
}

void *tri_low_rank_down(const struct tri_low_batch *b, const void *x)
{
    const struct tri_low_rank *low = b->low;
    enum tri_dtype dt = b->frame->context->dt;
    if (low->parts == 0) {
        return NULL;
    }
    int64_t columns = low->parts * low->rank;
    int sums = sums_of(b, true);
    void *u = tri_frame_take(b->frame, sums * sum_size(b));
    for (int sum = 0; sum < sums; sum++) {
        struct tri_range in = part_of(b, sums, sum, low->a.row->shape[1], low->in);
        multiply(b, (struct half){true, 0, in.begin}, TRI_USE_FORWARD,
                 (struct tri_matmul){.n = columns,
                                     .k = tri_range_size(in),
                                     .a = at(x, in.begin, dt),
                                     .c = at(u, sum * sum_size(b), dt),
                                     .lda = low->in,
                                     .ldb = low->in,
                                     .ldc = columns,
                                     .c_dtype = dt,
                                     .b_transposed = true});
    }
    scale(b, sums * sum_size(b), u);
    return u;
}

/* y [rows, width] += u B^T */
static void add_up(const struct tri_low_batch *b, const void *u, void *y, enum tri_dtype y_dtype)
{
    const struct tri_low_rank *low = b->low;
    for (int64_t i = 0, column = 0; i < low->parts; column += low->out[i++]) {
        multiply(b, (struct half){false, (int)i, 0}, TRI_USE_FORWARD,
                 (struct tri_matmul){.n = low->out[i],
                                     .k = low->rank,
                                     .a = at(u, i * low->rank, b->frame->context->dt),
                                     .c = at(y, column, y_dtype),
                                     .lda = low->parts * low->rank,
                                     .ldb = low->rank,
                                     .ldc = low->width,
                                     .c_dtype = y_dtype,
                                     .b_transposed = true,
                                     .accumulate = true});
    }
}

void tri_low_rank_up(const struct tri_low_batch *b, const void *u, void *y)
{
    if (u) {
        add_up(b, u, y, b->frame->context->dt);
    }
}

/* Own sum `sum` of u or its gradient. */
static const void *sum_at(const struct tri_low_sum *s, int sum)
{
    return at(s->u, sum * sum_size(s->batch), s->batch->frame->context->dt);
}

static void up_sum(const void *state, int sum, void *y)
{
    const struct tri_low_sum *s = state;
    add_up(s->batch, sum_at(s, sum), y, s->batch->frame->context->sum_dt);
}

struct tri_partial_more tri_low_rank_up_more(const struct tri_low_sum *sum)
{
    return (struct tri_partial_more){sum->u ? up_sum : NULL, sum};
}

/* ---- backward -------------------------------------------------------------------------------- */

/* du = dy B, of one of the sums. */
static void multiply_back(const struct tri_low_batch *b, int sums, int sum, const void *dy,
                          void *du)
{
    const struct tri_low_rank *low = b->low;
    enum tri_dtype dt = b->frame->context->dt;
    for (int64_t i = 0, column = 0; i < low->parts; column += low->out[i++]) {
        struct tri_range out = part_of(b, sums, sum, low->b[i].row->shape[0], low->out[i]);
        multiply(b, (struct half){false, (int)i, out.begin * low->rank}, TRI_USE_BACKWARD,
                 (struct tri_matmul){.n = low->rank,
                                     .k = tri_range_size(out),
                                     .a = at(dy, column + out.begin, dt),
                                     .c = at(du, i * low->rank, dt),
                                     .lda = low->width,
                                     .ldb = low->rank,
                                     .ldc = low->parts * low->rank,
                                     .c_dtype = dt});
    }
}

/* From one of u's sums. */
static void add_gradients_of_b(const struct tri_low_batch *b, const struct tri_cuts *cuts,
                               const void *u, const void *dy)
{
    const struct tri_low_rank *low = b->low;
    enum tri_dtype dt = b->frame->context->dt;
    for (int64_t i = 0, column = 0; i < low->parts; column += low->out[i++]) {
        add_gradients(b, (struct half){false, (int)i, 0}, cuts,
                      (struct tri_matmul){.m = low->out[i],
                                          .n = low->rank,
                                          .a = at(dy, column, dt),
                                          .b = at(u, i * low->rank, dt),
                                          .lda = low->width,
                                          .ldb = low->parts * low->rank});
    }
}

void *tri_low_rank_backward(const struct tri_low_batch *b, const struct tri_cuts *cuts,
                            const void *x, const void *u, const void *dy)
{
    const struct tri_low_rank *low = b->low;
    enum tri_dtype dt = b->frame->context->dt;
    if (!u) {
        return NULL;
    }
    int64_t columns = low->parts * low->rank;
    int sums = sums_of(b, false);
    void *du = tri_frame_take(b->frame, sums * sum_size(b));
    for (int sum = 0; sum < sums; sum++) {
        multiply_back(b, sums, sum, dy, at(du, sum * sum_size(b), dt));
    }
    scale(b, sums * sum_size(b), du);
    for (int sum = 0; sum < sums_of(b, true); sum++) {
        add_gradients_of_b(b, cuts, at(u, sum * sum_size(b), dt), dy);
    }
    for (int sum = 0; sum < sums; sum++) {
        add_gradients(b, (struct half){true, 0, 0}, cuts,
                      (struct tri_matmul){.m = columns,
                                          .n = low->in,
                                          .a = at(du, sum * sum_size(b), dt),
                                          .b = x,
                                          .lda = columns,
                                          .ldb = low->in});
    }
    return du;
}

/* dx [rows, in] += du A */
static void add_back(const struct tri_low_batch *b, const void *du, void *dx, enum tri_dtype dtype)
{
    const struct tri_low_rank *low = b->low;
    int64_t columns = low->parts * low->rank;
    multiply(b, (struct half){true, 0, 0}, TRI_USE_BACKWARD,
             (struct tri_matmul){.n = low->in,
                                 .k = columns,
                                 .a = du,
                                 .c = dx,
                                 .lda = columns,
                                 .ldb = low->in,
                                 .ldc = low->in,
                                 .c_dtype = dtype,
                                 .accumulate = true});
}

void tri_low_rank_input_gradient(const struct tri_low_batch *b, const void *du, void *dx)
{
    if (du) {
        add_back(b, du, dx, b->frame->context->dt);
    }
}

static void input_sum(const void *state, int sum, void *dx)
{
    const struct tri_low_sum *s = state;
    add_back(s->batch, sum_at(s, sum), dx, s->batch->frame->context->sum_dt);
}

struct tri_partial_more tri_low_rank_input_more(const struct tri_low_sum *sum)
{
    return (struct tri_partial_more){sum->u ? input_sum : NULL, sum};
}
