#include "base/memory.h"
#include "data/bpe_file.h"
#include "data/utf8.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ID_MOST = 1 << 22 };

/* ---- ByteLevel's writing --------------------------------------------------------------------- */

/* Bytes that look like themselves; the others are U+0100 and on, in order. */
static bool is_plain(int byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

static int unmap_character(int32_t character)
{
    if (character < 256) {
        return is_plain(character) ? character : -1;
    }
    int32_t place = 256;
    for (int byte = 0; byte < 256; byte++) {
        if (!is_plain(byte) && place++ == character) {
            return byte;
        }
    }
    return -1;
}

bool tri_bpe_unmap(const char *text, size_t length, unsigned char *bytes, size_t *count)
{
    *count = 0;
    for (size_t at = 0; at < length;) {
        int32_t character;
        size_t step = tri_utf8_next((const unsigned char *)text + at, length - at, &character);
        int byte = step > 0 ? unmap_character(character) : -1;
        if (byte < 0) {
            return false;
        }
        bytes[(*count)++] = (unsigned char)byte;
        at += step;
    }
    return true;
}

void tri_bpe_map(struct tri_bytes_writing *writing)
{
    int other = 256;
    for (int byte = 0; byte < 256; byte++) {
        int character = is_plain(byte) ? byte : other++;
        char *text = writing->text[byte];
        text[0] = (char)(character < 0x80 ? character : 0xC0 | character >> 6);
        text[1] = (char)(character < 0x80 ? 0 : 0x80 | (character & 0x3F));
        text[2] = '\0';
    }
}

void tri_bpe_order(int32_t byte[256])
{
    int32_t next = 0;
    for (int plain = 1; plain >= 0; plain--) {
        for (int i = 0; i < 256; i++) {
            if (is_plain(i) == (plain != 0)) {
                byte[i] = next++;
            }
        }
    }
}

/* ---- vocab ----------------------------------------------------------------------------------- */

/* The vocabulary's and the added tokens' ids, and the bytes of their texts. */
struct extent {
    int64_t size;
    size_t bytes, longest;
};

static enum tri_status note_id(const struct tri_bpe_file *file, const char *key,
                               const json_t *found, size_t bytes, struct extent *extent,
                               struct tri_error *error)
{
    json_int_t id = json_integer_value(found);
    if (!json_is_integer(found) || id < 0 || id >= ID_MOST) {
        return tri_bpe_refuse(file, key, found, "expected an id from 0 to 4194303", error);
    }
    extent->size = id >= extent->size ? id + 1 : extent->size;
    extent->bytes += bytes;
    extent->longest = bytes > extent->longest ? bytes : extent->longest;
    return TRI_OK;
}

static enum tri_status measure(const struct tri_bpe_file *file, json_t *vocab, const json_t *added,
                               struct extent *extent, struct tri_error *error)
{
    const char *name;
    json_t *id;
    json_object_foreach(vocab, name, id)
    {
        TRI_TRY(note_id(file, "model.vocab", id, strlen(name), extent, error));
    }
    for (size_t i = 0; i < json_array_size(added); i++) {
        const json_t *token = json_array_get(added, i);
        const char *text = json_string_value(json_object_get(token, "content"));
        if (!text || !*text) {
            return tri_bpe_refuse(file, "added_tokens", token, "expected its content", error);
        }
        TRI_TRY(note_id(file, "added_tokens", json_object_get(token, "id"), 0, extent, error));
    }
    return TRI_OK;
}

static enum tri_status taken(const struct tri_bpe_file *file, const char *key, const char *text,
                             json_int_t id, struct tri_error *error)
{
    return tri_fail(error, TRI_BAD_INPUT,
                    "%s: %s: '%.60s': id %" JSON_INTEGER_FORMAT " is another token's already",
                    file->path, key, text, id);
}

/* <0x00> to <0xFF>; -1: none of them. */
static int byte_of_name(const char *name)
{
    static const char digits[] = "0123456789ABCDEF";
    if (strlen(name) != 6 || strncmp(name, "<0x", 3) != 0 || name[5] != '>') {
        return -1;
    }
    const char *high = strchr(digits, name[3]);
    const char *low = strchr(digits, name[4]);
    return high && low ? (int)(16 * (high - digits) + (low - digits)) : -1;
}

/* What a token in characters prints: a space for each block, the byte that it names. */
static size_t spell(const struct tri_bpe_file *file, const char *name, unsigned char *text)
{
    size_t bytes = 0;
    int byte = file->names_bytes ? byte_of_name(name) : -1;
    if (byte >= 0) {
        text[0] = (unsigned char)byte;
        return 1;
    }
    while (*name) {
        bool block = file->spaces && strncmp(name, "\xE2\x96\x81", 3) == 0;
        text[bytes++] = block ? ' ' : (unsigned char)*name;
        name += block ? 3 : 1;
    }
    return bytes;
}

/* What a word may be is the token's name in bytes, and what it prints may be another text. */
static enum tri_status set_tokens(struct tri_bpe_file *file, json_t *vocab, struct tri_error *error)
{
    struct tri_bpe *bpe = file->bpe;
    const char *name;
    json_t *value;
    unsigned char *bytes = NULL;
    size_t room = 0;
    enum tri_status status = TRI_OK;
    json_object_foreach(vocab, name, value)
    {
        const unsigned char *other;
        int32_t id = (int32_t)json_integer_value(value);
        size_t length = strlen(name);
        size_t count;
        (void)tri_grow(TRI_MEMORY_OTHER, (void **)&bytes, &room, length + 1);
        if (tri_vocabulary_text(bpe->vocabulary, id, &other) > 0 || length == 0) {
            status = length == 0 ? tri_bpe_refuse(file, "model.vocab", value,
                                                  "expected no token without a text", error)
                                 : taken(file, "model.vocab", name, id, error);
            break;
        }
        bool mapped = file->bytes && tri_bpe_unmap(name, length, bytes, &count);
        tri_vocabulary_set(bpe->vocabulary, id, mapped ? (const void *)bytes : name,
                           mapped ? count : length, mapped || !file->bytes);
        if (bpe->printed) {
            tri_vocabulary_set(bpe->printed, id, bytes, spell(file, name, bytes), false);
        }
    }
    tri_free(bytes);
    return status;
}

static enum tri_status set_bytes(struct tri_bpe_file *file, json_t *vocab, bool fallback,
                                 struct tri_error *error)
{
    struct tri_bpe *bpe = file->bpe;
    for (int i = 0; i < 256; i++) {
        char name[8];
        unsigned char byte = (unsigned char)i;
        (void)snprintf(name, sizeof(name), "<0x%02X>", (unsigned)i);
        const json_t *id = json_object_get(vocab, name);
        bpe->rules.byte[i] = file->bytes      ? tri_vocabulary_find(bpe->vocabulary, &byte, 1)
                             : id && fallback ? (int32_t)json_integer_value(id)
                                              : -1;
        if (bpe->rules.byte[i] < 0 && (file->bytes || fallback)) {
            return tri_fail(error, TRI_BAD_INPUT, "%s: model.vocab: no token for byte 0x%02X",
                            file->path, (unsigned)i);
        }
    }
    return TRI_OK;
}

/* ---- merges ---------------------------------------------------------------------------------- */

/* The two names of a merge in text, with a zero between them. */
static bool split_merge(const json_t *merge, char *text, size_t room, const char **right)
{
    const char *left = json_string_value(merge);
    const char *second;
    size_t length;
    if (left) {
        length = strcspn(left, " ");
        second = left[length] ? left + length + 1 : "";
    } else {
        left = json_string_value(json_array_get(merge, 0));
        second = json_string_value(json_array_get(merge, 1));
        if (!left || !second || json_array_size(merge) != 2) {
            return false;
        }
        length = strlen(left);
    }
    size_t rest = strlen(second);
    if (length == 0 || rest == 0 || length + rest + 2 > room ||
        (json_is_string(merge) && strchr(second, ' '))) {
        return false;
    }
    memcpy(text, left, length);
    text[length] = '\0';
    memcpy(text + length + 1, second, rest + 1);
    *right = text + length + 1;
    return true;
}

static bool has_inner_block(const char *name)
{
    const char *block = "\xE2\x96\x81";
    while (strncmp(name, block, 3) == 0) {
        name += 3;
    }
    return strstr(name, block) != NULL;
}

/* text[room] has place for what split_merge makes of two tokens whose joined text is one. */
static enum tri_status set_merges(struct tri_bpe_file *file, const json_t *vocab,
                                  const json_t *merges, char *text, size_t room,
                                  struct tri_error *error)
{
    static const char version[] = "#version";
    int32_t rank = 0;
    file->bpe->spaces_begin_words = true;
    for (size_t i = 0; i < json_array_size(merges); i++) {
        const json_t *merge = json_array_get(merges, i);
        const char *line = json_string_value(merge);
        const char *right;
        if (line && strncmp(line, version, sizeof(version) - 1) == 0) {
            continue;
        }
        if (!split_merge(merge, text, room, &right)) {
            return tri_bpe_refuse(file, "model.merges", merge, "expected two tokens", error);
        }
        const json_t *a = json_object_get(vocab, text);
        const json_t *b = json_object_get(vocab, right);
        size_t length = strlen(text);
        memmove(text + length, right, strlen(right) + 1);
        const json_t *both = json_object_get(vocab, text);
        if (!a || !b || !both) {
            return tri_bpe_refuse(file, "model.merges", merge,
                                  "expected two tokens of the vocabulary whose joined text is one",
                                  error);
        }
        file->bpe->spaces_begin_words = file->bpe->spaces_begin_words && !has_inner_block(text);
        tri_vocabulary_merge(file->bpe->vocabulary, (int32_t)json_integer_value(a),
                             (int32_t)json_integer_value(b), rank++,
                             (int32_t)json_integer_value(both));
    }
    return TRI_OK;
}

/* ---- added tokens ---------------------------------------------------------------------------- */

/* Files that were written by hand forget the flag of what nobody writes in a text. */
static bool looks_special(const char *text)
{
    size_t bytes = strlen(text);
    return bytes > 4 && strncmp(text, "<|", 2) == 0 && strcmp(text + bytes - 2, "|>") == 0;
}

static enum tri_status read_added(struct tri_bpe_file *file, const json_t *vocab,
                                  const json_t *object, struct tri_added_token *token,
                                  bool *normalized, struct tri_error *error)
{
    static const char key[] = "added_tokens";
    struct tri_bpe *bpe = file->bpe;
    const char *text = json_string_value(json_object_get(object, "content"));
    const json_t *own = json_object_get(vocab, text);
    json_int_t id = json_integer_value(json_object_get(object, "id"));
    const unsigned char *other;
    TRI_TRY(tri_bpe_get_flag(file, key, object, "special", false, &token->special, error));
    TRI_TRY(tri_bpe_get_flag(file, key, object, "normalized", !token->special, normalized, error));
    TRI_TRY(tri_bpe_get_flag(file, key, object, "lstrip", false, &token->lstrip, error));
    TRI_TRY(tri_bpe_get_flag(file, key, object, "rstrip", false, &token->rstrip, error));
    TRI_TRY(tri_bpe_get_flag(file, key, object, "single_word", false, &token->single_word, error));
    if (own && json_integer_value(own) != id) {
        return tri_bpe_refuse(file, key, object, "expected the id that model.vocab has for it",
                              error);
    }
    if (!own && tri_vocabulary_text(bpe->vocabulary, (int32_t)id, &other) > 0) {
        return taken(file, key, text, id, error);
    }
    token->id = (int32_t)id;
    token->special = token->special || looks_special(text);
    token->bytes = strlen(text);
    token->text = tri_strdup(text);
    return TRI_OK;
}

/* As the text will be where it is looked for. */
static enum tri_status normalize_token(const struct tri_bpe_file *file,
                                       struct tri_added_token *token, struct tri_error *error)
{
    struct tri_normal_scratch scratch = {0};
    const unsigned char *normal;
    size_t bytes = token->bytes;
    if (!tri_normalize(&file->bpe->normalizer, &scratch, (const unsigned char *)token->text, &bytes,
                       TRI_NORMAL_SPARE_TOKEN, true, &normal)) {
        tri_normal_scratch_fini(&scratch);
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: added_tokens: the normalizer makes more than %d times the bytes of "
                        "token %d",
                        file->path, TRI_NORMAL_TIMES, (int)token->id);
    }
    char *copy = tri_alloc(TRI_MEMORY_OTHER, bytes + 1);
    memcpy(copy, normal, bytes);
    tri_free(token->text);
    token->text = copy;
    token->bytes = bytes;
    tri_normal_scratch_fini(&scratch);
    return bytes > 0 ? TRI_OK
                     : tri_fail(error, TRI_BAD_INPUT,
                                "%s: added_tokens: nothing is left of token %d when it is "
                                "normalized",
                                file->path, (int)token->id);
}

