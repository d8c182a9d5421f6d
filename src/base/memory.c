#include "base/memory.h"

#include "base/poison.h"
#include "base/room.h"
#include "base/runtime.h"
#include "base/status.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Sits in the 64 bytes before each block. */
struct header {
    size_t bytes;
    enum tri_memory category;
    struct tri_runtime *runtime; /* that counts it */
};

/* Blocks of at least MAPPED bytes are mapped: their zeros cost nothing until they are touched.
 * Those of LARGE bytes have huge pages where there are such, but for the first, which has the
 * header: what has to ask a host for each page takes ten times as long for small ones. */
enum { ALIGN = 64, MAPPED = 1 << 20, LARGE = 16 << 20, HUGE_PAGE = 2 << 20 };

static const char *const names[TRI_MEMORY_COUNT] = {
    "weights", "gradients", "optimizer", "activations", "stash",
    "buffers", "tiles",     "kernels",   "trace",       "other"};

const char *tri_memory_name(enum tri_memory category)
{
    return names[category];
}

static void add(struct tri_memory_counters *counters, enum tri_memory category, int64_t bytes)
{
    counters->current[category] += bytes;
    if (counters->current[category] > counters->peak[category]) {
        counters->peak[category] = counters->current[category];
    }
}

/* Under the lock. */
static void count(struct tri_runtime *runtime, enum tri_memory category, int64_t bytes)
{
    add(&runtime->memory.counters, category, bytes);
    (void)atomic_fetch_add_explicit(&runtime->memory.changes, 1, memory_order_relaxed);
}

void tri_memory_account(struct tri_runtime *runtime, enum tri_memory category, int64_t bytes)
{
    (void)pthread_mutex_lock(&runtime->memory.lock);
    count(runtime, category, bytes);
    (void)pthread_mutex_unlock(&runtime->memory.lock);
}

static void count_block(struct tri_runtime *runtime, enum tri_memory category, size_t bytes)
{
    (void)pthread_mutex_lock(&runtime->memory.lock);
    count(runtime, category, (int64_t)bytes);
    runtime->memory.counters.calls++;
    runtime->memory.blocks++;
    (void)pthread_mutex_unlock(&runtime->memory.lock);
}

/* One block less, or the runtime itself; the last one frees it. */
static void discount_block(struct tri_runtime *runtime, enum tri_memory category, size_t bytes)
{
    (void)pthread_mutex_lock(&runtime->memory.lock);
    count(runtime, category, -(int64_t)bytes);
    bool last = --runtime->memory.blocks == 0;
    (void)pthread_mutex_unlock(&runtime->memory.lock);
    if (last) {
        (void)pthread_mutex_destroy(&runtime->memory.lock);
        free(runtime);
    }
}

void tri_memory_release(struct tri_runtime *runtime)
{
    discount_block(runtime, TRI_MEMORY_OTHER, 0);
}

