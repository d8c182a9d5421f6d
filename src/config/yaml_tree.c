#include "config/yaml_tree.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>
#include <yaml.h>

enum { DEPTH_MAX = 16, BYTES_MAX = 1 << 20, KEY_MAX = 200, KEYS_MAX = 512 };

struct reader {
    yaml_parser_t parser;
    const char *place;
    const char *text;
    size_t length;
    struct tri_error *error;
};

/* The keys from the root down to a node, for messages. */
struct trail {
    const struct trail *above;
    const char *key; /* NULL inside a list */
    int depth;
};

static int line_of(const yaml_event_t *event)
{
    return (int)event->start_mark.line + 1;
}

/* ---- the tree -------------------------------------------------------------------------------- */

void tri_node_destroy(struct tri_node *node)
{
    if (!node) {
        return;
    }
    for (size_t i = 0; i < node->count; i++) {
        if (node->keys) {
            tri_node_destroy(node->keys[i]);
        }
        tri_node_destroy(node->items[i]);
    }
    tri_free(node->keys);
    tri_free(node->items);
    tri_free(node->text);
    tri_free(node);
}

struct tri_node *tri_node_create_scalar(const char *text)
{
    struct tri_node *node = tri_alloc(TRI_MEMORY_OTHER, sizeof(*node));
    node->kind = TRI_NODE_SCALAR;
    node->text = tri_strdup(text);
    return node;
}

bool tri_node_is_nothing(const struct tri_node *node)
{
    return node->kind == TRI_NODE_SCALAR && !node->quoted &&
           (node->text[0] == '\0' || strcmp(node->text, "~") == 0 ||
            strcmp(node->text, "null") == 0);
}

bool tri_node_is_auto(const struct tri_node *node)
{
    return node->kind == TRI_NODE_SCALAR && !node->quoted && strcmp(node->text, "auto") == 0;
}

static void append(struct tri_node ***array, size_t count, struct tri_node *node)
{
    /* Doubles when count is a power of two. */
    if ((count & (count - 1)) == 0) {
        size_t capacity = count == 0 ? 1 : 2 * count;
        struct tri_node **larger =
            tri_alloc(TRI_MEMORY_OTHER, capacity * sizeof(struct tri_node *));
        if (count > 0) {
            memcpy(larger, *array, count * sizeof(struct tri_node *));
        }
        tri_free(*array);
        *array = larger;
    }
    (*array)[count] = node;
}

/* ---- what libyaml refuses -------------------------------------------------------------------- */

/* Whether the line (counted from 0) has a tab among the blanks it begins with. */
static bool is_indented_by_tab(const struct reader *r, size_t line)
{
    size_t at = 0;
    while (line > 0 && at < r->length) {
        line -= r->text[at++] == '\n';
    }
    while (at < r->length && r->text[at] == ' ') {
        at++;
    }
    return at < r->length && r->text[at] == '\t';
}

static size_t line_at(const struct reader *r, size_t offset)
{
    size_t line = 1;
    for (size_t i = 0; i < offset && i < r->length; i++) {
        line += r->text[i] == '\n';
    }
    return line;
}

static enum tri_status fail_parse(struct reader *r)
{
    const yaml_parser_t *p = &r->parser;
    if (p->error == YAML_MEMORY_ERROR) {
        return tri_fail(r->error, TRI_FAILED, "%s: out of memory", r->place);
    }
    if (p->error == YAML_READER_ERROR) {
        return tri_fail(r->error, TRI_BAD_INPUT, "%s:%zu: not UTF-8 text: %s at byte %zu", r->place,
                        line_at(r, p->problem_offset), p->problem, p->problem_offset);
    }
    size_t line = p->problem_mark.line;
    if (is_indented_by_tab(r, line)) {
        return tri_fail(r->error, TRI_BAD_INPUT,
                        "%s:%zu: found a tab, expected spaces: YAML is not indented with tabs",
                        r->place, line + 1);
    }
    if (p->context) {
        return tri_fail(r->error, TRI_BAD_INPUT, "%s:%zu: not YAML: %s, %s in line %zu", r->place,
                        line + 1, p->problem, p->context, p->context_mark.line + 1);
    }
    return tri_fail(r->error, TRI_BAD_INPUT, "%s:%zu: not YAML: %s", r->place, line + 1,
                    p->problem ? p->problem : "unknown problem");
}

static enum tri_status next(struct reader *r, yaml_event_t *event)
{
    return yaml_parser_parse(&r->parser, event) ? TRI_OK : fail_parse(r);
}

/* ---- events to nodes ------------------------------------------------------------------------- */

