/* Manual pages, made of what `help` prints: its first paragraph is the synopsis, a line that is
 * indented by two spaces names something and says after two spaces or more what it is, deeper ones
 * go on. So there is one text, and no page can be older than the program. */
#include "cli/manual.h"
#include "base/runtime.h"
#include "config/text.h"
#include "moe/strategies.h"
#include "train/environment.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* The character at `at` as its number; its bytes are advanced over. */
static unsigned long decode(const char **at)
{
    bool printable;
    int bytes = tri_text_next(*at, &printable);
    unsigned char first = (unsigned char)**at;
    unsigned long code = bytes == 1 ? first : first & (0x7fUL >> bytes);
    for (int i = 1; i < bytes; i++) {
        code = code << 6 | ((unsigned char)(*at)[i] & 0x3fUL);
    }
    *at += bytes;
    return code;
}

/* roff gives a meaning to a backslash anywhere, and to a point or quote where a line begins; its
 * plain minus may come out as a hyphen, which nobody can paste into a shell. */
static void put(const char *text, size_t length, FILE *out)
{
    const char *end = text + length;
    if (length > 0 && (*text == '.' || *text == '\'')) {
        (void)fputs("\\&", out);
    }
    while (text < end) {
        unsigned long code = decode(&text);
        if (code == '\\') {
            (void)fputs("\\e", out);
        } else if (code == '-') {
            (void)fputs("\\-", out);
        } else if (code < 0x80) {
            (void)fputc((int)code, out);
        } else {
            (void)fprintf(out, "\\[u%04lX]", code);
        }
    }
}

static void put_line(const char *text, size_t length, FILE *out)
{
    put(text, length, out);
    (void)fputc('\n', out);
}

/* A line that roff fills: cut where it would be longer than others of a page's source. */
static void put_filled(const char *text, size_t length, FILE *out)
{
    enum { WIDTH = 60 };
    while (length > WIDTH) {
        size_t cut = WIDTH;
        while (cut < length && text[cut] != ' ') {
            cut++;
        }
        put_line(text, cut, out);
        while (cut < length && text[cut] == ' ') {
            cut++;
        }
        text += cut;
        length -= cut;
    }
    if (length > 0) {
        put_line(text, length, out);
    }
}

/* Length of what a line names, up to its last gap of two spaces or more; *rest is what follows. */
static size_t name_length(const char *line, size_t length, size_t *rest)
{
    size_t name = length;
    *rest = length;
    for (size_t i = 0; i + 2 < length; i++) {
        if (line[i] == ' ' && line[i + 1] == ' ' && line[i + 2] != ' ') {
            *rest = i + 2;
            name = *rest;
            while (name > 0 && line[name - 1] == ' ') {
                name--;
            }
        }
    }
    return name;
}

static void put_item(const char *line, size_t length, FILE *out)
{
    size_t rest;
    size_t name = name_length(line, length, &rest);
    size_t word = strcspn(line, " ");
    (void)fputs(".TP\n\\fB", out);
    put(line, word < name ? word : name, out);
    (void)fputs("\\fR", out);
    if (word < name) {
        put(line + word, name - word, out);
    }
    (void)fputc('\n', out);
    put_filled(line + rest, length - rest, out);
}

/* The text behind the synopsis. */
static void put_body(const char *text, FILE *out)
{
    enum { ITEM = 2, INNER = 4 };
    bool first = true, open = false, item = false; /* a paragraph, and that of something named */
    while (*text) {
        size_t length = strcspn(text, "\n");
        size_t indent = strspn(text, " ");
        const char *line = text + indent;
        if (indent >= length) {
            open = false;
        } else if (indent == ITEM) {
            put_item(line, length - indent, out);
            open = item = true;
        } else if (indent > ITEM && item) {
            (void)fputs(indent == INNER ? ".br\n" : "", out);
            put_filled(line, length - indent, out);
        } else {
            (void)fputs(first || (open && !item) ? "" : ".PP\n", out);
            put_filled(line, length - indent, out);
            open = true;
            item = false;
        }
        first = first && indent >= length;
        text += length + (text[length] == '\n');
    }
}

/* As other generators of pages do, so that a build can be repeated to the byte: no date unless the
 * build says which. */
static void put_date(FILE *out)
{
    char date[16] = "";
    struct tm day;
    const char *text = tri_runtime_getenv("SOURCE_DATE_EPOCH");
    time_t seconds = text ? (time_t)strtoll(text, NULL, 10) : 0;
    if (seconds > 0 && gmtime_r(&seconds, &day)) {
        (void)strftime(date, sizeof(date), "%Y-%m-%d", &day);
    }
    (void)fputs(date, out);
}

/* The head of the page trident[-NAME](SECTION), up to its synopsis. */
static void put_head(const char *name, int section, const char *summary, FILE *out)
{
    const char *version = tri_version();
    (void)fputs(".TH TRIDENT", out);
    for (const char *at = name; at && *at; at++) {
        (void)fprintf(out, "%s%c", at == name ? "\\-" : "", toupper((unsigned char)*at));
    }
    (void)fprintf(out, " %d \"", section);
    put_date(out);
    (void)fprintf(out, "\" \"%.*s\" \"Trident\"\n.SH NAME\ntrident%s%s \\- ",
                  (int)strcspn(version, "(") - 1, version, name ? "\\-" : "", name ? name : "");
    put_line(summary, strlen(summary), out);
}

/* "SYNOPSIS" and what follows it, of a text that begins with its usage. */
static void put_text(const char *text, FILE *out)
{
    (void)fputs(".SH SYNOPSIS\n.nf\n", out);
    while (*text && *text != '\n') {
        size_t length = strcspn(text, "\n");
        put_line(text, length, out);
        text += length + (text[length] == '\n');
    }
    (void)fputs(".fi\n.SH DESCRIPTION\n", out);
    put_body(text, out);
}

static void put_others(const char *besides, FILE *out)
{
    (void)fputs(".SH SEE ALSO\n", out);
    if (besides) {
        (void)fputs(".BR trident (1),\n", out);
    }
    for (const struct tri_command *command = tri_commands; command->name; command++) {
        if (!besides || strcmp(command->name, besides) != 0) {
            (void)fprintf(out, ".BR trident\\-%s (1),\n", command->name);
        }
    }
    (void)fputs(".BR trident\\-config (5),\n.BR mpiexec (1)\n", out);
}

void tri_manual_print_all(FILE *out)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *list = open_memstream(&text, &bytes);
    TRI_REQUIRE(list);
    tri_help_list(list);
    (void)fclose(list);
    put_head(NULL, 1, "mixture-of-experts language models on CPU clusters", out);
    put_text(text + strlen("usage: "), out);
    put_others(NULL, out);
    free(text);
}

void tri_manual_print(const struct tri_command *command, FILE *out)
{
    put_head(command->name, 1, command->summary, out);
    put_text(command->help, out);
    put_others(command->name, out);
}

void tri_manual_print_config(FILE *out)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *keys = open_memstream(&text, &bytes);
    TRI_REQUIRE(keys);
    tri_config_print_help(&tri_strategies, keys);
    (void)fclose(keys);
    put_head("config", 5, "the keys of a config", out);
    (void)fputs(".SH DESCRIPTION\n", out);
    put_body(text, out);
    (void)fputs(".SH SEE ALSO\n.BR trident (1),\n.BR trident\\-train (1)\n", out);
    free(text);
}
