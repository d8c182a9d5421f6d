/* Which of the rows of a matrix are whose, where more than one rank could have them. */
#ifndef TRIDENT_MODEL_PARAM_PART_H
#define TRIDENT_MODEL_PARAM_PART_H

#include "model/param.h"

/* The KV heads of this rank that no lower tensor rank has too. */
struct tri_range tri_kv_heads_counted(const struct tri_config_model *model,
                                      const struct tri_mesh *mesh);

/* What the rest of a grid does to a row that tensor has cut (AxoNN, arXiv 2305.13525, section 3.2).
 * Cross cuts the other dimension of a matrix, the hidden size; depth cuts what is left by rows,
 * which are opened whole. Vectors, the router and low-rank pairs are the same on all ranks, whose
 * gradients are sums over their own tokens: sum_axes is completed, and sync follows from it.
 * Nothing but that for experts, which the grid has cut already. */
void tri_param_part(const struct tri_mesh *mesh, struct tri_param *row);

#endif
