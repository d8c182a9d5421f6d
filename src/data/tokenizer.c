#include "data/tokenizer.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/path.h"
#include "config/config.h"
#include "data/bpe.h"
#include "data/tokenizer_files.h"

#include <string.h>

/* ---- byte ------------------------------------------------------------------------------------ */

struct byte_tokenizer {
    struct tri_tokenizer interface;
    unsigned char bytes[256];
};

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
    self->interface = (struct tri_tokenizer){.name = "byte",
                                             .vocab_size = 256,
                                             .encode = byte_encode,
                                             .token_text = byte_token_text,
                                             .destroy = byte_destroy};
    for (int i = 0; i < 256; i++) {
        self->bytes[i] = (unsigned char)i;
    }
    return &self->interface;
}

/* ---- any ------------------------------------------------------------------------------------- */

enum tri_status tri_tokenizer_create(const char *name, struct tri_tokenizer **tokenizer,
                                     struct tri_error *error)
{
    static const char file[] = "tokenizer.json";
    *tokenizer = NULL;
    if (strcmp(name, "byte") == 0) {
        *tokenizer = byte_create();
        return TRI_OK;
    }
    if (!tri_file_exists(name)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "tokenizer %s: no such file or folder, expected byte, a %s or a folder "
                        "that holds one",
                        name, file);
    }
    if (!tri_file_is_dir(name)) {
        return tri_bpe_load(name, tokenizer, error);
    }
    char folder[TRI_PATH_MAX];
    char path[TRI_PATH_MAX + sizeof(file)];
    if (!tri_tokenizer_files_find(name, folder, sizeof(folder))) {
        return tri_fail(error, TRI_BAD_INPUT, "%s: holds no %s, of which a tokenizer is read", name,
                        file);
    }
    tri_path_make(path, sizeof(path), "%s/%s", folder, file);
    return tri_bpe_load(path, tokenizer, error);
}

void tri_tokenizer_destroy(struct tri_tokenizer *tokenizer)
{
    if (tokenizer) {
        tokenizer->destroy(tokenizer);
    }
}

bool tri_tokenizer_has_specials(const struct tri_tokenizer *tokenizer)
{
    return tokenizer->find_special != NULL;
}

int32_t tri_tokenizer_find_special(const struct tri_tokenizer *tokenizer, const char *name)
{
    return tokenizer->find_special ? tokenizer->find_special(tokenizer, name) : -1;
}

/* ---- many texts ------------------------------------------------------------------------------ */

struct tri_text_encoder {
    const struct tri_tokenizer *tokenizer;
    void *own; /* the kind's; NULL: it has none */
};

struct tri_text_encoder *tri_text_encoder_create(const struct tri_tokenizer *tokenizer)
{
    struct tri_text_encoder *encoder = tri_alloc(TRI_MEMORY_OTHER, sizeof(*encoder));
    encoder->tokenizer = tokenizer;
    encoder->own = tokenizer->encoder_create ? tokenizer->encoder_create(tokenizer) : NULL;
    return encoder;
}

void tri_text_encoder_destroy(struct tri_text_encoder *encoder)
{
    if (encoder && encoder->own) {
        encoder->tokenizer->encoder_destroy(encoder->own);
    }
    tri_free(encoder);
}

enum tri_status tri_text_encoder_encode(struct tri_text_encoder *encoder, const unsigned char *text,
                                        size_t bytes, struct tri_text_place place,
                                        tri_token_sink sink, void *context, struct tri_error *error)
{
    const struct tri_tokenizer *tokenizer = encoder->tokenizer;
    return encoder->own
               ? tokenizer->encoder_encode(encoder->own, text, bytes, place, sink, context, error)
               : tokenizer->encode(tokenizer, text, bytes, sink, context, error);
}

/* ---- a short text ---------------------------------------------------------------------------- */

struct collected {
    int32_t *tokens;
    size_t count, room;
};

