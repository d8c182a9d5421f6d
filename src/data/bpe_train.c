#include "data/bpe_train.h"

#include "base/file.h"
#include "base/json.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/meter.h"
#include "base/path.h"
#include "data/bpe_file.h"
#include "data/bpe_learn.h"
#include "data/string.h"
#include "data/utf8.h"
#include "data/vocabulary.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { HELD = 1 << 20 };
static const uint32_t WORDS_MOST = UINT32_MAX - 2;

static const char END[] = "<|endoftext|>";

struct tri_bpe_trainer {
    struct tri_pattern *pattern;
    struct tri_matcher *matcher;
    struct tri_string text; /* words, each once */
    size_t *end;
    int64_t *number;
    size_t count, end_room, number_room;
    uint32_t *slot; /* open addressing: word + 1 */
    size_t mask;
    struct tri_string held; /* of the document, not yet counted */
    size_t searched;        /* of what is held: there is no cut in it */
};

enum tri_status tri_bpe_trainer_create(struct tri_bpe_trainer **trainer, struct tri_error *error)
{
    struct tri_bpe_trainer *t = tri_alloc(TRI_MEMORY_OTHER, sizeof(*t));
    t->mask = (1 << 16) - 1;
    t->slot = tri_alloc(TRI_MEMORY_OTHER, (t->mask + 1) * sizeof(*t->slot));
    enum tri_status status =
        tri_pattern_create("tokenizer", tri_bpe_byte_level_pattern, &t->pattern, error);
    if (status != TRI_OK) {
        tri_bpe_trainer_destroy(t);
        return status;
    }
    t->matcher = tri_matcher_create(t->pattern);
    *trainer = t;
    return TRI_OK;
}

void tri_bpe_trainer_destroy(struct tri_bpe_trainer *trainer)
{
    if (trainer) {
        tri_matcher_destroy(trainer->matcher);
        tri_pattern_destroy(trainer->pattern);
        tri_string_fini(&trainer->text);
        tri_string_fini(&trainer->held);
        tri_free(trainer->end);
        tri_free(trainer->number);
        tri_free(trainer->slot);
        tri_free(trainer);
    }
}

/* ---- words ----------------------------------------------------------------------------------- */

static const char *word_of(const struct tri_bpe_trainer *t, size_t word, size_t *bytes)
{
    size_t begin = word == 0 ? 0 : t->end[word - 1];
    *bytes = t->end[word] - begin;
    return t->text.data + begin;
}

static uint32_t *find_slot(const struct tri_bpe_trainer *t, uint32_t *slot, size_t mask,
                           const void *text, size_t bytes)
{
    size_t at = (size_t)XXH3_64bits(text, bytes) & mask;
    for (; slot[at] != 0; at = (at + 1) & mask) {
        size_t length;
        const char *word = word_of(t, slot[at] - 1, &length);
        if (length == bytes && memcmp(word, text, bytes) == 0) {
            break;
        }
    }
    return &slot[at];
}

static void grow(struct tri_bpe_trainer *t)
{
    size_t size = 2 * (t->mask + 1);
    uint32_t *larger = tri_alloc(TRI_MEMORY_OTHER, size * sizeof(*larger));
    for (size_t w = 0; w < t->count; w++) {
        size_t bytes;
        const char *word = word_of(t, w, &bytes);
        *find_slot(t, larger, size - 1, word, bytes) = (uint32_t)w + 1;
    }
    tri_free(t->slot);
    t->slot = larger;
    t->mask = size - 1;
}

static enum tri_status count_word(struct tri_bpe_trainer *t, const unsigned char *text,
                                  size_t bytes, struct tri_error *error)
{
    if (bytes > TRI_WORD_MOST) {
        return tri_fail(error, TRI_BAD_INPUT, "found a word of %zu bytes, expected at most %d",
                        bytes, TRI_WORD_MOST);
    }
    uint32_t *slot = find_slot(t, t->slot, t->mask, text, bytes);
    if (*slot == 0) {
        void *end = t->end;
        void *number = t->number;
        if (t->count == WORDS_MOST) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "found more different words than are counted, expected at "
                            "most %" PRIu32,
                            WORDS_MOST);
        }
        tri_array_grow(&end, &t->end_room, sizeof(*t->end), t->count, 1);
        tri_array_grow(&number, &t->number_room, sizeof(*t->number), t->count, 1);
        t->end = end;
        t->number = number;
        tri_string_append(&t->text, text, bytes);
        t->end[t->count] = t->text.size;
        t->number[t->count] = 1;
        *slot = (uint32_t)++t->count;
        if (2 * t->count > t->mask) {
            grow(t);
        }
        return TRI_OK;
    }
    t->number[*slot - 1]++;
    return TRI_OK;
}

