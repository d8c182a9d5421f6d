/* Values, and what was found instead of them, in words. */
#include "config/sets.h"
#include "config/text.h"
#include "config/value.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { FOUND_MAX = 60, DIGITS_ALL = 17, DIGITS_SURE = 15 };

/* ---- writing --------------------------------------------------------------------------------- */

/* With as few digits as read back to the same bits, and at most so many. */
static void print_digits(double number, int most, FILE *out)
{
    char text[64];
    for (int digits = 1; digits <= most; digits++) {
        (void)snprintf(text, sizeof(text), "%.*g", digits, number);
        if (strtod(text, NULL) == number) {
            break;
        }
    }
    /* 1000000, not 1e+06: as one writes it, as long as that is no longer than the digits need. */
    char plain[64];
    int length = snprintf(plain, sizeof(plain), "%.0f", number);
    bool better = fabs(number) < 1e15 && strtod(plain, NULL) == number && length <= 16;
    (void)fputs(better ? plain : text, out);
}

void tri_value_print_number(double number, FILE *out)
{
    print_digits(number, DIGITS_ALL, out);
}

void tri_value_print_quoted(const char *text, FILE *out)
{
    (void)fputc('"', out);
    for (; *text; text++) {
        if (*text == '"' || *text == '\\') {
            (void)fputc('\\', out);
        }
        (void)fputc(*text, out);
    }
    (void)fputc('"', out);
}

static void print_layers(const void *value, FILE *out)
{
    int64_t count;
    memcpy(&count, value, sizeof(count));
    if (count <= 0) {
        (void)fputs(count ? "full" : "none", out);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t item;
        memcpy(&item, (const char *)value + (size_t)(1 + i) * sizeof(item), sizeof(item));
        (void)fprintf(out, "%s%lld", i ? ", " : "[", (long long)item);
    }
    (void)fputc(']', out);
}

void tri_value_print(const struct tri_key *key, const void *value, FILE *out)
{
    union tri_value copy;
    switch (key->type) {
    case TRI_KEY_LAYERS:
    case TRI_KEY_RECOMPUTE:
        print_layers(value, out);
        return;
    case TRI_KEY_TEXT:
        if (key->sets && tri_sets_are(value)) {
            (void)fputs(value, out);
        } else {
            tri_value_print_quoted(value, out);
        }
        return;
    default:
        memcpy(&copy, value, tri_key_bytes(key));
    }
    switch (key->type) {
    case TRI_KEY_INT:
        if (key->none && copy.integer == key->none_as) {
            (void)fputs("none", out);
        } else {
            (void)fprintf(out, "%lld", (long long)copy.integer);
        }
        return;
    case TRI_KEY_FLOAT:
        if (key->none && copy.number == (double)key->none_as) {
            (void)fputs("none", out);
        } else {
            tri_value_print_number(copy.number, out);
        }
        return;
    case TRI_KEY_PAIR:
        (void)fputc('[', out);
        tri_value_print_number(copy.pair[0], out);
        (void)fputs(", ", out);
        tri_value_print_number(copy.pair[1], out);
        (void)fputc(']', out);
        return;
    case TRI_KEY_GRID:
        (void)fprintf(out, "[%lld, %lld, %lld]", (long long)copy.grid[0], (long long)copy.grid[1],
                      (long long)copy.grid[2]);
        return;
    case TRI_KEY_SPAN:
        if (copy.span[0] == 0) {
            (void)fputs("none", out);
        } else {
            (void)fprintf(out, "[%lld, %lld]", (long long)copy.span[0], (long long)copy.span[1]);
        }
        return;
    case TRI_KEY_BOOL:
        (void)fputs(copy.truth ? "true" : "false", out);
        return;
    case TRI_KEY_STRATEGY:
        (void)fputs(copy.strategy->name, out);
        return;
    default:
        (void)fputs(key->words[copy.word], out);
    }
}

void tri_value_print_note(const struct tri_key *key, const void *value, FILE *out)
{
    double number;
    memcpy(&number, value, key->type == TRI_KEY_FLOAT ? sizeof(number) : 0);
    if (key->type != TRI_KEY_FLOAT || (key->none && number == (double)key->none_as)) {
        tri_value_print(key, value, out);
    } else {
        print_digits(number, DIGITS_SURE, out);
    }
}

/* ---- in words -------------------------------------------------------------------------------- */

static void print_interval(const struct tri_key *key, FILE *out)
{
    (void)fprintf(out, " %s ", key->low_in ? "from" : "above");
    tri_value_print_number(key->low, out);
    if (isfinite(key->high)) {
        (void)fprintf(out, " %s ", key->high_in ? "to" : "to below");
        tri_value_print_number(key->high, out);
    } else if (key->low_in) {
        (void)fputs(" up", out);
    }
}

static void print_words(const struct tri_key *key, const struct tri_strategies *known, FILE *out)
{
    const char *word;
    for (size_t i = 0; (word = tri_key_word(key, known, i)) != NULL; i++) {
        const char *joint = tri_key_word(key, known, i + 1) ? ", " : " or ";
        (void)fprintf(out, "%s%s", i == 0 ? "" : joint, word);
    }
}

