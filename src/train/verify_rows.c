/* Which rows both sides see. Both take the same global batches. Windows over a micro-step or over a
 * replica's micro-batch count sets of rows together, and the reference must see the same sets at
 * once: it takes a micro-step of all replicas as one micro-batch, in the order in which the layout
 * deals the rows. */
#include "train/verify_internal.h"

#include "base/memory.h"
#include "shard/rows.h"

/* The reference's row j is row row_of[j] of the global batch. */
static enum tri_status fill_reference(void *state, int64_t step, int64_t first_row, int64_t rows,
                                      const struct tri_row_arrays *out, struct tri_error *error)
{
    const struct verify *v = state;
    int64_t seq = v->source.seq;
    for (int64_t j = 0; j < rows; j++) {
        const struct tri_row_arrays row = {out->tokens + j * seq, out->targets + j * seq,
                                           out->first_key + j * seq, out->positions + j * seq};
        TRI_TRY(v->source.fill(v->source.state, step, v->row_of[first_row + j], 1, &row, error));
    }
    return TRI_OK;
}

static int64_t count_reference(void *state, int64_t step)
{
    const struct verify *v = state;
    return v->source.count(v->source.state, step);
}

static bool uses_window(const struct tri_config *config, enum tri_window window)
{
    const struct tri_config_moe *moe = &config->moe;
    double loss = moe->router->dense ? moe->mutual_information : moe->aux_loss;
    return tri_model_moe_layers(config) > 0 &&
           ((loss > 0.0 && moe->aux_window == window) ||
            (moe->capacity_factor > 0.0 && moe->capacity_window == window));
}

/* Whether the router goes by a row's place in the batch, which random numbers are keyed by too. */
static bool goes_by_place(const struct tri_config *config)
{
    const struct tri_config_moe *moe = &config->moe;
    return moe->jitter > 0.0 || moe->noise > 0.0 || moe->router->by_place ||
           (moe->capacity_factor > 0.0 && moe->drop_policy == TRI_DROP_RANDOM);
}

enum tri_status tri_verify_order_rows(struct verify *v, struct tri_error *error)
{
    const struct tri_config *config = &v->config;
    int64_t rows = config->train.global_batch;
    int64_t micro = config->train.micro_batch;
    int replicas = tri_group_size(tri_mesh_group(v->session->mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    v->row_of = tri_alloc(TRI_MEMORY_OTHER, (size_t)rows * sizeof(*v->row_of));
    for (int64_t j = 0; j < rows; j++) {
        v->row_of[j] = j;
    }
    if (uses_window(config, TRI_WINDOW_RANK) && replicas > 1) {
        for (int r = 0; r < replicas; r++) {
            if (tri_range_size(tri_rows_share(rows, replicas, r)) % micro != 0) {
                return tri_config_refuse(
                    config, error, "train.micro_batch",
                    "with a window of 'rank' layouts agree only if they keep the "
                    "micro-batches, and %lld rows over %d replicas do not divide into "
                    "micro-batches of %lld",
                    (long long)rows, replicas, (long long)micro);
            }
        }
    }
    if (uses_window(config, TRI_WINDOW_STEP)) {
        if (uses_window(config, TRI_WINDOW_RANK) && replicas > 1) {
            return tri_config_refuse(
                config, error, "moe.capacity_window",
                "one window of 'step' and one of 'rank' cannot both be reproduced on one rank");
        }
        if (goes_by_place(config) && tri_rows_micro_steps(rows, replicas, micro) > 1 &&
            replicas > 1) {
            return tri_config_refuse(
                config, error, "train.micro_batch",
                "with a window of 'step' and a router that draws numbers or takes turns, one rank "
                "agrees only on a single micro-step: expected at least %lld for %lld rows over %d "
                "replicas",
                (long long)((rows + replicas - 1) / replicas), (long long)rows, replicas);
        }
        v->reference_config.train.micro_batch = micro * replicas;
        int64_t dealt = micro * replicas < rows ? micro * replicas : rows;
        v->result->layout_rows = dealt > micro ? dealt : 0;
        int64_t at = 0;
        for (int64_t i = 0; i < tri_rows_micro_steps(rows, replicas, micro); i++) {
            for (int r = 0; r < replicas; r++) {
                struct tri_range part = tri_rows_micro(rows, replicas, r, micro, i);
                for (int64_t row = part.begin; row < part.end; row++) {
                    v->row_of[at++] = row;
                }
            }
        }
    }
    v->reference_source = v->source;
    v->reference_source.state = v;
    v->reference_source.fill = fill_reference;
    v->reference_source.count = v->source.count ? count_reference : NULL;
    return TRI_OK;
}
