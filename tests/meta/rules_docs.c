#include "meta/rules.h"
#include "meta/walk.h"

#include <ctype.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { SLUG_BYTES = 256 };

/* A heading that a link asks for by its name in addresses: #under-mpi, and of the second heading of
 * that text #under-mpi-1. */
struct heading {
    char slug[SLUG_BYTES];
    int copy;           /* this one of the headings with that text, from 0 */
    int seen;           /* of them so far */
    bool found, fenced; /* fenced: inside a block of code, where # begins no heading */
};

/* The files that docs/README.md is to name. */
struct index {
    const char *name;
    bool found;
};

/* As GitHub makes it: small letters, digits, - and _ stay, spaces become -, ASCII's other signs
 * go, and so does what is behind a heading's text: spaces, the line's end. */
static void make_slug(const char *text, char slug[SLUG_BYTES])
{
    size_t length = strlen(text), used = 0;
    while (length > 0 && isspace((unsigned char)text[length - 1])) {
        length--;
    }
    for (size_t i = 0; i < length && used + 1 < SLUG_BYTES; i++) {
        unsigned char sign = (unsigned char)text[i];
        if (isalnum(sign) || sign == '-' || sign == '_' || sign >= 0x80) {
            slug[used++] = (char)tolower(sign);
        } else if (sign == ' ') {
            slug[used++] = '-';
        }
    }
    slug[used] = '\0';
}

static void heading_line(const struct scope *scope, const char *path, int number, const char *line)
{
    (void)path;
    (void)number;
    struct heading *heading = scope->state;
    char slug[SLUG_BYTES];
    size_t level = strspn(line, "#");
    heading->fenced ^= strncmp(line, "```", 3) == 0;
    if (heading->fenced || level == 0 || line[level] != ' ') {
        return;
    }
    make_slug(line + level + 1, slug);
    if (strcmp(slug, heading->slug) == 0) {
        heading->found |= heading->seen++ == heading->copy;
    }
}

static bool has_heading_of(const char *root, const char *path, const char *slug, int copy)
{
    struct heading heading = {.copy = copy};
    const struct scope scope = {.root = root, .state = &heading};
    (void)snprintf(heading.slug, sizeof(heading.slug), "%s", slug);
    return for_each_line(&scope, path, heading_line) >= 0 && heading.found;
}

static bool has_heading(const char *root, const char *path, const char *anchor)
{
    char text[SLUG_BYTES];
    const char *dash = strrchr(anchor, '-');
    bool numbered = dash && dash[1] && strspn(dash + 1, "0123456789") == strlen(dash + 1);
    if (has_heading_of(root, path, anchor, 0)) {
        return true;
    }
    if (!numbered) {
        return false;
    }
    (void)snprintf(text, sizeof(text), "%.*s", (int)(dash - anchor), anchor);
    return has_heading_of(root, path, text, (int)strtol(dash + 1, NULL, 10));
}

/* One link, [text](to): `to` may be a file, a file's heading, a heading of this file. */
static void check_link(const struct scope *scope, const char *path, int number, const char *to)
{
    const char *slash = strrchr(path, '/');
    int folder = slash ? (int)(slash - path) + 1 : 0;
    int length = (int)strcspn(to, "#)\n");
    char *target = NULL, *full = NULL;
    if (asprintf(&target, "%.*s%.*s", folder, path, length, to) < 0) {
        abort();
    }
    if (length == 0) {
        free(target);
        target = strdup(path);
    }
    full = join(scope->root, target);
    struct stat status;
    if (stat(full, &status) != 0) {
        find(scope->findings, "%s:%d: link to %.*s, which does not exist", path, number, length,
             to);
    } else if (to[length] == '#') {
        char anchor[SLUG_BYTES];
        (void)snprintf(anchor, sizeof(anchor), "%.*s", (int)strcspn(to + length + 1, ")\n"),
                       to + length + 1);
        if (!has_heading(scope->root, target, anchor)) {
            find(scope->findings, "%s:%d: link to #%s of %s, which has no such heading", path,
                 number, anchor, target);
        }
    }
    free(full);
    free(target);
}

static void link_line(const struct scope *scope, const char *path, int number, const char *line)
{
    for (const char *at = line; (at = strstr(at, "]("));) {
        at += 2;
        if (strncmp(at, "http", 4) != 0 && *at != ')') {
            check_link(scope, path, number, at);
        }
    }
}

static void index_line(const struct scope *scope, const char *path, int number, const char *line)
{
    (void)path;
    (void)number;
    struct index *index = scope->state;
    char *link = NULL;
    if (asprintf(&link, "](%s)", index->name) < 0) {
        abort();
    }
    index->found |= strstr(line, link) != NULL;
    free(link);
}

/* docs/README.md leads to every other document of docs/. */
static void check_index(const struct scope *scope, const char *name)
{
    struct index index = {.name = name};
    const struct scope lines = {.root = scope->root, .state = &index};
    (void)for_each_line(&lines, "docs/README.md", index_line);
    if (!index.found) {
        find(scope->findings, "docs/README.md does not lead to %s", name);
    }
}

void rules_check_docs(const char *root, int lines, struct findings *findings)
{
    const struct scope scope = {.root = root, .findings = findings};
    static const char *const places[] = {".", "docs"};
    for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
        char *folder = join(root, places[i]);
        struct dirent **entries = NULL;
        int count = scandir(folder, &entries, NULL, alphasort);
        free(folder);
        for (int j = 0; j < count; j++) {
            const char *name = entries[j]->d_name;
            if (ends_with(name, ".md")) {
                char *path = i == 0 ? strdup(name) : join(places[i], name);
                int length = for_each_line(&scope, path, link_line);
                if (length > lines) {
                    find(findings, "%s: %d lines, more than %d", path, length, lines);
                }
                if (i == 1 && strcmp(name, "README.md") != 0) {
                    check_index(&scope, name);
                }
                free(path);
            }
            free(entries[j]);
        }
        free(entries);
    }
}
