#include "model/layers.h"
#include "model/network.h"
#include "model/stream.h"

struct mlp {
    struct tri_sublayer base;
    struct tri_network network;
};

static void *forward(const struct tri_sublayer *self, const struct tri_frame *frame, void *kept,
                     const void *x, bool output)
{
    const struct tri_pass *pass = &frame->part;
    const struct mlp *mlp = (const struct mlp *)self;
    const struct tri_context *context = self->context;
    struct tri_where where = {pass->phase, TRI_KIND_MLP};
    int64_t offsets[2] = {0, tri_pass_tokens(pass)};
    int64_t own[2] = {0, tri_stream_count(frame)};
    bool whole = tri_sum_is_whole(context);
    x = tri_stream_whole(frame, where, x);
    void *y = output ? tri_frame_take(frame, own[1] * context->config->model.hidden_size) : NULL;
    tri_networks_forward(frame, &mlp->network, 1, offsets, NULL, x, kept);
    if (output) {
        size_t mark = tri_arena_mark(frame->arena);
        void *partial = tri_stream_partial(frame, y, context->sum_dt);
        tri_networks_output(frame, &mlp->network, 1, offsets, NULL, kept, partial, whole);
        if (!whole) {
            tri_stream_sum(frame, where, partial, context->sum_dt, y);
            tri_networks_add_down_bias(context, &mlp->network, 1, own, y);
        }
        tri_arena_rewind(frame->arena, mark);
    }
    return y;
}

static void backward(const struct tri_sublayer *self, const struct tri_frame *frame,
                     const void *kept, const void *dy, void *dx)
{
    const struct mlp *mlp = (const struct mlp *)self;
    tri_network_backward(frame, &mlp->network, kept, dy, dx);
}

static void destroy(struct tri_sublayer *self)
{
    tri_free(self);
}

struct tri_sublayer *tri_mlp_create(const struct tri_context *context, int64_t layer)
{
    static const struct tri_sublayer_ops ops = {forward, backward, destroy};
    struct mlp *mlp = tri_alloc(TRI_MEMORY_OTHER, sizeof(*mlp));
    mlp->base = (struct tri_sublayer){&ops, context, layer, sizeof(struct tri_network_saved)};
    mlp->network = tri_network_get(context, TRI_PLACE_DENSE, layer, -1);
    return &mlp->base;
}
