/* A stack of memory with mark and rewind. The address range is reserved once and pages become real
 * when first touched, so a micro-batch larger than planned needs no copy and no reallocation; the
 * bytes handed out (not the range) are what is counted, at their high-water mark.
 *
 *   base |== kept ==|== since mark ==|........ reserved, untouched ........|
 *                   ^mark            ^used        (peak is the furthest `used` ever)
 */
#ifndef TRIDENT_BASE_ARENA_H
#define TRIDENT_BASE_ARENA_H

#include "base/memory.h"

struct tri_arena;

/* Reserves address space for reserve bytes; where that is limited (ulimit -v, -d) or counts as
 * taken (vm.overcommit_memory 2) takes it as it is used. Panics when the kernel refuses. 0: an
 * arena for a run that only counts; its range is larger than any rank's memory, and what it hands
 * out is neither filled nor poisoned, so that only pages that the caller touches become real. */
struct tri_arena *tri_arena_create(enum tri_memory category, const char *name, size_t reserve);
void tri_arena_destroy(struct tri_arena *arena);

/* Aligned to 64 bytes, content undefined (NaN in debug builds); valid until a rewind past it.
 * Panics, naming the arena and both sizes, when the range is used up. */
void *tri_arena_alloc(struct tri_arena *arena, size_t bytes);

size_t tri_arena_mark(const struct tri_arena *arena);
void tri_arena_rewind(struct tri_arena *arena, size_t mark);

#endif
