/* Rows that are parted (AxoNN, arXiv 2305.13525, section 3.2): a rank has its part of a matrix's
 * rows, and nothing else of it lasts. Opening the weights gathers them over depth, row of the table
 * by row; what is opened is gone when it is closed. A gradient is a sum over the rank's own tokens
 * in memory of its own until it is closed, when it is reduced and scattered over depth into the
 * parts, which are what the reduction over the replicas and the optimizer work on.
 *
 *   table    | my part of q | of k | of v |          opened   | q, of all parts | k | v |
 */
#include "model/residency_depth.h"

#include "base/memory.h"
#include "model/param_open.h"

enum { SLOTS = 16, PIECE = 1 << 16 };

/* Memory for what is open: the first that is free is taken, and grows. */
struct slot {
    void *block;
    size_t bytes;
    bool taken;
    bool first; /* of gradients: the sum is set, not added to */
};

struct depth {
    struct tri_residency base;
    const struct tri_kernels *kernels;
    struct tri_group *group;
    int64_t *counts; /* [ranks] of one row of the table */
    struct slot slot[SLOTS];
};

static struct slot *take(struct depth *d, size_t bytes)
{
    int i = 0;
    while (d->slot[i].taken) {
        i++;
        TRI_REQUIRE(i < SLOTS);
    }
    struct slot *slot = &d->slot[i];
    (void)tri_grow(TRI_MEMORY_BUFFERS, &slot->block, &slot->bytes, bytes);
    slot->taken = true;
    return slot;
}

static struct slot *find(struct depth *d, const void *block)
{
    int i = 0;
    while (!d->slot[i].taken || d->slot[i].block != block) {
        i++;
        TRI_REQUIRE(i < SLOTS);
    }
    return &d->slot[i];
}

/* Elements of each part of a row; returns those before this rank's. */
static int64_t count_parts(const struct depth *d, const struct tri_param *row)
{
    int64_t columns = tri_range_size(row->opened[1]);
    int ranks = tri_group_size(d->group);
    for (int r = 0; r < ranks; r++) {
        d->counts[r] =
            tri_range_size(tri_range_part(tri_range_size(row->opened[0]), ranks, r)) * columns;
    }
    return (row->local[0].begin - row->opened[0].begin) * columns;
}

static int64_t opened(const struct tri_param *row)
{
    return tri_range_size(row->opened[0]) * tri_range_size(row->opened[1]);
}

static void copy(const struct depth *d, const void *from, void *to, size_t bytes)
{
    const struct tri_copy_args args = {.src = from, .dst = to, .bytes = bytes};
    d->kernels->copy(d->kernels, &args);
}

/* ---- weights --------------------------------------------------------------------------------- */

static const void *open_weights(struct tri_residency *self, const struct tri_params *params,
                                struct tri_span span, enum tri_use use)
{
    struct depth *d = (struct depth *)self;
    enum tri_dtype dtype = span.row->dtype;
    size_t width = tri_dtype_size(dtype);
    char *at = take(d, (size_t)tri_span_opened(span) * width)->block;
    const void *block = at;
    (void)use;
    for (int i = 0; i < span.rows; i++) {
        const struct tri_param *row = &span.row[i];
        int64_t before = count_parts(d, row);
        copy(d, tri_param_weights(params, row), at + (size_t)before * width,
             (size_t)row->count * width);
        tri_all_gather_v(d->group, (struct tri_where){params->phase, TRI_KIND_WEIGHTS}, at,
                         d->counts, dtype);
        at += (size_t)opened(row) * width;
    }
    return block;
}

static void close_weights(struct tri_residency *self, const struct tri_params *params,
                          struct tri_span span, const void *weights)
{
    (void)params;
    (void)span;
    find((struct depth *)self, weights)->taken = false;
}

/* ---- gradients ------------------------------------------------------------------------------- */

static void *open_gradients(struct tri_residency *self, const struct tri_params *params,
                            struct tri_span span, bool first)
{
    struct depth *d = (struct depth *)self;
    size_t width = tri_dtype_size(params->buffer[span.row->buffer].gradient_dtype);
    size_t bytes = (size_t)tri_span_opened(span) * width;
    struct slot *slot = take(d, bytes);
    slot->first = first;
    if (!first) {
        d->kernels->zero(d->kernels, &(struct tri_zero_args){.dst = slot->block, .bytes = bytes});
    }
    return slot->block;
}

struct sums {
    const int64_t *left;
    int64_t *right;
};

static void add_fixed(void *state, int64_t begin, int64_t end)
{
    const struct sums *s = state;
    for (int64_t i = begin; i < end; i++) {
        s->right[i] += s->left[i];
    }
}

static void add(const struct depth *d, const void *from, void *to, int64_t n, enum tri_dtype dtype)
{
    struct sums sums = {from, to};
    if (dtype == TRI_I64) {
        d->kernels->loop(d->kernels, &(struct tri_loop_args){
                                         .n = n, .piece = PIECE, .run = add_fixed, .state = &sums});
        return;
    }
    const struct tri_add_args args = {.left = to, .right = from, .y = to, .n = n, .dt = dtype};
    d->kernels->add(d->kernels, &args);
}

static void close_gradients(struct tri_residency *self, const struct tri_params *params,
                            struct tri_span span, void *gradients)
{
    struct depth *d = (struct depth *)self;
    struct slot *slot = find(d, gradients);
    enum tri_dtype dtype = params->buffer[span.row->buffer].gradient_dtype;
    size_t width = tri_dtype_size(dtype);
    char *at = gradients;
    for (int i = 0; i < span.rows; i++) {
        const struct tri_param *row = &span.row[i];
        int64_t before = count_parts(d, row);
        char *mine = at + (size_t)before * width;
        tri_reduce_scatter_v(d->group, (struct tri_where){TRI_PHASE_BACKWARD, TRI_KIND_GRADIENT},
                             at, d->counts, dtype);
        if (slot->first) {
            copy(d, mine, tri_param_gradients(params, row), (size_t)row->count * width);
        } else {
            add(d, mine, tri_param_gradients(params, row), row->count, dtype);
        }
        at += (size_t)opened(row) * width;
    }
    slot->taken = false;
}

/* ---- the kind -------------------------------------------------------------------------------- */

/* Nothing is kept of weights. */
static void refresh(struct tri_residency *self, const struct tri_params *params,
                    const struct tri_param *row)
{
    (void)self;
    (void)params;
    (void)row;
}

static void destroy(struct tri_residency *self)
{
    struct depth *d = (struct depth *)self;
    for (int i = 0; i < SLOTS; i++) {
        tri_free(d->slot[i].block);
    }
    tri_free(d->counts);
    tri_free(d);
}

static const struct tri_residency_ops ops = {
    open_weights, close_weights, open_gradients, close_gradients, refresh, destroy,
};

static struct tri_residency *create(const struct tri_config *config,
                                    const struct tri_kernels *kernels, struct tri_params *params)
{
    struct tri_group *group = tri_mesh_group(params->mesh, TRI_ON_DEPTH);
    (void)config;
    if (tri_group_size(group) == 1) {
        return NULL;
    }
    struct depth *d = tri_alloc(TRI_MEMORY_OTHER, sizeof(*d));
    d->base.ops = &ops;
    d->kernels = kernels;
    d->group = group;
    d->counts = tri_alloc(TRI_MEMORY_OTHER, (size_t)tri_group_size(group) * sizeof(*d->counts));
    for (int p = 0; p < params->count; p++) {
        if (params->param[p].parted) {
            params->param[p].residency = &d->base;
        }
    }
    return &d->base;
}

const struct tri_residency_kind tri_residency_depth = {create};
