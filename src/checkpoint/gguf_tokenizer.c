/* A folder's tokenizer as llama.cpp keeps one: texts by id, what each is, and either merges
 * ("gpt2") or scores ("llama"). */
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/path.h"
#include "checkpoint/gguf_keys.h"
#include "data/tokenizer_files.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { PATH_BYTES = 2048, TEMPLATE_MOST = 64 << 20, CUTS_MOST = 4096 };

enum kind { NORMAL = 1, UNKNOWN = 2, CONTROL = 3, ADDED = 4, UNUSED = 5, BYTE = 6 };

struct token {
    const char *text; /* of the file's; NULL: there is none */
    int32_t kind;
    float score;
};

struct vocabulary {
    const char *folder;
    char path[PATH_BYTES]; /* of tokenizer.json */
    json_t *root, *config; /* that; tokenizer_config.json or NULL */
    struct tri_tokenizer *tokenizer;
    bool bytes; /* "gpt2": pieces are bytes */
    int64_t size;
    struct token *token;
};

static enum tri_status refuse(const struct vocabulary *v, const char *what, struct tri_error *error)
{
    return tri_fail(error, TRI_BAD_INPUT, "%s: %s: nothing in llama.cpp does", v->path, what);
}

static const char *type_of(const json_t *object)
{
    const char *type = json_string_value(json_object_get(object, "type"));
    return type ? type : "";
}

/* ---- how words are cut ----------------------------------------------------------------------- */

#define GPT2_CUT     "gpt2"
#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES       "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* Steps of a pre_tokenizer as add_cut writes them, and llama.cpp's name for them. */
static const struct {
    const char *cuts, *name;
    bool whole; /* a word that is a token is that token, merges or not */
} pre_tokenizers[] = {
    {GPT2_CUT, "gpt-2", false},
    {"\\p{N};" GPT2_CUT, "smollm", false},
    {CONTRACTIONS
     "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES ";",
     "llama-bpe", true},
    {CONTRACTIONS
     "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES ";",
     "dbrx", false},
    {CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES
                  ";",
     "qwen2", false},
};

/* Adds a step: its pattern and a semicolon. False: it is none that is written so. */
static bool add_cut(const json_t *step, char cuts[CUTS_MOST])
{
    const char *type = type_of(step), *text = "?";
    char semicolon = ';';
    if (strcmp(type, "Split") == 0) {
        const char *behavior = json_string_value(json_object_get(step, "behavior"));
        text = json_string_value(json_object_get(json_object_get(step, "pattern"), "Regex"));
        if (!text || !behavior || strcmp(behavior, "Isolated") != 0) {
            return false;
        }
    } else if (strcmp(type, "Digits") == 0) {
        text = json_is_true(json_object_get(step, "individual_digits")) ? "\\p{N}" : "\\p{N}+";
    } else if (strcmp(type, "ByteLevel") == 0) {
        const json_t *space = json_object_get(step, "add_prefix_space");
        text = json_is_false(json_object_get(step, "use_regex")) ? "" : GPT2_CUT;
        semicolon = '\0';
        if (!space || json_is_true(space)) {
            return false;
        }
    } else {
        return false;
    }
    size_t length = strlen(cuts);
    int added = snprintf(cuts + length, CUTS_MOST - length, "%s%c", text, semicolon);
    return added > 0 && (size_t)added < CUTS_MOST - length;
}

static bool join_cuts(const json_t *steps, char cuts[CUTS_MOST])
{
    const json_t *parts = json_object_get(steps, "pretokenizers");
    cuts[0] = '\0';
    if (!json_is_array(parts)) {
        return add_cut(steps, cuts);
    }
    for (size_t i = 0; i < json_array_size(parts); i++) {
        if (!add_cut(json_array_get(parts, i), cuts)) {
            return false;
        }
    }
    return true;
}