static void spell(const struct trail *trail, char *out, size_t bytes)
{
    if (!trail || !trail->key) {
        out[0] = '\0';
        return;
    }
    spell(trail->above, out, bytes);
    size_t used = strlen(out);
    (void)snprintf(out + used, bytes - used, "%s%s", used ? "." : "", trail->key);
}

/* What no event may carry. */
static enum tri_status check_plain(struct reader *r, const yaml_event_t *event)
{
    const yaml_char_t *anchor = NULL;
    const yaml_char_t *tag = NULL;
    if (event->type == YAML_ALIAS_EVENT) {
        anchor = event->data.alias.anchor;
    } else if (event->type == YAML_SCALAR_EVENT) {
        anchor = event->data.scalar.anchor;
        tag = event->data.scalar.tag;
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        anchor = event->data.sequence_start.anchor;
        tag = event->data.sequence_start.tag;
    } else if (event->type == YAML_MAPPING_START_EVENT) {
        anchor = event->data.mapping_start.anchor;
        tag = event->data.mapping_start.tag;
    }
    if (anchor) {
        return tri_fail(
            r->error, TRI_BAD_INPUT,
            "%s:%d: found the %s '%s', expected a value: anchors and aliases are not used "
            "here (text that begins with & or * needs quotes)",
            r->place, line_of(event), event->type == YAML_ALIAS_EVENT ? "alias" : "anchor",
            (const char *)anchor);
    }
    if (tag) {
        return tri_fail(r->error, TRI_BAD_INPUT,
                        "%s:%d: found the tag '%s', expected a value: tags are not used here",
                        r->place, line_of(event), (const char *)tag);
    }
    return TRI_OK;
}

static enum tri_status build(struct reader *r, const yaml_event_t *event, const struct trail *trail,
                             struct tri_node **out);

static enum tri_status build_scalar(struct reader *r, const yaml_event_t *event,
                                    struct tri_node *node)
{
    const char *value = (const char *)event->data.scalar.value;
    if (strlen(value) != event->data.scalar.length) {
        return tri_fail(r->error, TRI_BAD_INPUT, "%s:%d: found a zero character inside a value",
                        r->place, line_of(event));
    }
    node->quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
    node->text = tri_strdup(value);
    return TRI_OK;
}

static enum tri_status build_list(struct reader *r, const struct trail *trail,
                                  struct tri_node *node)
{
    struct trail inside = {trail, NULL, trail->depth + 1};
    for (;;) {
        yaml_event_t event;
        TRI_TRY(next(r, &event));
        if (event.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&event);
            return TRI_OK;
        }
        struct tri_node *item = NULL;
        enum tri_status status = build(r, &event, &inside, &item);
        yaml_event_delete(&event);
        TRI_TRY(status);
        append(&node->items, node->count, item);
        node->count++;
    }
}

static enum tri_status check_new_key(struct reader *r, const struct trail *trail,
                                     const struct tri_node *node, const struct tri_node *key)
{
    if (key->kind != TRI_NODE_SCALAR) {
        return tri_fail(r->error, TRI_BAD_INPUT, "%s:%d: found a %s, expected the name of a key",
                        r->place, key->line, key->kind == TRI_NODE_LIST ? "list" : "mapping");
    }
    if (node->count == KEYS_MAX) {
        return tri_fail(r->error, TRI_BAD_INPUT, "%s:%d: found more than %d keys in one mapping",
                        r->place, key->line, KEYS_MAX);
    }
    for (size_t i = 0; i < node->count; i++) {
        if (strcmp(node->keys[i]->text, key->text) == 0) {
            char name[KEY_MAX];
            spell(&(struct trail){trail, key->text, 0}, name, sizeof(name));
            return tri_fail(r->error, TRI_BAD_INPUT,
                            "%s:%d: key '%s': found a second time, first in line %d", r->place,
                            key->line, name, node->keys[i]->line);
        }
    }
    return TRI_OK;
}

static enum tri_status build_pair(struct reader *r, const yaml_event_t *key_event,
                                  const struct trail *trail, struct tri_node *node)
{
    struct tri_node *key = NULL;
    struct tri_node *value = NULL;
    TRI_TRY(build(r, key_event, trail, &key));
    enum tri_status status = check_new_key(r, trail, node, key);
    yaml_event_t event;
    if (status == TRI_OK) {
        status = next(r, &event);
    }
    if (status == TRI_OK) {
        struct trail inside = {trail, key->text, trail->depth + 1};
        status = build(r, &event, &inside, &value);
        yaml_event_delete(&event);
    }
    if (status != TRI_OK) {
        tri_node_destroy(key);
        return status;
    }
    append(&node->keys, node->count, key);
    append(&node->items, node->count, value);
    node->count++;
    return TRI_OK;
}

