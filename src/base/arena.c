#include "base/arena.h"

#include "base/cgroup.h"
#include "base/poison.h"
#include "base/room.h"
#include "base/runtime.h"
#include "base/status.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

/* GUARD: bytes past the last block that are poisoned. Poisoning all that is reserved would touch an
 * eighth of it. */
enum { ALIGN = 64, GUARD = 1 << 16 };

/* Address space of a dry arena: more than any machine's memory, and a sixteenth of what there is;
 * less where so much is refused though no limit is seen (Valgrind, sandboxes). */
#define DRY_RESERVE       ((size_t)1 << 43)
#define DRY_RESERVE_LEAST ((size_t)1 << 30)
/* Whatever is asked for, ranks that share a process share this much, of each kind of arena. */
#define RESERVE_OF_ALL ((size_t)1 << 45)

/* Where address space, or what is promised, is limited, nothing is reserved: an arena begins at a
 * place that the kernel hands out to nobody who does not ask for it, and takes what it uses, some
 * at a time. The places are taken so that each new one halves the widest gap that is left: few
 * arenas have much room to grow, and many have some. */
#define FIRST_PLACE ((uintptr_t)1 << 45)
#define PLACES_SPAN ((uintptr_t)1 << 45)
enum { PLACE_BITS = 14, MORE = 1 << 21 };

struct tri_arena {
    char *base;
    size_t reserve, mapped, used, peak;
    enum tri_memory category;
    struct tri_runtime *runtime; /* that counts it */
    const char *name;
    bool dry;
};

static bool has_limit(int resource)
{
    struct rlimit limit;
    return getrlimit((__rlimit_resource_t)resource, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY;
}

static bool is_limited(void)
{
    return tri_number_of_file("/proc/sys/vm/overcommit_memory") == 2 || has_limit(RLIMIT_AS) ||
           has_limit(RLIMIT_DATA);
}

static char *map(char *at, size_t bytes)
{
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED_NOREPLACE : 0);
    void *base = mmap(at, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
    if (base != MAP_FAILED && at && base != at) { /* Linux before 4.17 takes it for a hint */
        (void)munmap(base, bytes);
        base = MAP_FAILED;
    }
    return base == MAP_FAILED ? NULL : base;
}

/* Makes the range at least so long; false when there is no more. */
static bool extend(struct tri_arena *arena, size_t to)
{
    size_t least = (to - arena->mapped + MORE - 1) / MORE * MORE;
    size_t ahead = arena->mapped / 8 / MORE * MORE;
    size_t bytes = least > ahead ? least : ahead;
    char *end = arena->base + arena->mapped;
    if (!map(end, bytes)) {
        bytes = least;
        if (!map(end, bytes)) {
            return false;
        }
    }
    if (!arena->dry) {
        (void)madvise(end, bytes, MADV_HUGEPAGE);
    }
    arena->mapped += bytes;
    return true;
}

/* The i-th place: i with its bits in reverse. */
static char *place(uintptr_t i)
{
    uintptr_t at = 0;
    for (int bit = 0; bit < PLACE_BITS; bit++) {
        at |= (i >> bit & 1) << (PLACE_BITS - 1 - bit);
    }
    return (char *)(FIRST_PLACE + at * (PLACES_SPAN >> PLACE_BITS)); // NOLINT
}

/* The first place that is free, with its first piece. */
static void take_place(struct tri_arena *arena)
{
    for (uintptr_t i = 0; i >> PLACE_BITS == 0 && !arena->base; i++) {
        errno = 0;
        arena->base = map(place(i), MORE);
        if (!arena->base && errno == ENOMEM) {
            break; /* no place is free of the limit */
        }
    }
    arena->mapped = arena->base ? MORE : 0;
}

static void take_all(struct tri_arena *arena)
{
    arena->base = map(NULL, arena->reserve + ALIGN);
    while (!arena->base && arena->dry && arena->reserve > DRY_RESERVE_LEAST) {
        arena->reserve /= 4;
        arena->base = map(NULL, arena->reserve + ALIGN);
    }
    arena->mapped = arena->reserve + ALIGN;
}

struct tri_arena *tri_arena_create(enum tri_memory category, const char *name, size_t reserve)
{
    struct tri_arena *arena = tri_alloc(TRI_MEMORY_OTHER, sizeof(*arena));
    size_t share = RESERVE_OF_ALL / (size_t)tri_runtime_ranks();
    arena->dry = reserve == 0;
    arena->reserve = arena->dry ? DRY_RESERVE : reserve;
    arena->reserve = arena->reserve < share ? arena->reserve : share;
    bool limited = is_limited();
    if (limited) {
        take_place(arena);
    } else {
        take_all(arena);
    }
    if (!arena->base && limited) {
        tri_room_exhausted(MORE, name);
    }
    if (!arena->base) {
        tri_panic(TRI_FAILED, "arena %s: cannot reserve %zu bytes of address space", name,
                  arena->reserve);
    }
    if (!arena->dry) {
        (void)madvise(arena->base, arena->mapped, MADV_HUGEPAGE);
    }
    arena->category = category;
    arena->runtime = tri_runtime_get();
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
    (void)munmap(arena->base, arena->mapped);
    tri_memory_account(arena->runtime, arena->category, -(int64_t)arena->peak);
    tri_free(arena);
}

void *tri_arena_alloc(struct tri_arena *arena, size_t bytes)
{
    size_t rounded = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (rounded < bytes || rounded > arena->reserve - arena->used) {
        tri_panic(TRI_FAILED, "arena %s: %zu bytes asked for, %zu of %zu in use", arena->name,
                  bytes, arena->used, arena->reserve);
    }
    if (arena->used + rounded > arena->mapped && !extend(arena, arena->used + rounded)) {
        tri_room_exhausted(rounded, arena->name);
    }
    char *block = arena->base + arena->used;
    arena->used += rounded;
    if (arena->used > arena->peak) {
        tri_memory_account(arena->runtime, arena->category, (int64_t)(arena->used - arena->peak));
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
