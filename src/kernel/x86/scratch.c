#include "kernel/x86/scratch.h"

#include "base/memory.h"
#include "base/status.h"

#include <pthread.h>

struct scratch {
    void *block;
    size_t capacity;
    struct scratch *next, *before;
};

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_key_t key;
static _Thread_local struct scratch *own;

/* All there are: one whose thread is about to end when the process does is lost to nobody. */
static struct scratch *all;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* Threads come and go when their number is set: what one holds must go with it. */
static void release(void *held)
{
    struct scratch *scratch = held;
    (void)pthread_mutex_lock(&lock);
    *(scratch->before ? &scratch->before->next : &all) = scratch->next;
    if (scratch->next) {
        scratch->next->before = scratch->before;
    }
    tri_free(scratch->block);
    tri_free(scratch);
    (void)pthread_mutex_unlock(&lock);
}

static void set_up(void)
{
    TRI_REQUIRE(pthread_key_create(&key, release) == 0);
}

static struct scratch *create(void)
{
    (void)pthread_once(&once, set_up);
    struct scratch *scratch = tri_alloc(TRI_MEMORY_KERNELS, sizeof(*scratch));
    (void)pthread_mutex_lock(&lock);
    scratch->next = all;
    if (all) {
        all->before = scratch;
    }
    all = scratch;
    (void)pthread_mutex_unlock(&lock);
    TRI_REQUIRE(pthread_setspecific(key, scratch) == 0);
    return scratch;
}

void *tri_scratch_get(size_t bytes)
{
    if (!own) {
        own = create();
    }
    return tri_grow(TRI_MEMORY_KERNELS, &own->block, &own->capacity, bytes);
}
