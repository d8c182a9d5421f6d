#include "kernel/x86/scratch.h"

#include "base/memory.h"
#include "base/status.h"
#include "kernel/own.h"

#include <omp.h>

struct tri_scratch {
    void *block;
    size_t capacity;
};

struct tri_scratch *tri_scratch_create(int threads)
{
    return tri_alloc(TRI_MEMORY_KERNELS, (size_t)threads * sizeof(struct tri_scratch));
}

void tri_scratch_destroy(struct tri_scratch *scratch, int threads)
{
    for (int i = 0; scratch && i < threads; i++) {
        tri_free(scratch[i].block);
    }
    tri_free(scratch);
}

void *tri_scratch_get(const struct tri_kernels *self, size_t bytes)
{
    /* The place in the outermost team, whatever regions of one thread are open inside it. */
    int thread = omp_get_level() > 0 ? omp_get_ancestor_thread_num(1) : 0;
    TRI_REQUIRE(thread < self->threads);
    struct tri_scratch *own = &self->own->scratch[thread];
    /* A block of nothing is a pointer behind a header, which leak checkers take for a lost one. */
    return tri_grow(TRI_MEMORY_KERNELS, &own->block, &own->capacity, bytes > 0 ? bytes : 1);
}
