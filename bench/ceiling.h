/* What this machine's cores reach with operands in registers: the ceiling of any product. */
#ifndef TRIDENT_BENCH_CEILING_H
#define TRIDENT_BENCH_CEILING_H

#include <stdbool.h>
#include <stdint.h>

/* One way of multiplying and adding. bf16 operands may also go through the f32 ways: converting
 * costs nothing beside the products. */
struct tri_ceiling_way {
    const char *name;
    bool takes_f32;           /* operands may be f32 */
    bool (*can)(void);        /* whether processor and kernel allow it */
    double (*run)(int64_t n); /* n rounds; returns floating-point operations a second */
};

/* Ended by a NULL name. */
extern const struct tri_ceiling_way tri_ceiling_ways[];

/* GFLOP/s summed over that many threads that run at once: the median of seven takes of about 30
 * ms. */
double tri_ceiling_measure(const struct tri_ceiling_way *way, int threads);

/* The fastest way for operands of one precision; its GFLOP/s in *gflops. */
const struct tri_ceiling_way *tri_ceiling_best(bool bf16, int threads, double *gflops);

#endif
