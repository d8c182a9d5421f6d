#include "moe/fixture.h"

#include "base/memory.h"
#include "base/random.h"
#include "moe/strategies.h"

#include <string.h>

void fixture_config(struct tri_config *config)
{
    tri_config_init(&tri_strategies, config);
    config->model.num_layers = 1;
    struct tri_config_moe *moe = &config->moe;
    memset(moe, 0, sizeof(*moe));
    moe->num_experts = 8;
    moe->top_k = 2;
    moe->every = 1;
    moe->aux_scope = TRI_AUX_LAYER;
    moe->aux_window = TRI_WINDOW_SEQUENCE;
    moe->capacity_window = TRI_WINDOW_SEQUENCE;
    moe->drop_policy = TRI_DROP_POSITION;
    moe->router = &tri_router_top_k;
    moe->groups = moe->groups_top = 1;
    moe->routed_scaling = 1;
}

void fixture_begin(struct fixture *f, const struct tri_config *config, struct tri_mesh *mesh,
                   int64_t first_row, int64_t rows, int64_t seq)
{
    memset(f, 0, sizeof(*f));
    f->config = *config;
    const int64_t row_size = seq * config->moe.num_experts;
    f->mesh = mesh ? mesh : tri_mesh_create_serial();
    f->router = tri_router_create(&f->config, f->mesh, 2);
    if (mesh) {
        f->mesh = NULL;
    }
    f->logits = tri_alloc(TRI_MEMORY_OTHER, (size_t)(rows * row_size) * sizeof(*f->logits));
    for (int64_t i = 0; i < rows * row_size; i++) {
        uint64_t index = (uint64_t)(first_row * row_size + i);
        f->logits[i] = (float)(1.5 * tri_random_normal(7, 11, index));
    }
    f->routes_block = tri_alloc(TRI_MEMORY_OTHER, tri_routes_bytes(config, rows, seq));
    tri_routes_place(config, rows, seq, f->routes_block, &f->routes);
    f->model_block = tri_alloc(TRI_MEMORY_OTHER, tri_aux_model_bytes(config, rows));
    f->call = (struct tri_router_call){.logits = f->logits,
                                       .rows = rows,
                                       .seq = seq,
                                       .first_row = first_row,
                                       .global_tokens = rows * seq,
                                       .seed = 3,
                                       .step = 5,
                                       .training = true,
                                       .phase = TRI_PHASE_FORWARD};
}

void fixture_end(struct fixture *f)
{
    tri_router_destroy(f->router);
    tri_mesh_destroy(f->mesh);
    tri_free(f->logits);
    tri_free(f->routes_block);
    tri_free(f->model_block);
}

double fixture_forward(struct fixture *f)
{
    if (f->config.moe.aux_scope == TRI_AUX_LAYER) {
        tri_router_forward(f->router, &f->call, &f->routes, NULL);
        return f->routes.aux_loss;
    }
    tri_aux_model_begin(&f->config, f->call.rows, f->model_block, &f->model);
    tri_router_forward(f->router, &f->call, &f->routes, &f->model);
    return tri_aux_model_finish(f->router, &f->model, f->call.phase, f->call.global_tokens);
}
