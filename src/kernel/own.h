/* Inside kernel/: what an object of kernels owns beside its table of functions. */
#ifndef TRIDENT_KERNEL_OWN_H
#define TRIDENT_KERNEL_OWN_H

#include "kernel/kernel.h"

struct tri_attention_isa;
struct tri_onednn;
struct tri_scratch;

struct tri_kernels_own {
    struct tri_scratch *scratch; /* one for each thread */
    struct tri_onednn *onednn;   /* NULL: products are all our own */
    /* Of oneDNN's table: our own products, for what it does not take or is slow at. */
    void (*matmul_grouped)(const struct tri_kernels *self, const struct tri_matmul *products,
                           int64_t count);
    /* Of the dry kind. */
    const struct tri_attention_isa
        *counted; /* whose scratch; NULL: of the reference, which has none */
    int counted_threads;
    int64_t most;
};

/* Fills in what a rehearsal calls. */
void tri_dry_fill(struct tri_kernels *table);

#endif
