/* Rows that are parted (AxoNN, arXiv 2305.13525, section 3.2): a rank has its part of a matrix's
 * rows, and nothing else of it lasts. Opening the weights gathers them over depth, row of the table
 * by row; what is opened is gone when it is closed. A gradient is a sum over the rank's own tokens
 * in memory of its own until it is closed, when it is reduced and scattered over depth into the
 * parts, which are what the reduction over the replicas and the optimizer work on.
 *
 *   table    | my part of q | of k | of v |          opened   | q, of all parts | k | v |
 *
 * With comm.overlap both run beside products, as theirs do. A pass opens weights in the same order
 * as the last one of its kind, so when one is opened the gather of the next one begins: two are in
 * memory then. The scatter of a gradient begins when it is closed, and is ended when FLIGHTS later
 * ones are under way, when the block's gradients are asked for, or at the end of the pass. (Theirs
 * keep all of them to the end, and so a whole model's gradients.) Gradients are ended in the order
 * in which they were begun: of one row they are added up as without overlap.
 */
#include "model/residency_depth.h"

#include "base/memory.h"
#include "model/param_open.h"

enum { SLOTS = 16, PIECE = 1 << 16, FLIGHTS = 4, SPAN_ROWS = 3 };

/* Memory for what is open: the first that is free is taken, and grows. */
struct slot {
    void *block;
    size_t bytes;
    bool taken;
    bool first; /* of gradients: the sum is set, not added to */
};

/* Rows under way, each in a call of its own. */
struct flight {
    struct tri_span span;
    struct slot *slot; /* NULL: nothing is under way */
    struct tri_request *request[SPAN_ROWS];
};

struct opening {
    struct tri_span span;
    enum tri_phase phase;
};

/* What passes of a kind open, in order, as far as it is known. */
struct course {
    struct opening *opening;
    int known;
};

