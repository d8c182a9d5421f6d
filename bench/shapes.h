/* The models that Trident is timed on. */
#ifndef TRIDENT_BENCH_SHAPES_H
#define TRIDENT_BENCH_SHAPES_H

#include "config/config.h"

struct tri_shape {
    const char *name;
    const char *yaml; /* its config */
};

/* Ended by a NULL name. */
extern const struct tri_shape tri_shapes[];

/* Floating-point operations that the model asks for a token, forward and backward: 6 a parameter of
 * a matrix that a token meets (router and head included, embedding not), and 12 * layers * width of
 * the heads * sequence length for attention (the whole square, as if nothing were masked). */
double tri_shape_flops_per_token(const struct tri_config *config);

#endif
