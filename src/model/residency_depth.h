/* Weights whose rows are shared by the ranks of depth (parallel.tensor_grid). */
#ifndef TRIDENT_MODEL_RESIDENCY_DEPTH_H
#define TRIDENT_MODEL_RESIDENCY_DEPTH_H

#include "model/param_open.h"

extern const struct tri_residency_kind tri_residency_depth;

#endif