static enum tri_status count_words(struct tri_bpe_trainer *t, const unsigned char *text,
                                   size_t bytes, struct tri_error *error)
{
    for (size_t at = 0; at < bytes;) {
        size_t begin;
        size_t end;
        if (!tri_matcher_find(t->matcher, text, bytes, at, &begin, &end)) {
            return tri_fail(error, TRI_BAD_INPUT, "a text is too long to be cut into words");
        }
        if (begin > at) {
            TRI_TRY(count_word(t, text + at, begin - at, error));
        }
        if (end > begin) {
            TRI_TRY(count_word(t, text + begin, end - begin, error));
        }
        at = end;
    }
    return TRI_OK;
}

/* The words of the first bytes that are held; the rest stays. */
static enum tri_status count_held(struct tri_bpe_trainer *t, size_t bytes, struct tri_error *error)
{
    const unsigned char *text = (const unsigned char *)t->held.data;
    for (size_t at = 0; at < bytes;) {
        size_t run = tri_utf8_valid(text + at, bytes - at);
        TRI_TRY(count_words(t, text + at, run, error));
        at += run;
        run = tri_utf8_invalid(text + at, bytes - at);
        if (run > 0) {
            TRI_TRY(count_word(t, text + at, run, error));
        }
        at += run;
    }
    t->held.size -= bytes;
    if (t->held.size > 0) {
        memmove(t->held.data, t->held.data + bytes, t->held.size);
    }
    return TRI_OK;
}

/* Behind a letter and before a space or line feed, the last such place; 0: there is none. */
static size_t last_cut(const struct tri_bpe_trainer *t)
{
    const unsigned char *text = (const unsigned char *)t->held.data;
    for (size_t at = t->held.size; at-- > (t->searched > 0 ? t->searched : 1);) {
        int32_t c;
        if ((text[at] == ' ' || text[at] == '\n') && tri_utf8_last(text, at, &c) > 0 &&
            tri_is_letter(c)) {
            return at;
        }
    }
    return 0;
}

enum tri_status tri_bpe_trainer_add(struct tri_bpe_trainer *trainer, bool begins,
                                    const unsigned char *text, size_t bytes,
                                    struct tri_error *error)
{
    if (begins) {
        TRI_TRY(count_held(trainer, trainer->held.size, error));
        trainer->searched = 0;
    }
    tri_string_append(&trainer->held, text, bytes);
    if (trainer->held.size >= HELD && trainer->held.size % HELD < bytes) {
        TRI_TRY(count_held(trainer, last_cut(trainer), error));
        trainer->searched = trainer->held.size;
    }
    return TRI_OK;
}

/* ---- the file -------------------------------------------------------------------------------- */

/* A token's bytes in ByteLevel's writing. */
static json_t *write_token(const struct tri_bytes_writing *writing, const unsigned char *text,
                           size_t bytes)
{
    struct tri_string written = {0};
    for (size_t i = 0; i < bytes; i++) {
        const char *byte = writing->text[text[i]];
        tri_string_append(&written, byte, strlen(byte));
    }
    json_t *string = json_stringn(written.data, written.size);
    tri_string_fini(&written);
    TRI_REQUIRE(string);
    return string;
}

