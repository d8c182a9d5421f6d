/* Weights are opened for use. Whoever computes with the model's weights keeps rows of the table and
 * no pointers: it opens the rows that it is about to read, and closes them when it has.
 *
 *     const void *w = tri_weights_open(params, span, TRI_USE_FORWARD);
 *     … w is [elements of the span], and stays where it is …
 *     tri_weights_close(params, span, w);
 *
 * What lies behind is the row's residency. Without one the row is plain: it lies in its buffer
 * (tri_param_weights), where the replicas gather it, and opening it is finding its place. Weights
 * that are still on their way after an update are waited for here, whatever the residency: those of
 * the whole block, so that all ranks wait in the same order. Weights may be opened any number of
 * times at once.
 *
 * A gradient is opened to be written, by one at a time. Rows whose gradient is one product for each
 * micro-batch (tri_param_overwritten) are not zeroed before a step: whoever opens such a row as the
 * step's first, with whichever micro-batch, is told so and sets it. A row that nobody opened in a
 * step is zero; tri_gradients_reduce sees to it. Rows that are not trained have none. */
#ifndef TRIDENT_MODEL_PARAM_OPEN_H
#define TRIDENT_MODEL_PARAM_OPEN_H

#include "model/param.h"

/* Rows that lie one after the other, in the table as in their buffer, and are read as one; none
 * where the model has no such row. */
struct tri_span {
    const struct tri_param *row; /* the first, or NULL */
    int rows;
    int64_t count; /* elements of all of them, as their buffer has them */
};

/* What a weight is opened for: W as it is in y = x W^T, or in dx = dy W. */
enum tri_use { TRI_USE_FORWARD, TRI_USE_BACKWARD };

/* Where weights and gradients are when nobody has them open. The buffers stay the place that the
 * optimizer, checkpoints and the reduction work on. All functions are called by the thread that
 * runs the model; spans are never empty, and all rows of one have the same residency. */
struct tri_residency;
struct tri_residency_ops {
    /* The weights of a span, to be read until they are closed. */
    const void *(*open)(struct tri_residency *self, const struct tri_params *params,
                        struct tri_span span, enum tri_use use);
    void (*close)(struct tri_residency *self, const struct tri_params *params, struct tri_span span,
                  const void *weights);
    /* The gradients of a span, in the gradient_dtype of its buffer. first: what was there does not
     * matter, all of it will be set. Closing them brings them to the buffer. */
    void *(*open_gradients)(struct tri_residency *self, const struct tri_params *params,
                            struct tri_span span, bool first);
    void (*close_gradients)(struct tri_residency *self, const struct tri_params *params,
                            struct tri_span span, void *gradients);
    /* The row has new weights in its buffer, whole. It is not open. */
    void (*refresh)(struct tri_residency *self, const struct tri_params *params,
                    const struct tri_param *row);
    /* Or NULL, where nothing is ever under way: see tri_params_begin_pass, tri_params_end_pass
     * and tri_params_settle_gradients. */
    void (*begin_pass)(struct tri_residency *self, const struct tri_params *params, bool backward);
    void (*end_pass)(struct tri_residency *self, const struct tri_params *params);
    void (*settle_gradients)(struct tri_residency *self, const struct tri_params *params,
                             int64_t block);
    /* With the table. */
    void (*destroy)(struct tri_residency *self);
};
struct tri_residency {
    const struct tri_residency_ops *ops;
    struct tri_residency *next; /* of the table's */
};

/* One kind: a constant of model/residency_NAME.c, with a line in the list that a config is read
 * with. create makes what keeps rows of this table by this config and puts it into them
 * (tri_param.residency), or returns NULL: it keeps none. Rows whose gradients lie together and are
 * opened as one span get one residency. */
struct tri_residency_kind {
    struct tri_residency *(*create)(const struct tri_config *config,
                                    const struct tri_kernels *kernels, struct tri_params *params);
};

/* Asks all kinds of the config's list, after tri_params_allocate and before the weights have their
 * first values. Local. */
void tri_params_house(struct tri_params *params, const struct tri_config *config,
                      const struct tri_kernels *kernels);

/* `rows` rows of the table from `row` on, which must lie together; of no row where it is NULL. */
struct tri_span tri_span_make(const struct tri_params *params, const struct tri_param *row,
                              int rows);
/* Elements of what is opened: those of all ranks of depth, of rows that are parted. */
int64_t tri_span_opened(struct tri_span span);
/* The one row of a role, place, layer and expert; or none. */
struct tri_span tri_span_find(const struct tri_params *params, enum tri_role role,
                              enum tri_place place, int64_t layer, int64_t expert);

/* Whether opening these rows is a call of all ranks of depth. */
static inline bool tri_span_is_parted(struct tri_span span)
{
    return span.row && span.row->parted;
}

/* Whether these rows are there and are trained: whether they have gradients to open. */
static inline bool tri_span_is_trained(struct tri_span span)
{
    return span.row && span.row->trained;
}

const void *tri_weights_open_elsewhere(struct tri_params *params, struct tri_span span,
                                       enum tri_use use);
void tri_weights_close_elsewhere(struct tri_params *params, struct tri_span span,
                                 const void *weights);

/* The weights of a span, in the dtype of its rows; NULL where there are no rows. Collective over
 * the groups of the buffers while weights are on their way, and over depth where they are parted,
 * else local. */
static inline const void *tri_weights_open(struct tri_params *params, struct tri_span span,
                                           enum tri_use use)
{
    if (span.count == 0) {
        return span.row ? tri_param_weights(params, span.row) : NULL;
    }
    params->open++;
    if (params->buffer[span.row->buffer].segment[span.row->segment].gathering) {
        tri_params_settle_row(params, span.row);
    }
    return span.row->residency ? tri_weights_open_elsewhere(params, span, use)
                               : tri_param_weights(params, span.row);
}

static inline void tri_weights_close(struct tri_params *params, struct tri_span span,
                                     const void *weights)
{
    if (span.count > 0) {
        params->open--;
        if (span.row->residency) {
            tri_weights_close_elsewhere(params, span, weights);
        }
    }
}

/* The gradients of a trained span, in the gradient_dtype of its buffer; NULL where there are no
 * rows.
 * *first: they are undefined, and all of them must be set; else they are to be added to. Local. */
void *tri_gradients_open(struct tri_params *params, struct tri_span span, bool *first);
/* The same for rows that are never overwritten. */
void *tri_gradients_open_sum(struct tri_params *params, struct tri_span span);
void tri_gradients_close(struct tri_params *params, struct tri_span span, void *gradients);

/* Around a micro-batch that goes through all of the model: with or without a backward it opens
 * weights in the same order as the one before it of this kind, so that who gathers weights can
 * begin to before they are opened. Weights do not change meanwhile. What lies outside works as
 * well, without this. At the end the gradients that were closed are in the buffers. Collective
 * over depth. */
void tri_params_begin_pass(struct tri_params *params, bool backward);
void tri_params_end_pass(struct tri_params *params);
/* The same of a block's gradients, before anybody reads them in the buffers. */
void tri_params_settle_gradients(struct tri_params *params, int64_t block);

#endif
