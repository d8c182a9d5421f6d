/* Inside kernel/x86: how attention is cut. attention.c deals tasks out to threads; the files
 * attention_forward.c and attention_backward.c, compiled once per instruction set, compute one task
 * from tiles of MR or some dozens of queries by TRI_ATTENTION_KEYS keys, in f32. Keys are cut at
 * multiples of TRI_ATTENTION_KEYS from key 0 on and queries from query 0 on, so a row's bits depend
 * neither on the other rows of the call nor on how tasks are cut. */
#ifndef TRIDENT_KERNEL_X86_ATTENTION_H
#define TRIDENT_KERNEL_X86_ATTENTION_H

#include "kernel/kernel.h"

#include <stddef.h>

enum { TRI_ATTENTION_KEYS = 128 };

/* The queries [begin, end) of every query head that reads one KV head of one sequence. */
struct tri_attention_task {
    int64_t sequence, kv, begin, end;
};

struct tri_attention_isa {
    int64_t rows; /* queries best come in multiples of this */
    /* Bytes of scratch, aligned to 64, that any task of these arguments needs. */
    size_t (*forward_scratch)(const struct tri_attention *args);
    size_t (*backward_scratch)(const struct tri_attention *args);
    void (*forward)(const struct tri_attention *args, struct tri_attention_task task,
                    void *scratch);
    /* A backward task has all queries. */
    void (*backward)(const struct tri_attention *args, struct tri_attention_task task,
                     void *scratch);
};

extern const struct tri_attention_isa tri_attention_x86_64;
extern const struct tri_attention_isa tri_attention_avx2;
extern const struct tri_attention_isa tri_attention_avx512;

/* attention_forward and attention_backward of kernel.h with the instruction set given. */
void tri_attention_run(const struct tri_kernels *self, const struct tri_attention_isa *isa,
                       const struct tri_attention *args, bool backward);

/* Bytes that so many threads of a call take for the time of it, and keep for the next. */
int64_t tri_attention_scratch(const struct tri_attention_isa *isa, const struct tri_attention *args,
                              bool backward, int threads);

#endif
