#include "config/schema.h"

#include "config/text.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { TEXT_BYTES = 512 };

int tri_key_find(const char *name)
{
    for (size_t i = 0; i < tri_keys_count; i++) {
        if (strcmp(tri_keys[i].name, name) == 0) {
            return (int)i;
        }
    }
    return -1;
}

const struct tri_section *tri_section_find(const char *name)
{
    for (size_t i = 1; i < tri_sections_count; i++) {
        if (strcmp(tri_sections[i].name, name) == 0) {
            return &tri_sections[i];
        }
    }
    return NULL;
}

bool tri_key_in_section(const struct tri_key *key, const char *section)
{
    const char *dot = strchr(key->name, '.');
    size_t length = dot ? (size_t)(dot - key->name) : 0;
    return strlen(section) == length && strncmp(key->name, section, length) == 0;
}

const char *tri_key_last(const struct tri_key *key)
{
    const char *dot = strchr(key->name, '.');
    return dot ? dot + 1 : key->name;
}

const struct tri_strategy *const *tri_key_strategies(const struct tri_key *key,
                                                     const struct tri_strategies *known)
{
    const struct tri_strategy *const *list = NULL;
    if (key->type == TRI_KEY_STRATEGY) {
        memcpy(&list, (const char *)known + key->list, sizeof(list));
    }
    return list;
}

const char *tri_key_word(const struct tri_key *key, const struct tri_strategies *known, size_t i)
{
    const struct tri_strategy *const *list = tri_key_strategies(key, known);
    if (list) {
        return list[i] ? list[i]->name : NULL;
    }
    return key->words ? key->words[i] : NULL;
}

const char *tri_key_initial(const struct tri_key *key, const struct tri_strategies *known)
{
    return key->type == TRI_KEY_STRATEGY && !key->follows ? tri_key_word(key, known, 0)
                                                          : key->initial;
}

void *tri_key_at(const struct tri_key *key, struct tri_config *config)
{
    return (char *)config + key->offset;
}

const void *tri_key_view(const struct tri_key *key, const struct tri_config *config)
{
    return (const char *)config + key->offset;
}

size_t tri_key_bytes(const struct tri_key *key)
{
    static const union tri_value v;
    switch (key->type) {
    case TRI_KEY_INT:
        return sizeof(v.integer);
    case TRI_KEY_FLOAT:
        return sizeof(v.number);
    case TRI_KEY_BOOL:
        return sizeof(v.truth);
    case TRI_KEY_ENUM:
        return sizeof(v.word);
    case TRI_KEY_STRATEGY:
        return sizeof(v.strategy);
    case TRI_KEY_TEXT:
        return sizeof(v.text);
    case TRI_KEY_PAIR:
        return sizeof(v.pair);
    case TRI_KEY_GRID:
        return sizeof(v.grid);
    case TRI_KEY_SPAN:
        return sizeof(v.span);
    default:
        return sizeof(v.layers);
    }
}

bool tri_key_is_unset(const struct tri_key *key, const void *value)
{
    int64_t integer;
    double number;
    unsigned word;
    if (!key->follows) {
        return false;
    }
    if (key->type == TRI_KEY_ENUM) {
        memcpy(&word, value, sizeof(word));
        return word == UINT_MAX;
    }
    if (key->type == TRI_KEY_FLOAT) {
        memcpy(&number, value, sizeof(number));
        return number == -1.0;
    }
    memcpy(&integer, value, sizeof(integer));
    return integer == 0;
}

void tri_key_unset(const struct tri_key *key, void *value)
{
    TRI_REQUIRE(key->follows);
    if (key->type == TRI_KEY_FLOAT) {
        memcpy(value, &(double){-1.0}, sizeof(double));
    } else if (key->type == TRI_KEY_ENUM) {
        memcpy(value, &(unsigned){UINT_MAX}, sizeof(unsigned));
    } else {
        memcpy(value, &(int64_t){0},
               sizeof(int64_t)); /* of a list its length, of a grid one side */
    }
}

