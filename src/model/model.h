/* A decoder-only transformer: embedding, blocks of attention and MLP or MoE, head. Owns the step
 * arena; the parameter table, mesh and config are borrowed. */
#ifndef TRIDENT_MODEL_MODEL_H
#define TRIDENT_MODEL_MODEL_H

#include "model/frame.h"

struct tri_model;

/* Makes the MoE sublayers of a model; moe/ implements it (tri_moe_factory). shared is one object
 * for all MoE layers of the model, made by the first call and released by release. */
struct tri_moe_factory {
    void *(*prepare)(const struct tri_context *context);
    struct tri_sublayer *(*create)(void *shared, const struct tri_context *context, int64_t layer);
    /* Before the first block and after the last one of a forward: model-wide balance statistics. */
    void (*begin)(void *shared, const struct tri_frame *frame);
    void (*end)(void *shared, const struct tri_frame *frame);
    void (*release)(void *shared);
};

/* params must be allocated. activation_bytes reserves the step arena's address space (0: a default
 * that follows the machine's memory). moe may be NULL for a dense model. Local. */
struct tri_model *tri_model_create(const struct tri_config *config, const struct tri_mesh *mesh,
                                   struct tri_params *params, const struct tri_kernels *kernels,
                                   const struct tri_moe_factory *moe);
void tri_model_destroy(struct tri_model *model);

/* Loss of one micro-batch, added to pass->tally; with pass->backward also adds its gradients to the
 * parameter table's. Collective over the mesh; every replica takes part, with 0 rows if it has
 * none. */
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
