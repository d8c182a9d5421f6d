/* What the program says is explained: each message in the sources has a pattern on a page, and each
 * pattern there is of a message. A message is the text of a call that makes one: its first literal
 * with words, all of them where it is chosen between several. What printf puts in is "…". */
#include "meta/rules.h"
#include "meta/walk.h"

#include <ctype.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VARIES "…"
#define REST   "[…]"

enum {
    MESSAGES = 2048,
    PLACE = 128,
    TEXT = 1024,
    LEAST_LETTERS = 5, /* of a message, and of a pattern */
    MOST_MATCHES = 8,  /* of a pattern: more is nobody's cause and cure */
    LEAST_CURE = 20
};

/* Functions that make a message of one of their arguments; so does whatever refuses. */
static const char *const makers[] = {"tri_fail",       "tri_panic", "tri_log_warn", "tri_log_note",
                                     "tri_embed_fail", "fail",      "bad_tensor"};
/* Those with a format whose texts are none: paths, progress, and words inside of a message. */
static const char *const others[] = {
    "tri_log_info", "tri_path_format", "tri_path_make", "tri_meter_begin",
    "format_path",  "print",           "say",           "tri_trace_print"};
/* Calls without words of their own, by file: whose words they pass on. */
static const struct {
    const char *path;
    int calls;
} passed_on[] = {
    {"src/base/json.c", 2},            /* Jansson's, and tri_json_find_excess */
    {"src/checkpoint/hf_config.c", 1}, /* callers of its refuse */
    {"src/checkpoint/hf_rope.c", 1},   /* likewise */
    {"src/cli/plan.c", 1},             /* the reason of a plan, which was a message */
    {"src/cli/prompts.c", 2},          /* data/record.c's */
    {"src/comm/job_mpi.c", 1},         /* MPI's */
    {"src/config/schema.c", 1},        /* callers of tri_config_refuse, tri_key_refuse */
    {"src/data/lines.c", 1},           /* data/record.c's */
    {"src/embed/call.c", 1},           /* of a rank's panic */
};
enum { PASSED_ON = sizeof(passed_on) / sizeof(*passed_on) };

static struct {
    int count, patterns;
    struct {
        char text[TEXT], place[PLACE];
        bool explained;
    } message[MESSAGES];
    int passed[PASSED_ON]; /* calls found; -1: no such file */
} all;

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_';
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* ---- a literal ------------------------------------------------------------------------------- */

static int count_letters(const char *text)
{
    int letters = 0;
    for (; *text; text++) {
        letters += isalpha((unsigned char)*text) != 0;
    }
    return letters;
}

/* The end of a literal in quotes that begins at `at`. */
static const char *skip_quoted(const char *at)
{
    const char quote = *at++;
    while (*at && *at != quote) {
        at += 1 + (at[0] == '\\' && at[1] != '\0');
    }
    return *at ? at + 1 : at;
}

static void put(char text[TEXT], size_t *size, const char *what, size_t length)
{
    if (*size + length < TEXT) {
        memcpy(text + *size, what, length);
        *size += length;
    }
    text[*size] = '\0';
}

/* Literals side by side, with the names of macros between them as "\1", read from `at` on. */
static const char *read_literal(const char *at, char text[TEXT])
{
    size_t size = 0;
    text[0] = '\0';
    for (;;) {
        if (*at == '"') {
            const char *end = skip_quoted(at);
            for (at++; at + 1 < end; at++) {
                at += *at == '\\';
                put(text, &size, at[-1] == '\\' && strchr("nrtbf", *at) ? " " : at, 1);
            }
            at = end;
        } else if (isspace((unsigned char)*at)) {
            at++;
        } else if (isupper((unsigned char)*at)) {
            while (is_word(*at)) {
                at++;
            }
            put(text, &size, "\1", 1);
        } else {
            return at;
        }
    }
}

/* The end of what a '%' of printf's begins. */
static const char *skip_conversion(const char *at)
{
    at++;
    at += strspn(at, "-+ #0123456789*.hlzjt");
    return *at ? at + 1 : at;
}

/* What is printed, with a "…" for whatever the call puts in, and without the place before it. */
static void make_skeleton(const char *format, char text[TEXT])
{
    char whole[TEXT] = "";
    size_t size = 0;
    bool varies = false;
    for (const char *at = format; *at;) {
        bool is_put = *at == '\1' || (*at == '%' && at[1] != '%');
        if (is_put && !varies) {
            put(whole, &size, VARIES, strlen(VARIES));
        } else if (!is_put && !(*at == ' ' && (size == 0 || whole[size - 1] == ' '))) {
            put(whole, &size, at, 1);
        }
        varies = is_put;
        at = is_put && *at == '%' ? skip_conversion(at) : at + 1 + (!is_put && *at == '%');
    }
    while (size > 0 && whole[size - 1] == ' ') {
        whole[--size] = '\0';
    }
    const char *from = whole;
    while (begins(from, VARIES ":")) {
        from += strlen(VARIES ":");
    }
    (void)snprintf(text, TEXT, "%s", from > whole && *from != ' ' ? whole : from + (from > whole));
}