static enum tri_status append(void *context, const int32_t *tokens, int64_t count,
                              struct tri_error *error)
{
    (void)error;
    struct collected *all = context;
    if (all->room - all->count < (size_t)count) {
        size_t room = 2 * (all->count + (size_t)count);
        int32_t *larger = tri_alloc(TRI_MEMORY_OTHER, room * sizeof(*larger));
        if (all->count > 0) {
            memcpy(larger, all->tokens, all->count * sizeof(*larger));
        }
        tri_free(all->tokens);
        all->tokens = larger;
        all->room = room;
    }
    if (count > 0) {
        memcpy(all->tokens + all->count, tokens, (size_t)count * sizeof(*tokens));
        all->count += (size_t)count;
    }
    return TRI_OK;
}

enum tri_status tri_tokenizer_encode(const struct tri_tokenizer *tokenizer, const char *text,
                                     size_t bytes, int32_t **tokens, int64_t *count,
                                     struct tri_error *error)
{
    struct collected all = {.tokens = tri_alloc(TRI_MEMORY_OTHER, 0)};
    *tokens = NULL;
    *count = 0;
    enum tri_status status =
        tokenizer->encode(tokenizer, (const unsigned char *)text, bytes, append, &all, error);
    if (status != TRI_OK) {
        tri_free(all.tokens);
        return status;
    }
    *tokens = all.tokens;
    *count = (int64_t)all.count;
    return TRI_OK;
}

size_t tri_tokenizer_decode(const struct tri_tokenizer *tokenizer, const int32_t *tokens,
                            int64_t count, char *text, size_t room)
{
    size_t bytes = 0;
    bool strip = tokenizer->strips_space;
    for (int64_t i = 0; i < count; i++) {
        const unsigned char *part;
        size_t length = tokenizer->token_text(tokenizer, tokens[i], &part);
        if (strip && length > 0) {
            size_t skipped = part[0] == ' ';
            part += skipped;
            length -= skipped;
            strip = false;
        }
        if (bytes < room && length > 0) {
            memcpy(text + bytes, part, length < room - bytes ? length : room - bytes);
        }
        bytes += length;
    }
    return bytes;
}

/* ---- token by token -------------------------------------------------------------------------- */

/* Bytes at the end that begin a character and are not all of it. */
static size_t count_begun(const unsigned char *text, size_t bytes)
{
    for (size_t back = 1; back <= 3 && back <= bytes; back++) {
        unsigned char c = text[bytes - back];
        if (c >= 0xC0) {
            size_t whole = c >= 0xF0 ? 4 : c >= 0xE0 ? 3 : 2;
            return whole > back && c < 0xF8 ? back : 0;
        }
        if (c < 0x80) {
            return 0;
        }
    }
    return 0;
}

const unsigned char *tri_token_stream_add(struct tri_token_stream *stream,
                                          const struct tri_tokenizer *tokenizer, int32_t token,
                                          size_t *bytes)
{
    const unsigned char *part;
    size_t length = tokenizer->token_text(tokenizer, token, &part);
    if (length > 0 && !stream->begun) {
        size_t skipped = tokenizer->strips_space && part[0] == ' ';
        part += skipped;
        length -= skipped;
        stream->begun = true;
    }
    if (stream->room < stream->bytes + length) {
        size_t room = 2 * (stream->bytes + length);
        unsigned char *text = tri_alloc(TRI_MEMORY_OTHER, room);
        if (stream->text) {
            memcpy(text, stream->text + stream->shown, stream->bytes);
        }
        tri_free(stream->text);
        stream->text = text;
        stream->room = room;
    } else if (stream->bytes > 0) {
        memmove(stream->text, stream->text + stream->shown, stream->bytes);
    }
    if (length > 0) {
        memcpy(stream->text + stream->bytes, part, length);
    }
    size_t all = stream->bytes + length;
    stream->bytes = all > 0 ? count_begun(stream->text, all) : 0;
    stream->shown = all - stream->bytes;
    *bytes = stream->shown;
    return stream->text;
}

const unsigned char *tri_token_stream_end(struct tri_token_stream *stream, size_t *bytes)
{
    const unsigned char *text = stream->text ? stream->text + stream->shown : NULL;
    *bytes = stream->bytes;
    stream->bytes = stream->shown = 0;
    stream->begun = false;
    return text;
}

void tri_token_stream_fini(struct tri_token_stream *stream)
{
    tri_free(stream->text);
    *stream = (struct tri_token_stream){0};
}
