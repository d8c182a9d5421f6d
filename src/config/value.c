#include "config/value.h"

#include "base/path.h"
#include "config/sets.h"
#include "config/text.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- numbers --------------------------------------------------------------------------------- */

static const char *skip_digits(const char *at)
{
    while (*at >= '0' && *at <= '9') {
        at++;
    }
    return at;
}

static const char *skip_sign(const char *at)
{
    return at + (*at == '-' || *at == '+');
}

static bool read_integer(const char *text, int64_t *value)
{
    const char *digits = skip_sign(text);
    const char *end = skip_digits(digits);
    if (end == digits || *end) {
        return false;
    }
    errno = 0;
    *value = strtoll(text, NULL, 10);
    return errno == 0;
}

/* Decimal only: strtod alone would take hexadecimal, infinity and not-a-number too. */
static bool read_number(const char *text, double *value)
{
    const char *whole = skip_sign(text);
    const char *at = skip_digits(whole);
    int64_t digits = at - whole;
    if (*at == '.') {
        const char *fraction = at + 1;
        at = skip_digits(fraction);
        digits += at - fraction;
    }
    if (digits == 0) {
        return false;
    }
    if (*at == 'e' || *at == 'E') {
        const char *exponent = skip_sign(at + 1);
        at = skip_digits(exponent);
        if (at == exponent) {
            return false;
        }
    }
    if (*at) {
        return false;
    }
    *value = strtod(text, NULL);
    return isfinite(*value) != 0;
}

static bool in_interval(const struct tri_key *key, double value)
{
    return (value > key->low || (key->low_in && value == key->low)) &&
           (value < key->high || (key->high_in && value == key->high));
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool read_layers(const struct tri_key *key, const struct tri_node *node,
                        union tri_value *value)
{
    if (node->kind != TRI_NODE_LIST || node->count == 0 || node->count > TRI_LAYERS_MAX) {
        return false;
    }
    for (size_t i = 0; i < node->count; i++) {
        const struct tri_node *item = node->items[i];
        int64_t *number = &value->layers.items[i];
        if (item->kind != TRI_NODE_SCALAR || item->quoted || !read_integer(item->text, number) ||
            *number < key->min || *number > key->max) {
            return false;
        }
    }
    value->layers.count = (int64_t)node->count;
    return true;
}

static bool read_recompute(const struct tri_key *key, const struct tri_node *node,
                           union tri_value *value)
{
    if (node->kind == TRI_NODE_LIST) {
        return read_layers(key, node, value);
    }
    if (node->kind != TRI_NODE_SCALAR) {
        return false;
    }
    value->layers.count = strcmp(node->text, "full") == 0 ? -1 : 0;
    return value->layers.count != 0 || strcmp(node->text, "none") == 0;
}

static bool read_pair(const struct tri_key *key, const struct tri_node *node,
                      union tri_value *value)
{
    if (node->kind != TRI_NODE_LIST || node->count != 2) {
        return false;
    }
    for (int i = 0; i < 2; i++) {
        const struct tri_node *item = node->items[i];
        if (item->kind != TRI_NODE_SCALAR || item->quoted ||
            !read_number(item->text, &value->pair[i]) || !in_interval(key, value->pair[i])) {
            return false;
        }
    }
    return true;
}

static bool read_integers(const struct tri_key *key, const struct tri_node *node, size_t count,
                          int64_t *integers)
{
    if (node->kind != TRI_NODE_LIST || node->count != count) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        const struct tri_node *item = node->items[i];
        if (item->kind != TRI_NODE_SCALAR || item->quoted ||
            !read_integer(item->text, &integers[i]) || integers[i] < key->min ||
            integers[i] > key->max) {
            return false;
        }
    }
    return true;
}

static bool read_span(const struct tri_key *key, const struct tri_node *node,
                      union tri_value *value)
{
    if (node->kind == TRI_NODE_SCALAR) {
        return !node->quoted && strcmp(node->text, "none") == 0;
    }
    return read_integers(key, node, 2, value->span) && value->span[0] <= value->span[1];
}

static bool read_word(const struct tri_key *key, const char *text, union tri_value *value)
{
    for (value->word = 0; key->words[value->word]; value->word++) {
        if (strcmp(key->words[value->word], text) == 0) {
            return true;
        }
    }
    return false;
}

static bool read_strategy(const struct tri_key *key, const struct tri_strategies *known,
                          const char *text, union tri_value *value)
{
    const struct tri_strategy *const *list = tri_key_strategies(key, known);
    while (*list && strcmp((*list)->name, text) != 0) {
        list++;
    }
    value->strategy = *list;
    return *list != NULL;
}

static bool read_plain(const struct tri_key *key, const char *text, union tri_value *value)
{
    bool none = key->none && strcmp(text, "none") == 0;
    if (key->type == TRI_KEY_INT) {
        if (none) {
            value->integer = key->none_as;
            return true;
        }
        return read_integer(text, &value->integer) && value->integer >= key->min &&
               value->integer <= key->max;
    }
    if (key->type == TRI_KEY_FLOAT) {
        if (none) {
            value->number = (double)key->none_as;
            return true;
        }
        return read_number(text, &value->number) && in_interval(key, value->number);
    }
    value->truth = strcmp(text, "true") == 0;
    return value->truth || strcmp(text, "false") == 0;
}

