#include "kernel/x86/scratch.h"

#include "base/memory.h"
#include "base/status.h"

#include <pthread.h>

struct scratch {
    void *block;
    size_t capacity;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static _Thread_local struct scratch own;

/* Threads come and go when their number is set: what one holds must go with it. */
static void release(void *scratch)
{
    tri_free(((struct scratch *)scratch)->block);
}

static void set_up(void)
{
    TRI_REQUIRE(pthread_key_create(&key, release) == 0);
}

void *tri_scratch_get(size_t bytes)
{
    if (!own.block) {
        pthread_once(&once, set_up);
        TRI_REQUIRE(pthread_setspecific(key, &own) == 0);
    }
    /* A block of nothing is a pointer behind a header, which leak checkers take for a lost one. */
    return tri_grow(TRI_MEMORY_KERNELS, &own.block, &own.capacity, bytes > 0 ? bytes : 1);
}
