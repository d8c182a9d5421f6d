/* Products through oneDNN, in the layouts that tri_matmul describes. Its API is met in onednn.c and
 * nowhere else. */
#ifndef TRIDENT_KERNEL_X86_ONEDNN_H
#define TRIDENT_KERNEL_X86_ONEDNN_H

#include "kernel/kernel.h"

/* Whether oneDNN multiplies bf16 faster here than f32: with AMX, or dot products at full rate
 * (AMD). Intel's AVX-512 dots run at half the rate of f32; there our own kernel (product.h) is
 * faster. */
bool tri_onednn_bf16_is_fast(void);
/* What oneDNN uses: "amx", "avx512-bf16", "avx512", "avx2", … */
const char *tri_onednn_isa(void);

/* oneDNN's engine and stream, and the primitives that were made. */
struct tri_onednn *tri_onednn_create(void) __attribute__((returns_nonnull));
void tri_onednn_destroy(struct tri_onednn *onednn);

/* matmul_grouped of kernel.h, of an object that owns a tri_onednn. A primitive is made once for all
 * numbers of tokens (run-time M, or K for a weight gradient) and kept. Bits of a row may depend on
 * how many rows are passed. C is f32 or of A's dtype; fixed-point sums are not taken. */
void tri_onednn_run(const struct tri_kernels *self, const struct tri_matmul *products,
                    int64_t count);

#endif
