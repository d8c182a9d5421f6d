/* The table of rotary positions. */
#ifndef TRIDENT_MODEL_ROPE_H
#define TRIDENT_MODEL_ROPE_H

#include "config/config.h"
#include "kernel/kernel.h"

/* Radians by which pair j < head_dim / 2 of a head turns from one position to the next, scaled as
 * model.rope_scaling says. Pure. */
double tri_rope_frequency(const struct tri_config *config, int64_t j);

/* [max_position, head_dim]: cosines, then sines, of the angles of each position, scaled as
 * model.rope_scaling says; of plans left out. tri_free it. */
float *tri_rope_table_create(const struct tri_config *config, const struct tri_kernels *kernels);

#endif
