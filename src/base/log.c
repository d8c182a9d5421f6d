#include "base/log.h"

#include "base/runtime.h"

#include <stdarg.h>
#include <stdio.h>

static TRI_PRINTF(2, 0) void print(const char *prefix, const char *format, va_list args)
{
    const struct tri_runtime *runtime = tri_runtime_get();
    char text[1024];
    char line[sizeof(text) + 64];
    (void)vsnprintf(text, sizeof(text), format, args);
    tri_text_flatten(text);
    (void)snprintf(line, sizeof(line), "%s%s\n", prefix, text);
    if (runtime->log.sink) {
        runtime->log.sink(runtime->log.state, line);
    } else {
        tri_live_hide();
        (void)fputs(line, stderr);
    }
}

void tri_log_quiet(bool quiet)
{
    tri_runtime_get()->log.quiet = quiet;
}

void tri_log_set_sink(tri_log_sink *sink, void *state)
{
    struct tri_runtime *runtime = tri_runtime_get();
    runtime->log.sink = sink;
    runtime->log.state = state;
}

void tri_log_info(const char *format, ...)
{
    const struct tri_runtime *runtime = tri_runtime_get();
    if (runtime->log.quiet || runtime->rank != 0) {
        return;
    }
    va_list args;
    va_start(args, format);
    print("", format, args);
    va_end(args);
}

void tri_log_note(const char *format, ...)
{
    if (tri_rank_get() != 0) {
        return;
    }
    va_list args;
    va_start(args, format);
    print("", format, args);
    va_end(args);
}

void tri_log_warn(const char *format, ...)
{
    char prefix[64];
    (void)snprintf(prefix, sizeof(prefix), "trident: warning: rank %d: ", tri_rank_get());
    va_list args;
    va_start(args, format);
    print(prefix, format, args);
    va_end(args);
}

void tri_log_error(const struct tri_error *error)
{
    enum { PATIENCE = 5000 };
    char line[sizeof(error->message) + 32];
    (void)snprintf(line, sizeof(line), "trident: error: %s\n", error->message);
    tri_error_write(line, PATIENCE);
}
