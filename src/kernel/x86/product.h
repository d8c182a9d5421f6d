/* Inside kernel/x86: how a product is cut. matmul.c deals tiles of the result out to threads;
 * product.c, compiled once per instruction set, computes one tile: operands are packed into f32
 * panels a few hundred steps of k at a time, multiplied by a register-blocked kernel, and the sums
 * kept in f32 until the last step. Each element of the result is one chain of additions in the
 * order of k, rounded to f32 after each: the same bits whatever the tiles, rows and threads. */
#ifndef TRIDENT_KERNEL_X86_PRODUCT_H
#define TRIDENT_KERNEL_X86_PRODUCT_H

#include "kernel/kernel.h"

#include <stddef.h>

enum {
    TRI_PRODUCT_ROWS = 528, /* of the largest tile */
    TRI_PRODUCT_COLS = 512
};

struct tri_product_tile {
    int64_t row, rows; /* rows <= TRI_PRODUCT_ROWS */
    int64_t col, cols; /* cols <= TRI_PRODUCT_COLS */
};

struct tri_product_isa {
    const char *name;
    int64_t rows, cols; /* of the register block: tiles best are multiples of it */
    size_t scratch;     /* bytes that compute needs, aligned to 64 */
    void (*compute)(const struct tri_matmul *product, struct tri_product_tile tile, void *scratch);
};

extern const struct tri_product_isa tri_product_x86_64;
extern const struct tri_product_isa tri_product_avx2;
extern const struct tri_product_isa tri_product_avx512;

/* matmul_grouped of kernel.h with the instruction set given. */
void tri_product_run(const struct tri_kernels *self, const struct tri_product_isa *isa,
                     const struct tri_matmul *products, int64_t count);

#endif
