/* Inside kernel/: the parts that the fast tables are put together from. Tests use it to reach every
 * table that the machine can run. */
#ifndef TRIDENT_KERNEL_X86_X86_H
#define TRIDENT_KERNEL_X86_X86_H

#include "kernel/kernel.h"

enum tri_isa { TRI_ISA_X86_64, TRI_ISA_AVX2, TRI_ISA_AVX512, TRI_ISA_COUNT };

/* Whether this machine has an instruction set. */
bool tri_x86_can_run(enum tri_isa isa);

/* As TRIDENT_KERNELS calls it. */
const char *tri_x86_name(enum tri_isa isa);

/* Fill in a table. Each is itself compiled for its instruction set. */
void tri_vec_fill_x86_64(struct tri_kernels *table);
void tri_vec_fill_avx2(struct tri_kernels *table);
void tri_vec_fill_avx512(struct tri_kernels *table);

#endif
