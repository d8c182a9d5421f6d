#include "support/thread_fault.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

static _Atomic int left = -1; /* that can still be started; below 0: any number */
static atomic_bool for_good;

void thread_fault_after(int started, bool all)
{
    atomic_store(&for_good, all);
    atomic_store(&left, started);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *),
                   void *argument)
{
    static int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (!real) {
        void *found = dlsym(RTLD_NEXT, "pthread_create");
        memcpy(&real, &found, sizeof(real));
    }
    if (atomic_load(&left) >= 0 && atomic_fetch_sub(&left, 1) == 0) {
        if (atomic_load(&for_good)) {
            atomic_store(&left, 0);
        }
        return EAGAIN;
    }
    return real(thread, attributes, run, argument);
}