static const char *find_pre_tokenizer(const struct vocabulary *v)
{
    char cuts[CUTS_MOST];
    bool whole = json_is_true(json_object_get(json_object_get(v->root, "model"), "ignore_merges"));
    bool joined = join_cuts(json_object_get(v->root, "pre_tokenizer"), cuts);
    for (size_t i = 0; joined && i < sizeof(pre_tokenizers) / sizeof(*pre_tokenizers); i++) {
        if (strcmp(cuts, pre_tokenizers[i].cuts) == 0 && whole == pre_tokenizers[i].whole) {
            return pre_tokenizers[i].name;
        }
    }
    return NULL;
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static bool names_byte(const char *text)
{
    return strlen(text) == 6 && strncmp(text, "<0x", 3) == 0 && text[5] == '>';
}

static enum tri_status check_id(const struct vocabulary *v, const char *text, json_int_t id,
                                struct tri_error *error)
{
    return id < v->size ? TRI_OK
                        : tri_fail(error, TRI_BAD_INPUT,
                                   "%s: token '%.60s' has id %" JSON_INTEGER_FORMAT
                                   ", and the model has %" PRId64 " (model.vocab_size)",
                                   v->path, text, id, v->size);
}

static enum tri_status take_tokens(struct vocabulary *v, struct tri_error *error)
{
    json_t *model = json_object_get(v->root, "model");
    const char *unknown = json_string_value(json_object_get(model, "unk_token"));
    const json_t *added = json_object_get(v->root, "added_tokens");
    const char *text;
    json_t *id;
    v->token = tri_alloc(TRI_MEMORY_OTHER, (size_t)v->size * sizeof(*v->token));
    json_object_foreach(json_object_get(model, "vocab"), text, id)
    {
        TRI_TRY(check_id(v, text, json_integer_value(id), error));
        bool byte = !v->bytes && names_byte(text);
        v->token[json_integer_value(id)] =
            (struct token){.text = text,
                           .kind = byte                                    ? BYTE
                                   : unknown && strcmp(text, unknown) == 0 ? UNKNOWN
                                                                           : NORMAL};
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i);
        json_int_t at = json_integer_value(json_object_get(token, "id"));
        text = json_string_value(json_object_get(token, "content"));
        TRI_TRY(check_id(v, text, at, error));
        bool special = v->tokenizer->special && v->tokenizer->special[at];
        v->token[at].text = text;
        v->token[at].kind = v->token[at].kind == UNKNOWN ? UNKNOWN : special ? CONTROL : ADDED;
    }
    return TRI_OK;
}

static void put_tokens(const struct vocabulary *v, struct tri_gguf_header *header)
{
    tri_gguf_put_list(header, "tokenizer.ggml.tokens", TRI_GGUF_TEXT, (uint64_t)v->size);
    for (int64_t i = 0; i < v->size; i++) {
        char pad[32];
        (void)snprintf(pad, sizeof(pad), "[PAD%" PRId64 "]", i);
        const char *text = v->token[i].text ? v->token[i].text : pad;
        tri_gguf_add_text(header, text, strlen(text));
    }
    tri_gguf_put_list(header, "tokenizer.ggml.token_type", TRI_GGUF_I32, (uint64_t)v->size);
    for (int64_t i = 0; i < v->size; i++) {
        int32_t kind = v->token[i].text ? v->token[i].kind : UNUSED;
        tri_gguf_add_bytes(header, &kind, sizeof(kind));
    }
}

/* ---- merges ---------------------------------------------------------------------------------- */

/* The two halves of a merge with a space between them, for tri_free; NULL: it is none. */
static char *merge_text(const json_t *merge)
{
    const char *left = json_string_value(json_array_get(merge, 0));
    const char *right = json_string_value(json_array_get(merge, 1));
    if (json_is_string(merge)) {
        const char *text = json_string_value(merge);
        return strncmp(text, "#version", strlen("#version")) == 0 ? NULL : tri_strdup(text);
    }
    size_t room = strlen(left) + strlen(right) + 2;
    char *text = tri_alloc(TRI_MEMORY_OTHER, room);
    (void)snprintf(text, room, "%s %s", left, right);
    return text;
}

static void put_merges(const struct vocabulary *v, struct tri_gguf_header *header)
{
    const json_t *merges = json_object_get(json_object_get(v->root, "model"), "merges");
    size_t count = json_array_size(merges), written = 0;
    for (size_t i = 0; i < count; i++) {
        const char *line = json_string_value(json_array_get(merges, i));
        written += line && strncmp(line, "#version", strlen("#version")) == 0 ? 0 : 1;
    }
    tri_gguf_put_list(header, "tokenizer.ggml.merges", TRI_GGUF_TEXT, written);
    for (size_t i = 0; i < count; i++) {
        char *text = merge_text(json_array_get(merges, i));
        if (text) {
            tri_gguf_add_text(header, text, strlen(text));
        }
        tri_free(text);
    }
}

