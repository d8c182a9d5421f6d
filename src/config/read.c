/* From a file and overrides to a config: walks the tree under the schema table. */
#include "base/file.h"
#include "config/schema.h"
#include "config/sets.h"
#include "config/value.h"
#include "config/yaml_tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* "section.key" as written, cut to what a message can hold. */
enum { NAME_BYTES = 128 };

void tri_key_reset(const struct tri_key *key, struct tri_config *config)
{
    const char *initial = tri_key_initial(key, config->known);
    struct tri_node *node = NULL;
    union tri_value value;
    if (!initial) {
        tri_key_unset(key, tri_key_at(key, config));
        return;
    }
    if (key->type == TRI_KEY_PAIR) {
        struct tri_error error;
        if (tri_yaml_parse(key->name, initial, strlen(initial), &node, &error) != TRI_OK) {
            tri_panic(TRI_FAILED, "%s", error.message);
        }
    } else {
        node = tri_node_create_scalar(initial);
        node->quoted = key->type == TRI_KEY_TEXT;
    }
    TRI_REQUIRE(tri_value_read(key, config->known, node, &value));
    memcpy(tri_key_at(key, config), &value, tri_key_bytes(key));
    tri_node_destroy(node);
}

void tri_config_init(const struct tri_strategies *known, struct tri_config *config)
{
    *config = (struct tri_config){.known = known};
    for (size_t i = 0; i < tri_keys_count; i++) {
        tri_key_reset(&tri_keys[i], config);
    }
}

/* ---- one value ------------------------------------------------------------------------------- */

static enum tri_status fail_type(const struct tri_config *config, const struct tri_key *key,
                                 const struct tri_node *node, struct tri_error *error)
{
    char *found = tri_node_found_text(node);
    char *expected = tri_value_expected_text(key, config->known);
    bool reserved = node->kind == TRI_NODE_SCALAR && tri_word_is_reserved(key, node->text);
    enum tri_status status =
        tri_config_refuse(config, error, key->name, "found %s%s, expected %s", found,
                          reserved ? ", which is not built yet" : "", expected);
    free(found);
    free(expected);
    return status;
}

/* Of several sets, the one that is wrong. */
static enum tri_status fail_sets(struct tri_config *config, int at, const struct tri_node *node,
                                 struct tri_error *error)
{
    const struct tri_key *key = &tri_keys[at];
    char text[TRI_PATH_MAX];
    struct tri_sets_fault fault = {0};
    TRI_REQUIRE(!tri_sets_read(key->sets, node, text, &fault));
    if (fault.node && config->lines[at] != TRI_LINE_COMMAND) {
        config->lines[at] = fault.node->line;
    }
    char *found = fault.node ? tri_node_found_text(fault.node) : NULL;
    char *expected = tri_value_expected_text(key, config->known);
    enum tri_status status = tri_config_refuse(config, error, key->name, "found %s%s, expected %s",
                                               found ? found : "", fault.as, expected);
    free(found);
    free(expected);
    return status;
}

static enum tri_status set_value(struct tri_config *config, int at, const struct tri_node *node,
                                 int line, struct tri_error *error)
{
    const struct tri_key *key = &tri_keys[at];
    union tri_value value;
    config->lines[at] = line;
    config->autos &= ~key->autos;
    if (key->autos && tri_node_is_auto(node)) {
        config->autos |= key->autos;
        tri_key_reset(key, config);
        return TRI_OK;
    }
    if (!tri_value_read(key, config->known, node, &value)) {
        return key->sets && node->kind != TRI_NODE_SCALAR ? fail_sets(config, at, node, error)
                                                          : fail_type(config, key, node, error);
    }
    memcpy(tri_key_at(key, config), &value, tri_key_bytes(key));
    return TRI_OK;
}

/* ---- the file -------------------------------------------------------------------------------- */

/* What somebody wrote, in quotes, fit for a message; for free(). */
static char *shown(const char *written)
{
    struct tri_node *node = tri_node_create_scalar(written);
    node->quoted = written[0] == '\0';
    char *text = tri_node_found_text(node);
    tri_node_destroy(node);
    return text;
}

/* place ends in ": ". */
static enum tri_status fail_unknown(const char *place, const char *written, bool section,
                                    struct tri_error *error)
{
    const char *what = section ? "section" : "key";
    if (tri_key_is_reserved(written)) {
        return tri_fail(error, TRI_BAD_INPUT, "%skey '%s': not built yet", place, written);
    }
    if (!section && tri_key_find(written) >= 0) {
        const char *dot = strchr(written, '.');
        return tri_fail(error, TRI_BAD_INPUT,
                        "%skey '%s': unknown key; write '%s' inside the section '%.*s'", place,
                        written, dot + 1, (int)(dot - written), written);
    }
    bool close;
    const char *nearest = tri_key_nearest(written, section, &close);
    char *text = shown(written);
    enum tri_status status =
        tri_fail(error, TRI_BAD_INPUT, "%skey %s: unknown %s; %s '%s'%s", place, text, what,
                 close ? "did you mean" : "the nearest known one is", nearest, close ? "?" : "");
    free(text);
    return status;
}

