#include "model/low_rank.h"

enum { PIECE = 4096 };

struct tri_low_rank tri_low_rank_get(const struct tri_params *params, enum tri_role first_a,
                                     enum tri_role first_b, int parts, enum tri_place place,
                                     int64_t layer, int64_t expert)
{
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

static int64_t rows_of(const struct tri_low_batch *b, int64_t i)
{
    return b->offsets[i + 1] - b->offsets[i];
}

/* Element `element` of an array of the activation dtype. */
static void *at(const struct tri_low_batch *b, const void *base, int64_t element)
{
    return (char *)(uintptr_t)base + (size_t)element * tri_dtype_size(b->frame->context->dt);
}

/* ---- products: one for each network with rows ------------------------------------------------ */

/* Which half of the pairs a product reads or makes. */
struct half {
    bool is_a;
    int part; /* of B */
};

static struct tri_span span_of(const struct tri_low_batch *b, struct half half, int64_t i)
{
    return half.is_a ? b->low[i]->a : b->low[i]->b[half.part];
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
 * network 0's first row and have lda and ldc elements a row. */
static void multiply(const struct tri_low_batch *b, struct half half, enum tri_use use,
                     struct tri_matmul product)
{
    const struct tri_context *context = b->frame->context;
    size_t mark = tri_arena_mark(b->frame->arena);
    size_t count = (size_t)b->count;
    struct tri_matmul *products = tri_arena_alloc(b->frame->arena, count * sizeof(*products));
    const void **open = tri_arena_alloc(b->frame->arena, count * sizeof(*open));
    int64_t used = 0;
    product.ab_dtype = product.c_dtype = context->dt;
    for (int64_t i = 0; i < b->count; i++) {
        if (rows_of(b, i) > 0) {
            open[i] = tri_weights_open(context->params, span_of(b, half, i), use);
            products[used] = product;
            products[used].m = rows_of(b, i);
            products[used].a = at(b, product.a, b->offsets[i] * product.lda);
            products[used].b = open[i];
            products[used++].c = at(b, product.c, b->offsets[i] * product.ldc);
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
    for (int64_t i = 0; i < b->count; i++) {
        bool first;
        open[i] = NULL;
        if (rows_of(b, i) > 0 && tri_span_is_trained(span_of(b, half, i))) {
            open[i] = tri_gradients_open(context->params, span_of(b, half, i), &first);
            products[used] = product;
            products[used].k = rows_of(b, i);
            products[used].a = at(b, product.a, b->offsets[i] * product.lda);
            products[used].b = at(b, product.b, b->offsets[i] * product.ldb);
            products[used].c = open[i];
            products[used].c_dtype = b->low[i]->gradient_dtype;
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

/* u [rows, columns] becomes alpha / rank times itself. */
static void scale(const struct tri_low_batch *b, int64_t columns, void *u)
{
    const struct tri_context *context = b->frame->context;
    const struct tri_config_lora *lora = &context->config->train.lora;
    struct scaling scaling = {u, context->dt, (float)(lora->alpha / (double)lora->rank)};
    context->kernels->loop(context->kernels,
                           &(struct tri_loop_args){.n = b->offsets[b->count] * columns,
                                                   .piece = PIECE,
                                                   .run = scale_piece,
                                                   .state = &scaling});
}

/* ---- forward and backward -------------------------------------------------------------------- */

void *tri_low_rank_down(const struct tri_low_batch *b, const void *x)
{
    const struct tri_low_rank *low = b->low[0];
    if (low->parts == 0) {
        return NULL;
    }
    int64_t columns = low->parts * low->rank;
    void *u = tri_frame_take(b->frame, b->offsets[b->count] * columns);
    multiply(b, (struct half){true, 0}, TRI_USE_FORWARD,
             (struct tri_matmul){.n = columns,
                                 .k = low->in,
                                 .a = x,
                                 .c = u,
                                 .lda = low->in,
                                 .ldb = low->in,
                                 .ldc = columns,
                                 .b_transposed = true});
    scale(b, columns, u);
    return u;
}

void tri_low_rank_up(const struct tri_low_batch *b, const void *u, void *y)
{
    const struct tri_low_rank *low = b->low[0];
    for (int64_t i = 0, column = 0; u && i < low->parts; column += low->out[i++]) {
        multiply(b, (struct half){false, (int)i}, TRI_USE_FORWARD,
                 (struct tri_matmul){.n = low->out[i],
                                     .k = low->rank,
                                     .a = at(b, u, i * low->rank),
                                     .c = at(b, y, column),
                                     .lda = low->parts * low->rank,
                                     .ldb = low->rank,
                                     .ldc = low->width,
                                     .b_transposed = true,
                                     .accumulate = true});
    }
}

void tri_low_rank_backward(const struct tri_low_batch *b, const struct tri_cuts *cuts,
                           const void *x, const void *u, const void *dy, void *dx)
{
    const struct tri_low_rank *low = b->low[0];
    if (!u) {
        return;
    }
    size_t mark = tri_arena_mark(b->frame->arena);
    int64_t columns = low->parts * low->rank;
    void *du = tri_frame_take(b->frame, b->offsets[b->count] * columns);
    for (int64_t i = 0, column = 0; i < low->parts; column += low->out[i++]) {
        const struct half half = {false, (int)i};
        multiply(b, half, TRI_USE_BACKWARD,
                 (struct tri_matmul){.n = low->rank,
                                     .k = low->out[i],
                                     .a = at(b, dy, column),
                                     .c = at(b, du, i * low->rank),
                                     .lda = low->width,
                                     .ldb = low->rank,
                                     .ldc = columns});
        add_gradients(b, half, cuts,
                      (struct tri_matmul){.m = low->out[i],
                                          .n = low->rank,
                                          .a = at(b, dy, column),
                                          .b = at(b, u, i * low->rank),
                                          .lda = low->width,
                                          .ldb = columns});
    }
    scale(b, columns, du);
    multiply(b, (struct half){true, 0}, TRI_USE_BACKWARD,
             (struct tri_matmul){.n = low->in,
                                 .k = columns,
                                 .a = du,
                                 .c = dx,
                                 .lda = columns,
                                 .ldb = low->in,
                                 .ldc = low->in,
                                 .accumulate = true});
    add_gradients(b, (struct half){true, 0}, cuts,
                  (struct tri_matmul){
                      .m = columns, .n = low->in, .a = du, .b = x, .lda = columns, .ldb = low->in});
    tri_arena_rewind(b->frame->arena, mark);
}

/* ---- one map --------------------------------------------------------------------------------- */

void *tri_low_rank_down_one(const struct tri_frame *frame, const struct tri_low_rank *low,
                            const void *x)
{
    const int64_t offsets[2] = {0, tri_pass_tokens(&frame->pass)};
    return tri_low_rank_down(&(struct tri_low_batch){frame, 1, offsets, &low}, x);
}

void tri_low_rank_up_one(const struct tri_frame *frame, const struct tri_low_rank *low,
                         const void *u, void *y)
{
    const int64_t offsets[2] = {0, tri_pass_tokens(&frame->pass)};
    tri_low_rank_up(&(struct tri_low_batch){frame, 1, offsets, &low}, u, y);
}

void tri_low_rank_backward_one(const struct tri_frame *frame, const struct tri_low_rank *low,
                               struct tri_cuts cuts, const void *x, const void *u, const void *dy,
                               void *dx)
{
    const int64_t offsets[2] = {0, tri_pass_tokens(&frame->pass)};
    tri_low_rank_backward(&(struct tri_low_batch){frame, 1, offsets, &low}, &cuts, x, u, dy, dx);
}
