#include "data/chat_folder.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/path.h"
#include "data/scan.h"

#include <string.h>

enum { BYTES_MAX = 64 << 20 };
enum { TEMPLATE, BEGIN, END, NUM_KEYS };

static const char *const KEYS[NUM_KEYS] = {
    [TEMPLATE] = "chat_template", [BEGIN] = "bos_token", [END] = "eos_token"};

/* tokenizer_config.json. */
struct config {
    struct tri_string values[NUM_KEYS];
    bool there[NUM_KEYS];
};

static char *join(const char *folder, const char *name)
{
    size_t room = strlen(folder) + strlen(name) + 2;
    char *path = tri_alloc(TRI_MEMORY_OTHER, room);
    tri_path_make(path, room, "%s/%s", folder, name);
    return path;
}

static bool is_key(const struct tri_string *key, const char *name)
{
    return key->size == strlen(name) && memcmp(key->data, name, key->size) == 0;
}

/* The string that is an object's member of this name, if there is one. */
static bool read_member(struct tri_scan *scan, const char *name, struct tri_string *value,
                        bool *there)
{
    struct tri_string key = {0};
    bool first = true;
    while (key.size = 0, tri_scan_key(scan, &first, &key)) {
        if (is_key(&key, name) && tri_scan_peek(scan) == '"' && !*there) {
            *there = tri_scan_string(scan, value);
        } else if (!tri_scan_skip(scan)) {
            break;
        }
    }
    tri_string_fini(&key);
    return !scan->expected;
}

/* Of a list of templates, [{"name": "default", "template": …}, …], the one of that name, or the
 * first. */
static bool read_templates(struct tri_scan *scan, struct tri_string *value, bool *there)
{
    bool first = true, chosen = false;
    while (tri_scan_element(scan, &first)) {
        struct tri_scan again = *scan;
        struct tri_string name = {0}, text = {0};
        bool named = false, has_text = false;
        bool right = tri_scan_take(scan, '{', "an object with name and template") &&
                     read_member(scan, "name", &name, &named) &&
                     tri_scan_take(&again, '{', "an object") &&
                     read_member(&again, "template", &text, &has_text);
        bool preferred = named && is_key(&name, "default");
        if (right && has_text && !chosen && (preferred || !*there)) {
            tri_string_fini(value);
            *value = text;
            text = (struct tri_string){0};
            *there = true;
            chosen = preferred;
        }
        tri_string_fini(&name);
        tri_string_fini(&text);
        if (!right) {
            break;
        }
    }
    return !scan->expected;
}

/* A string, an object whose member "content" is it, a list of templates, or nothing. */
static bool read_value(struct tri_scan *scan, struct tri_string *value, bool *there)
{
    char next = tri_scan_peek(scan);
    value->size = 0;
    *there = false;
    if (next == '"') {
        *there = tri_scan_string(scan, value);
        return *there;
    }
    if (next == '{' || next == '[') {
        scan->at++;
        return next == '{' ? read_member(scan, "content", value, there)
                           : read_templates(scan, value, there);
    }
    return tri_scan_skip(scan);
}

static bool read_config(struct tri_scan *scan, struct config *config)
{
    struct tri_string key = {0};
    bool first = true;
    bool right = tri_scan_take(scan, '{', "an object");
    while (right && (key.size = 0, tri_scan_key(scan, &first, &key))) {
        int found = TEMPLATE;
        while (found < NUM_KEYS && !is_key(&key, KEYS[found])) {
            found++;
        }
        right = found < NUM_KEYS ? read_value(scan, &config->values[found], &config->there[found])
                                 : tri_scan_skip(scan);
    }
    tri_string_fini(&key);
    return !scan->expected && tri_scan_finish(scan);
}

static void fini_config(struct config *config)
{
    for (int i = TEMPLATE; i < NUM_KEYS; i++) {
        tri_string_fini(&config->values[i]);
    }
}

