#include "model/gradient.h"
#include "model/layers.h"
#include "model/network.h"
#include "model/stream.h"

struct mlp {
    struct tri_sublayer base;
    struct tri_network network;
    struct tri_network_saved saved;
};

static const struct tri_where backward_mlp = {TRI_PHASE_BACKWARD, TRI_KIND_MLP};

static void *forward(struct tri_sublayer *self, const struct tri_pass *pass, const void *x,
                     bool output)
{
    struct mlp *mlp = (struct mlp *)self;
    const struct tri_context *context = self->context;
    struct tri_where where = {pass->phase, TRI_KIND_MLP};
    int64_t offsets[2] = {0, tri_pass_tokens(pass)};
    int64_t own[2] = {0, tri_stream_count(context, pass)};
    bool whole = tri_sum_is_whole(context);
    x = tri_stream_whole(context, pass, where, x);
    void *y =
        output ? tri_context_take(context, own[1] * context->config->model.hidden_size) : NULL;
    tri_networks_forward(context, &mlp->network, 1, offsets, x, &mlp->saved);
    if (output) {
        size_t mark = tri_arena_mark(context->arena);
        void *partial = tri_stream_partial(context, pass, y, context->sum_dt);
        tri_networks_output(context, &mlp->network, 1, offsets, &mlp->saved, partial, whole);
        if (!whole) {
            tri_stream_sum(context, pass, where, partial, context->sum_dt, y);
            tri_networks_add_down_bias(context, &mlp->network, 1, own, y);
        }
        tri_arena_rewind(context->arena, mark);
    }
    return y;
}

static void backward(struct tri_sublayer *self, const struct tri_pass *pass, const void *dy,
                     void *dx)
{
    struct mlp *mlp = (struct mlp *)self;
    const struct tri_context *context = self->context;
    int64_t offsets[2] = {0, tri_pass_tokens(pass)};
    size_t mark = tri_arena_mark(context->arena);
    dy = tri_stream_whole_gradient(context, pass, backward_mlp, dy);
    void *partial = tri_stream_partial(context, pass, dx, context->sum_dt);
    const struct tri_cuts cuts = tri_cuts_by_rows(context, pass);
    tri_networks_backward(context, &mlp->network, 1, offsets, &cuts, &mlp->saved, dy, partial);
    tri_stream_sum(context, pass, backward_mlp, partial, context->sum_dt, dx);
    tri_arena_rewind(context->arena, mark);
}

static void destroy(struct tri_sublayer *self)
{
    tri_free(self);
}

struct tri_sublayer *tri_mlp_create(const struct tri_context *context, int64_t layer)
{
    static const struct tri_sublayer_ops ops = {forward, backward, destroy};
    struct mlp *mlp = tri_alloc(TRI_MEMORY_OTHER, sizeof(*mlp));
    mlp->base = (struct tri_sublayer){&ops, context, layer};
    mlp->network = tri_network_get(context, TRI_PLACE_DENSE, layer, -1);
    return &mlp->base;
}