/* The items, between commas: none has one itself. */
static bool read_texts(const struct tri_key *key, const struct tri_node *node,
                       union tri_value *value)
{
    size_t used = 0;
    for (size_t i = 0; i < node->count; i++) {
        const struct tri_node *item = node->items[i];
        size_t length = item->kind == TRI_NODE_SCALAR ? strlen(item->text) : 0;
        if (length == 0 || strchr(item->text, ',') || !tri_text_is_clean(item->text) ||
            used + length + 2 > (size_t)key->max) {
            return false;
        }
        if (i > 0) {
            memcpy(value->text + used, ", ", 2);
            used += 2;
        }
        memcpy(value->text + used, item->text, length);
        used += length;
    }
    return used >= (size_t)key->min;
}

static bool read_text(const struct tri_key *key, const char *text, union tri_value *value)
{
    size_t length = strlen(text);
    if (length < (size_t)key->min || length > (size_t)key->max || !tri_text_is_clean(text) ||
        (key->sets && tri_sets_are(text))) {
        return false;
    }
    memcpy(value->text, text, length);
    if (key->folder) {
        tri_path_trim(value->text);
    }
    return true;
}

bool tri_value_read(const struct tri_key *key, const struct tri_strategies *known,
                    const struct tri_node *node, union tri_value *value)
{
    memset(value, 0, sizeof(*value));
    switch (key->type) {
    case TRI_KEY_LAYERS:
        return read_layers(key, node, value);
    case TRI_KEY_RECOMPUTE:
        return read_recompute(key, node, value);
    case TRI_KEY_PAIR:
        return read_pair(key, node, value);
    case TRI_KEY_GRID:
        return read_integers(key, node, 3, value->grid);
    case TRI_KEY_SPAN:
        return read_span(key, node, value);
    default:
        break;
    }
    if (key->sets && node->kind != TRI_NODE_SCALAR) {
        return tri_sets_read(key->sets, node, value->text, NULL);
    }
    if (key->texts && node->kind == TRI_NODE_LIST) {
        return read_texts(key, node, value);
    }
    if (node->kind != TRI_NODE_SCALAR || tri_node_is_nothing(node)) {
        return false;
    }
    switch (key->type) {
    case TRI_KEY_ENUM:
        return read_word(key, node->text, value);
    case TRI_KEY_STRATEGY:
        return read_strategy(key, known, node->text, value);
    case TRI_KEY_TEXT:
        return read_text(key, node->text, value);
    default:
        return !node->quoted && read_plain(key, node->text, value);
    }
}

/* ---- the range of a value in place ----------------------------------------------------------- */

static bool layers_in_range(const struct tri_key *key, const void *value)
{
    int64_t count;
    memcpy(&count, value, sizeof(count));
    if (count < (key->type == TRI_KEY_RECOMPUTE ? -1 : 0) || count > TRI_LAYERS_MAX) {
        return false;
    }
    for (int64_t i = 0; i < count; i++) {
        int64_t item;
        memcpy(&item, (const char *)value + (size_t)(1 + i) * sizeof(item), sizeof(item));
        if (item < key->min || item > key->max) {
            return false;
        }
    }
    return true;
}

static bool grid_in_range(const struct tri_key *key, const void *value)
{
    int64_t grid[3];
    memcpy(grid, value, sizeof(grid));
    bool in = true;
    for (int i = 0; i < 3; i++) {
        in = in && grid[i] >= key->min && grid[i] <= key->max;
    }
    return in;
}

static bool span_in_range(const struct tri_key *key, const void *value)
{
    int64_t span[2];
    memcpy(span, value, sizeof(span));
    bool none = span[0] == 0 && span[1] == 0;
    return none || (span[0] >= key->min && span[0] <= span[1] && span[1] <= key->max);
}

static bool word_in_range(const struct tri_key *key, const void *value)
{
    unsigned word;
    memcpy(&word, value, sizeof(word));
    unsigned count = 0;
    while (key->words[count]) {
        count++;
    }
    return word < count;
}

static bool strategy_in_range(const struct tri_key *key, const struct tri_strategies *known,
                              const void *value)
{
    const struct tri_strategy *const *list = tri_key_strategies(key, known);
    const struct tri_strategy *strategy;
    memcpy(&strategy, value, sizeof(strategy));
    while (*list && *list != strategy) {
        list++;
    }
    return *list != NULL;
}

bool tri_value_in_range(const struct tri_key *key, const struct tri_strategies *known,
                        const void *value)
{
    int64_t integer;
    double number[2];
    switch (key->type) {
    case TRI_KEY_INT:
        memcpy(&integer, value, sizeof(integer));
        return (integer >= key->min && integer <= key->max) ||
               (key->none && integer == key->none_as);
    case TRI_KEY_FLOAT:
        memcpy(number, value, sizeof(*number));
        return in_interval(key, *number) || (key->none && *number == (double)key->none_as);
    case TRI_KEY_PAIR:
        memcpy(number, value, sizeof(number));
        return in_interval(key, number[0]) && in_interval(key, number[1]);
    case TRI_KEY_GRID:
        return grid_in_range(key, value);
    case TRI_KEY_SPAN:
        return span_in_range(key, value);
    case TRI_KEY_ENUM:
        return word_in_range(key, value);
    case TRI_KEY_STRATEGY:
        return strategy_in_range(key, known, value);
    case TRI_KEY_TEXT:
        return memchr(value, 0, (size_t)key->max + 1) && strlen(value) >= (size_t)key->min &&
               tri_text_is_clean(value);
    case TRI_KEY_LAYERS:
    case TRI_KEY_RECOMPUTE:
        return layers_in_range(key, value);
    default:
        return true;
    }
}