/* The earlier a token is merged, the higher its score; llama.cpp merges what has the highest. */
static void put_scores(struct vocabulary *v, struct tri_gguf_header *header)
{
    const json_t *model = json_object_get(v->root, "model");
    const json_t *merges = json_object_get(model, "merges"),
                 *vocab = json_object_get(model, "vocab");
    size_t count = json_array_size(merges);
    for (int64_t i = 0; i < v->size; i++) {
        v->token[i].score = -(float)count - 1.0F;
    }
    for (size_t i = count; i-- > 0;) {
        char *text = merge_text(json_array_get(merges, i));
        char *space = text ? strchr(text, ' ') : NULL;
        if (space) {
            memmove(space, space + 1, strlen(space));
            const json_t *id = json_object_get(vocab, text);
            v->token[id ? json_integer_value(id) : 0].score = -(float)i - 1.0F;
        }
        tri_free(text);
    }
    tri_gguf_put_list(header, "tokenizer.ggml.scores", TRI_GGUF_F32, (uint64_t)v->size);
    for (int64_t i = 0; i < v->size; i++) {
        tri_gguf_add_bytes(header, &v->token[i].score, sizeof(v->token[i].score));
    }
}

/* Whether a text gets a space in front: of the first step that could say so. */
static bool has_prefix(const struct vocabulary *v)
{
    const json_t *normalizer = json_object_get(v->root, "normalizer");
    const json_t *step = json_object_get(v->root, "pre_tokenizer");
    const json_t *parts = json_object_get(normalizer, "normalizers");
    const char *scheme = json_string_value(json_object_get(step, "prepend_scheme"));
    bool prepends = strcmp(type_of(normalizer), "Prepend") == 0;
    for (size_t i = 0; i < json_array_size(parts); i++) {
        prepends = prepends || strcmp(type_of(json_array_get(parts, i)), "Prepend") == 0;
    }
    bool spaces = strcmp(type_of(step), "Metaspace") == 0;
    return prepends ||
           (spaces && (scheme ? strcmp(scheme, "never") != 0
                              : !json_is_false(json_object_get(step, "add_prefix_space"))));
}

/* ---- what stands beside it ------------------------------------------------------------------- */

static void put_id(struct tri_gguf_header *header, const char *key, int64_t id)
{
    if (id >= 0) {
        tri_gguf_put_u32(header, key, (uint32_t)id);
    }
}

/* A token that tokenizer_config.json names; -1: it names none. */
static int32_t named(const struct vocabulary *v, const char *key)
{
    const json_t *value = json_object_get(v->config, key);
    const char *text = json_string_value(value);
    text = text ? text : json_string_value(json_object_get(value, "content"));
    return text ? tri_tokenizer_find_special(v->tokenizer, text) : -1;
}

static enum tri_status put_specials(const struct vocabulary *v, struct tri_gguf_header *header,
                                    struct tri_error *error)
{
    int32_t stop[TRI_STOPS];
    int count = 0;
    bool begins = v->tokenizer->num_begin > 0;
    TRI_TRY(tri_tokenizer_read_stops(v->folder, v->tokenizer, stop, &count, error));
    put_id(header, "tokenizer.ggml.bos_token_id",
           begins ? v->tokenizer->begin[0] : named(v, "bos_token"));
    put_id(header, "tokenizer.ggml.eos_token_id", count > 0 ? stop[0] : named(v, "eos_token"));
    put_id(header, "tokenizer.ggml.eot_token_id", count > 1 ? stop[count - 1] : -1);
    put_id(header, "tokenizer.ggml.unknown_token_id", named(v, "unk_token"));
    put_id(header, "tokenizer.ggml.padding_token_id", named(v, "pad_token"));
    tri_gguf_put_bool(header, "tokenizer.ggml.add_bos_token", begins);
    tri_gguf_put_bool(header, "tokenizer.ggml.add_eos_token", false);
    return TRI_OK;
}