/* What is not there says nothing. */
static enum tri_status load_config(const char *folder, struct config *config,
                                   struct tri_error *error)
{
    *config = (struct config){0};
    struct tri_mapping text;
    char *path = join(folder, "tokenizer_config.json");
    enum tri_status status = TRI_OK;
    if (tri_file_exists(path)) {
        status = tri_file_read(path, BYTES_MAX, &text, error);
        if (status == TRI_OK) {
            const char *begin = (const char *)text.data;
            struct tri_scan scan = {begin, begin + text.size, NULL};
            if (!read_config(&scan, config)) {
                status = tri_fail(error, TRI_BAD_INPUT, "%s: byte %zu: expected %s", path,
                                  (size_t)(scan.at - begin), scan.expected);
            }
            tri_file_unmap(&text);
        }
    }
    /* A file of its own goes first: newer folders have it there. */
    char *jinja = join(folder, "chat_template.jinja");
    if (status == TRI_OK && tri_file_exists(jinja)) {
        status = tri_file_read(jinja, BYTES_MAX, &text, error);
        if (status == TRI_OK) {
            config->values[TEMPLATE].size = 0;
            tri_string_append(&config->values[TEMPLATE], text.data, text.size);
            config->there[TEMPLATE] = true;
            tri_file_unmap(&text);
        }
    }
    tri_free(path);
    tri_free(jinja);
    return status;
}

/* ---- names ----------------------------------------------------------------------------------- */

static enum tri_status take_name(const char *folder, const struct config *config, int key,
                                 char name[TRI_SPECIAL_BYTES], struct tri_error *error)
{
    const struct tri_string *value = &config->values[key];
    if (!config->there[key]) {
        return TRI_OK;
    }
    if (value->size >= TRI_SPECIAL_BYTES || (value->size > 0 && !value->data[0])) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s/tokenizer_config.json: %s: of %zu bytes, expected fewer than %d",
                        folder, KEYS[key], value->size, TRI_SPECIAL_BYTES);
    }
    tri_path_make(name, TRI_SPECIAL_BYTES, "%.*s", (int)value->size,
                  value->size ? value->data : "");
    return TRI_OK;
}

static enum tri_status take_names(const char *folder, const struct config *config,
                                  struct tri_chat *chat, struct tri_error *error)
{
    if (chat->begin[0]) {
        TRI_TRY(take_name(folder, config, BEGIN, chat->begin, error));
    }
    return take_name(folder, config, END, chat->end, error);
}

enum tri_status tri_chat_read_names(const char *folder, struct tri_chat *chat,
                                    struct tri_error *error)
{
    struct config config;
    enum tri_status status = load_config(folder, &config, error);
    if (status == TRI_OK) {
        status = take_names(folder, &config, chat, error);
    }
    fini_config(&config);
    return status;
}

enum tri_status tri_chat_find(const char *folder, struct tri_chat *chat, bool *found,
                              struct tri_error *error)
{
    struct config config;
    enum tri_begin begin = TRI_BEGIN_NONE;
    enum tri_status status = load_config(folder, &config, error);
    *found = status == TRI_OK && config.there[TEMPLATE];
    if (*found) {
        const struct tri_string *jinja = &config.values[TEMPLATE];
        status = tri_chat_recognise(jinja->data, jinja->size, chat, &begin)
                     ? TRI_OK
                     : tri_fail(error, TRI_BAD_INPUT,
                                "%s: its chat template is none that is known here; expected "
                                "--template chatml, llama3, mistral, olmo or plain",
                                folder);
    }
    if (status == TRI_OK && *found) {
        /* Only a begin that its template puts. */
        static const char unnamed[] = "?";
        tri_path_make(chat->begin, sizeof(chat->begin), "%s",
                      begin == TRI_BEGIN_BOS ? unnamed : "");
        status = take_names(folder, &config, chat, error);
        if (strcmp(chat->begin, unnamed) == 0) {
            chat->begin[0] = '\0';
        }
        const struct tri_string *jinja = &config.values[TEMPLATE];
        tri_chat_take_set(jinja->data, jinja->size, KEYS[END], chat->end);
        if (begin == TRI_BEGIN_BOS) {
            tri_chat_take_set(jinja->data, jinja->size, KEYS[BEGIN], chat->begin);
        }
        if (begin == TRI_BEGIN_EOS) {
            tri_path_make(chat->begin, sizeof(chat->begin), "%s", chat->end);
        }
    }
    fini_config(&config);
    return status;
}
