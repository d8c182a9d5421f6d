#include "kernel/loop.h"
#include "kernel/x86/vec.h"
#include "kernel/x86/x86.h"

void VEC_NAME(tri_vec_fill)(struct tri_kernels *table)
{
    VEC_NAME(tri_vec_fill_norm)(table);
    VEC_NAME(tri_vec_fill_qk)(table);
    VEC_NAME(tri_vec_fill_activation)(table);
    VEC_NAME(tri_vec_fill_rows)(table);
    VEC_NAME(tri_vec_fill_loss)(table);
    VEC_NAME(tri_vec_fill_elementwise)(table);
    VEC_NAME(tri_vec_fill_fixed)(table);
    VEC_NAME(tri_vec_fill_optim)(table);
    VEC_NAME(tri_vec_fill_products)(table);
    table->loop = tri_loop_threads;
}
