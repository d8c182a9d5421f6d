#include "base/path.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static bool format_path(char *path, size_t bytes, const char *format, va_list args)
    TRI_PRINTF(3, 0);
static bool format_path(char *path, size_t bytes, const char *format, va_list args)
{
    int length = vsnprintf(path, bytes, format, args);
    return length >= 0 && (size_t)length < bytes;
}

enum tri_status tri_path_format(char *path, size_t bytes, struct tri_error *error,
                                const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bool fits = format_path(path, bytes, format, args);
    va_end(args);
    return fits ? TRI_OK
                : tri_fail(error, TRI_BAD_INPUT, "%.60s...: a path of more than %zu bytes", path,
                           bytes - 1);
}

void tri_path_make(char *path, size_t bytes, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    bool fits = format_path(path, bytes, format, args);
    va_end(args);
    TRI_REQUIRE(fits);
}

void tri_path_trim(char *path)
{
    size_t length = strlen(path);
    for (;;) {
        if (length > 1 && path[length - 1] == '/') {
            length--;
        } else if (length > 1 && path[length - 1] == '.' && path[length - 2] == '/') {
            length--;
        } else {
            break;
        }
    }
    path[length] = '\0';
}

void tri_path_parent(const char *path, char *parent, size_t bytes)
{
    tri_path_make(parent, bytes, "%s", path);
    tri_path_trim(parent);
    char *slash = strrchr(parent, '/');
    if (!slash) {
        tri_path_make(parent, bytes, ".");
    } else if (slash == parent) {
        slash[1] = '\0';
    } else {
        *slash = '\0';
    }
}
