#include "base/json.h"

#include "base/file.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* What a text of so many bytes may hold, beside what any may: a tensor's entry in a header, the
 * densest text there is of its size, has a list or object for every 17 bytes and a value for every
 * 7; a list of zeros as we write it a value for every 4. BYTES_MOST: no index or manifest of a
 * model comes near it. */
enum {
    DEPTH_MAX = 64,
    BYTES_OF_CONTAINER = 16,
    BYTES_OF_VALUE = 4,
    ALWAYS = 1 << 14,
    BYTES_MOST = 1 << 28
};

const char *tri_json_find_excess(const char *text, size_t bytes)
{
    const size_t most_containers = bytes / BYTES_OF_CONTAINER + ALWAYS;
    const size_t most_values = bytes / BYTES_OF_VALUE + ALWAYS;
    size_t containers = 0;
    size_t values = 0;
    int depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < bytes; i++) {
        char c = text[i];
        if (quoted) {
            i += c == '\\';
            quoted = c != '"';
        } else if (c == '"') {
            quoted = true;
        } else if (c == ',') {
            values++;
        } else if (c == '[' || c == '{') {
            containers++;
            values++;
            depth++;
        } else if (c == ']' || c == '}') {
            depth--;
        }
        if (depth > DEPTH_MAX) {
            return "nested too deeply";
        }
        if (containers > most_containers || values > most_values) {
            return "too many values for its size";
        }
    }
    return NULL;
}

enum tri_status tri_json_load(const char *path, json_t **root, struct tri_error *error)
{
    struct tri_mapping text;
    *root = NULL;
    TRI_TRY(tri_file_map(path, &text, error));
    if (text.size > BYTES_MOST) {
        size_t found = text.size;
        tri_file_unmap(&text);
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: %zu bytes are too many for JSON, expected at most %zu", path, found,
                        (size_t)BYTES_MOST);
    }
    json_error_t json_error;
    const char *bytes = text.data ? (const char *)text.data : "";
    const char *excess = tri_json_find_excess(bytes, text.size);
    json_t *value =
        excess ? NULL : json_loadb(bytes, text.size, JSON_REJECT_DUPLICATES, &json_error);
    tri_file_unmap(&text);
    if (excess) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: %s", path, excess);
    }
    if (!value) {
        return tri_fail(error, TRI_BAD_INPUT, "%s:%d: %s", path, json_error.line, json_error.text);
    }
    if (!json_is_object(value)) {
        json_decref(value);
        return tri_fail(error, TRI_BAD_INPUT, "%s: no JSON object", path);
    }
    *root = value;
    return TRI_OK;
}

/* The value of a key, or NULL: then *status says whether that is an error. */
static const json_t *lookup(const char *path, const json_t *object, const char *key, bool required,
                            enum tri_status *status, struct tri_error *error)
{
    const json_t *value = json_object_get(object, key);
    *status = TRI_OK;
    if (value && !json_is_null(value)) {
        return value;
    }
    if (required) {
        *status = tri_fail(error, TRI_BAD_INPUT, "%s: %s: missing", path, key);
    }
    return NULL;
}

static enum tri_status wrong_type(const char *path, const char *key, const json_t *found,
                                  const char *expected, struct tri_error *error)
{
    char *text = json_dumps(found, JSON_ENCODE_ANY | JSON_COMPACT);
    enum tri_status status = tri_fail(error, TRI_BAD_INPUT, "%s: %s: %.60s, expected %s", path, key,
                                      text ? text : "?", expected);
    free(text);
    return status;
}

enum tri_status tri_json_get_int(const char *path, const json_t *object, const char *key,
                                 bool required, int64_t *value, struct tri_error *error)
{
    enum tri_status status;
    const json_t *found = lookup(path, object, key, required, &status, error);
    if (found && !json_is_integer(found)) {
        return wrong_type(path, key, found, "an integer", error);
    }
    if (found) {
        *value = json_integer_value(found);
    }
    return status;
}

enum tri_status tri_json_get_int_in(const char *path, const json_t *object, const char *key,
                                    int64_t least, int64_t most, int64_t *value,
                                    struct tri_error *error)
{
    TRI_TRY(tri_json_get_int(path, object, key, true, value, error));
    if (*value < least || *value > most) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: %s: found %" PRId64 ", expected %" PRId64 " to %" PRId64, path, key,
                        *value, least, most);
    }
    return TRI_OK;
}

enum tri_status tri_json_get_real(const char *path, const json_t *object, const char *key,
                                  bool required, double *value, struct tri_error *error)
{
    enum tri_status status;
    const json_t *found = lookup(path, object, key, required, &status, error);
    if (found && !json_is_number(found)) {
        return wrong_type(path, key, found, "a number", error);
    }
    if (found) {
        *value = json_number_value(found);
    }
    return status;
}

enum tri_status tri_json_get_bool(const char *path, const json_t *object, const char *key,
                                  bool required, bool *value, struct tri_error *error)
{
    enum tri_status status;
    const json_t *found = lookup(path, object, key, required, &status, error);
    if (found && !json_is_boolean(found)) {
        return wrong_type(path, key, found, "true or false", error);
    }
    if (found) {
        *value = json_is_true(found);
    }
    return status;
}

enum tri_status tri_json_get_text(const char *path, const json_t *object, const char *key,
                                  bool required, const char **value, struct tri_error *error)
{
    enum tri_status status;
    const json_t *found = lookup(path, object, key, required, &status, error);
    if (found && !json_is_string(found)) {
        return wrong_type(path, key, found, "a string", error);
    }
    if (found) {
        *value = json_string_value(found);
    }
    return status;
}

enum tri_status tri_json_get_hash(const char *path, const json_t *object, const char *key,
                                  uint64_t *value, struct tri_error *error)
{
    const char *text = "";
    TRI_TRY(tri_json_get_text(path, object, key, true, &text, error));
    if (strlen(text) != 16 || strspn(text, "0123456789abcdef") != 16) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: %s: '%.40s', expected 16 hexadecimal digits",
                        path, key, text);
    }
    *value = strtoull(text, NULL, 16);
    return TRI_OK;
}
