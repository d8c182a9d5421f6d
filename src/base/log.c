#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

static bool is_quiet;

static TRI_PRINTF(2, 0) void print(const char *prefix, const char *format, va_list args)
{
    char text[1024];
    (void)vsnprintf(text, sizeof(text), format, args);
    (void)fprintf(stderr, "%s%s\n", prefix, text);
}

void tri_log_quiet(bool quiet)
{
    is_quiet = quiet;
}

void tri_log_info(const char *format, ...)
{
    if (is_quiet || tri_rank_get() != 0) {
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
