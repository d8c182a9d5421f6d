#include "model/param_open.h"

void tri_params_house(struct tri_params *params, const struct tri_config *config,
                      const struct tri_kernels *kernels)
{
    const struct tri_residency_kind *const *kinds = config->known->residencies;
    for (int i = 0; kinds[i]; i++) {
        struct tri_residency *made = kinds[i]->create(config, kernels, params);
        if (made) {
            made->next = params->residencies;
            params->residencies = made;
        }
    }
}

struct tri_span tri_span_make(const struct tri_params *params, const struct tri_param *row,
                              int rows)
{
    struct tri_span span = {row, row ? rows : 0, 0};
    for (int i = 0; i < span.rows; i++) {
        TRI_REQUIRE(row + i < params->param + params->count);
        TRI_REQUIRE(row[i].buffer == row->buffer && row[i].offset == row->offset + span.count);
        TRI_REQUIRE(row[i].residency == row->residency);
        span.count += row[i].count;
    }
    TRI_REQUIRE(span.count == 0 || row->count > 0);
    return span;
}

int64_t tri_span_opened(struct tri_span span)
{
    int64_t count = 0;
    for (int i = 0; i < span.rows; i++) {
        count += tri_range_size(span.row[i].opened[0]) * tri_range_size(span.row[i].opened[1]);
    }
    return count;
}

struct tri_span tri_span_find(const struct tri_params *params, enum tri_role role,
                              enum tri_place place, int64_t layer, int64_t expert)
{
    return tri_span_make(params, tri_params_find(params, role, place, layer, expert), 1);
}

const void *tri_weights_open_elsewhere(struct tri_params *params, struct tri_span span,
                                       enum tri_use use)
{
    struct tri_residency *residency = span.row->residency;
    return residency->ops->open(residency, params, span, use);
}

void tri_weights_close_elsewhere(struct tri_params *params, struct tri_span span,
                                 const void *weights)
{
    struct tri_residency *residency = span.row->residency;
    residency->ops->close(residency, params, span, weights);
}

static struct tri_gradient_state *states(const struct tri_params *params, struct tri_span span)
{
    return params->state + (span.row - params->param);
}

void *tri_gradients_open(struct tri_params *params, struct tri_span span, bool *first)
{
    *first = false;
    if (span.count == 0) {
        return span.row ? tri_param_gradients(params, span.row) : NULL;
    }
    struct tri_gradient_state *state = states(params, span);
    TRI_REQUIRE(params->buffer[span.row->buffer].gradients);
    params->open++;
    *first = state[0].fresh;
    for (int i = 0; i < span.rows; i++) {
        TRI_REQUIRE(!state[i].open && state[i].fresh == *first);
        state[i] = (struct tri_gradient_state){.open = true};
    }
    struct tri_residency *residency = span.row->residency;
    return residency ? residency->ops->open_gradients(residency, params, span, *first)
                     : tri_param_gradients(params, span.row);
}

void *tri_gradients_open_sum(struct tri_params *params, struct tri_span span)
{
    bool first;
    void *gradients = tri_gradients_open(params, span, &first);
    TRI_REQUIRE(!first);
    return gradients;
}

void tri_gradients_close(struct tri_params *params, struct tri_span span, void *gradients)
{
    if (span.count == 0) {
        return;
    }
    struct tri_gradient_state *state = states(params, span);
    struct tri_residency *residency = span.row->residency;
    if (residency) {
        residency->ops->close_gradients(residency, params, span, gradients);
    }
    for (int i = 0; i < span.rows; i++) {
        TRI_REQUIRE(state[i].open);
        state[i].open = false;
    }
    params->open--;
}

void tri_params_refresh_row(const struct tri_params *params, const struct tri_param *param)
{
    if (param->residency && param->count > 0) {
        param->residency->ops->refresh(param->residency, params, param);
    }
}

void tri_params_refresh(const struct tri_params *params, int64_t block, int buffer)
{
    struct tri_range rows = tri_params_rows(params, block);
    for (int64_t p = rows.begin; p < rows.end; p++) {
        if (params->param[p].buffer == buffer) {
            tri_params_refresh_row(params, &params->param[p]);
        }
    }
}

void tri_params_begin_pass(struct tri_params *params, bool backward)
{
    for (struct tri_residency *r = params->residencies; r; r = r->next) {
        if (r->ops->begin_pass) {
            r->ops->begin_pass(r, params, backward);
        }
    }
}

void tri_params_end_pass(struct tri_params *params)
{
    for (struct tri_residency *r = params->residencies; r; r = r->next) {
        if (r->ops->end_pass) {
            r->ops->end_pass(r, params);
        }
    }
}

void tri_params_settle_gradients(struct tri_params *params, int64_t block)
{
    for (struct tri_residency *r = params->residencies; r; r = r->next) {
        if (r->ops->settle_gradients) {
            r->ops->settle_gradients(r, params, block);
        }
    }
}