/* One that the vocabulary lacks prints what is looked for. */
static void set_text(struct tri_bpe_file *file, const struct tri_added_token *token)
{
    struct tri_bpe *bpe = file->bpe;
    const unsigned char *other;
    if (tri_vocabulary_text(bpe->vocabulary, token->id, &other) > 0) {
        return;
    }
    tri_vocabulary_set(bpe->vocabulary, token->id, token->text, token->bytes, false);
    if (bpe->printed) {
        unsigned char *text = tri_alloc(TRI_MEMORY_OTHER, token->bytes + 1);
        tri_vocabulary_set(bpe->printed, token->id, text, spell(file, token->text, text), false);
        tri_free(text);
    }
}

static enum tri_status make_added(const struct tri_bpe_file *file, struct tri_added_token *token,
                                  size_t count, struct tri_added **added, struct tri_error *error)
{
    *added = tri_added_create(token, count);
    const char *twin = tri_added_find_twin(*added);
    return !twin ? TRI_OK
                 : tri_fail(error, TRI_BAD_INPUT, "%s: added_tokens: '%.60s' is there twice",
                            file->path, twin);
}

static enum tri_status set_added(struct tri_bpe_file *file, const json_t *vocab, const json_t *list,
                                 struct tri_error *error)
{
    enum tri_status status = TRI_OK;
    size_t count[2] = {0};
    struct tri_added_token *token[2];
    for (int i = 0; i < 2; i++) {
        token[i] = tri_alloc(TRI_MEMORY_OTHER, json_array_size(list) * sizeof(**token));
    }
    for (size_t i = 0; i < json_array_size(list) && status == TRI_OK; i++) {
        bool normalized;
        struct tri_added_token one = {0};
        status = read_added(file, vocab, json_array_get(list, i), &one, &normalized, error);
        if (status == TRI_OK && normalized) {
            status = normalize_token(file, &one, error);
        }
        if (status == TRI_OK) {
            set_text(file, &one);
            file->bpe->special[one.id] = one.special;
            token[normalized][count[normalized]++] = one;
        } else {
            tri_free(one.text);
        }
    }
    enum tri_status raw =
        make_added(file, token[0], count[0], &file->bpe->raw, status == TRI_OK ? error : NULL);
    status = status == TRI_OK ? raw : status;
    enum tri_status normal =
        make_added(file, token[1], count[1], &file->bpe->normal, status == TRI_OK ? error : NULL);
    return status == TRI_OK ? normal : status;
}