/* Whether keys of the table have a name that goes on so. */
static bool has_inner(const char *name)
{
    size_t length = strlen(name);
    for (size_t i = 0; i < tri_keys_count; i++) {
        if (strncmp(tri_keys[i].name, name, length) == 0 && tri_keys[i].name[length] == '.') {
            return true;
        }
    }
    return false;
}

/* Of a section, or of a mapping in one. */
static enum tri_status read_section(struct tri_config *config, const char *section,
                                    const struct tri_node *node, struct tri_error *error)
{
    for (size_t i = 0; i < node->count; i++) {
        char name[NAME_BYTES];
        (void)snprintf(name, sizeof(name), "%s.%s", section, node->keys[i]->text);
        int line = node->keys[i]->line;
        int at = tri_key_find(name);
        if (at < 0 && node->items[i]->kind == TRI_NODE_MAPPING && has_inner(name)) {
            TRI_TRY(read_section(config, name, node->items[i], error));
            continue;
        }
        if (at < 0) {
            char place[TRI_PATH_MAX + 32];
            (void)snprintf(place, sizeof(place), "%s:%d: ", config->path, line);
            return fail_unknown(place, name, false, error);
        }
        TRI_TRY(set_value(config, at, node->items[i], line, error));
    }
    return TRI_OK;
}

static enum tri_status read_tree(struct tri_config *config, const struct tri_node *root,
                                 struct tri_error *error)
{
    if (root->kind != TRI_NODE_MAPPING) {
        return tri_fail(error, TRI_BAD_INPUT, "%s:%d: found %s, expected keys and values",
                        config->path, root->line, root->kind == TRI_NODE_LIST ? "a list" : "text");
    }
    for (size_t i = 0; i < root->count; i++) {
        const char *written = root->keys[i]->text;
        const struct tri_node *node = root->items[i];
        int line = root->keys[i]->line;
        int at = strchr(written, '.') ? -1 : tri_key_find(written);
        if (at >= 0) {
            TRI_TRY(set_value(config, at, node, line, error));
        } else if (!tri_section_find(written)) {
            char place[TRI_PATH_MAX + 32];
            (void)snprintf(place, sizeof(place), "%s:%d: ", config->path, line);
            return fail_unknown(place, written, node->kind == TRI_NODE_MAPPING, error);
        } else if (node->kind == TRI_NODE_MAPPING || tri_node_is_nothing(node)) {
            config->moe_line = strcmp(written, "moe") == 0 ? line : config->moe_line;
            TRI_TRY(read_section(config, written, node, error));
        } else if (tri_section_find(written)->autos && tri_node_is_auto(node)) {
            tri_config_open_section(config, tri_section_find(written), line);
        } else {
            return tri_fail(error, TRI_BAD_INPUT,
                            "%s:%d: key '%s': found %s, expected a section of keys and values%s",
                            config->path, line, written,
                            node->kind == TRI_NODE_LIST ? "a list" : "a value",
                            tri_section_find(written)->autos ? ", or auto" : "");
        }
    }
    return TRI_OK;
}

/* ---- overrides ------------------------------------------------------------------------------- */

/* Lists are read as YAML; anything else is taken as it stands, so that a pattern needs no quotes:
 * "[ab]*.bin" is no list to its end. */
static struct tri_node *override_node(const struct tri_key *key, const char *text)
{
    bool list = key->type == TRI_KEY_PAIR || key->type == TRI_KEY_GRID ||
                key->type == TRI_KEY_LAYERS || key->type == TRI_KEY_SPAN ||
                key->type == TRI_KEY_RECOMPUTE || (key->texts && text[0] == '[') ||
                (key->sets == TRI_SETS_WEIGHTED && text[0] == '[') ||
                (key->sets && tri_sets_are(text));
    struct tri_node *node = NULL;
    if (list && tri_yaml_parse("", text, strlen(text), &node, NULL) == TRI_OK) {
        return node;
    }
    node = tri_node_create_scalar(text);
    node->quoted = key->type == TRI_KEY_TEXT;
    return node;
}

/* *at: the index of the key that `text`, "key=value", is about; or *section, which is then not
 * NULL. */
static enum tri_status find_override(const char *text, int *at, const struct tri_section **section,
                                     struct tri_error *error)
{
    *section = NULL;
    const char *equals = strchr(text, '=');
    if (!equals || equals == text) {
        char *found = shown(text);
        enum tri_status status = tri_fail(
            error, TRI_BAD_INPUT, "command line: found %s, expected section.key=value", found);
        free(found);
        return status;
    }
    char name[NAME_BYTES];
    (void)snprintf(name, sizeof(name), "%.*s", (int)(equals - text), text);
    *at = tri_key_find(name);
    if (*at >= 0) {
        return TRI_OK;
    }
    *section = tri_section_find(name);
    if (!*section || !(*section)->autos) {
        return fail_unknown("command line: ", name, false, error);
    }
    if (strcmp(equals + 1, "auto") == 0) {
        return TRI_OK;
    }
    char *found = shown(equals + 1);
    enum tri_status status = tri_fail(
        error, TRI_BAD_INPUT,
        "command line: key '%s': found %s, expected auto, or its keys one by one", name, found);
    free(found);
    return status;
}

