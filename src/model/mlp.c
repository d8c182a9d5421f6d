#include "model/layers.h"
#include "model/network.h"

struct mlp {
    struct tri_sublayer base;
    struct tri_network network;
    struct tri_network_saved saved;
};

static void forward(struct tri_sublayer *self, const struct tri_pass *pass, const void *x, void *y)
{
    struct mlp *mlp = (struct mlp *)self;
    const struct tri_context *context = self->context;
    struct tri_group *tensor = context->mesh->tensor;
    int64_t offsets[2] = {0, tri_pass_tokens(pass)};
    bool whole = tri_group_size(tensor) == 1;
    tri_networks_forward(context, &mlp->network, 1, offsets, x, y, whole, &mlp->saved);
    if (!whole) {
        tri_all_reduce_sum(tensor, (struct tri_where){pass->phase, TRI_KIND_MLP}, y,
                           offsets[1] * context->config->model.hidden_size, context->dt);
        tri_networks_add_down_bias(context, &mlp->network, 1, offsets, y);
    }
}

static void backward(struct tri_sublayer *self, const struct tri_pass *pass, const void *dy,
                     void *dx)
{
    struct mlp *mlp = (struct mlp *)self;
    const struct tri_context *context = self->context;
    int64_t offsets[2] = {0, tri_pass_tokens(pass)};
    tri_networks_backward(context, &mlp->network, 1, offsets, &mlp->saved, dy, dx);
    tri_all_reduce_sum(context->mesh->tensor, (struct tri_where){TRI_PHASE_BACKWARD, TRI_KIND_MLP},
                       dx, offsets[1] * context->config->model.hidden_size, context->dt);
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
