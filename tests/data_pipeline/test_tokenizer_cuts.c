/* Where a long text is cut for many cores, and what a word may be. */
#include "tokens.h"

#include "base/memory.h"
#include "data/bpe.h"

#include <jansson.h>
#include <string.h>

enum { LONG_BYTES = 3 << 20 };

/* Bits of text in an order that never comes again. */
static size_t write_mixture(char *text, uint64_t seed)
{
    static const char *const bits[] = {" the",
                                       "word",
                                       "\n\n  ",
                                       "  ",
                                       "\t",
                                       "1234",
                                       "'ll",
                                       "<|endoftext|>",
                                       " </think>  ",
                                       "\xff",
                                       "\xe4\xbd\xa0\xe5\xa5\xbd",
                                       " \xd0\xbc\xd0\xb8\xd1\x80",
                                       "e\xcc\x81",
                                       "\xf0\x9f\x98\x80",
                                       "{};",
                                       "A ",
                                       " \xe0\xa4\xa8\xe0\xa5\x8d",
                                       "q\n",
                                       "\r\n",
                                       "supercalifragilisticexpialidocious"};
    size_t bytes = 0;
    while (bytes < LONG_BYTES - 64) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        const char *bit = bits[(seed >> 33) % (sizeof(bits) / sizeof(*bits))];
        memcpy(text + bytes, bit, strlen(bit));
        bytes += strlen(bit);
    }
    return bytes;
}

/* One call works on many parts at once, and one thread on the text as a whole. */
static void expect_cuts_unseen(struct tri_tokenizer *tokenizer, const char *text, size_t bytes)
{
    struct tri_bpe *bpe = (struct tri_bpe *)(void *)tokenizer;
    assert_true(bpe->cuts);
    int32_t *many;
    int32_t *one;
    bpe->threads = 3;
    int64_t count = tokens_encode(tokenizer, text, bytes, &many);
    bpe->threads = 1;
    bpe->cuts = false;
    assert_int_equal(tokens_encode(tokenizer, text, bytes, &one), count);
    assert_memory_equal(one, many, (size_t)count * sizeof(*one));
    tri_free(one);
    tri_free(many);
    tri_tokenizer_destroy(tokenizer);
}

static void many_cores_give_what_one_gives(void **state)
{
    (void)state;
    char *text = tri_alloc(TRI_MEMORY_OTHER, LONG_BYTES);
    size_t bytes = write_mixture(text, 7);
    for (size_t n = 0; n < TOKENS_KINDS; n++) {
        expect_cuts_unseen(tokens_load_recorded(tokens_names[n]), text, bytes);
    }
    tri_free(text);
}

/* Pieces get a space in front, of which a cut may be one or none. */
static void cuts_get_no_space_in_front(void **state)
{
    (void)state;
    static const char *const steps[] = {
        "[]", "[{\"type\": \"Digits\", \"individual_digits\": true}]",
        "[{\"type\": \"Split\", \"pattern\": {\"Regex\": \"'s|'t|'re|'ve|'m|'ll|'d| ?\\\\p{L}+| "
        "?\\\\p{N}+| ?[^\\\\s\\\\p{L}\\\\p{N}]+|\\\\s+(?!\\\\S)|\\\\s+\"}, \"behavior\": "
        "\"Isolated\", \"invert\": false}]",
        "[{\"type\": \"Split\", \"pattern\": {\"Regex\": \"[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?"
        "[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+"
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\\\\r\\\\n\\\\p{L}\\\\p{N}]?"
        "[\\\\p{Lu}\\\\p{Lt}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]+[\\\\p{Ll}\\\\p{Lm}\\\\p{Lo}\\\\p{M}]*"
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\\\\p{N}{1,3}| ?[^\\\\s\\\\p{L}\\\\p{N}]+[\\\\r\\\\n/]*|"
        "\\\\s*[\\\\r\\\\n]+|\\\\s+(?!\\\\S)|\\\\s+\"}, \"behavior\": \"Isolated\", \"invert\": "
        "false}]"};
    char *text = tri_alloc(TRI_MEMORY_OTHER, LONG_BYTES);
    size_t bytes = write_mixture(text, 9);
    for (size_t i = 0; i < sizeof(steps) / sizeof(*steps); i++) {
        json_t *root =
            json_load_file(TESTDATA_DIR "/golden/tokenizers/gpt2/tokenizer.json", 0, NULL);
        json_t *parts = json_loads(steps[i], 0, NULL);
        assert_non_null(root);
        assert_non_null(parts);
        json_array_append_new(parts,
                              json_pack("{ss sb sb sb}", "type", "ByteLevel", "add_prefix_space", 1,
                                        "trim_offsets", 1, "use_regex", i < 2));
        json_object_set_new(root, "pre_tokenizer",
                            json_pack("{ss so}", "type", "Sequence", "pretokenizers", parts));
        files_enter("tokenizer_spaces");
        assert_int_equal(json_dump_file(root, "tokenizer.json", 0), 0);
        json_decref(root);
        expect_cuts_unseen(tokens_load("tokenizer.json"), text, bytes);
    }
    tri_free(text);
}