/* ---- the model ------------------------------------------------------------------------------- */

static enum tri_status read_options(struct tri_bpe_file *file, const json_t *model, bool *fallback,
                                    struct tri_error *error)
{
    static const char *const unsupported[] = {"dropout", "continuing_subword_prefix",
                                              "end_of_word_suffix"};
    struct tri_word_rules *rules = &file->bpe->rules;
    for (size_t i = 0; i < sizeof(unsupported) / sizeof(*unsupported); i++) {
        const json_t *value = json_object_get(model, unsupported[i]);
        const char *text = json_string_value(value);
        bool none = !value || json_is_null(value) || (text && !*text) ||
                    (json_is_number(value) && json_number_value(value) == 0.0);
        if (!none) {
            char key[64];
            (void)snprintf(key, sizeof(key), "model.%s", unsupported[i]);
            return tri_bpe_refuse(file, key, value, "not supported, expected null", error);
        }
    }
    rules->characters = !file->bytes;
    rules->most = TRI_WORD_MOST;
    TRI_TRY(tri_bpe_get_flag(file, "model", model, "ignore_merges", false, &rules->whole, error));
    TRI_TRY(tri_bpe_get_flag(file, "model", model, "fuse_unk", false, &rules->fuse_unknown, error));
    return tri_bpe_get_flag(file, "model", model, "byte_fallback", false, fallback, error);
}

