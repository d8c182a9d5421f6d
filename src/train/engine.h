/* One training step, whoever asks for it (train, verify, tests): the rows of a global batch through
 * the model in micro-steps, gradients reduced, norm, update. */
#ifndef TRIDENT_TRAIN_ENGINE_H
#define TRIDENT_TRAIN_ENGINE_H

#include "base/exact.h"
#include "data/loader.h"
#include "model/model.h"
#include "optim/optim.h"

/* Where a step's rows come from. fill must give the same row on whichever rank asks for it; it
 * finds places in the row as positions, and may put others there. Targets of -1 do not count. */
struct tri_rows_source {
    void *state;
    enum tri_status (*fill)(void *state, int64_t step, int64_t first_row, int64_t rows,
                            const struct tri_row_arrays *out, struct tri_error *error);
    /* Targets that count in the step's global batch, the same on every rank without a message;
     * NULL: counted_tokens. Called after fill. */
    int64_t (*count)(void *state, int64_t step);
    int64_t rows, seq; /* of the global batch */
    /* What the loss is a mean over, and what routers' losses are means over: targets that count in
     * the global batch, and tokens in it (0: rows * seq); of a part of a larger one, in that. */
    int64_t counted_tokens, tokens;
    bool documents; /* first_key matters */
};

/* Sums over all ranks of a step's tallies: means over the global batch. */
struct tri_step_report {
    double cross_entropy, aux_loss, z_loss, information_loss,
        loss;         /* cross_entropy, and the others times their coefficients */
    double grad_norm; /* before clipping */
    /* The sums that two of them are made of: cross_entropy * counted targets, and aux_loss. */
    struct tri_exact cross_entropy_sum, aux_loss_sum;
    int64_t targets; /* that count */
    int64_t dropped;
    const int64_t *load; /* [MoE layers, experts]; borrowed from the engine until the next step */
    double seconds, seconds_attention, seconds_router, seconds_exchange, seconds_experts,
        seconds_optimizer, seconds_exposed; /* of this rank */
    bool finite;
};

struct tri_engine {
    const struct tri_config *config;
    const struct tri_mesh *mesh;
    const struct tri_kernels *kernels;
    struct tri_params *params;
    struct tri_model *model;
    struct tri_optimizer *optimizer; /* NULL when it only evaluates */
    struct tri_tally tally;
    struct tri_hooks hooks; /* of this engine's passes */
    bool last; /* the micro-batch that runs is the step's last: its gradients are final */
    int64_t moe_layers;
    int32_t *tokens, *targets, *first_key, *positions; /* this replica's rows of a step */
    int64_t row_capacity;                              /* rows * seq that they hold */
    int64_t counted; /* targets that count in the step's global batch */
};

/* Builds table, weights (initial values of config->seed), model and, when
 * training, optimizer for this rank of mesh. config, mesh and kernels are borrowed; a reproducible
 * config wants reproducible kernels. Local. */
struct tri_engine *tri_engine_create(const struct tri_config *config, const struct tri_mesh *mesh,
                                     const struct tri_kernels *kernels, bool training);
void tri_engine_destroy(struct tri_engine *engine);

/* Bytes of the arrays for a replica's rows of a step. */
int64_t tri_engine_row_bytes(int64_t rows, int64_t seq);

/* Zeroes the gradients and runs all micro-steps of `step` forward and backward, then reduces the
 * gradients to their shards. tap may be NULL. An error of the source on any rank is every rank's.
 * Collective over the mesh. */
enum tri_status tri_engine_gradients(struct tri_engine *engine,
                                     const struct tri_rows_source *source, int64_t step,
                                     struct tri_route_tap *tap, struct tri_step_report *report,
                                     struct tri_error *error) TRI_NODISCARD;

/* Clips, steps (update counts from 1) and gathers the weights; also bias balancing. With
 * comm.overlap the gathering goes on beside what comes next (tri_params_settle). Call it only when
 * report->finite. Collective over the mesh. */
void tri_engine_update(struct tri_engine *engine, int64_t update, double learning_rate,
                       struct tri_step_report *report);

/* Losses over the source's rows, forward only. Collective over the mesh. */
enum tri_status tri_engine_evaluate(struct tri_engine *engine, const struct tri_rows_source *source,
                                    struct tri_step_report *report,
                                    struct tri_error *error) TRI_NODISCARD;
/* The same; row_losses [rows] <- each row's sum over its counted targets of -log p, the same on all
 * ranks. */
enum tri_status tri_engine_score(struct tri_engine *engine, const struct tri_rows_source *source,
                                 double *row_losses, struct tri_step_report *report,
                                 struct tri_error *error) TRI_NODISCARD;

#endif
