#include "base/signals.h"

#include "base/runtime.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

enum { STACK_BYTES = 256 << 10, NO_STATUS = -1 };

static bool started, noted;
static atomic_bool stop_asked;
static _Atomic int exit_status = NO_STATUS;

/* What SIGTERM, SIGUSR1 or SIGALRM does to a process that knows nothing of them. A library may have
 * set a handler since. */
static void die_of(int number)
{
    sigset_t set;
    (void)signal(number, SIG_DFL);
    (void)sigemptyset(&set);
    (void)sigaddset(&set, number);
    (void)pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    (void)kill(getpid(), number);
}

/* The signals that the thread waits for; the others are not blocked in it, so the system gives them
 * to it, and what they do by default, or by a library's handler, they do there. */
static void waited_for(sigset_t *set)
{
    (void)sigemptyset(set);
    (void)sigaddset(set, SIGTERM);
    (void)sigaddset(set, SIGUSR1);
    (void)sigaddset(set, SIGALRM);
}

static void *take(void *unused)
{
    (void)unused;
    sigset_t set;
    waited_for(&set);
    (void)pthread_sigmask(SIG_SETMASK, &set, NULL);
    for (;;) {
        int number = 0;
        if (sigwait(&set, &number) != 0) {
            continue;
        }
        int status = atomic_load(&exit_status);
        if (number == SIGALRM && status != NO_STATUS) {
            _exit(status);
        }
        if (number != SIGALRM && noted) {
            atomic_store(&stop_asked, true);
        } else {
            die_of(number);
        }
    }
    return unused;
}

void tri_signals_outside(sigset_t *set)
{
    static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
    (void)sigfillset(set);
    for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++) {
        (void)sigdelset(set, own[i]);
    }
}

void tri_signals_start(bool stops)
{
    if (started || tri_runtime_get()->embedded) {
        return;
    }
    started = true;
    noted = stops;
    (void)signal(SIGPIPE, SIG_IGN);
    (void)signal(SIGXFSZ, SIG_IGN);
    sigset_t outside;
    tri_signals_outside(&outside);
    (void)pthread_sigmask(SIG_BLOCK, &outside, NULL);
    pthread_t thread;
    pthread_attr_t attributes;
    (void)pthread_attr_init(&attributes);
    (void)pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    (void)pthread_attr_setstacksize(&attributes, STACK_BYTES);
    int code = pthread_create(&thread, &attributes, take, NULL);
    (void)pthread_attr_destroy(&attributes);
    if (code != 0) {
        tri_panic(TRI_FAILED, "cannot start the thread that takes signals: %s", strerror(code));
    }
}

bool tri_signals_stop_asked(void)
{
    return atomic_load_explicit(&stop_asked, memory_order_relaxed);
}

/* The alarm is one more signal that the thread takes; without the thread it ends the process all
 * the same. */
void tri_signals_exit_after(unsigned int seconds, int status)
{
    atomic_store(&exit_status, status);
    (void)alarm(seconds);
}
