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

/* The id of a special token, -1 where the tokenizer has no such things. */
static int32_t find_special(const struct tri_tokenizer *tokenizer, const char *name)
{
    (void)tokenizer;
    (void)name;
    return -1;
}

static enum tri_status encode_text(const struct tri_tokenizer *tokenizer, const char *text,
                                   size_t bytes, struct tri_encoded *encoded,
                                   struct tri_error *error)
{
    return tokenizer->encode(tokenizer, (const unsigned char *)text, bytes, append, encoded, error);
}

/* The tokens of text[bytes] that those of its first `head` bytes begin with too. */
static enum tri_status count_common(const struct tri_tokenizer *tokenizer, const char *text,
                                    size_t head, const int32_t *tokens, size_t count,
                                    struct tri_encoded *scratch, size_t *common,
                                    struct tri_error *error)
{
    scratch->size = 0;
    TRI_TRY(encode_text(tokenizer, text, head, scratch, error));
    *common = 0;
    while (*common < count && *common < scratch->size &&
           tokens[*common] == scratch->tokens[*common]) {
        ++*common;
    }
    return TRI_OK;
}

/* Pieces of text without a special token between them. */
static enum tri_status encode_run(const struct tri_pieces *layout, size_t first, size_t end,
                                  const struct tri_tokenizer *tokenizer,
                                  struct tri_encoded *encoded, struct tri_error *error)
{
    const struct tri_piece *pieces = layout->pieces;
    const char *text = layout->text.data + pieces[first].at;
    size_t bytes = pieces[end - 1].at + pieces[end - 1].bytes - pieces[first].at;
    size_t begin = encoded->size;
    TRI_TRY(encode_text(tokenizer, text, bytes, encoded, error));
    size_t from = 0, count = encoded->size - begin;
    for (size_t i = first; i < end; i++) {
        size_t to = count;
        if (i + 1 < end) {
            TRI_TRY(count_common(tokenizer, text, pieces[i + 1].at - pieces[first].at,
                                 encoded->tokens + begin, count, encoded->scratch, &to, error));
        }
        to = to > from ? to : from;
        memset(encoded->counts + begin + from, pieces[i].counts, to - from);
        from = to;
    }
    return TRI_OK;
}

enum tri_status tri_pieces_encode(const struct tri_pieces *layout,
                                  const struct tri_tokenizer *tokenizer,
                                  struct tri_encoded *encoded, struct tri_error *error)
{
    size_t i = 0;
    if (!encoded->scratch) {
        encoded->scratch = tri_alloc(TRI_MEMORY_OTHER, sizeof(*encoded->scratch));
    }
    while (i < layout->num_pieces) {
        const struct tri_piece *piece = &layout->pieces[i];
        char name[TRI_SPECIAL_BYTES + 1];
        int32_t id = -1;
        if (piece->special) {
            (void)snprintf(name, sizeof(name), "%.*s", (int)piece->bytes,
                           layout->text.data + piece->at);
            id = find_special(tokenizer, name);
        }
        if (id >= 0) {
            TRI_TRY(append(encoded, &id, 1, error));
            encoded->counts[encoded->size - 1] = piece->counts;
            i++;
            continue;
        }
        size_t end = i + 1;
        while (!piece->special && end < layout->num_pieces && !layout->pieces[end].special) {
            end++;
        }
        TRI_TRY(encode_run(layout, i, end, tokenizer, encoded, error));
        i = end;
    }
    return TRI_OK;
}
