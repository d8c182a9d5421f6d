#include "data/encode.h"

#include "base/memory.h"

#include <stdio.h>
#include <string.h>

static enum tri_status append(void *context, const int32_t *tokens, int64_t count,
                              struct tri_error *error)
{
    (void)error;
    struct tri_encoded *encoded = context;
    void *block = encoded->tokens, *counts = encoded->counts;
    tri_array_grow(&block, &encoded->tokens_room, sizeof(*tokens), encoded->size, (size_t)count);
    tri_array_grow(&counts, &encoded->counts_room, 1, encoded->size, (size_t)count);
    encoded->tokens = block;
    encoded->counts = counts;
    memcpy(encoded->tokens + encoded->size, tokens, (size_t)count * sizeof(*tokens));
    encoded->size += (size_t)count;
    return TRI_OK;
}

void tri_encoded_fini(struct tri_encoded *encoded)
{
    if (encoded->scratch) {
        tri_encoded_fini(encoded->scratch);
        tri_free(encoded->scratch);
    }
    tri_free(encoded->tokens);
    tri_free(encoded->counts);
    *encoded = (struct tri_encoded){0};
}

/* What is encoded how. */
struct encoding {
    const struct tri_pieces *pieces;
    struct tri_text_encoder *encoder;
    bool plain;
    size_t start; /* of the document in encoded */
};

static enum tri_status encode_text(const struct encoding *encoding, const char *text, size_t bytes,
                                   bool first, struct tri_encoded *encoded, struct tri_error *error)
{
    const struct tri_text_place place = {first, encoding->plain};
    return tri_text_encoder_encode(encoding->encoder, (const unsigned char *)text, bytes, place,
                                   append, encoded, error);
}

/* The tokens of text[bytes] that those of its first `head` bytes begin with too. */
static enum tri_status count_common(const struct encoding *encoding, const char *text, size_t head,
                                    bool first, const int32_t *tokens, size_t count,
                                    struct tri_encoded *scratch, size_t *common,
                                    struct tri_error *error)
{
    scratch->size = 0;
    TRI_TRY(encode_text(encoding, text, head, first, scratch, error));
    *common = 0;
    while (*common < count && *common < scratch->size &&
           tokens[*common] == scratch->tokens[*common]) {
        ++*common;
    }
    return TRI_OK;
}

/* Pieces of text without a special token between them. */
struct run {
    const struct tri_chat_piece *pieces;
    size_t num_pieces;
    const char *text;
    size_t bytes;
    bool first;    /* in its document */
    size_t tokens; /* where they begin in encoded */
};

/* Marks what counts by the bytes that each token has. false: the tokens' texts are not the text but
 * for `added` spaces before it, as normalisers leave it. */
static bool mark_by_bytes(const struct run *run, const struct tri_tokenizer *tokenizer,
                          size_t added, struct tri_encoded *encoded)
{
    size_t at = 0, piece = 0;
    for (size_t i = run->tokens; i < encoded->size; i++) {
        const unsigned char *part;
        size_t length = tokenizer->token_text(tokenizer, encoded->tokens[i], &part);
        if (added > 0 && length > 0) {
            if (part[0] != ' ') {
                return false;
            }
            part++;
            length--;
            added = 0;
        }
        if (length > run->bytes - at || (length > 0 && memcmp(run->text + at, part, length) != 0)) {
            return false;
        }
        while (piece + 1 < run->num_pieces && run->pieces[piece + 1].at - run->pieces[0].at <= at) {
            piece++;
        }
        bool counts = run->pieces[piece].counts;
        for (size_t j = piece + 1;
             j < run->num_pieces && run->pieces[j].at - run->pieces[0].at < at + length; j++) {
            counts = counts || run->pieces[j].counts;
        }
        encoded->counts[i] = counts;
        at += length;
    }
    return at == run->bytes;
}

/* The same of any tokens: those that a piece and what is before it have alone too are not the next
 * piece's. */