static enum tri_status build_mapping(struct reader *r, const struct trail *trail,
                                     struct tri_node *node)
{
    for (;;) {
        yaml_event_t event;
        TRI_TRY(next(r, &event));
        bool ends = event.type == YAML_MAPPING_END_EVENT;
        enum tri_status status = ends ? TRI_OK : build_pair(r, &event, trail, node);
        yaml_event_delete(&event);
        if (ends || status != TRI_OK) {
            return status;
        }
    }
}

static enum tri_status build(struct reader *r, const yaml_event_t *event, const struct trail *trail,
                             struct tri_node **out)
{
    *out = NULL;
    TRI_TRY(check_plain(r, event));
    if (trail->depth > DEPTH_MAX) {
        return tri_fail(r->error, TRI_BAD_INPUT, "%s:%d: found more than %d levels of nesting",
                        r->place, line_of(event), DEPTH_MAX);
    }
    struct tri_node *node = tri_alloc(TRI_MEMORY_OTHER, sizeof(*node));
    node->line = line_of(event);
    enum tri_status status;
    if (event->type == YAML_SCALAR_EVENT) {
        node->kind = TRI_NODE_SCALAR;
        status = build_scalar(r, event, node);
    } else if (event->type == YAML_SEQUENCE_START_EVENT) {
        node->kind = TRI_NODE_LIST;
        status = build_list(r, trail, node);
    } else {
        node->kind = TRI_NODE_MAPPING;
        status = build_mapping(r, trail, node);
    }
    if (status != TRI_OK) {
        tri_node_destroy(node);
        return status;
    }
    *out = node;
    return TRI_OK;
}

/* ---- a document ------------------------------------------------------------------------------ */

static enum tri_status check_text(const struct reader *r)
{
    if (r->length > BYTES_MAX) {
        return tri_fail(r->error, TRI_BAD_INPUT, "%s: found %zu bytes, expected at most %d",
                        r->place, r->length, BYTES_MAX);
    }
    for (size_t i = 0; i < r->length; i++) {
        unsigned char byte = (unsigned char)r->text[i];
        if ((byte < ' ' && byte != '\t' && byte != '\n' && byte != '\r') || byte == 0x7f) {
            return tri_fail(r->error, TRI_BAD_INPUT,
                            "%s:%zu: not text: found byte 0x%02x at offset %zu", r->place,
                            line_at(r, i), byte, i);
        }
    }
    return TRI_OK;
}

/* Reads the stream's start, the document and its end; *root may be set even when it fails. */
static enum tri_status read_stream(struct reader *r, struct tri_node **root)
{
    bool ends = false;
    while (!ends) {
        yaml_event_t event;
        TRI_TRY(next(r, &event));
        enum tri_status status = TRI_OK;
        if (event.type == YAML_STREAM_END_EVENT) {
            ends = true;
        } else if (event.type == YAML_DOCUMENT_START_EVENT && *root) {
            status =
                tri_fail(r->error, TRI_BAD_INPUT, "%s:%d: found a second document, expected one",
                         r->place, line_of(&event));
        } else if (event.type != YAML_STREAM_START_EVENT &&
                   event.type != YAML_DOCUMENT_START_EVENT &&
                   event.type != YAML_DOCUMENT_END_EVENT) {
            struct trail top = {NULL, NULL, 0};
            status = build(r, &event, &top, root);
        }
        yaml_event_delete(&event);
        TRI_TRY(status);
    }
    if (!*root || tri_node_is_nothing(*root)) {
        return tri_fail(r->error, TRI_BAD_INPUT, "%s: found no keys: the file is empty", r->place);
    }
    return TRI_OK;
}

enum tri_status tri_yaml_parse(const char *place, const char *text, size_t length,
                               struct tri_node **root, struct tri_error *error)
{
    *root = NULL;
    static const char byte_order_mark[] = "\xef\xbb\xbf";
    struct reader r = {.place = place, .text = text ? text : "", .length = length, .error = error};
    if (length >= 3 && memcmp(r.text, byte_order_mark, 3) == 0) {
        r.text += 3;
        r.length -= 3;
    }
    TRI_TRY(check_text(&r));
    if (!yaml_parser_initialize(&r.parser)) {
        return tri_fail(error, TRI_FAILED, "%s: out of memory", place);
    }
    yaml_parser_set_encoding(&r.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&r.parser, (const unsigned char *)r.text, r.length);
    enum tri_status status = read_stream(&r, root);
    yaml_parser_delete(&r.parser);
    if (status != TRI_OK) {
        tri_node_destroy(*root);
        *root = NULL;
    }
    return status;
}