struct depth {
    struct tri_residency base;
    const struct tri_kernels *kernels;
    struct tri_group *group;
    int64_t *counts; /* [ranks] of one row of the table */
    struct slot slot[SLOTS];
    bool overlaps;
    struct course course[2];         /* without a backward, and with one */
    struct course *passing;          /* NULL outside of passes */
    int at, most;                    /* place in it; openings that one has room for */
    struct flight ahead;             /* weights that are opened next */
    struct flight back[FLIGHTS + 1]; /* gradients, the oldest first */
    int flights;
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

/* Memory with the weights of all parts; flight: where their gathers are only begun, else NULL. */
static struct slot *gather(struct depth *d, const struct tri_params *params, struct tri_span span,
                           enum tri_phase phase, struct flight *flight)
{
    const struct tri_where where = {phase, TRI_KIND_WEIGHTS};
    enum tri_dtype dtype = span.row->dtype;
    size_t width = tri_dtype_size(dtype);
    struct slot *slot = take(d, (size_t)tri_span_opened(span) * width);
    char *at = slot->block;
    for (int i = 0; i < span.rows; i++) {
        const struct tri_param *row = &span.row[i];
        int64_t before = count_parts(d, row);
        copy(d, tri_param_weights(params, row), at + (size_t)before * width,
             (size_t)row->count * width);
        if (flight) {
            flight->request[i] = tri_all_gather_v_begin(d->group, where, at, d->counts, dtype);
        } else {
            tri_all_gather_v(d->group, where, at, d->counts, dtype);
        }
        at += (size_t)opened(row) * width;
    }
    return slot;
}

static struct slot *land(struct flight *flight)
{
    struct slot *slot = flight->slot;
    for (int i = 0; slot && i < flight->span.rows; i++) {
        tri_request_end(flight->request[i]);
    }
    flight->slot = NULL;
    return slot;
}

/* The next opening of a pass that goes as the last one did. */
static void begin_ahead(struct depth *d, const struct tri_params *params)
{
    if (d->passing && d->at < d->passing->known) {
        const struct opening *next = &d->passing->opening[d->at];
        TRI_REQUIRE(next->span.rows <= SPAN_ROWS);
        tri_params_settle_row(params, next->span.row);
        d->ahead.span = next->span;
        d->ahead.slot = gather(d, params, next->span, next->phase, &d->ahead);
    }
}

/* What was gathered ahead and is not wanted. */
static void forget_ahead(struct depth *d)
{
    struct slot *slot = land(&d->ahead);
    if (slot) {
        slot->taken = false;
    }
}

/* Notes an opening where it was not the one that was known. */
static void note(struct depth *d, const struct tri_params *params, struct tri_span span)
{
    struct course *course = d->passing;
    if (!course) {
        return;
    }
    struct opening *known = &course->opening[d->at];
    if (d->at >= course->known || known->span.row != span.row || known->phase != params->phase) {
        TRI_REQUIRE(d->at < d->most);
        *known = (struct opening){span, params->phase};
        course->known = d->at + 1;
    }
    d->at++;
}

static const void *open_weights(struct tri_residency *self, const struct tri_params *params,
                                struct tri_span span, enum tri_use use)
{
    struct depth *d = (struct depth *)self;
    struct slot *slot = NULL;
    (void)use;
    note(d, params, span);
    if (d->ahead.slot && d->ahead.span.row == span.row) {
        slot = land(&d->ahead);
    } else {
        forget_ahead(d);
        slot = gather(d, params, span, params->phase, NULL);
    }
    begin_ahead(d, params);
    return slot->block;
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

/* Sums of this rank's parts, scattered, to their place. */
static void bring(const struct depth *d, const struct tri_params *params, struct tri_span span,
                  struct slot *slot)
{
    enum tri_dtype dtype = params->buffer[span.row->buffer].gradient_dtype;
    size_t width = tri_dtype_size(dtype);
    char *at = slot->block;
    for (int i = 0; i < span.rows; i++) {
        const struct tri_param *row = &span.row[i];
        char *mine = at + (size_t)count_parts(d, row) * width;
        if (slot->first) {
            copy(d, mine, tri_param_gradients(params, row), (size_t)row->count * width);
        } else {
            add(d, mine, tri_param_gradients(params, row), row->count, dtype);
        }
        at += (size_t)opened(row) * width;
    }
    slot->taken = false;
}

static void bring_oldest(struct depth *d, const struct tri_params *params)
{
    struct tri_span span = d->back[0].span;
    bring(d, params, span, land(&d->back[0]));
    d->flights--;
    for (int i = 0; i < d->flights; i++) {
        d->back[i] = d->back[i + 1];
    }
}

static void close_gradients(struct tri_residency *self, const struct tri_params *params,
                            struct tri_span span, void *gradients)
{
    static const struct tri_where where = {TRI_PHASE_BACKWARD, TRI_KIND_GRADIENT};
    struct depth *d = (struct depth *)self;
    struct flight *flight = &d->back[d->flights];
    enum tri_dtype dtype = params->buffer[span.row->buffer].gradient_dtype;
    char *at = gradients;
    TRI_REQUIRE(span.rows <= SPAN_ROWS);
    *flight = (struct flight){.span = span, .slot = find(d, gradients)};
    for (int i = 0; i < span.rows; i++) {
        (void)count_parts(d, &span.row[i]);
        if (d->overlaps) {
            flight->request[i] = tri_reduce_scatter_v_begin(d->group, where, at, d->counts, dtype);
        } else {
            tri_reduce_scatter_v(d->group, where, at, d->counts, dtype);
        }
        at += (size_t)opened(&span.row[i]) * tri_dtype_size(dtype);
    }
    d->flights++;
    while (d->flights > (d->overlaps ? FLIGHTS : 0)) {
        bring_oldest(d, params);
    }
}

/* ---- passes ---------------------------------------------------------------------------------- */

static void begin_pass(struct tri_residency *self, const struct tri_params *params, bool backward)
{
    struct depth *d = (struct depth *)self;
    (void)params;
    TRI_REQUIRE(!d->passing);
    d->passing = d->overlaps ? &d->course[backward] : NULL;
    d->at = 0;
}

static void end_pass(struct tri_residency *self, const struct tri_params *params)
{
    struct depth *d = (struct depth *)self;
    forget_ahead(d);
    d->passing = NULL;
    while (d->flights > 0) {
        bring_oldest(d, params);
    }
}

static void settle_gradients(struct tri_residency *self, const struct tri_params *params,
                             int64_t block)
{
    struct depth *d = (struct depth *)self;
    struct tri_range rows = tri_params_rows(params, block);
    int until = 0;
    for (int i = 0; i < d->flights; i++) {
        int64_t row = d->back[i].span.row - params->param;
        until = row >= rows.begin && row < rows.end ? i + 1 : until;
    }
    while (until-- > 0) {
        bring_oldest(d, params);
    }
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
    tri_free(d->course[0].opening);
    tri_free(d->counts);
    tri_free(d);
}

static const struct tri_residency_ops ops = {
    .open = open_weights,
    .close = close_weights,
    .open_gradients = open_gradients,
    .close_gradients = close_gradients,
    .refresh = refresh,
    .begin_pass = begin_pass,
    .end_pass = end_pass,
    .settle_gradients = settle_gradients,
    .destroy = destroy,
};

static struct tri_residency *create(const struct tri_config *config,
                                    const struct tri_kernels *kernels, struct tri_params *params)
{
    struct tri_group *group = tri_mesh_group(params->mesh, TRI_ON_DEPTH);
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
            d->most++;
        }
    }
    /* A forward, a recompute and a backward, each of a row at most once; the head is opened too
     * where it is the table of embeddings. */
    d->most = 3 * d->most + 1;
    d->overlaps = config->comm_overlap;
    d->course[0].opening =
        tri_alloc(TRI_MEMORY_OTHER, 2 * (size_t)d->most * sizeof(*d->course[0].opening));
    d->course[1].opening = d->course[0].opening + d->most;
    return &d->base;
}

const struct tri_residency_kind tri_residency_depth = {create};
