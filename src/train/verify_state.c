/* Equal weights, moments and biases on both sides; and the gradient that is broken on purpose. */
#include "train/verify_internal.h"

#include "moe/moe.h"

#include <string.h>

float *tri_verify_biases(const struct tri_engine *engine)
{
    return engine->moe_layers ? tri_moe_bias(tri_model_moe(engine->model)) : NULL;
}

int64_t tri_verify_bias_count(const struct tri_engine *engine)
{
    return engine->moe_layers * engine->config->moe.num_experts;
}

static void share_biases(const struct verify *v)
{
    const struct tri_engine *engine = v->session->engine;
    float *bias = tri_verify_biases(engine);
    if (bias) {
        int64_t n = tri_verify_bias_count(engine);
        if (verify_is_root(v)) {
            memcpy(bias, tri_verify_biases(v->reference), (size_t)n * sizeof(*bias));
        }
        tri_broadcast(tri_mesh_group(v->session->mesh, TRI_ON_ALL), tri_verify_where, bias, n,
                      TRI_F32, 0);
    }
}

void tri_verify_share_state(struct verify *v)
{
    static const enum tri_field fields[] = {TRI_FIELD_WEIGHT, TRI_FIELD_M, TRI_FIELD_V};
    enum { FIELDS = sizeof(fields) / sizeof(*fields) };
    struct tri_params *params = v->session->engine->params;
    share_biases(v);
    for (int p = 0; p < params->count; p++) {
        const struct tri_param *param = &params->param[p];
        int64_t n = verify_elements(param);
        for (int i = 0; i < FIELDS && verify_is_root(v); i++) {
            tri_param_gather(v->reference->params, &v->reference->params->param[p], fields[i],
                             v->whole[0] + i * n);
        }
        tri_broadcast(tri_mesh_group(v->session->mesh, TRI_ON_ALL), tri_verify_where, v->whole[0],
                      FIELDS * n, TRI_F32, 0);
        for (int i = 0; i < FIELDS; i++) {
            tri_param_scatter(params, param, fields[i], v->whole[0] + i * n);
        }
    }
}

void tri_verify_give_weights(struct verify *v)
{
    const struct tri_engine *engine = v->session->engine;
    for (int p = 0; p < engine->params->count; p++) {
        tri_param_gather(engine->params, &engine->params->param[p], TRI_FIELD_WEIGHT, v->whole[0]);
        if (verify_is_root(v)) {
            tri_param_scatter(v->reference->params, &v->reference->params->param[p],
                              TRI_FIELD_WEIGHT, v->whole[0]);
        }
    }
    const float *bias = tri_verify_biases(engine);
    if (bias && verify_is_root(v)) {
        /* It has none of its own where they are kept and no longer learned. */
        tri_moe_set_bias(tri_model_moe(v->reference->model), bias);
    }
}

void tri_verify_keep_weights(struct verify *v)
{
    const struct tri_params *params = v->reference->params;
    float *at = v->before;
    for (int p = 0; p < params->count; p++) {
        tri_param_gather(params, &params->param[p], TRI_FIELD_WEIGHT, at);
        at += verify_elements(&params->param[p]);
    }
}

void tri_verify_plant(const struct verify *v)
{
    struct tri_params *params = v->session->engine->params;
    const struct tri_param *param =
        v->options->plant ? tri_params_by_name(params, v->options->plant) : NULL;
    if (!param) {
        return;
    }
    struct tri_buffer *buffer = &params->buffer[param->buffer];
    struct tri_range part = tri_param_own(params, param);
    for (int64_t i = part.begin; i < part.end; i++) {
        if (buffer->gradient_dtype == TRI_I64) {
            int64_t *sum = tri_buffer_gradients(buffer, i);
            *sum = (int64_t)((double)*sum * v->options->factor);
        } else {
            float *gradient = tri_buffer_gradients(buffer, i); /* verify runs in f32 */
            *gradient = (float)((double)*gradient * v->options->factor);
        }
    }
}
