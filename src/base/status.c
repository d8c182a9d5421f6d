#include "base/status.h"

#include "base/runtime.h"
#include "base/signals.h"

#include <limits.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* PANIC_PATIENCE: milliseconds for a reader of standard error. */
enum { PANIC_SECONDS = 5, PANIC_PATIENCE = 1000 };

void tri_text_flatten(char *text)
{
    for (; *text; text++) {
        if ((unsigned char)*text < ' ' || *text == 0x7f) {
            *text = ' ';
        }
    }
}

enum tri_status tri_fail(struct tri_error *error, enum tri_status status, const char *format, ...)
{
    if (error) {
        va_list args;
        va_start(args, format);
        error->status = status;
        (void)vsnprintf(error->message, sizeof(error->message), format, args);
        va_end(args);
        tri_text_flatten(error->message);
    }
    return status;
}

static void write_patiently(const char *text, int patience)
{
    size_t left = strlen(text);
    while (left > 0) {
        /* A pipe that can be written to takes this much without waiting. */
        size_t part = left < PIPE_BUF ? left : PIPE_BUF;
        struct pollfd end = {.fd = STDERR_FILENO, .events = POLLOUT};
        int ready = poll(&end, 1, patience);
        ssize_t written = ready > 0 ? write(STDERR_FILENO, text, part) : -1;
        if (written < 0) {
            return;
        }
        text += written;
        left -= (size_t)written;
    }
}

void tri_error_write(const char *text, int patience)
{
    struct tri_runtime *runtime = tri_runtime_get();
    if (runtime->log.sink) {
        runtime->log.sink(runtime->log.state, text);
        return;
    }
    if (runtime->log.live) {
        /* Not as tri_live_hide: who is stuck in a write to it may hold the stream. */
        runtime->log.live = false;
        write_patiently("\r\033[K", patience);
    }
    write_patiently(text, patience);
}

void tri_panic(enum tri_status status, const char *format, ...)
{
    struct tri_runtime *runtime = tri_runtime_get();
    char text[1024];
    char line[1100];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    tri_text_flatten(text);
    if (runtime->panic.catcher) {
        runtime->panic.catcher(runtime->panic.catcher_state, status, text);
    }
    /* Whatever is full or stuck from here on, the process ends. */
    tri_signals_exit_after(PANIC_SECONDS, (int)status);
    while (atomic_flag_test_and_set(&runtime->panic.entered)) {
        (void)pause(); /* another thread has begun, or this one while it ended the job */
    }
    if (!runtime->panic.speaker || runtime->panic.speaker(runtime->panic.state)) {
        (void)snprintf(line, sizeof(line), "trident: error: rank %d: %s\n", runtime->rank, text);
        tri_error_write(line, PANIC_PATIENCE);
    }
    if (runtime->panic.hook) {
        runtime->panic.hook(runtime->panic.state, (int)status);
    }
    _exit((int)status);
}

void tri_panic_set_hooks(tri_panic_speaker speaker, tri_panic_hook hook, void *state)
{
    struct tri_runtime *runtime = tri_runtime_get();
    runtime->panic.speaker = speaker;
    runtime->panic.hook = hook;
    runtime->panic.state = state;
}

void tri_panic_set_catcher(tri_panic_catcher *catcher, void *state)
{
    struct tri_runtime *runtime = tri_runtime_get();
    runtime->panic.catcher = catcher;
    runtime->panic.catcher_state = state;
}

void tri_rank_set(int rank)
{
    tri_runtime_get()->rank = rank;
}

int tri_rank_get(void)
{
    return tri_runtime_get()->rank;
}
