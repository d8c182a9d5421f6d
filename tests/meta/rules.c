#include "meta/rules.h"
#include "meta/walk.h"

#include <ctype.h>
#include <dirent.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Highest first: a folder sees those after it. */
static const char *const folders[] = {"cli",        "embed",  "report", "train",  "infer", "plan",
                                      "checkpoint", "data",   "optim",  "moe",    "model", "comm",
                                      "shard",      "kernel", "tensor", "config", "base"};
enum { FOLDERS = sizeof(folders) / sizeof(*folders) };

/* Place in the order, -1 for a name that is no folder of ours. */
static int level_of(const char *name, size_t length)
{
    for (int i = 0; i < FOLDERS; i++) {
        if (strlen(folders[i]) == length && strncmp(folders[i], name, length) == 0) {
            return i;
        }
    }
    return -1;
}

static bool may_see(int from, int to)
{
    bool strangers = (strcmp(folders[from], "comm") == 0 && strcmp(folders[to], "kernel") == 0) ||
                     (strcmp(folders[from], "kernel") == 0 && strcmp(folders[to], "comm") == 0);
    return to >= from && !strangers;
}

/* The name between quotes or brackets of an include line; false for any other line. */
static bool parse_include(const char *line, char *name, size_t size, bool *quoted)
{
    line += strspn(line, " \t");
    if (*line++ != '#') {
        return false;
    }
    line += strspn(line, " \t");
    if (strncmp(line, "include", 7) != 0) {
        return false;
    }
    line += 7 + strspn(line + 7, " \t");
    *quoted = *line == '"';
    if (!*quoted && *line != '<') {
        return false;
    }
    size_t length = strcspn(line + 1, *quoted ? "\"" : ">");
    if (length >= size) {
        length = size - 1;
    }
    memcpy(name, line + 1, length);
    name[length] = '\0';
    return true;
}

/* ---- includes -------------------------------------------------------------------------------- */

static void include_line(const struct scope *scope, const char *path, int number, const char *line)
{
    char name[256];
    bool quoted;
    if (!parse_include(line, name, sizeof(name), &quoted)) {
        return;
    }
    size_t length = strcspn(name, "/");
    bool beside = name[length] == '\0';
    if (beside || strncmp(name, "trident/", 8) == 0) {
        return;
    }
    /* Brackets find our headers as well, and are the system's otherwise, but never a way around. */
    int to = level_of(name, length);
    bool ours = quoted || to >= 0 || name[0] == '.' || name[0] == '/' || strstr(name, "..");
    if (ours && (to < 0 || !may_see(scope->level, to) || strstr(name, ".."))) {
        find(scope->findings, "%s:%d: src/%s may not include %s%s%s", path, number,
             folders[scope->level], quoted ? "\"" : "<", name, quoted ? "\"" : ">");
    }
}

static void include_file(const struct scope *scope, const char *path)
{
    for_each_line(scope, path, include_line);
}

void rules_check_includes(const char *root, struct findings *findings)
{
    struct scope scope = {.root = root, .findings = findings};
    for (scope.level = 0; scope.level < FOLDERS; scope.level++) {
        char *folder = join("src", folders[scope.level]);
        for_each_source(&scope, folder, include_file);
        free(folder);
    }
}

/* ---- links ----------------------------------------------------------------------------------- */

static void link_line(const struct scope *scope, const char *path, int number, const char *line)
{
    static const char prefix[] = "trident_";
    const char *comment = strchr(line, '#');
    for (const char *at = line; (at = strstr(at, prefix)) && (!comment || at < comment);) {
        at += sizeof(prefix) - 1;
        size_t length = 0;
        while (isalnum((unsigned char)at[length]) || at[length] == '_') {
            length++;
        }
        if (length == 4 && strncmp(at, "dnnl", 4) == 0 &&
            strcmp(folders[scope->level], "kernel") != 0) {
            find(scope->findings, "%s:%d: only src/kernel may link oneDNN", path, number);
        }
        int to = level_of(at, length);
        if (to >= 0 && !may_see(scope->level, to)) {
            find(scope->findings, "%s:%d: src/%s may not link trident_%s", path, number,
                 folders[scope->level], folders[to]);
        }
    }
}

void rules_check_links(const char *root, struct findings *findings)
{
    struct scope scope = {.root = root, .findings = findings};
    for (scope.level = 0; scope.level < FOLDERS; scope.level++) {
        char *folder = join("src", folders[scope.level]);
        char *path = join(folder, "CMakeLists.txt");
        for_each_line(&scope, path, link_line);
        free(path);
        free(folder);
    }
}

/* ---- foreign headers ------------------------------------------------------------------------- */

static void foreign_line(const struct scope *scope, const char *path, int number, const char *line)
{
    char name[256];
    bool quoted;
    if (parse_include(line, name, sizeof(name), &quoted) &&
        strncmp(name, scope->header, strlen(scope->header)) == 0) {
        find(scope->findings, "%s:%d: only %s may include <%s>", path, number, scope->only_in,
             name);
    }
}

static void foreign_file(const struct scope *scope, const char *path)
{
    bool excepted = scope->except && strcmp(path, scope->except) == 0;
    if (!excepted && strncmp(path, scope->only_in, strlen(scope->only_in)) != 0) {
        for_each_line(scope, path, foreign_line);
    }
}

static const char onednn_file[] = "src/kernel/x86/onednn.c";

