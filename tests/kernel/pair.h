/* A tensor twice: once for the fast table under test, once for the reference, equal at first, each
 * with guard bytes before and after, and at an address that no vector is aligned to. Inputs too are
 * pairs, held to be unchanged. */
#ifndef TRIDENT_TESTS_KERNEL_PAIR_H
#define TRIDENT_TESTS_KERNEL_PAIR_H

#include "kernel/kernel.h"

#include <stddef.h>

struct pair {
    enum tri_dtype dtype;
    int64_t count;
    unsigned char *blocks[2];
    void *fast, *ref;
};

/* Uniform in (-size, size), rounded to dtype; each call draws other numbers. */
struct pair pair_create(enum tri_dtype dtype, int64_t count, double size);
double pair_get(const struct pair *pair, int64_t index);       /* of the reference */
void pair_set(struct pair *pair, int64_t index, double value); /* both */

/* Fails the test unless the guards are whole and each fast number is within `ulps` f32 units in the
 * last place (bf16: and one of its own) of the reference, or within `absolute`; NaN only where the
 * reference is NaN, infinities equal. ulps == 0 and absolute == 0: the same bits. Frees the
 * pair. */
void pair_end(struct pair *pair, const char *what, double ulps, double absolute);

/* The kernels of one instruction set, or with TRI_ISA_COUNT those that run where nothing else is
 * asked for, with 1 to 4 threads: made once, and kept. */
const struct tri_kernels *pair_kernels(int isa, int threads);
/* What runs where nothing else is asked for, with products through oneDNN; NULL where they are our
 * own. */
const struct tri_kernels *pair_mixed(int threads);
/* The same kernels with another number of threads. */
const struct tri_kernels *pair_threads(const struct tri_kernels *kernels, int threads);

/* Runs check on every fast table of our own that this machine can run, with two threads, in f32 and
 * bf16. */
typedef void (*pair_check)(const struct tri_kernels *fast, enum tri_dtype dt);
void pair_each_table(pair_check check);
/* And on the one of production, which differs from those in its products only. */
void pair_each_product_table(pair_check check);

/* Runs the tests, or those alone that the command line names: what is long under Valgrind is dealt
 * out to several runs (SLICES in CMakeLists.txt). */
struct CMUnitTest;
int pair_run(const struct CMUnitTest *tests, size_t count, int argc, char **argv);

/* Runs `call` on the fast side with 1 and with 3 threads; the test fails unless all outputs have
 * the same bits both times (they are set back between the two). */
void pair_same_on_threads(const struct tri_kernels *fast, struct pair *const *outputs, int count,
                          void (*call)(const struct tri_kernels *fast, void *context),
                          void *context);

#endif