/* ---- the nearest known key ------------------------------------------------------------------- */

/* What other programs call them. */
static const char *const elsewhere[][2] = {
    {"lr", "train.learning_rate"},
    {"batch_size", "train.global_batch"},
    {"gradient_accumulation_steps", "train.micro_batch"},
    {"max_steps", "train.steps"},
    {"max_seq_length", "data.sequence_length"},
};

/* How far what was written is from a key's name; last: its last word. A known word in another
 * section counts as one slip, and the beginning of one as two. */
static int distance_to(const char *written, const char *last, const struct tri_key *key)
{
    enum { BEGINNING = 4 };
    const char *word = tri_key_last(key);
    int whole = tri_text_distance(written, key->name);
    int part = 1 + tri_text_distance(last, word);
    size_t length = strlen(last), bytes = strlen(key->name);
    bool ends = bytes > strlen(written) &&
                strcmp(key->name + bytes - strlen(written), written) == 0 &&
                key->name[bytes - strlen(written) - 1] == '.';
    if (ends) {
        return 1;
    }
    if (length >= BEGINNING && strncmp(word, last, length) == 0 && part > 2) {
        part = 2;
    }
    return whole < part ? whole : part;
}

const char *tri_key_nearest(const char *written, bool want_section, bool *close)
{
    const char *dot = strchr(written, '.');
    const char *last = dot ? dot + 1 : written;
    struct tri_nearest best = {0};
    for (size_t i = 0; i < sizeof(elsewhere) / sizeof(*elsewhere); i++) {
        if (!want_section && strcmp(last, elsewhere[i][0]) == 0) {
            *close = true;
            return elsewhere[i][1];
        }
    }
    for (size_t i = 1; want_section && i < tri_sections_count; i++) {
        tri_nearest_consider(&best, written, tri_sections[i].name);
    }
    for (size_t i = 0; !want_section && i < tri_keys_count; i++) {
        int d = distance_to(written, last, &tri_keys[i]);
        if (!best.name || d < best.distance) {
            best = (struct tri_nearest){tri_keys[i].name, d};
        }
    }
    *close = tri_text_is_slip(best.distance, last);
    return best.name;
}

/* ---- refusing -------------------------------------------------------------------------------- */

/* "FILE:LINE: ", "FILE: ", "command line: " or nothing; key -1: a section that is auto. What other
 * weights have decided is theirs, whoever does not go with it. */
static void spell_place(const struct tri_config *config, int key, int other, char *out,
                        size_t bytes)
{
    int line = key >= 0 ? config->lines[key] : config->parallel_line;
    if (line == 0 && key >= 0 && config->adopted[key]) {
        (void)snprintf(out, bytes, "%s: ", config->source);
        return;
    }
    if (line == 0 && other >= 0) {
        line = config->lines[other];
    }
    if (line == TRI_LINE_COMMAND) {
        (void)snprintf(out, bytes, "command line: ");
    } else if (line > 0) {
        (void)snprintf(out, bytes, "%s:%d: ", config->path, line);
    } else {
        (void)snprintf(out, bytes, "%s%s", config->path, config->path[0] ? ": " : "");
    }
}

static enum tri_status refuse(const struct tri_config *config, struct tri_error *error,
                              const char *key, const char *other, const char *text)
{
    char place[TRI_PATH_MAX + 32];
    spell_place(config, tri_key_find(key), other ? tri_key_find(other) : -1, place, sizeof(place));
    return tri_fail(error, TRI_BAD_INPUT, "%skey '%s': %s", place, key, text);
}

enum tri_status tri_key_refuse(const struct tri_config *config, struct tri_error *error,
                               const char *key, const char *other, const char *format, ...)
{
    char text[TEXT_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return refuse(config, error, key, other, text);
}

enum tri_status tri_config_refuse(const struct tri_config *config, struct tri_error *error,
                                  const char *key, const char *format, ...)
{
    char text[TEXT_BYTES];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    return refuse(config, error, key, NULL, text);
}