enum tri_status tri_config_check_override(const char *text, struct tri_error *error)
{
    int at = -1;
    const struct tri_section *section;
    return find_override(text, &at, &section, error);
}

static enum tri_status apply_override(struct tri_config *config, const char *text,
                                      struct tri_error *error)
{
    int at = -1;
    const struct tri_section *section;
    TRI_TRY(find_override(text, &at, &section, error));
    if (section) {
        tri_config_open_section(config, section, TRI_LINE_COMMAND);
        return TRI_OK;
    }
    struct tri_node *node = override_node(&tri_keys[at], strchr(text, '=') + 1);
    enum tri_status status = set_value(config, at, node, TRI_LINE_COMMAND, error);
    tri_node_destroy(node);
    return status;
}

/* ---- the whole ------------------------------------------------------------------------------- */

static enum tri_status check_moe_given(struct tri_config *config, struct tri_error *error)
{
    bool any = config->moe_line > 0;
    for (size_t i = 0; i < tri_keys_count; i++) {
        any = any || (tri_key_in_section(&tri_keys[i], "moe") && config->lines[i] != 0);
    }
    int at = tri_key_find("moe.num_experts");
    if (!any || config->lines[at] != 0 || config->moe.num_experts > 0) {
        return TRI_OK;
    }
    config->lines[at] = config->moe_line > 0 ? config->moe_line : TRI_LINE_COMMAND;
    enum tri_status status =
        tri_config_refuse(config, error, "moe.num_experts",
                          "found nothing, expected an integer: a model with keys of moe needs it");
    config->lines[at] = 0;
    return tri_config_hint_shape(config, status, error);
}

enum tri_status tri_config_complete(struct tri_config *config, const struct tri_config *source,
                                    struct tri_error *error)
{
    if (source) {
        TRI_TRY(tri_config_adopt(config, source, error));
    }
    TRI_TRY(check_moe_given(config, error));
    TRI_TRY(tri_config_check_auto(config, error));
    return tri_config_finish_read(config, true, error);
}

static enum tri_status read_text(const struct tri_strategies *known, const char *path,
                                 const char *text, size_t length, int count, char *const *overrides,
                                 struct tri_config *config, struct tri_error *error)
{
    tri_config_init(known, config);
    int written = snprintf(config->path, sizeof(config->path), "%s", path);
    if (written < 0 || (size_t)written >= sizeof(config->path)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%.60s...: found a path of %zu bytes, expected at most %d", path,
                        strlen(path), TRI_PATH_MAX - 1);
    }
    struct tri_node *root;
    TRI_TRY(tri_yaml_parse(path, text, length, &root, error));
    enum tri_status status = read_tree(config, root, error);
    tri_node_destroy(root);
    for (int i = 0; i < count && status == TRI_OK; i++) {
        status = apply_override(config, overrides[i], error);
    }
    return status;
}

enum tri_status tri_config_parse(const struct tri_strategies *known, const char *path,
                                 const char *text, size_t length, int count, char *const *overrides,
                                 struct tri_config *config, struct tri_error *error)
{
    TRI_TRY(read_text(known, path, text, length, count, overrides, config, error));
    return tri_config_complete(config, NULL, error);
}

/* Of a run too, whose folder has its config. */
static enum tri_status refuse_folder(const char *path, struct tri_error *error)
{
    char inside[TRI_PATH_MAX + 32];
    (void)snprintf(inside, sizeof(inside), "%s/config.yaml", path);
    if (tri_file_exists(inside)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: Is a directory, expected a config; the run has %s", path, inside);
    }
    return tri_fail(error, TRI_BAD_INPUT, "%s: Is a directory, expected the file of a config",
                    path);
}

enum tri_status tri_config_map(const char *path, struct tri_mapping *file, struct tri_error *error)
{
    enum { BYTES_MOST = 1 << 22 };
    if (tri_file_is_dir(path)) {
        return refuse_folder(path, error);
    }
    return tri_file_read(path, BYTES_MOST, file, error); /* also <(a pipe) */
}

enum tri_status tri_config_read(const struct tri_strategies *known, const char *path,
                                const struct tri_mapping *file, int count, char *const *overrides,
                                struct tri_config *config, struct tri_error *error)
{
    struct tri_mapping own = {0};
    tri_config_init(known, config);
    if (!file) {
        TRI_TRY(tri_config_map(path, &own, error));
    }
    const struct tri_mapping *text = file ? file : &own;
    enum tri_status status = read_text(known, path, (const char *)text->data, text->size, count,
                                       overrides, config, error);
    if (!file) {
        tri_file_unmap(&own);
    }
    return status;
}

enum tri_status tri_config_load(const struct tri_strategies *known, const char *path, int count,
                                char *const *overrides, struct tri_config *config,
                                struct tri_error *error)
{
    TRI_TRY(tri_config_read(known, path, NULL, count, overrides, config, error));
    return tri_config_complete(config, NULL, error);
}