/* Of several templates the one by the name of default, or the first. */
static const char *config_template(const json_t *config)
{
    const json_t *value = json_object_get(config, "chat_template");
    const char *found = json_string_value(value);
    for (size_t i = 0; i < json_array_size(value); i++) {
        const json_t *one = json_array_get(value, i);
        const char *name = json_string_value(json_object_get(one, "name"));
        const char *text = json_string_value(json_object_get(one, "template"));
        if (text && (!found || (name && strcmp(name, "default") == 0))) {
            found = text;
        }
    }
    return found;
}

static enum tri_status put_template(const struct vocabulary *v, struct tri_gguf_header *header,
                                    struct tri_error *error)
{
    static const char key[] = "tokenizer.chat_template";
    char path[PATH_BYTES + 32];
    const char *text = config_template(v->config);
    tri_path_make(path, sizeof(path), "%s/chat_template.jinja", v->folder);
    if (tri_file_exists(path)) {
        struct tri_mapping file;
        TRI_TRY(tri_file_read(path, TEMPLATE_MOST, &file, error));
        char *copy = tri_alloc(TRI_MEMORY_OTHER, file.size + 1);
        memcpy(copy, file.data, file.size);
        tri_gguf_put_text(header, key, copy);
        tri_free(copy);
        tri_file_unmap(&file);
    } else if (text) {
        tri_gguf_put_text(header, key, text);
    }
    return TRI_OK;
}

/* ---- all ------------------------------------------------------------------------------------- */

static enum tri_status put_bytes(struct vocabulary *v, struct tri_gguf_header *header,
                                 struct tri_error *error)
{
    const char *name = find_pre_tokenizer(v);
    if (!name) {
        return refuse(v, "cuts words by this pre_tokenizer and ignore_merges", error);
    }
    tri_gguf_put_text(header, "tokenizer.ggml.model", "gpt2");
    tri_gguf_put_text(header, "tokenizer.ggml.pre", name);
    put_tokens(v, header);
    put_merges(v, header);
    return TRI_OK;
}

static enum tri_status put_characters(struct vocabulary *v, struct tri_gguf_header *header,
                                      struct tri_error *error)
{
    if (!json_is_true(json_object_get(json_object_get(v->root, "model"), "byte_fallback"))) {
        return refuse(v, "is made of characters without byte_fallback", error);
    }
    tri_gguf_put_text(header, "tokenizer.ggml.model", "llama");
    tri_gguf_put_text(header, "tokenizer.ggml.pre", "default");
    put_tokens(v, header);
    put_scores(v, header);
    tri_gguf_put_bool(header, "tokenizer.ggml.add_space_prefix", has_prefix(v));
    return TRI_OK;
}

static enum tri_status put_all(struct vocabulary *v, struct tri_gguf_header *header,
                               struct tri_error *error)
{
    char path[PATH_BYTES + 32];
    TRI_TRY(tri_path_format(v->path, sizeof(v->path), error, "%s/tokenizer.json", v->folder));
    TRI_TRY(tri_tokenizer_create(v->path, &v->tokenizer, error));
    TRI_TRY(tri_json_load(v->path, &v->root, error));
    tri_path_make(path, sizeof(path), "%s/tokenizer_config.json", v->folder);
    if (tri_file_exists(path)) {
        TRI_TRY(tri_json_load(path, &v->config, error));
    }
    v->bytes = strcmp(type_of(json_object_get(v->root, "decoder")), "ByteLevel") == 0;
    TRI_TRY(take_tokens(v, error));
    TRI_TRY(v->bytes ? put_bytes(v, header, error) : put_characters(v, header, error));
    TRI_TRY(put_specials(v, header, error));
    return put_template(v, header, error);
}

enum tri_status tri_gguf_put_tokenizer(struct tri_gguf_header *header, const char *folder,
                                       int64_t vocab_size, struct tri_error *error)
{
    struct vocabulary v = {.folder = folder, .size = vocab_size};
    enum tri_status status = put_all(&v, header, error);
    tri_free(v.token);
    json_decref(v.config);
    json_decref(v.root);
    tri_tokenizer_destroy(v.tokenizer);
    return status;
}
