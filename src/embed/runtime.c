#include "embed/internal.h"

#include <stdlib.h>

enum { RANKS_MOST = 1024, THREADS_MOST = 4096 };

static enum tri_status read_options(const struct trident_options *options,
                                    struct trident_runtime *runtime, struct tri_error *error)
{
    struct trident_options given = options ? *options : (struct trident_options){0};
    runtime->ranks = given.ranks ? given.ranks : 1;
    if (runtime->ranks < 1 || runtime->ranks > RANKS_MOST) {
        return tri_fail(error, TRI_BAD_INPUT, "ranks: found %d, expected 1 to %d", given.ranks,
                        RANKS_MOST);
    }
    if (runtime->communicator && runtime->ranks > 1) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "ranks: found %d, expected 0 or 1: each process is one rank", given.ranks);
    }
    runtime->here = runtime->ranks;
    runtime->threads = given.threads;
    if (runtime->threads < 0 || runtime->threads > THREADS_MOST) {
        return tri_fail(error, TRI_BAD_INPUT, "threads: found %d, expected 0 to %d", given.threads,
                        THREADS_MOST);
    }
    runtime->log = given.log;
    runtime->log_state = given.log_state;
    return TRI_OK;
}

static enum tri_status start(const struct trident_options *options, struct trident_runtime *runtime,
                             struct tri_error *error)
{
    if (runtime->communicator) {
        TRI_TRY(tri_comm_may_join(runtime->communicator, error));
    }
    TRI_TRY(read_options(options, runtime, error));
    runtime->rank = calloc((size_t)runtime->here, sizeof(*runtime->rank));
    if (!runtime->rank) {
        return tri_fail(error, TRI_FAILED, "out of memory");
    }
    return tri_ranks_start(runtime, error);
}

static void release(struct trident_runtime *runtime)
{
    (void)pthread_cond_destroy(&runtime->changed);
    (void)pthread_mutex_destroy(&runtime->lock);
    (void)pthread_mutex_destroy(&runtime->turn);
    free(runtime->rank);
    free(runtime);
}

/* What is allocated here is not counted: the caller's thread has no runtime of ours. */
enum trident_status tri_embed_create(const void *communicator,
                                     const struct trident_options *options,
                                     struct trident_runtime **runtime, struct trident_error *error)
{
    struct tri_error why = {0};
    if (!runtime) {
        return tri_embed_missing(error, "runtime");
    }
    struct trident_runtime *r = calloc(1, sizeof(*r));
    *runtime = NULL;
    if (!r) {
        return tri_embed_fail(error, TRI_FAILED, "out of memory");
    }
    r->communicator = communicator;
    (void)pthread_mutex_init(&r->turn, NULL);
    (void)pthread_mutex_init(&r->lock, NULL);
    (void)pthread_cond_init(&r->changed, NULL);
    enum tri_status status = start(options, r, &why);
    if (status != TRI_OK) {
        enum trident_status given = tri_embed_fail(error, status, why.message);
        if (!trident_runtime_is_broken(r)) {
            release(r);
        }
        return given;
    }
    *runtime = r;
    return TRIDENT_OK;
}

enum trident_status trident_runtime_create(const struct trident_options *options,
                                           struct trident_runtime **runtime,
                                           struct trident_error *error)
{
    return tri_embed_create(NULL, options, runtime, error);
}

void trident_runtime_destroy(struct trident_runtime *runtime)
{
    /* Threads that are parked, or wait for one that is, refer to all of a broken one; so do models
     * that are left; and who is called from within a call would wait for itself. */
    if (!runtime || tri_runtime_is_embedded()) {
        return;
    }
    (void)pthread_mutex_lock(&runtime->lock);
    bool ends = !runtime->broken && runtime->models == 0;
    (void)pthread_mutex_unlock(&runtime->lock);
    if (ends) {
        tri_ranks_stop(runtime);
        release(runtime);
    }
}

int trident_runtime_is_broken(const struct trident_runtime *runtime)
{
    struct trident_runtime *r = (struct trident_runtime *)(uintptr_t)runtime;
    if (!r) {
        return 1;
    }
    (void)pthread_mutex_lock(&r->lock);
    int broken = r->broken;
    (void)pthread_mutex_unlock(&r->lock);
    return broken;
}
