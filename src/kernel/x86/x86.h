/* Inside kernel/: the parts that the fast tables are put together from. Tests use it to reach every
 * table that the machine can run. */
#ifndef TRIDENT_KERNEL_X86_X86_H
#define TRIDENT_KERNEL_X86_X86_H

#include "kernel/kernel.h"

enum tri_isa { TRI_ISA_X86_64, TRI_ISA_AVX2, TRI_ISA_AVX512, TRI_ISA_COUNT };

/* The table of an instruction set, or NULL where this machine cannot run it. */
const struct tri_kernels *tri_x86_table(enum tri_isa isa);

/* Fill in a table's vector operations: all but the products and attention. */
void tri_vec_fill_x86_64(struct tri_kernels *table);
void tri_vec_fill_avx2(struct tri_kernels *table);
void tri_vec_fill_avx512(struct tri_kernels *table);

/* Shared by all fast tables: they choose their instructions themselves. */
void tri_x86_matmul(const struct tri_matmul *product);
void tri_x86_matmul_grouped(const struct tri_matmul *products, int64_t count);
void tri_x86_attention_forward(const struct tri_attention *args, enum tri_dtype dt);
void tri_x86_attention_backward(const struct tri_attention *args, enum tri_dtype dt);

#endif
