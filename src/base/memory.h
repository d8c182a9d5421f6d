/* Counted memory. The runtime of the thread that takes a block counts it (base/runtime.h), whoever
 * frees it. Every large block belongs to a category; the memory plan and the start-up summary
 * are held against these counters. Small setup objects use TRI_MEMORY_OTHER. */
#ifndef TRIDENT_BASE_MEMORY_H
#define TRIDENT_BASE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

enum tri_memory {
    TRI_MEMORY_WEIGHTS,
    TRI_MEMORY_GRADIENTS,
    TRI_MEMORY_OPTIMIZER,
    TRI_MEMORY_ACTIVATIONS,
    TRI_MEMORY_STASH,
    TRI_MEMORY_BUFFERS, /* exchange and communication buffers */
    TRI_MEMORY_TILES,
    TRI_MEMORY_KERNELS, /* the kernels and their scratch, kept as long as they; in no plan */
    TRI_MEMORY_TRACE,   /* what a trace is kept in (base/trace.h) */
    TRI_MEMORY_OTHER,
    TRI_MEMORY_COUNT
};

/* "weights", "gradients", … */
const char *tri_memory_name(enum tri_memory category);

/* bytes of zeroed memory aligned to 64 bytes; panics when there is none. Free with tri_free, which
 * takes NULL. tri_alloc(c, 0) returns a valid pointer. Pages of large blocks become real when first
 * touched: a plan takes the blocks of a run and costs nothing. */
void *tri_alloc(enum tri_memory category, size_t bytes) __attribute__((returns_nonnull));
void tri_free(void *block);

/* The block with room for so many bytes, in its place or another's; what fits of the content stays,
 * what is new is zero. A large one is not copied: its pages move. */
void *tri_resize(void *block, size_t bytes);

/* A block at least as large as bytes: *block is kept when *capacity suffices, else replaced (the
 * old content is lost). Used for scratch that reaches its size in the first step. */
void *tri_grow(enum tri_memory category, void **block, size_t *capacity, size_t bytes);

/* Zero-terminated copy, category OTHER. */
char *tri_strdup(const char *text);

struct tri_memory_counters {
    int64_t current[TRI_MEMORY_COUNT]; /* bytes held now */
    int64_t peak[TRI_MEMORY_COUNT];
    int64_t calls; /* allocations since the runtime began */
};

struct tri_memory_counters tri_memory_get(void);

/* Counts from zero from begin to end, apart from what was counted before; end returns these counts
 * and puts back the others. What is taken inside must be freed inside (REQUIREd) but for the
 * kernels', by this thread and those it waits for. Scopes nest. */
struct tri_memory_scope {
    struct tri_memory_counters outer;
};
struct tri_memory_scope tri_memory_scope_begin(void);
struct tri_memory_counters tri_memory_scope_end(const struct tri_memory_scope *scope);

/* Bytes of memory that the process has now; 0 when the system does not say. */
int64_t tri_memory_resident(void);
/* Bytes of one figure of /proc/self/statm, counted from 0: 0 addresses, 1 resident, 5 data. */
int64_t tri_memory_statm(int which);

struct tri_runtime;
/* Adds bytes (may be negative) to a category without allocating: for memory mapped elsewhere. */
void tri_memory_account(struct tri_runtime *runtime, enum tri_memory category, int64_t bytes);
/* Frees a runtime, now or with the last block that it counts. For tri_runtime_destroy. */
void tri_memory_release(struct tri_runtime *runtime);

#endif