/* ---- the messages ---------------------------------------------------------------------------- */

static void add(const char *path, int line, const char *text)
{
    for (int i = 0; i < all.count; i++) {
        if (strcmp(all.message[i].text, text) == 0) {
            return;
        }
    }
    if (all.count == MESSAGES) {
        abort();
    }
    (void)snprintf(all.message[all.count].text, TEXT, "%s", text);
    (void)snprintf(all.message[all.count].place, PLACE, "%s:%d", path, line);
    all.message[all.count++].explained = false;
}

/* Takes what is a message; false: it has no words. */
static bool take(const char *path, int line, const char *format)
{
    char text[TEXT];
    make_skeleton(format, text);
    bool has_words = strchr(text, ' ') && count_letters(text) >= LEAST_LETTERS;
    if (has_words) {
        add(path, line, text);
    }
    return has_words;
}

static void pass_on(const struct scope *scope, const char *path, int line)
{
    for (int i = 0; i < PASSED_ON; i++) {
        if (strcmp(passed_on[i].path, path) == 0) {
            all.passed[i]++;
            return;
        }
    }
    find(scope->findings, "%s:%d: a message without words: whose does it pass on?", path, line);
}

/* The arguments of a call, from behind its parenthesis. */
static void read_call(const struct scope *scope, const char *path, int line, const char *at)
{
    bool taken = false, literal = false, other = false;
    char text[TEXT];
    for (int depth = 1; *at && depth > 0;) {
        if (*at == '"') {
            at = read_literal(at, text);
            literal = true;
            taken = take(path, line, text) || taken;
        } else if (*at == '\'') {
            at = skip_quoted(at);
        } else if (*at == ',' && depth == 1 && taken) {
            return;
        } else {
            other = other || begins(at, "message");
            depth += (strchr("([{", *at) != NULL) - (strchr(")]}", *at) != NULL);
            at++;
        }
    }
    if (literal && !taken && !other) {
        pass_on(scope, path, line);
    }
}

static bool is_one_of(const char *const *names, size_t count, const char *name, size_t length)
{
    for (size_t i = 0; i < count; i++) {
        if (strlen(names[i]) == length && strncmp(names[i], name, length) == 0) {
            return true;
        }
    }
    return false;
}

static bool is_maker(const char *name, size_t length)
{
    for (const char *at = name; at + strlen("refuse") <= name + length; at++) {
        if (begins(at, "refuse")) {
            return true;
        }
    }
    return is_one_of(makers, sizeof(makers) / sizeof(*makers), name, length);
}

/* The function that TRI_PRINTF at `at` is said of: the first word before a parenthesis in its
 * declaration. */
static void check_printer(const struct scope *scope, const char *path, int line, const char *text,
                          const char *at)
{
    const char *name = at;
    while (name > text && !strchr(";{}", name[-1])) {
        name--;
    }
    for (; *name && *name != ';'; name++) {
        size_t length = 0;
        while (is_word(name[length])) {
            length++;
        }
        if (length > 0 && name[length] == '(' && !begins(name, "TRI_PRINTF")) {
            if (!is_maker(name, length) &&
                !is_one_of(others, sizeof(others) / sizeof(*others), name, length)) {
                find(scope->findings, "%s:%d: does %.*s make messages?", path, line, (int)length,
                     name);
            }
            return;
        }
        name += length > 0 ? length - 1 : 0;
    }
}

/* Comments become spaces, lines stay. */
static void blank_comments(char *text)
{
    for (char *at = text; *at;) {
        if (*at == '"' || *at == '\'') {
            at += skip_quoted(at) - at;
        } else if (begins(at, "/*") || begins(at, "//")) {
            const char *last = begins(at, "/*") ? "*/" : "\n";
            const char *end = strstr(at + 2, last);
            end = end ? end + (*last == '*' ? 2 : 0) : at + strlen(at);
            for (; at < end; at++) {
                *at = *at == '\n' ? '\n' : ' ';
            }
        } else {
            at++;
        }
    }
}

