/* The table as text: the resolved config, help, docs. */
#include "base/memory.h"
#include "config/schema.h"
#include "config/value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- YAML ------------------------------------------------------------------------------------ */

static bool is_shown(const struct tri_key *key, const struct tri_config *config)
{
    bool dense = config->moe.num_experts == 0;
    return !(dense && tri_key_in_section(key, "moe")) &&
           !tri_key_is_unset(key, tri_key_view(key, config));
}

/* Whether the key is the first of a mapping in its section, as train.lora is one. */
static bool begins_mapping(size_t i)
{
    const char *dot = strrchr(tri_keys[i].name, '.');
    size_t length = (size_t)(dot - tri_keys[i].name) + 1;
    return i == 0 || strncmp(tri_keys[i - 1].name, tri_keys[i].name, length) != 0;
}

/* A default that follows other keys is a comment: it is there to be read, and does not stand in the
 * way of what the others are changed to. */
static void print_section(const struct tri_config *config, const char *section, FILE *out)
{
    bool open = section[0] == '\0';
    const struct tri_section *whole = tri_section_find(section);
    if (whole && (whole->autos & config->autos)) {
        (void)fprintf(out, "%s: auto\n", section);
        return;
    }
    for (size_t i = 0; i < tri_keys_count; i++) {
        const struct tri_key *key = &tri_keys[i];
        if (!tri_key_in_section(key, section) || !is_shown(key, config)) {
            continue;
        }
        if (!open) {
            (void)fprintf(out, "%s:\n", section);
            open = true;
        }
        bool followed = tri_key_is_followed(key, config);
        const char *inner = strchr(tri_key_last(key), '.');
        if (inner && begins_mapping(i)) {
            (void)fprintf(out, "  %.*s:\n", (int)(inner - tri_key_last(key)), tri_key_last(key));
        }
        (void)fprintf(out, "%s%s%s%s: ", section[0] ? "  " : "", inner ? "  " : "",
                      followed ? "# " : "", inner ? inner + 1 : tri_key_last(key));
        if (key->autos & config->autos) {
            (void)fputs("auto\n", out);
            continue;
        }
        (followed ? tri_value_print_note : tri_value_print)(key, tri_key_view(key, config), out);
        if (followed) {
            (void)fprintf(out, "  (%s)", key->follows);
        }
        (void)fputc('\n', out);
    }
}

char *tri_config_to_yaml(const struct tri_config *config)
{
    char *text = NULL;
    size_t bytes = 0;
    FILE *out = open_memstream(&text, &bytes);
    TRI_REQUIRE(out);
    for (size_t i = 0; i < tri_sections_count; i++) {
        print_section(config, tri_sections[i].name, out);
    }
    (void)fclose(out);
    char *copy = tri_strdup(text);
    free(text);
    return copy;
}

/* ---- help and docs --------------------------------------------------------------------------- */

static const char *type_name(const struct tri_key *key)
{
    switch (key->type) {
    case TRI_KEY_INT:
        return "integer";
    case TRI_KEY_FLOAT:
        return "number";
    case TRI_KEY_BOOL:
        return "true|false";
    case TRI_KEY_TEXT:
        return "text";
    case TRI_KEY_PAIR:
        return "two numbers";
    case TRI_KEY_GRID:
        return "three integers";
    case TRI_KEY_SPAN:
        return "none|two integers";
    case TRI_KEY_LAYERS:
        return "list";
    case TRI_KEY_RECOMPUTE:
        return "none|full|list";
    default:
        return "word";
    }
}

static void print_default(const struct tri_key *key, const struct tri_strategies *known, FILE *out)
{
    const char *initial = tri_key_initial(key, known);
    if (!initial) {
        (void)fputs(key->follows, out);
    } else {
        (void)fputs(initial[0] ? initial : "\"\"", out);
    }
}

