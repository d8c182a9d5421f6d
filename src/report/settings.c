#include "base/memory.h"
#include "config/config.h"
#include "moe/strategies.h"
#include "report/parts.h"

#include <stdlib.h>
#include <string.h>

enum { KEY = 128, LEVELS = 3 };

/* A line of a resolved config: its whole key, and its value's bytes. */
struct setting {
    char key[KEY];
    const char *value;
    size_t bytes;
    bool follows; /* a default that follows other keys: a comment */
};

/* The sections that the lines so far have opened, by their indentation. */
struct walk {
    const char *at;
    char section[LEVELS][KEY];
};

static void take_word(const char *text, size_t bytes, char word[KEY])
{
    (void)snprintf(word, KEY, "%.*s", (int)(bytes < KEY ? bytes : KEY - 1), text);
}

/* The next setting of the text; false at its end. */
static bool next_setting(struct walk *walk, struct setting *setting)
{
    while (*walk->at) {
        const char *line = walk->at, *end = line + strcspn(line, "\n");
        walk->at = *end ? end + 1 : end;
        size_t indent = strspn(line, " ");
        const char *key = line + indent;
        bool follows = key[0] == '#';
        key += follows ? strspn(key, "# ") : 0;
        const char *colon = memchr(key, ':', (size_t)(end - key));
        size_t level = indent / 2;
        if (!colon || level >= LEVELS) {
            continue;
        }
        const char *value = colon + 1 + strspn(colon + 1, " ");
        if (value >= end) {
            take_word(key, (size_t)(colon - key), walk->section[level]);
            continue;
        }
        char name[KEY];
        take_word(key, (size_t)(colon - key), name);
        (void)snprintf(setting->key, KEY, "%.60s%s%.30s%s%.30s", level > 0 ? walk->section[0] : "",
                       level > 0 ? "." : "", level > 1 ? walk->section[1] : "",
                       level > 1 ? "." : "", name);
        setting->value = value;
        setting->bytes = (size_t)(end - value);
        setting->follows = follows;
        return true;
    }
    return false;
}

/* The defaults as such a text; free with tri_free. NULL: never. */
static char *write_defaults(bool moe)
{
    const char *text = moe ? "moe: {num_experts: 8}\n" : "{}\n";
    struct tri_config *config = tri_alloc(TRI_MEMORY_OTHER, sizeof(*config));
    struct tri_error error;
    if (tri_config_parse(&tri_strategies, "defaults", text, strlen(text), 0, NULL, config,
                         &error) != TRI_OK) {
        tri_panic(TRI_FAILED, "%s", error.message);
    }
    char *yaml = tri_config_to_yaml(config);
    tri_free(config);
    return yaml;
}

static bool find(const char *text, const char *key, struct setting *found)
{
    struct walk walk = {.at = text};
    while (next_setting(&walk, found)) {
        if (strcmp(found->key, key) == 0) {
            return true;
        }
    }
    return false;
}

static void print_row(FILE *out, const struct setting *setting, const struct setting *initial)
{
    (void)fputs("<tr><th scope=\"row\">", out);
    tri_html(out, setting->key);
    (void)fputs("</th><td class=\"text\">", out);
    tri_html_bytes(out, setting->value, setting->bytes);
    (void)fputs("</td><td class=\"text\">", out);
    if (initial) {
        tri_html_bytes(out, initial->value, initial->bytes);
    }
    (void)fputs("</td></tr>\n", out);
}

/* changed: those that differ from their defaults; else the others. */
static void print_rows(FILE *out, const char *text, const char *defaults, bool changed)
{
    struct walk walk = {.at = text};
    struct setting setting, initial;
    (void)fprintf(
        out,
        "<table class=\"%s\"><caption>%s</caption><thead><tr><th>key</th>"
        "<th class=\"text\">value</th><th class=\"text\">default</th></tr></thead><tbody>\n",
        changed ? "changed" : "kept",
        changed ? "What differs from its default" : "As it is by default");
    while (next_setting(&walk, &setting)) {
        /* Of num_experts there is no default: the text has one so that it can be parsed. */
        bool known =
            strcmp(setting.key, "moe.num_experts") != 0 && find(defaults, setting.key, &initial);
        bool differs =
            !setting.follows && (!known || initial.follows || initial.bytes != setting.bytes ||
                                 memcmp(initial.value, setting.value, setting.bytes) != 0);
        if (differs == changed) {
            print_row(out, &setting, known ? &initial : NULL);
        }
    }
    (void)fputs("</tbody></table>\n", out);
}

static void print_environment(FILE *out, const json_t *environment)
{
    const char *key;
    json_t *value;
    (void)fputs("<h3>Environment</h3>\n<table class=\"environment\"><tbody>\n", out);
    json_object_foreach((json_t *)(uintptr_t)environment, key, value)
    {
        if (json_is_array(value) || json_is_object(value)) {
            continue; /* the mesh has the ranks */
        }
        char *text = json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY);
        (void)fputs("<tr><th scope=\"row\">", out);
        tri_html(out, key);
        (void)fputs("</th><td class=\"text\">", out);
        tri_html(out, text ? text : json_is_string(value) ? json_string_value(value) : "");
        (void)fputs("</td></tr>\n", out);
        free(text);
    }
    (void)fputs("</tbody></table>\n", out);
}

void tri_part_settings(FILE *out, const struct tri_report_run *run)
{
    if (run->config) {
        char *defaults = write_defaults(strstr(run->config, "\nmoe:") != NULL);
        (void)fputs("<h3>Config</h3>\n<div class=\"wide\">", out);
        print_rows(out, run->config, defaults, true);
        (void)fputs("<details><summary>All other keys</summary>\n", out);
        print_rows(out, run->config, defaults, false);
        (void)fputs("</details></div>\n", out);
        tri_free(defaults);
    }
    if (json_is_object(run->environment)) {
        print_environment(out, run->environment);
    }
}
