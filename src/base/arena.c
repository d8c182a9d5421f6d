#include "base/arena.h"

#include "base/poison.h"
#include "base/status.h"

#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>

/* GUARD: bytes past the last block that are poisoned. Poisoning all that is reserved would touch an
 * eighth of it. */
enum { ALIGN = 64, GUARD = 1 << 16 };

/* Address space of a dry arena: more than any machine's memory, and a sixteenth of what there is;
 * less where a limit is set. */
#define DRY_RESERVE       ((size_t)1 << 43)
#define DRY_RESERVE_LEAST ((size_t)1 << 30)

struct tri_arena {
    char *base;
    size_t reserve, used, peak;
    enum tri_memory category;
    const char *name;
    bool dry;
};

static void *reserve_range(size_t bytes)
{
    void *base = mmap(NULL, bytes + ALIGN, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return base == MAP_FAILED ? NULL : base;
}

struct tri_arena *tri_arena_create(enum tri_memory category, const char *name, size_t reserve)
{
    struct tri_arena *arena = tri_alloc(TRI_MEMORY_OTHER, sizeof(*arena));
    arena->dry = reserve == 0;
    arena->reserve = arena->dry ? DRY_RESERVE : reserve;
    arena->base = reserve_range(arena->reserve);
    while (!arena->base && arena->dry && arena->reserve > DRY_RESERVE_LEAST) {
        arena->reserve /= 4;
        arena->base = reserve_range(arena->reserve);
    }
    if (!arena->base) {
        tri_panic(TRI_FAILED, "arena %s: cannot reserve %zu bytes of address space", name,
                  arena->reserve);
    }
    if (!arena->dry) {
        (void)madvise(arena->base, reserve, MADV_HUGEPAGE);
    }
    arena->category = category;
    arena->name = name;
    return arena;
}

void tri_arena_destroy(struct tri_arena *arena)
{
    if (!arena) {
        return;
    }
    if (!arena->dry) {
        TRI_UNPOISON(arena->base,
                     arena->peak + GUARD < arena->reserve ? arena->peak + GUARD : arena->reserve);
    }
    (void)munmap(arena->base, arena->reserve + ALIGN);
    tri_memory_account(arena->category, -(int64_t)arena->peak);
    tri_free(arena);
}

void *tri_arena_alloc(struct tri_arena *arena, size_t bytes)
{
    size_t rounded = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (rounded < bytes || rounded > arena->reserve - arena->used) {
        tri_panic(TRI_FAILED, "arena %s: %zu bytes asked for, %zu of %zu in use", arena->name,
                  bytes, arena->used, arena->reserve);
    }
    char *block = arena->base + arena->used;
    arena->used += rounded;
    if (arena->used > arena->peak) {
        tri_memory_account(arena->category, (int64_t)(arena->used - arena->peak));
        arena->peak = arena->used;
    }
    if (arena->dry) {
        return block;
    }
    size_t rest = arena->reserve - arena->used;
    TRI_POISON(block, rounded + (rest < GUARD ? rest : GUARD));
    TRI_UNPOISON(block, bytes);
#ifdef TRIDENT_DEBUG
    memset(block, 0xff, bytes); /* a NaN in every floating type */
#endif
    return block;
}

size_t tri_arena_mark(const struct tri_arena *arena)
{
    return arena->used;
}

void tri_arena_rewind(struct tri_arena *arena, size_t mark)
{
    TRI_REQUIRE(mark <= arena->used);
    if (!arena->dry) {
        TRI_POISON(arena->base + mark, arena->used - mark);
    }
    arena->used = mark;
}
