/* Counter-based random numbers: a value depends on (seed, stream, index) alone, never on how many
 * were drawn before it or by whom, so that every layout draws the same ones. */
#ifndef TRIDENT_BASE_RANDOM_H
#define TRIDENT_BASE_RANDOM_H

#include <stdint.h>

/* A stream's number from its name ("layers.3.moe.router.weight", "loader", …). */
uint64_t tri_random_stream(const char *name);

uint64_t tri_random_bits(uint64_t seed, uint64_t stream, uint64_t index);
/* Uniform in (0, 1): never 0, never 1. */
double tri_random_uniform(uint64_t seed, uint64_t stream, uint64_t index);
/* Standard normal to f32's precision; four consecutive indices, from a multiple of four, come from
 * one block of the generator (two Box-Muller pairs). */
double tri_random_normal(uint64_t seed, uint64_t stream, uint64_t index);
/* out[i] = tri_random_normal(seed, stream, first + i), several times faster than one by one. */
void tri_random_normals(uint64_t seed, uint64_t stream, uint64_t first, int64_t n, float *out);
/* Bijection of [0, n) chosen by (seed, stream): position -> shuffled position. n >= 1. */
uint64_t tri_random_permute(uint64_t seed, uint64_t stream, uint64_t n, uint64_t position);

#endif
