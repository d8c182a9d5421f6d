/* A decoder-only transformer: embedding, blocks of attention and MLP or MoE, head. Owns its frames;
 * the parameter table, mesh and config are borrowed. */
#ifndef TRIDENT_MODEL_MODEL_H
#define TRIDENT_MODEL_MODEL_H

#include "model/frame.h"

struct tri_model;

/* Makes the MoE sublayers of a model; moe/ implements it (tri_moe_factory). shared is one object
 * for all MoE layers of the model, made by the first call and released by release. */
struct tri_moe_factory {
    size_t kept; /* bytes that the MoE layers have together in a frame: frame->moe */
    void *(*prepare)(const struct tri_context *context);
    struct tri_sublayer *(*create)(void *shared, const struct tri_context *context, int64_t layer);
    /* Before the first block and after the last one of a forward: model-wide balance statistics. */
    void (*begin)(void *shared, const struct tri_frame *frame);
    void (*end)(void *shared, const struct tri_frame *frame);
    void (*release)(void *shared);
};

/* params must be allocated. moe may be NULL for a dense model. Local. */
struct tri_model *tri_model_create(const struct tri_config *config, const struct tri_mesh *mesh,
                                   struct tri_params *params, const struct tri_kernels *kernels,
                                   const struct tri_moe_factory *moe);
void tri_model_destroy(struct tri_model *model);

/* A micro-batch's way through the model: a frame is opened for it, then forward, loss and, with
 * pass->backward, backward, each once and all collective over the mesh; then it is closed. Without
 * a backward it may be closed earlier. Frames that are open at once go through all of this
 * independently of each other, so long as all ranks agree on the order. Every replica takes part,
 * with 0 rows if it has none.
 *
 * Memory is that of the model's frames, as many as were ever open at once; the first that is free
 * is taken. */

/* pass is copied; what it points to must stay until tri_frame_close (model/frame.h). Local. */
struct tri_frame *tri_frame_open(struct tri_model *model, const struct tri_pass *pass);
/* From the tokens to the final norm. */
void tri_model_forward(const struct tri_model *model, struct tri_frame *frame);
/* The micro-batch's loss, added to pass->tally; with pass->backward also the head's gradients,
 * added to the parameter table's. */
void tri_model_loss(const struct tri_model *model, struct tri_frame *frame);
/* Adds the gradients of all the rest. */
void tri_model_backward(const struct tri_model *model, struct tri_frame *frame);

/* All of it for one micro-batch. */
void tri_model_step(struct tri_model *model, const struct tri_pass *pass);

/* logits [rows * seq, vocab] f32 (last_only: [rows, vocab] of each row's last token), whole on
 * every tensor rank. Collective over the mesh. */
void tri_model_logits(struct tri_model *model, const struct tri_pass *pass, bool last_only,
                      float *logits);

/* The MoE layers' shared object (moe/), or NULL. */
void *tri_model_moe(const struct tri_model *model);
const struct tri_context *tri_model_context(const struct tri_model *model);
int64_t tri_model_moe_layers(const struct tri_config *config);
/* Place of a layer among the MoE layers. */
int64_t tri_model_moe_index(const struct tri_config *config, int64_t layer);

#endif
