#include "config/sets.h"

#include "base/status.h"
#include "config/text.h"
#include "config/value.h"

#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

bool tri_sets_are(const char *text)
{
    return text[0] == '{' || (text[0] == '[' && text[1] == '{');
}

/* ---- reading --------------------------------------------------------------------------------- */

static bool is_path(const struct tri_node *node)
{
    return node->kind == TRI_NODE_SCALAR && node->text[0] && tri_text_is_clean(node->text) &&
           !tri_sets_are(node->text);
}

/* Letters, digits, and - _ . between them: it stands in metrics and lines. */
static bool is_name(const char *name)
{
    size_t length = strlen(name);
    return length > 0 && length < TRI_SET_NAME_MAX &&
           strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") ==
               length;
}

static bool read_weight(const struct tri_node *node, double *weight)
{
    char *end;
    if (node->kind != TRI_NODE_SCALAR || node->quoted || !node->text[0] ||
        node->text[strspn(node->text, "0123456789.eE+-")]) {
        return false;
    }
    *weight = strtod(node->text, &end);
    return !*end && isfinite(*weight) && *weight > 0.0;
}

static bool say(struct tri_sets_fault *fault, const struct tri_node *node, const char *format, ...)
    TRI_PRINTF(3, 4);

/* Always false. */
static bool say(struct tri_sets_fault *fault, const struct tri_node *node, const char *format, ...)
{
    va_list arguments;
    if (fault) {
        va_start(arguments, format);
        (void)vsnprintf(fault->as, sizeof(fault->as), format, arguments);
        va_end(arguments);
        fault->node = node;
    }
    return false;
}

/* {path: TEXT, weight: NUMBER}, without the weight it is 1; number i of its list. */
static bool read_weighted(const struct tri_node *node, size_t i, const struct tri_node **path,
                          double *weight, struct tri_sets_fault *fault)
{
    *path = NULL;
    *weight = 1.0;
    if (node->kind != TRI_NODE_MAPPING) {
        return say(fault, node, " as set %zu", i + 1);
    }
    for (size_t k = 0; k < node->count; k++) {
        const struct tri_node *key = node->keys[k], *value = node->items[k];
        bool is_weight = strcmp(key->text, "weight") == 0;
        if (!is_weight && strcmp(key->text, "path") != 0) {
            return say(fault, key, " in set %zu", i + 1);
        }
        if (is_weight ? !read_weight(value, weight) : !is_path(value)) {
            return say(fault, value, " as %s of set %zu", key->text, i + 1);
        }
        *path = is_weight ? *path : value;
    }
    return *path || say(fault, node, " without a path as set %zu", i + 1);
}

static bool print_item(enum tri_sets_kind kind, const struct tri_node *node, size_t i, FILE *out,
                       struct tri_sets_fault *fault)
{
    if (kind == TRI_SETS_NAMED) {
        if (!is_name(node->keys[i]->text)) {
            return say(fault, node->keys[i], " as the name of set %zu", i + 1);
        }
        if (!is_path(node->items[i])) {
            return say(fault, node->items[i], " as set '%s'", node->keys[i]->text);
        }
        tri_value_print_quoted(node->keys[i]->text, out);
        (void)fputs(": ", out);
        tri_value_print_quoted(node->items[i]->text, out);
        return true;
    }
    const struct tri_node *path;
    double weight;
    if (!read_weighted(node->items[i], i, &path, &weight, fault)) {
        return false;
    }
    (void)fputs("{path: ", out);
    tri_value_print_quoted(path->text, out);
    (void)fputs(", weight: ", out);
    tri_value_print_number(weight, out);
    (void)fputc('}', out);
    return true;
}

bool tri_sets_read(enum tri_sets_kind kind, const struct tri_node *node, char text[TRI_PATH_MAX],
                   struct tri_sets_fault *fault)
{
    bool named = kind == TRI_SETS_NAMED;
    char *written = NULL;
    size_t length = 0;
    if (node->kind != (named ? TRI_NODE_MAPPING : TRI_NODE_LIST) || node->count == 0) {
        return say(fault, node, "%s", "");
    }
    if (node->count > TRI_SETS_MAX) {
        return say(fault, NULL, "%zu sets, more than %d", node->count, TRI_SETS_MAX);
    }
    FILE *out = open_memstream(&written, &length);
    if (!out) {
        tri_panic(TRI_FAILED, "out of memory");
    }
    (void)fputc(named ? '{' : '[', out);
    bool good = true;
    for (size_t i = 0; good && i < node->count; i++) {
        (void)fputs(i > 0 ? ", " : "", out);
        good = print_item(kind, node, i, out, fault);
    }
    (void)fputc(named ? '}' : ']', out);
    (void)fclose(out);
    if (good && length >= TRI_PATH_MAX) {
        good = say(fault, NULL, "%zu sets that take %zu bytes in all", node->count, length);
    }
    if (good) {
        memcpy(text, written, length + 1);
    }
    free(written);
    return good;
}

/* ---- the sets -------------------------------------------------------------------------------- */

void tri_config_sets(const char *text, struct tri_sets *sets)
{
    struct tri_error error;
    struct tri_node *root = NULL;
    *sets = (struct tri_sets){.count = text[0] ? 1 : 0};
    if (!tri_sets_are(text)) {
        (void)snprintf(sets->set[0].path, TRI_PATH_MAX, "%s", text);
        sets->set[0].weight = 1.0;
        return;
    }
    TRI_REQUIRE(tri_yaml_parse("sets", text, strlen(text), &root, &error) == TRI_OK);
    TRI_REQUIRE(root->count <= TRI_SETS_MAX);
    sets->count = (int)root->count;
    for (size_t i = 0; i < root->count; i++) {
        struct tri_set *set = &sets->set[i];
        const struct tri_node *path = root->items[i];
        set->weight = 1.0;
        if (root->kind == TRI_NODE_MAPPING) {
            (void)snprintf(set->name, TRI_SET_NAME_MAX, "%s", root->keys[i]->text);
        } else {
            TRI_REQUIRE(read_weighted(root->items[i], i, &path, &set->weight, NULL));
        }
        TRI_REQUIRE(path);
        (void)snprintf(set->path, TRI_PATH_MAX, "%s", path->text);
    }
    tri_node_destroy(root);
}
