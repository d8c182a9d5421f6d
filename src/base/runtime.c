#include "base/runtime.h"

#include <stdlib.h>

static struct tri_runtime default_runtime = {
    .ranks = 1,
    .panic.entered = ATOMIC_FLAG_INIT,
    .memory = {.lock = PTHREAD_MUTEX_INITIALIZER, .blocks = 1},
    .work = &default_runtime.unread,
};

static _Thread_local struct tri_runtime *bound;

struct tri_runtime *tri_runtime_create(int rank)
{
    const struct tri_runtime *parent = tri_runtime_get();
    /* Not counted: there is nobody to count it. */
    struct tri_runtime *runtime = calloc(1, sizeof(*runtime));
    if (!runtime) {
        return NULL;
    }
    (void)pthread_mutex_init(&runtime->memory.lock, NULL);
    runtime->rank = rank;
    runtime->ranks = 1;
    runtime->embedded = parent->embedded;
    runtime->log.quiet = parent->log.quiet;
    runtime->log.sink = parent->log.sink;
    runtime->log.state = parent->log.state;
    atomic_flag_clear(&runtime->panic.entered);
    runtime->memory.blocks = 1;
    runtime->work = &runtime->unread;
    runtime->file_hook = parent->file_hook;
    runtime->panic.catcher = parent->panic.catcher;
    runtime->panic.catcher_state = parent->panic.catcher_state;
    return runtime;
}

void tri_runtime_destroy(struct tri_runtime *runtime)
{
    if (runtime) {
        TRI_REQUIRE(runtime != bound && runtime != &default_runtime);
        tri_memory_release(runtime);
    }
}

void tri_runtime_embed(struct tri_runtime *runtime)
{
    runtime->embedded = true;
}

bool tri_runtime_is_embedded(void)
{
    return tri_runtime_get()->embedded;
}

void tri_runtime_set_ranks(struct tri_runtime *runtime, int ranks)
{
    runtime->ranks = ranks;
}

int tri_runtime_ranks(void)
{
    return tri_runtime_get()->ranks;
}

void tri_runtime_bind(struct tri_runtime *runtime)
{
    bound = runtime;
}

struct tri_runtime *tri_runtime_get(void)
{
    return bound ? bound : &default_runtime;
}

struct tri_runtime *tri_runtime_bound(void)
{
    return bound;
}

const char *tri_runtime_getenv(const char *name)
{
    return tri_runtime_is_embedded() ? NULL : getenv(name);
}
