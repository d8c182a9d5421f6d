/* The runtime: whatever the ground services of one rank remember. An allocation and a failing
 * TRI_REQUIRE have no argument to find it by, so it is bound to the thread that works for the rank;
 * all else is passed down. A thread to which none is bound has the process's default runtime:
 * programs of one rank a process need not know that there are others. */
#ifndef TRIDENT_BASE_RUNTIME_H
#define TRIDENT_BASE_RUNTIME_H

#include "base/file_hook.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/meter.h"
#include "base/status.h"
#include "base/trace.h"
#include "base/work.h"

#include <pthread.h>
#include <stdatomic.h>

/* base/'s own files look inside; others go through the functions of each service. */
struct tri_runtime {
    int rank;      /* that the log and tri_panic name */
    bool embedded; /* tri_runtime_embed */
    int ranks;     /* of the process, which share its memory and cores */
    struct {
        bool quiet;
        tri_log_sink *sink; /* NULL: standard error */
        void *state;
        bool told_unsynced[2]; /* said once: of files, of folders */
        bool live;             /* a terminal's line stands that others take away first */
    } log;
    struct {
        atomic_flag entered;
        tri_panic_speaker speaker;
        tri_panic_hook hook;
        void *state; /* theirs */
        tri_panic_catcher *catcher;
        void *catcher_state;
    } panic;
    struct {
        pthread_mutex_t lock;
        struct tri_memory_counters counters;
        int64_t blocks;           /* that it counts, and one for itself while it is not destroyed */
        _Atomic uint64_t changes; /* of the counters */
    } memory;
    struct tri_meter meter;
    struct tri_work *work; /* where its signs go */
    struct tri_work unread;
    tri_file_hook *file_hook;
    struct tri_trace *trace; /* what is done is told there; NULL: nowhere (base/trace.h) */
};

/* Logs where the calling thread's runtime does and has its file hook, environment and catcher of a
 * panic; counts from zero; other hooks of a panic it has none. NULL: no memory. */
struct tri_runtime *tri_runtime_create(int rank);
/* No thread may work for it any more. Blocks that it counts may be freed later: it goes with the
 * last of them. */
void tri_runtime_destroy(struct tri_runtime *runtime);

/* It is in a program of somebody else's: it reads no environment and installs no handler of a
 * signal. */
void tri_runtime_embed(struct tri_runtime *runtime);
/* Whether the calling thread's is. */
bool tri_runtime_is_embedded(void);

/* How many ranks share the process, this one too; 1 until somebody says so. */
void tri_runtime_set_ranks(struct tri_runtime *runtime, int ranks);
/* The same of the calling thread's runtime. */
int tri_runtime_ranks(void);

/* Binds it to the calling thread; NULL: the default one. OpenMP's threads are bound by the kernels
 * that they work for (kernel/own.h). */
void tri_runtime_bind(struct tri_runtime *runtime);
/* That of the calling thread; never NULL. */
struct tri_runtime *tri_runtime_get(void);
/* As tri_runtime_bind takes it: NULL for the default one. */
struct tri_runtime *tri_runtime_bound(void);

/* The environment of the calling thread's runtime: the process's, or none. NULL: not set. */
const char *tri_runtime_getenv(const char *name);

#endif
