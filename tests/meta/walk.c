#include "meta/walk.h"

#include <dirent.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void find(struct findings *findings, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof(line), format, args);
    va_end(args);
    findings->count++;
    size_t used = strlen(findings->text), length = strlen(line);
    if (used + length + 2 <= sizeof(findings->text)) {
        memcpy(findings->text + used, line, length);
        memcpy(findings->text + used + length, "\n", 2);
    }
}

char *join(const char *a, const char *b)
{
    char *path = NULL;
    if (asprintf(&path, "%s/%s", a, b) < 0) {
        abort();
    }
    return path;
}

int for_each_line(const struct scope *scope, const char *path, visit_line visit)
{
    char *full = join(scope->root, path);
    FILE *file = fopen(full, "r");
    free(full);
    if (!file) {
        return -1;
    }
    char *line = NULL;
    size_t capacity = 0;
    int number = 0;
    while (getline(&line, &capacity, file) >= 0) {
        number++;
        if (visit) {
            visit(scope, path, number, line);
        }
    }
    free(line);
    fclose(file);
    return number;
}

bool is_folder(const struct scope *scope, const char *path)
{
    struct stat status;
    char *full = join(scope->root, path);
    bool result = stat(full, &status) == 0 && S_ISDIR(status.st_mode);
    free(full);
    return result;
}

bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

void for_each_file(const struct scope *scope, const char *folder, const char *const *ends,
                   visit_file visit)
{
    char *full = join(scope->root, folder);
    struct dirent **entries = NULL;
    int count = scandir(full, &entries, NULL, alphasort);
    free(full);
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        char *path = join(folder, name);
        bool below = name[0] != '.' && is_folder(scope, path);
        if (below) {
            for_each_file(scope, path, ends, visit);
        }
        for (const char *const *end = ends; !below && *end; end++) {
            if (ends_with(name, *end)) {
                visit(scope, path);
            }
        }
        free(path);
        free(entries[i]);
    }
    free(entries);
}

void for_each_source(const struct scope *scope, const char *folder, visit_file visit)
{
    static const char *const ends[] = {".c", ".h", NULL};
    for_each_file(scope, folder, ends, visit);
}
