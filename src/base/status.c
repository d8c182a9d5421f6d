#include "base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

static tri_panic_hook panic_hook;
static int this_rank;

static void one_line(char *text)
{
    for (; *text; text++) {
        if (*text == '\n' || *text == '\r') {
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
        one_line(error->message);
    }
    return status;
}

void tri_panic(enum tri_status status, const char *format, ...)
{
    char text[1024];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    one_line(text);
    (void)fprintf(stderr, "trident: error: rank %d: %s\n", this_rank, text);
    (void)fflush(NULL);
    if (panic_hook) {
        panic_hook((int)status);
    }
    _exit((int)status);
}

void tri_panic_set_hook(tri_panic_hook hook)
{
    panic_hook = hook;
}

void tri_rank_set(int rank)
{
    this_rank = rank;
}

int tri_rank_get(void)
{
    return this_rank;
}
