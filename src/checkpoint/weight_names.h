/* What other people's files call a weight: one table, of which each kind of file is a column.
 * Internal to checkpoint/. */
#ifndef TRIDENT_CHECKPOINT_WEIGHT_NAMES_H
#define TRIDENT_CHECKPOINT_WEIGHT_NAMES_H

#include "model/param.h"

/* Where the role alone decides; NULL: there is none, or who uses the column knows more. */
struct tri_weight_name {
    const char *llama; /* behind "model." or "model.layers.N." */
    const char *gpt2;  /* behind "transformer." or "transformer.h.N."; q, k, v share c_attn */
    const char *gguf;  /* behind nothing or "blk.N." */
};

extern const struct tri_weight_name tri_weight_names[TRI_ROLE_COUNT];

#endif
