#include "data/tokenizer.h"

#include "base/memory.h"

#include <string.h>

/* ---- byte ------------------------------------------------------------------------------------ */

struct byte_tokenizer {
    struct tri_tokenizer interface;
    unsigned char bytes[256];
};

static int64_t byte_count(const struct tri_tokenizer *tokenizer, const unsigned char *text,
                          size_t bytes)
{
    (void)tokenizer;
    (void)text;
    return (int64_t)bytes;
}

static enum tri_status byte_encode(const struct tri_tokenizer *tokenizer, const unsigned char *text,
                                   size_t bytes, tri_token_sink sink, void *context,
                                   struct tri_error *error)
{
    (void)tokenizer;
    int32_t tokens[4096];
    const size_t room = sizeof(tokens) / sizeof(*tokens);
    while (bytes > 0) {
        size_t part = bytes < room ? bytes : room;
        for (size_t i = 0; i < part; i++) {
            tokens[i] = text[i];
        }
        TRI_TRY(sink(context, tokens, (int64_t)part, error));
        text += part;
        bytes -= part;
    }
    return TRI_OK;
}

static size_t byte_token_text(const struct tri_tokenizer *tokenizer, int32_t token,
                              const unsigned char **text)
{
    const struct byte_tokenizer *self = (const struct byte_tokenizer *)(const void *)tokenizer;
    bool known = token >= 0 && token < tokenizer->vocab_size;
    *text = self->bytes + (known ? token : 0);
    return known ? 1 : 0;
}

static void byte_destroy(struct tri_tokenizer *tokenizer)
{
    tri_free(tokenizer);
}

static struct tri_tokenizer *byte_create(void)
{
    struct byte_tokenizer *self = tri_alloc(TRI_MEMORY_OTHER, sizeof(*self));
    self->interface =
        (struct tri_tokenizer){"byte", 256, byte_count, byte_encode, byte_token_text, byte_destroy};
    for (int i = 0; i < 256; i++) {
        self->bytes[i] = (unsigned char)i;
    }
    return &self->interface;
}

/* ---- any ------------------------------------------------------------------------------------- */

enum tri_status tri_tokenizer_create(const char *name, struct tri_tokenizer **tokenizer,
                                     struct tri_error *error)
{
    *tokenizer = NULL;
    if (strcmp(name, "byte") != 0) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "tokenizer %s: expected byte, the only one built so far", name);
    }
    *tokenizer = byte_create();
    return TRI_OK;
}

void tri_tokenizer_destroy(struct tri_tokenizer *tokenizer)
{
    if (tokenizer) {
        tokenizer->destroy(tokenizer);
    }
}

static enum tri_status append(void *context, const int32_t *tokens, int64_t count,
                              struct tri_error *error)
{
    (void)error;
    int32_t **at = context;
    memcpy(*at, tokens, (size_t)count * sizeof(*tokens));
    *at += count;
    return TRI_OK;
}

enum tri_status tri_tokenizer_encode(const struct tri_tokenizer *tokenizer, const char *text,
                                     size_t bytes, int32_t **tokens, int64_t *count,
                                     struct tri_error *error)
{
    *tokens = NULL;
    *count = 0;
    const unsigned char *raw = (const unsigned char *)text;
    int64_t number = tokenizer->count(tokenizer, raw, bytes);
    int32_t *all = tri_alloc(TRI_MEMORY_OTHER, (size_t)number * sizeof(*all));
    int32_t *end = all;
    enum tri_status status = tokenizer->encode(tokenizer, raw, bytes, append, (void *)&end, error);
    if (status != TRI_OK) {
        tri_free(all);
        return status;
    }
    TRI_REQUIRE(end == all + number);
    *tokens = all;
    *count = number;
    return TRI_OK;
}

size_t tri_tokenizer_decode(const struct tri_tokenizer *tokenizer, const int32_t *tokens,
                            int64_t count, char *text, size_t room)
{
    size_t bytes = 0;
    for (int64_t i = 0; i < count; i++) {
        const unsigned char *part;
        size_t length = tokenizer->token_text(tokenizer, tokens[i], &part);
        if (bytes < room) {
            memcpy(text + bytes, part, length < room - bytes ? length : room - bytes);
        }
        bytes += length;
    }
    return bytes;
}
