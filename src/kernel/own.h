/* Inside kernel/: what an object of kernels owns beside its table of functions. */
#ifndef TRIDENT_KERNEL_OWN_H
#define TRIDENT_KERNEL_OWN_H

#include "kernel/note.h"

struct tri_attention_isa;
struct tri_onednn;
struct tri_scratch;

struct tri_kernels_own {
    struct tri_runtime *runtime; /* that it works for, as tri_runtime_bind takes it */
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
    const struct tri_kernel_listener *listener; /* NULL: nobody; also of the timed */
    /* Of the timed kind. */
    const struct tri_kernels *inner;
    struct tri_kernels *notes;       /* dry ones: what a call is */
    struct tri_kernel_listener book; /* hears them */
    double seconds, busy;            /* of the last call */
};

/* At the head of what a thread of OpenMP does that may allocate or panic: from now on it works for
 * the rank that the kernels work for. (libgomp ends threads of a team that shrinks, and makes new
 * ones.) Its place in the outermost team, whatever regions of one thread are open inside that. */
int tri_kernels_join(const struct tri_kernels *self);

/* Behind tri_kernels_join: what tri_kernels_leave, at the end of a thread's share and before it
 * waits for the others, tells to who traces; nothing where no team was made. */
double tri_kernels_enter(void);
void tri_kernels_leave(double began, const char *name);

/* Of the timed kind: the end of what tri_kernels_start began. */
void tri_timed_end(const struct tri_kernels *self);

/* Fills in what a rehearsal calls. */
void tri_dry_fill(struct tri_kernels *table);

#endif