/* Bytes of a block with its header. */
static size_t whole(size_t bytes)
{
    return (ALIGN + bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static void *take_mapped(size_t bytes)
{
    char *raw = mmap(NULL, whole(bytes), PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (raw == MAP_FAILED) {
        return NULL;
    }
    if (bytes >= LARGE) {
        (void)madvise(raw + HUGE_PAGE - (uintptr_t)raw % HUGE_PAGE, bytes - HUGE_PAGE,
                      MADV_HUGEPAGE);
    }
    TRI_POISON(raw + ALIGN + bytes, whole(bytes) - ALIGN - bytes);
    return raw;
}

static void *take_zeroed(size_t bytes)
{
    char *raw = aligned_alloc(ALIGN, whole(bytes));
    return raw ? memset(raw, 0, whole(bytes)) : NULL;
}

void *tri_alloc(enum tri_memory category, size_t bytes)
{
    char *raw = NULL;
    if (whole(bytes) > bytes) {
        raw = bytes >= MAPPED ? take_mapped(bytes) : take_zeroed(bytes);
    }
    if (!raw) {
        tri_room_exhausted(bytes, names[category]);
    }
    struct header *header = (struct header *)(void *)raw;
    header->bytes = bytes;
    header->category = category;
    header->runtime = tri_runtime_get();
    count_block(header->runtime, category, bytes);
    return raw + ALIGN;
}

void tri_free(void *block)
{
    if (!block) {
        return;
    }
    char *raw = (char *)block - ALIGN;
    struct header *header = (struct header *)(void *)raw;
    size_t bytes = header->bytes;
    discount_block(header->runtime, header->category, bytes);
    if (bytes >= MAPPED) {
        /* No more than was poisoned: the sanitizer's own pages would become real. */
        TRI_UNPOISON(raw + ALIGN + bytes, whole(bytes) - ALIGN - bytes);
        (void)munmap(raw, whole(bytes));
    } else {
        free(raw);
    }
}

/* Header and content stay. */
static void *resize_mapped(char *raw, size_t old, size_t bytes)
{
    TRI_UNPOISON(raw + ALIGN + old, whole(old) - ALIGN - old);
    if (bytes < old) { /* what the last page that stays may show again */
        const size_t page = (size_t)sysconf(_SC_PAGESIZE);
        memset(raw + ALIGN + bytes, 0, old - bytes < page ? old - bytes : page);
    }
    char *grown = whole(bytes) > bytes ? mremap(raw, whole(old), whole(bytes), MREMAP_MAYMOVE)
                                       : (char *)MAP_FAILED;
    if (grown == MAP_FAILED) {
        tri_room_exhausted(bytes, names[((struct header *)(void *)raw)->category]);
    }
    TRI_POISON(grown + ALIGN + bytes, whole(bytes) - ALIGN - bytes);
    return grown;
}

void *tri_resize(void *block, size_t bytes)
{
    char *raw = (char *)block - ALIGN;
    struct header *header = (struct header *)(void *)raw;
    const size_t old = header->bytes;
    if (old < MAPPED || bytes < MAPPED) {
        void *other = tri_alloc(header->category, bytes);
        memcpy(other, block, old < bytes ? old : bytes);
        tri_free(block);
        return other;
    }
    raw = resize_mapped(raw, old, bytes);
    header = (struct header *)(void *)raw;
    header->bytes = bytes;
    tri_memory_account(header->runtime, header->category, (int64_t)bytes - (int64_t)old);
    return raw + ALIGN;
}

void *tri_grow(enum tri_memory category, void **block, size_t *capacity, size_t bytes)
{
    if (!*block || *capacity < bytes) {
        tri_free(*block);
        *block = tri_alloc(category, bytes);
        *capacity = bytes;
    }
    return *block;
}

char *tri_strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    return memcpy(tri_alloc(TRI_MEMORY_OTHER, bytes), text, bytes);
}

struct tri_memory_counters tri_memory_get(void)
{
    struct tri_runtime *runtime = tri_runtime_get();
    (void)pthread_mutex_lock(&runtime->memory.lock);
    struct tri_memory_counters copy = runtime->memory.counters;
    (void)pthread_mutex_unlock(&runtime->memory.lock);
    return copy;
}

struct tri_memory_scope tri_memory_scope_begin(void)
{
    struct tri_runtime *runtime = tri_runtime_get();
    (void)pthread_mutex_lock(&runtime->memory.lock);
    struct tri_memory_scope scope = {runtime->memory.counters};
    runtime->memory.counters = (struct tri_memory_counters){0};
    (void)pthread_mutex_unlock(&runtime->memory.lock);
    return scope;
}

struct tri_memory_counters tri_memory_scope_end(const struct tri_memory_scope *scope)
{
    struct tri_runtime *runtime = tri_runtime_get();
    struct tri_memory_counters *counters = &runtime->memory.counters;
    (void)pthread_mutex_lock(&runtime->memory.lock);
    struct tri_memory_counters inner = *counters;
    *counters = scope->outer;
    counters->calls += inner.calls;
    add(counters, TRI_MEMORY_KERNELS, inner.current[TRI_MEMORY_KERNELS]);
    (void)pthread_mutex_unlock(&runtime->memory.lock);
    for (int i = 0; i < TRI_MEMORY_COUNT; i++) {
        TRI_REQUIRE(inner.current[i] == 0 || i == TRI_MEMORY_KERNELS);
    }
    return inner;
}

int64_t tri_memory_statm(int which)
{
    char line[128];
    long long pages = 0;
    FILE *file = fopen("/proc/self/statm", "re");
    if (!file) {
        return 0;
    }
    if (fgets(line, sizeof(line), file)) {
        char *at = line;
        for (int i = 0; i <= which; i++) {
            pages = strtoll(at, &at, 10);
        }
    }
    (void)fclose(file);
    return pages * sysconf(_SC_PAGESIZE);
}

int64_t tri_memory_resident(void)
{
    return tri_memory_statm(1);
}