/* A name of oneDNN's API, which another version of it calls otherwise. */
static void onednn_line(const struct scope *scope, const char *path, int number, const char *line)
{
    static const char *const prefixes[] = {"dnnl_", "DNNL_"};
    for (int i = 0; i < 2; i++) {
        const char *at = strstr(line, prefixes[i]);
        if (at && (at == line || !(isalnum((unsigned char)at[-1]) || at[-1] == '_'))) {
            find(scope->findings, "%s:%d: only %s may use oneDNN's %.24s", path, number,
                 onednn_file, at);
        }
    }
}

static void onednn_uses(const struct scope *scope, const char *path)
{
    if (strcmp(path, onednn_file) != 0) {
        for_each_line(scope, path, onednn_line);
    }
}

void rules_check_foreign_headers(const char *root, struct findings *findings)
{
    const struct scope rules[] = {
        /* A public function takes a communicator; one file passes it on to comm/. */
        {.root = root,
         .findings = findings,
         .only_in = "src/comm/",
         .header = "mpi.h",
         .except = "include/trident/trident_mpi.h"},
        {.root = root, .findings = findings, .only_in = onednn_file, .header = "oneapi/dnnl"},
        {.root = root,
         .findings = findings,
         .only_in = "src/embed/runtime_mpi.c",
         .header = "trident/trident_mpi.h"},
    };
    for_each_source(&rules[1], "src", onednn_uses);
    for (size_t i = 0; i < sizeof(rules) / sizeof(*rules); i++) {
        for_each_source(&rules[i], "src", foreign_file);
        for_each_source(&rules[i], "include", foreign_file);
    }
}

/* ---- folders --------------------------------------------------------------------------------- */

void rules_check_folders(const char *root, struct findings *findings)
{
    struct scope scope = {.root = root, .findings = findings};
    char *src = join(root, "src");
    struct dirent **entries = NULL;
    int count = scandir(src, &entries, NULL, alphasort);
    free(src);
    if (count < 0) {
        find(findings, "src: cannot be read");
    }
    for (int i = 0; i < count; i++) {
        const char *name = entries[i]->d_name;
        char *folder = join("src", name);
        if (name[0] != '.' && is_folder(&scope, folder)) {
            if (level_of(name, strlen(name)) < 0) {
                find(findings, "%s: not in the order of folders", folder);
            }
            char *readme = join(folder, "README.md");
            if (for_each_line(&scope, readme, NULL) < 1) {
                find(findings, "%s: README.md is missing or empty", folder);
            }
            free(readme);
        }
        free(folder);
        free(entries[i]);
    }
    free(entries);
}

/* ---- lengths --------------------------------------------------------------------------------- */

static void length_file(const struct scope *scope, const char *path)
{
    int lines = for_each_line(scope, path, NULL);
    if (lines > scope->limit) {
        find(scope->findings, "%s: %d lines, more than %d", path, lines, scope->limit);
    }
}

void rules_check_lengths(const char *root, int lines, struct findings *findings)
{
    static const char *const trees[] = {"src", "include", "tests", "bench", "tools"};
    const struct scope scope = {.root = root, .findings = findings, .limit = lines};
    for (size_t i = 0; i < sizeof(trees) / sizeof(*trees); i++) {
        for_each_source(&scope, trees[i], length_file);
    }
}

/* ---- columns --------------------------------------------------------------------------------- */

/* Code points: continuation bytes of UTF-8 take no column. */
static void column_line(const struct scope *scope, const char *path, int number, const char *line)
{
    int columns = 0;
    for (; *line && *line != '\n'; line++) {
        columns += ((unsigned char)*line & 0xc0) != 0x80;
    }
    if (columns > scope->limit) {
        find(scope->findings, "%s:%d: %d columns, more than %d", path, number, columns,
             scope->limit);
    }
}

static void column_file(const struct scope *scope, const char *path)
{
    for_each_line(scope, path, column_line);
}

void rules_check_columns(const char *root, int columns, struct findings *findings)
{
    static const char *const trees[] = {"src",   "include", "tests",    "bench",
                                        "tools", "scripts", "examples", "cmake"};
    static const char *const ends[] = {
        ".c", ".h", ".sh", ".py", ".in", ".yaml", "CMakeLists.txt", ".cmake", NULL};
    const struct scope scope = {.root = root, .findings = findings, .limit = columns};
    for_each_line(&scope, "CMakeLists.txt", column_line);
    for (size_t i = 0; i < sizeof(trees) / sizeof(*trees); i++) {
        for_each_file(&scope, trees[i], ends, column_file);
    }
}

/* ---- symbols --------------------------------------------------------------------------------- */

void rules_check_symbols(const char *nm, const char *library, struct findings *findings)
{
    char *command = NULL;
    if (asprintf(&command, "'%s' -g --defined-only '%s' 2>&1", nm, library) < 0) {
        abort();
    }
    FILE *pipe = popen(command, "r");
    free(command);
    if (!pipe) {
        find(findings, "%s: cannot run %s", library, nm);
        return;
    }
    char line[1024];
    while (fgets(line, sizeof(line), pipe)) {
        char address[32], kind[4], symbol[512];
        if (sscanf(line, "%31s %3s %511s", address, kind, symbol) != 3 || strlen(kind) != 1) {
            continue; /* the name of a member of the archive */
        }
        /* clang's, for critical sections without a name and for reductions */
        static const char critical[] = ".gomp_critical_user_.";
        if (strncmp(symbol, "tri_", 4) != 0 && strncmp(symbol, "trident_", 8) != 0 &&
            strncmp(symbol, "__", 2) != 0 && strncmp(symbol, critical, strlen(critical)) != 0 &&
            strcmp(symbol, "main") != 0) {
            find(findings, "%s exports %s", library, symbol);
        }
    }
    if (pclose(pipe) != 0) {
        find(findings, "%s: %s failed", library, nm);
    }
}
