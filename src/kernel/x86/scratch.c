#include "kernel/x86/scratch.h"

#include "base/memory.h"
#include "base/status.h"
#include "kernel/own.h"

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
    int thread = tri_kernels_join(self);
    TRI_REQUIRE(thread < self->threads);
    struct tri_scratch *own = &self->own->scratch[thread];
    /* A block of nothing is a pointer behind a header, which leak checkers take for a lost one. */
    return tri_grow(TRI_MEMORY_KERNELS, &own->block, &own->capacity, bytes > 0 ? bytes : 1);
}
