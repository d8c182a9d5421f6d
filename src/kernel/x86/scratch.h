/* Inside kernel/x86: working memory of the kernels. */
#ifndef TRIDENT_KERNEL_X86_SCRATCH_H
#define TRIDENT_KERNEL_X86_SCRATCH_H

#include <stddef.h>

/* At least `bytes` bytes of the calling thread's own, aligned to 64, content undefined; valid until
 * the thread's next call. One block a thread, which grows to the largest size asked for and goes
 * when the thread ends: no allocation once every shape has been seen. */
void *tri_scratch_get(size_t bytes);

#endif
