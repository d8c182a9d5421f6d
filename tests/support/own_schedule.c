/* For f32, and sums that need not be reproducible. The tokens that meet at the experts are those of
 * `meeting`: the ranks that hold different tokens between which no expert is held twice. Each rank
 * computes all of them with its own experts, so all sums over experts, and over the tensor parts of
 * one, are sums over ranks. */
#include "base/memory.h"
#include "model/stream.h"
#include "moe/schedule.h"
#include "support/own_strategies.h"

#include <string.h>

struct gather {
    struct tri_schedule base;
    struct tri_network *networks;
    struct tri_cuts *cuts; /* none */
    struct tri_group *meeting;
    int64_t first, experts; /* the local ones */
    bool split;             /* tensor ranks hold different tokens */
    bool cut;               /* experts are cut over tensor */
};

/* What the forward leaves in a frame. */
struct kept {
    struct tri_network_saved saved;
    int64_t *counts;  /* [ranks] tokens of each */
    int64_t before;   /* tokens of earlier ranks */
    int64_t tokens;   /* of all */
    int32_t *expert;  /* [tokens, k] */
    float *weight;    /* [tokens, k] */
    float *back;      /* [tokens, k] what the gradient is weighed by */
    int64_t *offsets; /* [experts + 1] */
    int64_t *route;   /* [rows] */
    float *out;       /* [rows, hidden] this rank's part of the sum over tensor */
};

static const struct tri_config *config_of(const struct gather *g)
{
    return g->base.context->config;
}

static struct tri_range own(const struct tri_schedule *self, const struct tri_frame *frame)
{
    const struct gather *g = (const struct gather *)self;
    return g->split ? tri_tokens_part(frame) : (struct tri_range){0, tri_pass_tokens(&frame->pass)};
}

/* Counts of elements, `width` a token. */
static const int64_t *elements(const struct gather *g, const struct kept *kept,
                               const struct tri_frame *frame, int64_t width)
{
    int ranks = tri_group_size(g->meeting);
    int64_t *counts = tri_arena_alloc(frame->arena, (size_t)ranks * sizeof(*counts));
    for (int r = 0; r < ranks; r++) {
        counts[r] = kept->counts[r] * width;
    }
    return counts;
}

/* Own tokens' [n, width], of all ranks; 4 bytes each. */
static void *gather_all(const struct gather *g, const struct kept *kept,
                        const struct tri_frame *frame, enum tri_phase phase, const void *data,
                        int64_t width, enum tri_dtype dtype)
{
    size_t row = (size_t)width * sizeof(float);
    char *all = tri_arena_alloc(frame->arena, (size_t)kept->tokens * row + 1);
    size_t bytes = (size_t)kept->counts[tri_group_rank(g->meeting)] * row;
    if (bytes > 0) {
        memcpy(all + (size_t)kept->before * row, data, bytes);
    }
    tri_all_gather_v(g->meeting, (struct tri_where){phase, TRI_KIND_MOE}, all,
                     elements(g, kept, frame, width), dtype);
    return all;
}

/* data [own tokens, width] <- the sums over ranks of `all` [tokens, width]. */
static void reduce_own(const struct gather *g, const struct kept *kept,
                       const struct tri_frame *frame, enum tri_phase phase, float *all,
                       int64_t width, float *data)
{
    const struct tri_where where = {phase, TRI_KIND_MOE};
    tri_reduce_scatter_v(g->meeting, where, all, elements(g, kept, frame, width), TRI_F32);
    int64_t n = kept->counts[tri_group_rank(g->meeting)] * width;
    if (n > 0) {
        memcpy(data, all + kept->before * width, (size_t)n * sizeof(*data));
    }
    if (g->cut && !g->split) {
        tri_all_reduce_sum(tri_mesh_group(g->base.context->mesh, TRI_ON_TENSOR), where, data, n,
                           TRI_F32);
    }
}

