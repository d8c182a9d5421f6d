/* The loops of the tables. Only kernel/ includes it. */
#ifndef TRIDENT_KERNEL_LOOP_H
#define TRIDENT_KERNEL_LOOP_H

#include "kernel/kernel.h"

void tri_loop_threads(const struct tri_kernels *self, const struct tri_loop_args *args);
void tri_loop_plain(const struct tri_kernels *self, const struct tri_loop_args *args);

#endif
