/* What a process remembers outside of all objects: file-scope and function-static variables that
 * are not constant, found in the libraries' symbol tables and held against a list with reasons. */
#include "meta/rules.h"
#include "meta/walk.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS = 64, TEXT = 512 };

/* One variable of the list. */
struct variable {
    char file[64]; /* "base/signals.c" */
    char name[64];
    bool found;
};

struct list {
    struct variable variable[ROWS];
    int count;
};

/* ---- the list -------------------------------------------------------------------------------- */

/* Copies what stands between the next two backquotes before end, and returns what follows; NULL
 * when there are none. */
static const char *quoted(const char *at, const char *end, char *text, size_t size)
{
    const char *first = strchr(at, '`');
    const char *second = first && first < end ? strchr(first + 1, '`') : NULL;
    if (!second || second > end) {
        return NULL;
    }
    (void)snprintf(text, size, "%.*s", (int)(second - first - 1), first + 1);
    return second + 1;
}

/* A row: | `base/signals.c` | `started`, `noted` | why |. False for any other line. */
static void read_row(const char *line, struct list *list, struct findings *findings)
{
    char file[sizeof(list->variable[0].file)];
    const char *first = strncmp(line, "| `", 3) == 0 ? strchr(line + 1, '|') : NULL;
    const char *second = first ? strchr(first + 1, '|') : NULL;
    if (!second || !quoted(line, first, file, sizeof(file)) || !ends_with(file, ".c")) {
        return;
    }
    if (strspn(second, "| \n") == strlen(second)) {
        find(findings, "%s is listed without a reason", file);
    }
    const char *at = first;
    while (at && list->count < ROWS) {
        struct variable *variable = &list->variable[list->count];
        *variable = (struct variable){0};
        (void)snprintf(variable->file, sizeof(variable->file), "%s", file);
        at = quoted(at, second, variable->name, sizeof(variable->name));
        list->count += at != NULL;
    }
}

static void read_list(const char *path, struct list *list, struct findings *findings)
{
    char line[TEXT];
    FILE *file = fopen(path, "re");
    if (!file) {
        find(findings, "%s: cannot read", path);
        return;
    }
    while (fgets(line, sizeof(line), file)) {
        read_row(line, list, findings);
    }
    (void)fclose(file);
}

/* ---- the symbols ----------------------------------------------------------------------------- */

/* The name of the section, of a line of a symbol table, if one can write to what is in it;
 * relocations aside nobody writes to .data.rel.ro. */
static bool is_writable(const char *section)
{
    static const char *const kinds[] = {".data", ".bss", ".tdata", ".tbss", "*COM*"};
    if (strncmp(section, ".data.rel.ro", 12) == 0) {
        return false;
    }
    for (size_t i = 0; i < sizeof(kinds) / sizeof(*kinds); i++) {
        if (strncmp(section, kinds[i], strlen(kinds[i])) == 0) {
            return true;
        }
    }
    return false;
}

/* Address, seven flags, section, size, name. */
static const char *variable_of(const char *line)
{
    enum { DIGITS = 16, FLAGS = 7, DEBUG = 5 };
    if (strspn(line, "0123456789abcdef") != DIGITS || strlen(line) < DIGITS + FLAGS + 3) {
        return NULL;
    }
    const char *flags = line + DIGITS + 1;
    const char *name = strrchr(line, ' ');
    if (flags[DEBUG] == 'd' || !is_writable(flags + FLAGS + 1) || !name) {
        return NULL;
    }
    name++;
    /* Two underscores: the compiler's own. A dot: of no variable of ours. */
    return strncmp(name, "__", 2) == 0 || *name == '.' ? NULL : name;
}

/* A compiler calls a function's static variable "name.5", or "function.name". */
static bool is_called(const char *symbol, const char *name)
{
    size_t length = strlen(name);
    bool begins = strncmp(symbol, name, length) == 0;
    const char *dot = strrchr(symbol, '.');
    return (begins && (!symbol[length] || symbol[length] == '.')) ||
           (dot && strcmp(dot + 1, name) == 0);
}

/* An archive forgets the folders between the library's and the file. */
static bool is_file(const char *path, const char *folder, const char *file)
{
    const char *last = strrchr(path, '/');
    size_t length = strlen(folder);
    return last && strcmp(last + 1, file) == 0 && strncmp(path, folder, length) == 0 &&
           path[length] == '/';
}

static void check_variable(const char *folder, const char *file, const char *symbol,
                           struct list *list, struct findings *findings)
{
    for (int i = 0; i < list->count; i++) {
        struct variable *variable = &list->variable[i];
        if (is_file(variable->file, folder, file) && is_called(symbol, variable->name)) {
            variable->found = true;
            return;
        }
    }
    find(findings, "%s/%s: the variable %s outlives its calls and is not listed", folder, file,
         symbol);
}

/* "base" of "…/libtrident_base.a". */
static void folder_of(const char *library, char *folder, size_t size)
{
    const char *name = strrchr(library, '/');
    name = name ? name + 1 : library;
    name += strncmp(name, "lib", 3) == 0 ? 3 : 0;
    name += strncmp(name, "trident_", 8) == 0 ? 8 : 0;
    (void)snprintf(folder, size, "%.*s", (int)strcspn(name, "."), name);
}

static void check_library(const char *objdump, const char *library, struct list *list,
                          struct findings *findings)
{
    char command[2 * TEXT];
    char line[2 * TEXT];
    char folder[TEXT / 4];
    char file[TEXT] = "";
    folder_of(library, folder, sizeof(folder));
    (void)snprintf(command, sizeof(command), "'%s' -t '%s' 2>&1", objdump, library);
    FILE *pipe = popen(command, "r");
    while (pipe && fgets(line, sizeof(line), pipe)) {
        line[strcspn(line, "\n")] = '\0';
        const char *end = strstr(line, ".o:"); /* of "signals.c.o:     file format …" */
        const char *symbol = variable_of(line);
        if (end) {
            (void)snprintf(file, sizeof(file), "%.*s", (int)(end - line), line);
        } else if (symbol) {
            check_variable(folder, file, symbol, list, findings);
        }
    }
    if (!pipe || pclose(pipe) != 0) {
        find(findings, "%s: %s failed", library, objdump);
    }
}

void rules_check_state(const char *objdump, int count, char *const *libraries, const char *document,
                       struct findings *findings)
{
    struct list list = {0};
    read_list(document, &list, findings);
    for (int i = 0; i < count; i++) {
        check_library(objdump, libraries[i], &list, findings);
    }
    for (int i = 0; i < list.count; i++) {
        if (!list.variable[i].found) {
            find(findings, "%s: %s need not be listed: there is no such variable",
                 list.variable[i].file, list.variable[i].name);
        }
    }
}