static void meet(const struct gather *g, struct kept *kept, const struct tri_frame *frame,
                 const struct tri_routes *routes)
{
    int ranks = tri_group_size(g->meeting);
    int rank = tri_group_rank(g->meeting);
    int64_t k = config_of(g)->moe.top_k;
    struct tri_range tokens = own(&g->base, frame);
    int64_t *ones = tri_arena_alloc(frame->arena, (size_t)ranks * sizeof(*ones));
    kept->counts = tri_arena_alloc(frame->arena, (size_t)ranks * sizeof(*kept->counts));
    for (int r = 0; r < ranks; r++) {
        ones[r] = 1;
    }
    kept->counts[rank] = tri_range_size(tokens);
    tri_all_gather_v(g->meeting, (struct tri_where){frame->pass.phase, TRI_KIND_META}, kept->counts,
                     ones, TRI_I64);
    kept->before = kept->tokens = 0;
    for (int r = 0; r < ranks; r++) {
        kept->before += r < rank ? kept->counts[r] : 0;
        kept->tokens += kept->counts[r];
    }
    kept->expert = gather_all(g, kept, frame, frame->pass.phase, routes->expert + tokens.begin * k,
                              k, TRI_I32);
    kept->weight = gather_all(g, kept, frame, frame->pass.phase, routes->weight + tokens.begin * k,
                              k, TRI_F32);
    kept->back = kept->weight;
    if (routes->back) {
        kept->back = gather_all(g, kept, frame, frame->pass.phase, routes->back + tokens.begin * k,
                                k, TRI_F32);
    }
}

/* The rows of the local experts, one after the other. */
static int64_t line_up(const struct gather *g, struct kept *kept, const struct tri_frame *frame)
{
    int64_t routes = kept->tokens * config_of(g)->moe.top_k;
    int64_t rows = 0;
    kept->offsets =
        tri_arena_alloc(frame->arena, (size_t)(g->experts + 1) * sizeof(*kept->offsets));
    kept->route = tri_arena_alloc(frame->arena, (size_t)(routes + 1) * sizeof(*kept->route));
    for (int64_t e = 0; e < g->experts; e++) {
        kept->offsets[e] = rows;
        for (int64_t r = 0; r < routes; r++) {
            if (kept->expert[r] == g->first + e) {
                kept->route[rows++] = r;
            }
        }
    }
    kept->offsets[g->experts] = rows;
    return rows;
}

/* Own tokens' place in the stream. */
static float *in_stream(const struct gather *g, const struct tri_frame *frame, const void *stream)
{
    int64_t skipped = own(&g->base, frame).begin - tri_stream_tokens(frame).begin;
    return (float *)(uintptr_t)stream + skipped * config_of(g)->model.hidden_size;
}

static void make_whole(const struct gather *g, const struct tri_frame *frame, enum tri_phase phase,
                       void *stream)
{
    if (g->split && !tri_stream_is_cut(config_of(g), g->base.context->mesh)) {
        tri_tokens_gather(frame, (struct tri_where){phase, TRI_KIND_MOE}, stream,
                          config_of(g)->model.hidden_size, TRI_F32);
    }
}

static void *forward(const struct tri_schedule *self, const struct tri_frame *frame, void *left,
                     const struct tri_routes *routes, const void *x, bool output)
{
    const struct gather *g = (const struct gather *)self;
    struct kept *kept = left;
    const struct tri_context *context = self->context;
    int64_t hidden = context->config->model.hidden_size;
    int64_t k = context->config->moe.top_k;
    (void)output;
    TRI_REQUIRE(context->dt == TRI_F32 && !context->reproducible);
    meet(g, kept, frame, routes);
    const float *all =
        gather_all(g, kept, frame, frame->pass.phase, in_stream(g, frame, x), hidden, TRI_F32);
    int64_t rows = line_up(g, kept, frame);
    float *in = tri_frame_take_f32(frame, rows * hidden + 1);
    kept->out = tri_frame_take_f32(frame, rows * hidden + 1);
    for (int64_t i = 0; i < rows; i++) {
        memcpy(in + i * hidden, all + kept->route[i] / k * hidden, (size_t)hidden * sizeof(*in));
    }
    tri_networks_forward(frame, g->networks, g->experts, kept->offsets, NULL, in, &kept->saved);
    tri_networks_output(frame, g->networks, g->experts, kept->offsets, NULL, &kept->saved,
                        kept->out, !g->cut);
    if (g->cut && context->mesh->coord[TRI_AXIS_TENSOR] == 0) {
        tri_networks_add_down_bias(context, g->networks, g->experts, kept->offsets, kept->out);
    }
    float *sums = tri_frame_take_f32(frame, kept->tokens * hidden + 1);
    memset(sums, 0, (size_t)(kept->tokens * hidden) * sizeof(*sums));
    for (int64_t i = 0; i < rows * hidden; i++) {
        int64_t route = kept->route[i / hidden];
        sums[route / k * hidden + i % hidden] += kept->weight[route] * kept->out[i];
    }
    float *y = tri_frame_take_f32(frame, tri_stream_count(frame) * hidden + 1);
    reduce_own(g, kept, frame, frame->pass.phase, sums, hidden, in_stream(g, frame, y));
    make_whole(g, frame, frame->pass.phase, y);
    return y;
}