void tri_value_print_expected(const struct tri_key *key, const struct tri_strategies *known,
                              FILE *out)
{
    switch (key->type) {
    case TRI_KEY_INT:
        (void)fprintf(out, "an integer from %lld to %lld", (long long)key->min,
                      (long long)key->max);
        break;
    case TRI_KEY_FLOAT:
        (void)fputs("a number", out);
        print_interval(key, out);
        break;
    case TRI_KEY_PAIR:
        (void)fputs("two numbers", out);
        print_interval(key, out);
        (void)fprintf(out, ", as %s", key->initial);
        break;
    case TRI_KEY_GRID:
        (void)fprintf(out, "three integers from %lld to %lld, as [2, 1, 2]", (long long)key->min,
                      (long long)key->max);
        break;
    case TRI_KEY_SPAN:
        (void)fprintf(out, "two integers from %lld to %lld, the second no smaller, as [100, 102]",
                      (long long)key->min, (long long)key->max);
        break;
    case TRI_KEY_BOOL:
        (void)fputs("true or false", out);
        break;
    case TRI_KEY_ENUM:
    case TRI_KEY_STRATEGY:
        print_words(key, known, out);
        break;
    case TRI_KEY_TEXT:
        (void)fprintf(out, "text of %s %lld bytes without control characters",
                      key->min > 0 ? "1 to" : "at most", (long long)key->max);
        (void)fputs(key->texts ? ", or a list of such" : "", out);
        (void)fputs(key->sets == TRI_SETS_WEIGHTED
                        ? ", or a list of {path: TEXT, weight: NUMBER above 0}"
                    : key->sets == TRI_SETS_NAMED
                        ? ", or a mapping of names (letters, digits, - _ .) to such"
                        : "",
                    out);
        break;
    case TRI_KEY_RECOMPUTE:
        (void)fputs("none, full or block numbers, as [0, 3]", out);
        break;
    case TRI_KEY_LAYERS:
        (void)fprintf(out, "a list of integers from %lld to %lld, as [0, 3]", (long long)key->min,
                      (long long)key->max);
        break;
    }
    if (key->none) {
        (void)fputs(", or none", out);
    }
    if (key->autos) {
        (void)fputs(", or auto", out);
    }
}

/* At most FOUND_MAX characters of text; what cannot be shown as '?'. */
static void print_clipped(const char *text, FILE *out)
{
    int bytes;
    for (int shown = 0; *text; shown++, text += bytes) {
        if (shown == FOUND_MAX) {
            (void)fputs("...", out);
            return;
        }
        bool printable;
        bytes = tri_text_next(text, &printable);
        (void)fwrite(printable ? text : "?", 1, printable ? (size_t)bytes : 1, out);
    }
}

static void print_found(const struct tri_node *node, FILE *out)
{
    if (tri_node_is_nothing(node)) {
        (void)fputs("nothing", out);
    } else if (node->kind == TRI_NODE_MAPPING) {
        (void)fputs("a mapping", out);
    } else if (node->kind == TRI_NODE_SCALAR) {
        (void)fputs(node->quoted ? "the text '" : "'", out);
        print_clipped(node->text, out);
        (void)fputc('\'', out);
    } else if (node->count > 8) {
        (void)fprintf(out, "a list of %zu", node->count);
    } else {
        (void)fputc('[', out);
        for (size_t i = 0; i < node->count; i++) {
            (void)fputs(i ? ", " : "", out);
            if (node->items[i]->kind == TRI_NODE_SCALAR) {
                print_clipped(node->items[i]->text, out);
            } else {
                (void)fputs(node->items[i]->kind == TRI_NODE_LIST ? "[...]" : "{...}", out);
            }
        }
        (void)fputc(']', out);
    }
}

/* ---- as strings ------------------------------------------------------------------------------ */

struct text {
    char *bytes;
    size_t size;
};

static FILE *text_begin(struct text *text)
{
    *text = (struct text){0};
    FILE *out = open_memstream(&text->bytes, &text->size);
    TRI_REQUIRE(out);
    return out;
}

static char *text_end(struct text *text, FILE *out)
{
    TRI_REQUIRE(fclose(out) == 0);
    return text->bytes;
}

char *tri_value_to_text(const struct tri_key *key, const void *value)
{
    struct text text;
    FILE *out = text_begin(&text);
    tri_value_print(key, value, out);
    return text_end(&text, out);
}

char *tri_value_expected_text(const struct tri_key *key, const struct tri_strategies *known)
{
    struct text text;
    FILE *out = text_begin(&text);
    tri_value_print_expected(key, known, out);
    return text_end(&text, out);
}

char *tri_node_found_text(const struct tri_node *node)
{
    struct text text;
    FILE *out = text_begin(&text);
    print_found(node, out);
    return text_end(&text, out);
}
