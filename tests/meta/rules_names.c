/* What the sources call things: a struct's name means one thing, and what src/ offers is used in
 * src/ and not by tests alone. Words are read, not C: a name in a comment counts as a use. */
#include "meta/rules.h"
#include "meta/walk.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NAMES = 4096, NAME_LENGTH = 96 };

/* Words of src/ that begin with tri_, and in how many places each is used. */
struct names {
    int count;
    struct name {
        char word[NAME_LENGTH];
        char path[256]; /* where it is declared as a function, or defined as a struct */
        int uses, functions, structs;
    } name[NAMES];
};

static struct names names;

static struct name *get(const char *word, size_t length)
{
    if (length >= NAME_LENGTH) {
        length = NAME_LENGTH - 1;
    }
    for (int i = 0; i < names.count; i++) {
        if (strlen(names.name[i].word) == length &&
            strncmp(names.name[i].word, word, length) == 0) {
            return &names.name[i];
        }
    }
    if (names.count == NAMES) {
        abort();
    }
    struct name *name = &names.name[names.count++];
    memcpy(name->word, word, length);
    return name;
}

static void name_line(const struct scope *scope, const char *path, int number, const char *line)
{
    (void)number;
    const bool header = ends_with(path, ".h");
    for (const char *at = line; (at = strstr(at, "tri_"));) {
        bool begins = at == line || !(isalnum((unsigned char)at[-1]) || at[-1] == '_');
        size_t length = 0;
        while (isalnum((unsigned char)at[length]) || at[length] == '_') {
            length++;
        }
        if (begins) {
            struct name *name = get(at, length);
            bool defined = strncmp(line, "struct ", 7) == 0 && at == line + 7 &&
                           strncmp(at + length, " {", 2) == 0;
            /* A function's own line, in a header or where it is defined, is no use of it. */
            bool head = at[length] == '(' && isalpha((unsigned char)line[0]);
            bool declared = head && header && strncmp(line, "static", 6) != 0;
            name->uses += !head;
            name->functions += declared;
            name->structs += defined;
            if (defined && name->structs > 1) {
                find(scope->findings, "%s: struct %s is another one in %s", path, name->word,
                     name->path);
            }
            if (defined || declared) {
                (void)snprintf(name->path, sizeof(name->path), "%s", path);
            }
        }
        at += length;
    }
}

static void name_file(const struct scope *scope, const char *path)
{
    for_each_line(scope, path, name_line);
}

static bool is_allowed(const char *const *allowed, const char *word)
{
    for (; allowed && *allowed; allowed++) {
        if (strcmp(*allowed, word) == 0) {
            return true;
        }
    }
    return false;
}

void rules_check_names(const char *root, const char *const *allowed, struct findings *findings)
{
    const struct scope scope = {.root = root, .findings = findings};
    memset(&names, 0, sizeof(names));
    for_each_source(&scope, "src", name_file);
    for (int i = 0; i < names.count; i++) {
        const struct name *name = &names.name[i];
        if (name->functions > 0 && name->uses == 0 && !is_allowed(allowed, name->word)) {
            find(findings, "%s: %s is not used in src", name->path, name->word);
        }
    }
    for (; allowed && *allowed; allowed++) {
        const struct name *name = get(*allowed, strlen(*allowed));
        if (name->functions == 0 || name->uses > 0) {
            find(findings, "%s need not be allowed: it is %s", *allowed,
                 name->functions == 0 ? "not there" : "used");
        }
    }
}

/* ---- strategies ------------------------------------------------------------------------------ */

static void strategy_line(const struct scope *scope, const char *path, int number, const char *line)
{
    if (strstr(line, "&tri_router_") || strstr(line, "&tri_schedule_")) {
        find(scope->findings, "%s:%d: names a strategy: ask for a field of it", path, number);
    }
}

static void strategy_file(const struct scope *scope, const char *path)
{
    if (strncmp(path, "src/moe/", 8) != 0) {
        for_each_line(scope, path, strategy_line);
    }
}

void rules_check_strategies(const char *root, struct findings *findings)
{
    const struct scope scope = {.root = root, .findings = findings};
    for_each_source(&scope, "src", strategy_file);
}

/* ---- weights --------------------------------------------------------------------------------- */

static void weight_line(const struct scope *scope, const char *path, int number, const char *line)
{
    static const char *const places[] = {"tri_param_weights(", "tri_param_gradients(",
                                         "tri_buffer_weights(", "tri_buffer_gradients("};
    for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
        if (strstr(line, places[i])) {
            find(scope->findings, "%s:%d: %s…) outside of the buffers' own: open the row", path,
                 number, places[i]);
        }
    }
}

static void weight_file(const struct scope *scope, const char *path)
{
    static const char *const own[] = {
        "src/model/param", "src/model/residency_", "src/optim/",
        "src/train/verify_state.c", /* breaks one on purpose */
    };
    bool is_own = false;
    for (size_t i = 0; i < sizeof(own) / sizeof(*own); i++) {
        is_own = is_own || strncmp(path, own[i], strlen(own[i])) == 0;
    }
    if (!is_own) {
        for_each_line(scope, path, weight_line);
    }
}

void rules_check_weights(const char *root, struct findings *findings)
{
    const struct scope scope = {.root = root, .findings = findings};
    for_each_source(&scope, "src", weight_file);
}
