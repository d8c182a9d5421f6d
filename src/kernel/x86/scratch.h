/* Inside kernel/x86: working memory of the kernels. */
#ifndef TRIDENT_KERNEL_X86_SCRATCH_H
#define TRIDENT_KERNEL_X86_SCRATCH_H

#include "kernel/kernel.h"

#include <stddef.h>

/* At least `bytes` bytes of the calling thread's own, aligned to 64, content undefined; valid until
 * the thread's next call. Each thread of an object has one block, which grows to the largest size
 * asked for: no allocation once every shape has been seen. */
void *tri_scratch_get(const struct tri_kernels *self, size_t bytes);

/* A set of empty blocks, and its end. */
struct tri_scratch *tri_scratch_create(int threads) __attribute__((returns_nonnull));
void tri_scratch_destroy(struct tri_scratch *scratch, int threads);

#endif