static enum tri_status set_unknown(struct tri_bpe_file *file, const json_t *model,
                                   const json_t *vocab, struct tri_error *error)
{
    const json_t *unknown = json_object_get(model, "unk_token");
    file->bpe->rules.unknown = -1;
    if (file->bytes || !unknown || json_is_null(unknown)) {
        return TRI_OK;
    }
    const json_t *id =
        json_is_string(unknown) ? json_object_get(vocab, json_string_value(unknown)) : NULL;
    if (!id) {
        return tri_bpe_refuse(file, "model.unk_token", unknown, "expected a token of model.vocab",
                              error);
    }
    file->bpe->rules.unknown = (int32_t)json_integer_value(id);
    return TRI_OK;
}

enum tri_status tri_bpe_read_model(struct tri_bpe_file *file, struct tri_error *error)
{
    struct tri_bpe *bpe = file->bpe;
    const json_t *model = json_object_get(file->root, "model");
    const json_t *added = json_object_get(file->root, "added_tokens");
    struct extent extent = {0};
    bool fallback = false;
    TRI_TRY(read_options(file, model, &fallback, error));
    json_t *vocab = json_object_get(model, "vocab");
    const json_t *merges = json_object_get(model, "merges");
    if (!json_is_object(vocab) || json_object_size(vocab) == 0) {
        return tri_bpe_refuse(file, "model.vocab", NULL, "expected an object of tokens", error);
    }
    if (!json_is_array(merges)) {
        return tri_bpe_refuse(file, "model.merges", NULL, "expected a list", error);
    }
    if (added && !json_is_null(added) && !json_is_array(added)) {
        return tri_bpe_refuse(file, "added_tokens", added, "expected a list", error);
    }
    TRI_TRY(measure(file, vocab, added, &extent, error));
    bpe->vocabulary =
        tri_vocabulary_create((int32_t)extent.size, extent.bytes, json_array_size(merges));
    if (!file->bytes) {
        bpe->printed = tri_vocabulary_create((int32_t)extent.size, extent.bytes, 0);
    }
    bpe->special = tri_alloc(TRI_MEMORY_OTHER, (size_t)extent.size);
    bpe->interface.special = bpe->special;
    TRI_TRY(set_tokens(file, vocab, error));
    TRI_TRY(set_bytes(file, vocab, fallback, error));
    TRI_TRY(set_unknown(file, model, vocab, error));
    char *text = tri_alloc(TRI_MEMORY_OTHER, extent.longest + 2);
    enum tri_status status = set_merges(file, vocab, merges, text, extent.longest + 2, error);
    tri_free(text);
    TRI_TRY(status);
    return set_added(file, vocab, added, error);
}