static json_t *write_model(const struct tri_merge_list *list, const int32_t byte[256])
{
    struct tri_bytes_writing writing;
    json_t **token = tri_alloc(TRI_MEMORY_OTHER, (size_t)list->tokens * sizeof(json_t *));
    struct tri_string *text = tri_alloc(TRI_MEMORY_OTHER, (size_t)list->tokens * sizeof(*text));
    json_t *vocab = json_object();
    json_t *merges = json_array();
    tri_bpe_map(&writing);
    for (int i = 0; i < 256; i++) {
        unsigned char one = (unsigned char)i;
        tri_string_append(&text[byte[i]], &one, 1);
    }
    for (size_t i = 0; i < list->count; i++) {
        const struct tri_learned_merge *merge = &list->merge[i];
        struct tri_string *result = &text[merge->result];
        if (result->size == 0) {
            tri_string_append(result, text[merge->left].data, text[merge->left].size);
            tri_string_append(result, text[merge->right].data, text[merge->right].size);
        }
    }
    for (int32_t id = 0; id < list->tokens; id++) {
        token[id] = write_token(&writing, (const unsigned char *)text[id].data, text[id].size);
        (void)json_object_set_new(vocab, json_string_value(token[id]), json_integer(id));
    }
    for (size_t i = 0; i < list->count; i++) {
        (void)json_array_append_new(
            merges, json_pack("[O O]", token[list->merge[i].left], token[list->merge[i].right]));
    }
    for (int32_t id = 0; id < list->tokens; id++) {
        json_decref(token[id]);
        tri_string_fini(&text[id]);
    }
    tri_free(token);
    tri_free(text);
    return json_pack("{ss sn sn sn sn sb sb sb so so}", "type", "BPE", "dropout", "unk_token",
                     "continuing_subword_prefix", "end_of_word_suffix", "fuse_unk", 0,
                     "byte_fallback", 0, "ignore_merges", 0, "vocab", vocab, "merges", merges);
}

static json_t *write_byte_level(void)
{
    return json_pack("{ss sb sb sb}", "type", "ByteLevel", "add_prefix_space", 0, "trim_offsets", 1,
                     "use_regex", 1);
}

static json_t *write_file(const struct tri_merge_list *list, const int32_t byte[256])
{
    json_t *end =
        json_pack("{si ss sb sb sb sb sb}", "id", (int)list->tokens, "content", END, "single_word",
                  0, "lstrip", 0, "rstrip", 0, "normalized", 0, "special", 1);
    return json_pack("{ss sn sn s[o] sn so sn so so}", "version", "1.0", "truncation", "padding",
                     "added_tokens", end, "normalizer", "pre_tokenizer", write_byte_level(),
                     "post_processor", "decoder", write_byte_level(), "model",
                     write_model(list, byte));
}

static enum tri_status save(const char *folder, const char *name, json_t *root,
                            struct tri_error *error)
{
    char *text = root ? json_dumps(root, JSON_INDENT(1)) : NULL;
    json_decref(root);
    TRI_REQUIRE(text);
    size_t room = strlen(folder) + strlen(name) + 2;
    char *path = tri_alloc(TRI_MEMORY_OTHER, room);
    tri_path_make(path, room, "%s/%s", folder, name);
    enum tri_status status = tri_file_save(path, text, strlen(text), error);
    tri_free(path);
    free(text);
    return status;
}

enum tri_status tri_bpe_trainer_finish(struct tri_bpe_trainer *trainer, int64_t size,
                                       const char *folder, struct tri_error *error)
{
    int32_t byte[256];
    struct tri_merge_list list;
    TRI_REQUIRE(size >= TRI_TRAIN_VOCAB_LEAST && size <= TRI_TRAIN_VOCAB_MOST);
    TRI_TRY(count_held(trainer, trainer->held.size, error));
    tri_bpe_order(byte);
    const struct tri_word_counts words = {(const unsigned char *)trainer->text.data, trainer->end,
                                          trainer->number, trainer->count};
    tri_meter_begin(TRI_METER_TOKENS, size - TRI_TRAIN_VOCAB_LEAST, "learning a vocabulary");
    tri_bpe_learn(&words, byte, (int32_t)size - 1, &list);
    tri_meter_end();
    if (list.tokens + 1 < size) {
        tri_log_warn("tokenize: the texts give %d tokens, of %" PRId64 " asked for",
                     (int)list.tokens + 1, size);
    }
    enum tri_status status = save(folder, "tokenizer.json", write_file(&list, byte), error);
    if (status == TRI_OK) {
        status = save(
            folder, "tokenizer_config.json",
            json_pack("{ss ss}", "tokenizer_class", "PreTrainedTokenizerFast", "eos_token", END),
            error);
    }
    tri_free(list.merge);
    return status;
}
