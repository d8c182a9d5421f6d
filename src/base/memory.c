#include "base/memory.h"

#include "base/status.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Sits in the 64 bytes before each block. */
struct header {
    size_t bytes;
    enum tri_memory category;
};

enum { ALIGN = 64 };

static struct tri_memory_counters counters;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static const char *const names[TRI_MEMORY_COUNT] = {
    "weights", "gradients", "optimizer", "activations", "stash", "buffers", "tiles", "other"};

const char *tri_memory_name(enum tri_memory category)
{
    return names[category];
}

void tri_memory_account(enum tri_memory category, int64_t bytes)
{
    (void)pthread_mutex_lock(&lock);
    counters.current[category] += bytes;
    if (counters.current[category] > counters.peak[category]) {
        counters.peak[category] = counters.current[category];
    }
    (void)pthread_mutex_unlock(&lock);
}

void *tri_alloc(enum tri_memory category, size_t bytes)
{
    size_t total = (ALIGN + bytes + ALIGN - 1) / ALIGN * ALIGN;
    char *raw = total < bytes ? NULL : aligned_alloc(ALIGN, total);
    if (!raw) {
        tri_panic(TRI_FAILED, "out of memory: %zu bytes for %s", bytes, names[category]);
    }
    memset(raw, 0, total);
    struct header *header = (struct header *)(void *)raw;
    header->bytes = bytes;
    header->category = category;
    tri_memory_account(category, (int64_t)bytes);
    (void)pthread_mutex_lock(&lock);
    counters.calls++;
    (void)pthread_mutex_unlock(&lock);
    return raw + ALIGN;
}

void tri_free(void *block)
{
    if (!block) {
        return;
    }
    struct header *header = (struct header *)(void *)((char *)block - ALIGN);
    tri_memory_account(header->category, -(int64_t)header->bytes);
    free(header);
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
    (void)pthread_mutex_lock(&lock);
    struct tri_memory_counters copy = counters;
    (void)pthread_mutex_unlock(&lock);
    return copy;
}