static void backward(const struct tri_schedule *self, const struct tri_frame *frame,
                     const void *left, const struct tri_routes *routes, const void *dy, void *dx,
                     float *dweight)
{
    const struct gather *g = (const struct gather *)self;
    const struct kept *kept = left;
    int64_t hidden = config_of(g)->model.hidden_size;
    int64_t k = config_of(g)->moe.top_k;
    int64_t rows = kept->offsets[g->experts];
    size_t mark = tri_arena_mark(frame->arena);
    (void)routes;
    const float *all =
        gather_all(g, kept, frame, TRI_PHASE_BACKWARD, in_stream(g, frame, dy), hidden, TRI_F32);
    float *slopes = tri_frame_take_f32(frame, kept->tokens * k + 1);
    float *d_out = tri_frame_take_f32(frame, rows * hidden + 1);
    float *d_in = tri_frame_take_f32(frame, rows * hidden + 1);
    float *sums = tri_frame_take_f32(frame, kept->tokens * hidden + 1);
    memset(slopes, 0, (size_t)(kept->tokens * k) * sizeof(*slopes));
    memset(sums, 0, (size_t)(kept->tokens * hidden) * sizeof(*sums));
    for (int64_t i = 0; i < rows * hidden; i++) {
        int64_t route = kept->route[i / hidden];
        float slope = all[route / k * hidden + i % hidden];
        slopes[route] += slope * kept->out[i];
        d_out[i] = kept->back[route] * slope;
    }
    tri_networks_backward(frame, g->networks, g->experts, kept->offsets, NULL, g->cuts,
                          &kept->saved, d_out, d_in);
    for (int64_t i = 0; i < rows * hidden; i++) {
        sums[kept->route[i / hidden] / k * hidden + i % hidden] += d_in[i];
    }
    reduce_own(g, kept, frame, TRI_PHASE_BACKWARD, sums, hidden, in_stream(g, frame, dx));
    reduce_own(g, kept, frame, TRI_PHASE_BACKWARD, slopes, k, dweight + own(self, frame).begin * k);
    tri_arena_rewind(frame->arena, mark);
}

static void finish_backward(const struct tri_schedule *self, const struct tri_frame *frame,
                            void *dx)
{
    make_whole((const struct gather *)self, frame, TRI_PHASE_BACKWARD, dx);
}

static void destroy(struct tri_schedule *self)
{
    tri_free(((struct gather *)self)->networks);
    tri_free(((struct gather *)self)->cuts);
    tri_free(self);
}

static bool splits_tokens(const struct tri_config *config, int tensor, int expert)
{
    (void)expert;
    return tensor > 1 &&
           (config->parallel.expert_tensor < tensor || config->train.sequence_parallel);
}

static const struct tri_schedule_ops ops;

static struct tri_schedule *create(const struct tri_context *context, struct tri_exchange *exchange,
                                   int64_t layer)
{
    const struct tri_mesh *mesh = context->mesh;
    int tensor = mesh->size[TRI_AXIS_TENSOR];
    struct gather *g = tri_alloc(TRI_MEMORY_OTHER, sizeof(*g));
    g->base = (struct tri_schedule){&ops, context, exchange, layer, sizeof(struct kept)};
    g->cut = tensor > 1 && context->config->parallel.expert_tensor == tensor;
    g->split = tri_moe_splits_tokens(context->config, mesh);
    g->meeting = g->split ? tri_mesh_group(mesh, TRI_ON_GRID | TRI_ON_EXPERT)
                          : tri_mesh_group(mesh, TRI_ON_EXPERT);
    struct tri_group *homes = g->cut || tensor == 1
                                  ? tri_mesh_group(mesh, TRI_ON_EXPERT)
                                  : tri_mesh_group(mesh, TRI_ON_GRID | TRI_ON_EXPERT);
    g->experts = context->config->moe.num_experts / tri_group_size(homes);
    g->first = tri_group_rank(homes) * g->experts;
    g->networks = tri_alloc(TRI_MEMORY_OTHER, (size_t)g->experts * sizeof(*g->networks));
    g->cuts = tri_alloc(TRI_MEMORY_OTHER, (size_t)g->experts * sizeof(*g->cuts));
    memset(g->cuts, 0, (size_t)g->experts * sizeof(*g->cuts));
    for (int64_t e = 0; e < g->experts; e++) {
        g->networks[e] = tri_network_get(context, TRI_PLACE_EXPERT, layer, g->first + e);
    }
    return &g->base;
}

static const struct tri_schedule_ops ops = {create,          own,    forward, backward,
                                            finish_backward, destroy};

const struct tri_schedule_kind own_schedule_gather = {
    .strategy = {"gather", "everything to everyone", NULL},
    .splits_tokens = splits_tokens,
    .ops = &ops,
};
