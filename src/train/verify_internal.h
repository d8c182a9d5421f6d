/* What the files of verify share: verify.c, the steps; verify_rows.c, which rows both sides see;
 * verify_routes.c, which experts they choose; verify_state.c, equal weights and moments;
 * verify_compare.c, what must agree. */
#ifndef TRIDENT_TRAIN_VERIFY_INTERNAL_H
#define TRIDENT_TRAIN_VERIFY_INTERNAL_H

#include "train/text.h"
#include "train/verify.h"

struct verify {
    struct tri_config config;           /* of the layout, f32 */
    struct tri_config reference_config; /* of one rank */
    const struct tri_verify_options *options;
    struct tri_verify_result *result;
    struct tri_session *session;
    struct tri_text text;
    struct tri_mesh *serial;      /* rank 0 */
    struct tri_engine *reference; /* rank 0 */
    struct tri_rows_source source, reference_source;
    int64_t *row_of; /* [rows] reference row -> row of the global batch */
    struct tri_route_tap tap, reference_tap;
    int64_t largest;      /* elements of the largest parameter */
    float *whole[4];      /* room for one whole parameter each; the last one on rank 0 only */
    float *before;        /* rank 0: all weights before an update, one after the other */
    double keys_norm;     /* of the gradient of the last key weight that was looked at */
    double worst_excess;  /* of a gradient's error over its limit */
    double change_excess; /* likewise of a change */
};

extern const struct tri_where tri_verify_where;

static inline bool verify_is_root(const struct verify *v)
{
    return v->session->mesh->rank == 0;
}

static inline int64_t verify_elements(const struct tri_param *param)
{
    return param->shape[0] * param->shape[1];
}

/* Refuses what one rank cannot reproduce; orders the reference's rows and sizes its micro-batches
 * as the windows need it. */
enum tri_status tri_verify_order_rows(struct verify *v, struct tri_error *error) TRI_NODISCARD;

void tri_verify_make_taps(struct verify *v);
/* Counts tokens whose routes differ; returns whether any did. Collective; the same on all ranks. */
bool tri_verify_compare_routes(struct verify *v);
/* Gives every rank the reference's routes, to impose; and its drops, which near ties of
 * probabilities could flip as well. Collective. */
void tri_verify_share_routes(struct verify *v);

/* Gives the layout the reference's weights, moments and biases. Collective. */
void tri_verify_share_state(struct verify *v);
/* The reverse, of weights and biases alone. Collective. */
void tri_verify_give_weights(struct verify *v);
/* Scales this rank's part of the planted gradient: the shard that the reduction left here.
 * Local. */
void tri_verify_plant(const struct verify *v);
/* Rank 0 keeps the reference's weights of before its update. Local. */
void tri_verify_keep_weights(struct verify *v);
/* The balancing biases, which choose experts as the weights do; NULL when the config has none. */
float *tri_verify_biases(const struct tri_engine *engine);
int64_t tri_verify_bias_count(const struct tri_engine *engine);

/* The reference's gradients against the layout's; whole_norm: of the reference's whole gradient.
 * Collective. */
void tri_verify_compare_gradients(struct verify *v, double whole_norm);
/* After both sides' update: what it changed; whole_norm as above. Collective. */
void tri_verify_compare_changes(struct verify *v, int64_t step, double whole_norm);
/* An error that counts as `excess` times its limit, NaN as infinitely many. Local. */
void tri_verify_note(struct verify *v, const char *what, double relative, double excess);

#endif
