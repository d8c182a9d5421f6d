/* Text to tokens and back, behind one small interface that every kind of tokenizer fills in. */
#ifndef TRIDENT_DATA_TOKENIZER_H
#define TRIDENT_DATA_TOKENIZER_H

#include "base/status.h"

#include <stddef.h>
#include <stdint.h>

/* Takes the next count tokens of a text; a failure stops the encoding and is forwarded. */
typedef enum tri_status (*tri_token_sink)(void *context, const int32_t *tokens, int64_t count,
                                          struct tri_error *error);

/* Where a text stands that is encoded by itself. */
struct tri_text_place {
    bool first; /* no token is before it */
    bool plain; /* the names of special tokens in it are text */
};

struct tri_tokenizer {
    const char *name;
    int64_t vocab_size; /* ids are below it; not all need be there */
    bool strips_space;  /* one at the beginning of a text that is decoded */
    /* Of each id, whether it is a special token, which is no text of a document; NULL: none is. */
    const unsigned char *special;
    int32_t begin[4]; /* what the file's template puts before a text */
    int num_begin;
    /* The whole text in order, through sink, a part at a time; sink is called on the caller's
     * thread. BAD_INPUT: a text that it cannot take. */
    enum tri_status (*encode)(const struct tri_tokenizer *tokenizer, const unsigned char *text,
                              size_t bytes, tri_token_sink sink, void *context,
                              struct tri_error *error);
    /* *text <- the bytes of one token, valid as long as the tokenizer; returns their number: 0 for
     * an id that it does not know, such as a separator. */
    size_t (*token_text)(const struct tri_tokenizer *tokenizer, int32_t token,
                         const unsigned char **text);
    /* The id of the added token that is this text; -1: none is. */
    int32_t (*find_special)(const struct tri_tokenizer *tokenizer, const char *name);
    /* What one thread needs that encodes many short texts; NULL: `encode` does, for it has no
     * special tokens. tri_text_encoder_… call them. */
    void *(*encoder_create)(const struct tri_tokenizer *tokenizer);
    void (*encoder_destroy)(void *encoder);
    enum tri_status (*encoder_encode)(void *encoder, const unsigned char *text, size_t bytes,
                                      struct tri_text_place place, tri_token_sink sink,
                                      void *context, struct tri_error *error);
    void (*destroy)(struct tri_tokenizer *tokenizer);
};

/* Whether ids of such a vocabulary are bytes: those, and at most one more, the separator. */
static inline bool tri_vocabulary_is_bytes(int64_t vocab_size)
{
    return vocab_size <= 257;
}

/* `byte`: a token is a byte, ids 0 to 255 and no more. Else the path of a tokenizer.json, or of a
 * folder that holds one. BAD_INPUT: it is not there, is damaged, or asks for what Trident does not
 * do. Local. */
enum tri_status tri_tokenizer_create(const char *name, struct tri_tokenizer **tokenizer,
                                     struct tri_error *error) TRI_NODISCARD;
void tri_tokenizer_destroy(struct tri_tokenizer *tokenizer);

/* The id of the token with this name, such as <|im_end|>; -1: there is none. `byte` has none, and
 * its texts spell them. */
int32_t tri_tokenizer_find_special(const struct tri_tokenizer *tokenizer, const char *name);
bool tri_tokenizer_has_specials(const struct tri_tokenizer *tokenizer);

/* Encodes many texts, all on the caller's thread; one for each thread. */
struct tri_text_encoder;
struct tri_text_encoder *tri_text_encoder_create(const struct tri_tokenizer *tokenizer);
/* Takes NULL. */
void tri_text_encoder_destroy(struct tri_text_encoder *encoder);
enum tri_status tri_text_encoder_encode(struct tri_text_encoder *encoder, const unsigned char *text,
                                        size_t bytes, struct tri_text_place place,
                                        tri_token_sink sink, void *context,
                                        struct tri_error *error) TRI_NODISCARD;

/* *tokens <- the *count tokens of a short text such as a prompt. tri_free it. */
enum tri_status tri_tokenizer_encode(const struct tri_tokenizer *tokenizer, const char *text,
                                     size_t bytes, int32_t **tokens, int64_t *count,
                                     struct tri_error *error) TRI_NODISCARD;

/* Writes at most room bytes of the text of tokens[count], without a zero at the end, and returns
 * the bytes that the whole text has. */
size_t tri_tokenizer_decode(const struct tri_tokenizer *tokenizer, const int32_t *tokens,
                            int64_t count, char *text, size_t room);

/* Text token by token, as it can be shown: a character of several bytes whole, when its last token
 * comes. Begin with {0}. */
struct tri_token_stream {
    unsigned char *text;
    size_t bytes, room; /* bytes of a character that has begun, at the end of shown */
    size_t shown;
    bool begun;
};
/* The bytes that can be shown now, valid until the next call; *bytes may be 0. */
const unsigned char *tri_token_stream_add(struct tri_token_stream *stream,
                                          const struct tri_tokenizer *tokenizer, int32_t token,
                                          size_t *bytes);
/* What is left of a character that never ended; then the stream is as it began. */
const unsigned char *tri_token_stream_end(struct tri_token_stream *stream, size_t *bytes);
void tri_token_stream_fini(struct tri_token_stream *stream);

#endif