/* "NAME: what it does; reads KEY, KEY", each line between `before` and `quote`s. */
static void print_strategies(const struct tri_key *key, const struct tri_strategies *known,
                             const char *before, const char *quote, FILE *out)
{
    const struct tri_strategy *const *list = tri_key_strategies(key, known);
    for (; list && *list; list++) {
        (void)fprintf(out, "%s%s%s%s: %s", before, quote, (*list)->name, quote, (*list)->help);
        const char *const *reads = (*list)->keys;
        for (size_t i = 0; reads && reads[i]; i++) {
            (void)fprintf(out, "%s%s%s%s", i > 0 ? ", " : "; reads ", quote, reads[i], quote);
        }
        (void)fputs(".\n", out);
    }
}

static void print_key_help(const struct tri_key *key, const struct tri_strategies *known, FILE *out)
{
    const char *word;
    (void)fprintf(out, "  %s  ", key->name);
    for (size_t i = 0; (word = tri_key_word(key, known, i)) != NULL; i++) {
        (void)fprintf(out, "%s%s", i > 0 ? "|" : "", word);
    }
    (void)fprintf(out, "%s%s  (", tri_key_word(key, known, 0) ? "" : type_name(key),
                  key->autos ? "|auto" : "");
    print_default(key, known, out);
    (void)fprintf(out, ")  %s\n", key->help);
    print_strategies(key, known, "    ", "", out);
}

void tri_config_print_help(const struct tri_strategies *known, FILE *out)
{
    for (size_t s = 0; s < tri_sections_count; s++) {
        const struct tri_section *section = &tri_sections[s];
        (void)fprintf(out, "%s%s%s%s\n", s > 0 ? "\n" : "", section->name,
                      section->name[0] ? ": " : "", section->help);
        for (size_t i = 0; i < tri_keys_count; i++) {
            const struct tri_key *key = &tri_keys[i];
            if (tri_key_in_section(key, section->name)) {
                print_key_help(key, known, out);
            }
        }
    }
}

static void print_section_markdown(const struct tri_section *section,
                                   const struct tri_strategies *known, FILE *out)
{
    (void)fprintf(out, "\n## %s\n\n%s\n\n", section->name[0] ? section->name : "At the top",
                  section->help);
    (void)fputs("| key | value | default | what it does |\n| --- | --- | --- | --- |\n", out);
    for (size_t i = 0; i < tri_keys_count; i++) {
        const struct tri_key *key = &tri_keys[i];
        if (!tri_key_in_section(key, section->name)) {
            continue;
        }
        (void)fprintf(out, "| `%s` | ", key->name);
        tri_value_print_expected(key, known, out);
        (void)fputs(key->follows ? " | " : " | `", out);
        print_default(key, known, out);
        (void)fprintf(out, "%s | %s |\n", key->follows ? "" : "`", key->help);
    }
    for (size_t i = 0; i < tri_keys_count; i++) {
        const struct tri_key *key = &tri_keys[i];
        if (tri_key_in_section(key, section->name) && tri_key_strategies(key, known)) {
            (void)fprintf(out, "\n`%s`:\n\n", key->name);
            print_strategies(key, known, "- ", "`", out);
        }
    }
}

void tri_config_print_markdown(const struct tri_strategies *known, FILE *out)
{
    (void)fputs(
        "# The keys of a config\n\n"
        "A config is YAML: the sections below, each a mapping of keys. A key left out has its\n"
        "default; one that is told by other keys follows them, also in the config that a run "
        "leaves\n"
        "(a comment there). `section.key=value` on the command line overrides the file; a list or "
        "a\n"
        "mapping is written as in YAML there too: `moe.layers=[0,3]`,\n"
        "`\"data.train=[{path: a.bin, weight: 2}, {path: b.bin}]\"`. Numbers are decimal; `true` "
        "and "
        "`false`\n"
        "are the only booleans; anchors, tags, repeated keys and unknown keys are refused. "
        "Relative "
        "paths\n"
        "start from the working directory.\n\n"
        "This file is written by `trident help config --markdown > docs/config.md`, from the same\n"
        "table that the reader uses.\n",
        out);
    for (size_t s = 0; s < tri_sections_count; s++) {
        print_section_markdown(&tri_sections[s], known, out);
    }
}
