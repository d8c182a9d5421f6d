/* The processors that threads may run on. Where OMP_PROC_BIND or OMP_PLACES ask for it, libgomp
 * binds the thread that loads it to one place, every thread that is started inherits that, and each
 * rank's team would be bound to the same first places. A program built with clang has two OpenMP
 * libraries, its own and, through oneDNN, libgomp: its own knows of no place but the one that
 * libgomp left, and nothing here helps. */
#ifndef TRIDENT_BASE_PROCESSORS_H
#define TRIDENT_BASE_PROCESSORS_H

#include <sched.h>
#include <stdbool.h>

enum { TRI_PROCESSORS = 8192 };

struct tri_processors {
    cpu_set_t set[TRI_PROCESSORS / CPU_SETSIZE];
};

/* Those of the calling thread, and where OpenMP binds threads, all its places; false: the system
 * does not say. */
bool tri_processors_find(struct tri_processors *processors);
/* Where OpenMP binds threads and the calling thread's runtime is not the process's only one (it is
 * one of several ranks, or embedded): lets the calling thread run on all of them. */
void tri_processors_open(void);

#endif