static void read_text(const struct scope *scope, const char *path, const char *text)
{
    char format[TEXT];
    int line = 1;
    for (const char *at = text; *at;) {
        size_t length = 0;
        while (is_word(at[length])) {
            length++;
        }
        if (length > 0) {
            bool defined = at > text + 7 && begins(at - 8, "#define ");
            if (at[length] == '(' && is_maker(at, length)) {
                read_call(scope, path, line, at + length + 1);
            } else if (!defined && begins(at, "TRI_PRINTF(")) {
                check_printer(scope, path, line, text, at);
            }
            at += length;
        } else if (*at == '"' || *at == '\'') {
            const char *end = skip_quoted(at);
            static const char *const prints[] = {"trident: error: ", "trident: warning: "};
            for (size_t i = 0; i < 2; i++) {
                if (begins(at + 1, prints[i])) {
                    (void)read_literal(at, format);
                    (void)take(path, line, format + strlen(prints[i]));
                }
            }
            at = end;
        } else {
            line += *at == '\n';
            at++;
        }
    }
}

static void read_file(const struct scope *scope, const char *path)
{
    char *full = join(scope->root, path);
    FILE *file = fopen(full, "r");
    free(full);
    if (!file || fseek(file, 0, SEEK_END) != 0) {
        abort();
    }
    size_t size = (size_t)ftell(file);
    char *text = calloc(size + 1, 1);
    rewind(file);
    if (!text || fread(text, 1, size, file) != size) {
        abort();
    }
    fclose(file);
    for (int i = 0; i < PASSED_ON; i++) {
        if (strcmp(passed_on[i].path, path) == 0) {
            all.passed[i] = 0;
        }
    }
    blank_comments(text);
    read_text(scope, path, text);
    free(text);
}

/* ---- the page -------------------------------------------------------------------------------- */

static bool matches(const char *pattern, size_t length, const char *text)
{
    while (length > 0) {
        if (length >= strlen(REST) && begins(pattern, REST)) {
            pattern += strlen(REST);
            length -= strlen(REST);
            for (; *text && !matches(pattern, length, text); text++) {
            }
            return *text || length == 0;
        }
        if (*pattern++ != *text++) {
            return false;
        }
        length--;
    }
    return *text == '\0';
}

static void check_pattern(const struct scope *scope, const char *path, int number,
                          const char *pattern, size_t length)
{
    int count = 0;
    char text[TEXT];
    (void)snprintf(text, sizeof(text), "%.*s", (int)length, pattern);
    all.patterns++;
    for (int i = 0; i < all.count; i++) {
        if (matches(pattern, length, all.message[i].text)) {
            all.message[i].explained = true;
            count++;
        }
    }
    if (count == 0) {
        find(scope->findings, "%s:%d: nothing in src says \"%s\"", path, number, text);
    } else if (count > MOST_MATCHES || count_letters(text) < LEAST_LETTERS) {
        find(scope->findings, "%s:%d: \"%s\" is of %d messages: too many for one cause", path,
             number, text, count);
    }
}

static bool in_messages; /* a table of them */

static void page_line(const struct scope *scope, const char *path, int number, const char *line)
{
    in_messages = line[0] == '|' && (in_messages || begins(line, "| message |"));
    if (!in_messages || !begins(line, "| `")) {
        return;
    }
    const char *cell = strstr(line, " | ");
    if (!cell || strlen(cell) < LEAST_CURE) {
        find(scope->findings, "%s:%d: no cause and cure", path, number);
        return;
    }
    for (const char *at = line; (at = strchr(at, '`')) && at < cell; at++) {
        const char *end = strchr(at + 1, '`');
        if (!end) {
            return;
        }
        check_pattern(scope, path, number, at + 1, (size_t)(end - at - 1));
        at = end;
    }
}

int rules_check_messages(const char *root, const char *page, struct findings *findings)
{
    const struct scope scope = {.root = root, .findings = findings};
    all.count = all.patterns = 0;
    in_messages = false;
    for (int i = 0; i < PASSED_ON; i++) {
        all.passed[i] = -1;
    }
    for_each_source(&scope, "src", read_file);
    if (for_each_line(&scope, page, page_line) < 0) {
        find(findings, "%s: cannot be read", page);
    }
    for (int i = 0; i < all.count; i++) {
        if (!all.message[i].explained) {
            find(findings, "%s: not explained in %s: \"%s\"", all.message[i].place, page,
                 all.message[i].text);
        }
    }
    for (int i = 0; i < PASSED_ON; i++) {
        if (all.passed[i] >= 0 && all.passed[i] != passed_on[i].calls) {
            find(findings, "%s: passes on %d messages, expected %d", passed_on[i].path,
                 all.passed[i], passed_on[i].calls);
        }
    }
    return all.count;
}