/* A token that ends in a letter, has a space behind one, or takes what is around it. */
static void cuts_are_not_where_tokens_are(void **state)
{
    (void)state;
    static const char *const added[] = {"word",    "the", "d t",    "l",          "\xe4\xbd\xa0",
                                        "q\nword", " qu", "aptain", "ilisticexpi"};
    char *text = tri_alloc(TRI_MEMORY_OTHER, LONG_BYTES);
    size_t bytes = write_mixture(text, 11);
    for (int kind = 0; kind < 4; kind++) {
        json_t *root =
            json_load_file(TESTDATA_DIR "/golden/tokenizers/gpt2/tokenizer.json", 0, NULL);
        json_t *list = json_object_get(root, "added_tokens");
        json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
        assert_non_null(vocab);
        for (int i = 0; i < (int)(sizeof(added) / sizeof(*added)); i++) {
            int id = (int)json_object_size(vocab) + 100 + i;
            json_t *own = json_object_get(vocab, added[i]);
            id = own ? (int)json_integer_value(own) : id;
            json_array_append_new(list, json_pack("{si ss sb sb sb sb sb}", "id", id, "content",
                                                  added[i], "single_word", kind == 1 || i == 6,
                                                  "lstrip", kind == 2, "rstrip", kind == 3,
                                                  "normalized", i % 2, "special", 0));
        }
        files_enter("tokenizer_added");
        assert_int_equal(json_dump_file(root, "tokenizer.json", 0), 0);
        json_decref(root);
        expect_cuts_unseen(tokens_load("tokenizer.json"), text, bytes);
    }
    tri_free(text);
}

/* ---- long words ------------------------------------------------------------------------------ */

static enum tri_status drop(void *context, const int32_t *tokens, int64_t count,
                            struct tri_error *error)
{
    (void)context;
    (void)tokens;
    (void)count;
    (void)error;
    return TRI_OK;
}

static void expect_long_word(struct tri_tokenizer *tokenizer, const char *text, size_t bytes)
{
    struct tri_bpe *bpe = (struct tri_bpe *)(void *)tokenizer;
    for (int threads = 1; threads <= 3; threads += 2) {
        struct tri_error error = {0};
        bpe->threads = threads;
        assert_int_equal(
            tokenizer->encode(tokenizer, (const unsigned char *)text, bytes, drop, NULL, &error),
            TRI_BAD_INPUT);
        files_expect_line(&error, "word of more than 1000 bytes", "expected at most that", NULL);
    }
    struct tri_error error = {0};
    struct tri_text_encoder *encoder = tri_text_encoder_create(tokenizer);
    const struct tri_text_place place = {.first = true};
    assert_int_equal(tri_text_encoder_encode(encoder, (const unsigned char *)text, bytes, place,
                                             drop, NULL, &error),
                     TRI_BAD_INPUT);
    files_expect_line(&error, "word of more than 1000 bytes", NULL);
    tri_text_encoder_destroy(encoder);
}

/* The limit is two gigabytes: places in a word are int32. */
static void a_word_has_a_most(void **state)
{
    (void)state;
    enum { BYTES = 1 << 20, AT = 700000 };
    static const char *const kinds[] = {"gpt2", "llama2", "mixtral"};
    char *text = tri_alloc(TRI_MEMORY_OTHER, BYTES);
    for (size_t n = 0; n < sizeof(kinds) / sizeof(*kinds); n++) {
        struct tri_tokenizer *tokenizer = tokens_load_recorded(kinds[n]);
        struct tri_bpe *bpe = (struct tri_bpe *)(void *)tokenizer;
        assert_int_equal(bpe->rules.most, TRI_WORD_MOST);
        bpe->rules.most = 1000;
        for (size_t i = 0; i < BYTES; i++) {
            text[i] = i % 100 == 99 ? ' ' : 'a';
        }
        int32_t *tokens;
        (void)tokens_encode(tokenizer, text, BYTES, &tokens);
        tri_free(tokens);
        memset(text + AT, 'a', 1000);
        expect_long_word(tokenizer, text, BYTES);
        for (size_t i = AT; i < AT + 1000; i++) {
            text[i] = i % 100 == 99 ? ' ' : 'a';
        }
        memset(text + AT, '\xff', 1001);
        expect_long_word(tokenizer, text, BYTES);
        tri_tokenizer_destroy(tokenizer);
    }
    tri_free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_cores_give_what_one_gives),
        cmocka_unit_test(cuts_get_no_space_in_front),
        cmocka_unit_test(cuts_are_not_where_tokens_are),
        cmocka_unit_test(a_word_has_a_most),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