static enum tri_status mark_by_encoding(const struct run *run, const struct encoding *encoding,
                                        struct tri_encoded *encoded, struct tri_error *error)
{
    size_t from = 0, count = encoded->size - run->tokens;
    for (size_t i = 0; i < run->num_pieces && count > 0; i++) {
        size_t to = count;
        if (i + 1 < run->num_pieces) {
            TRI_TRY(count_common(encoding, run->text, run->pieces[i + 1].at - run->pieces[0].at,
                                 run->first, encoded->tokens + run->tokens, count, encoded->scratch,
                                 &to, error));
        }
        to = to > from ? to : from;
        memset(encoded->counts + run->tokens + from, run->pieces[i].counts, to - from);
        from = to;
    }
    return TRI_OK;
}

static enum tri_status encode_run(const struct encoding *encoding, size_t begin, size_t end,
                                  const struct tri_tokenizer *tokenizer,
                                  struct tri_encoded *encoded, struct tri_error *error)
{
    const struct tri_chat_piece *pieces = encoding->pieces->pieces + begin;
    const struct tri_chat_piece *last = encoding->pieces->pieces + end - 1;
    const struct run run = {.pieces = pieces,
                            .num_pieces = end - begin,
                            .text = encoding->pieces->text.data + pieces->at,
                            .bytes = last->at + last->bytes - pieces->at,
                            .first = encoded->size == encoding->start,
                            .tokens = encoded->size};
    TRI_TRY(encode_text(encoding, run.text, run.bytes, run.first, encoded, error));
    if (run.num_pieces == 1) {
        memset(encoded->counts + run.tokens, pieces->counts, encoded->size - run.tokens);
        return TRI_OK;
    }
    return mark_by_bytes(&run, tokenizer, 0, encoded) || mark_by_bytes(&run, tokenizer, 1, encoded)
               ? TRI_OK
               : mark_by_encoding(&run, encoding, encoded, error);
}

static enum tri_status encode_special(const struct encoding *encoding,
                                      const struct tri_tokenizer *tokenizer, size_t index,
                                      struct tri_encoded *encoded, struct tri_error *error)
{
    const struct tri_chat_piece *piece = &encoding->pieces->pieces[index];
    char name[TRI_SPECIAL_BYTES + 1];
    if (!tri_tokenizer_has_specials(tokenizer)) {
        return encode_run(encoding, index, index + 1, tokenizer, encoded, error);
    }
    (void)snprintf(name, sizeof(name), "%.*s", (int)piece->bytes,
                   encoding->pieces->text.data + piece->at);
    int32_t id = tri_tokenizer_find_special(tokenizer, name);
    if (id < 0) {
        return tri_fail(error, TRI_BAD_INPUT, "tokenizer: has no token '%s'", name);
    }
    TRI_TRY(append(encoded, &id, 1, error));
    encoded->counts[encoded->size - 1] = piece->counts;
    return TRI_OK;
}

enum tri_status tri_pieces_encode(const struct tri_pieces *pieces,
                                  const struct tri_tokenizer *tokenizer,
                                  struct tri_text_encoder *encoder, bool plain,
                                  struct tri_encoded *encoded, struct tri_error *error)
{
    const struct encoding encoding = {pieces, encoder, plain, encoded->size};
    if (!encoded->scratch) {
        encoded->scratch = tri_alloc(TRI_MEMORY_OTHER, sizeof(*encoded->scratch));
    }
    for (size_t i = 0; i < pieces->num_pieces;) {
        size_t end = i + 1;
        if (pieces->pieces[i].special) {
            TRI_TRY(encode_special(&encoding, tokenizer, i, encoded, error));
        } else {
            while (end < pieces->num_pieces && !pieces->pieces[end].special) {
                end++;
            }
            TRI_TRY(encode_run(&encoding, i, end, tokenizer, encoded, error));
        }
        i = end;
    }
    return TRI_OK;
}
