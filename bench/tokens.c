/* How fast a tokenizer encodes a file: tokens TOKENIZER FILE [--threads N] [--rounds N] [--ids OUT]
 * [--text OUT] prints one line, the fastest of the rounds; the one OUT gets the ids as 32-bit
 * numbers, the other what they decode to. */
#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "data/bpe.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum tri_status take(void *context, const int32_t *tokens, int64_t count,
                            struct tri_error *error)
{
    (void)tokens;
    (void)error;
    *(int64_t *)context += count;
    return TRI_OK;
}

static enum tri_status measure(const struct tri_tokenizer *tokenizer,
                               const struct tri_mapping *text, int rounds, double *seconds,
                               int64_t *tokens, struct tri_error *error)
{
    *seconds = 1e30;
    for (int i = 0; i < rounds; i++) {
        *tokens = 0;
        double begin = tri_clock_now();
        TRI_TRY(tokenizer->encode(tokenizer, text->data, text->size, take, tokens, error));
        double taken = tri_clock_now() - begin;
        *seconds = taken < *seconds ? taken : *seconds;
    }
    return TRI_OK;
}

/* Both of one encoding; NULL: not wanted. */
static enum tri_status write_result(const struct tri_tokenizer *tokenizer,
                                    const struct tri_mapping *text, const char *ids,
                                    const char *decoded, struct tri_error *error)
{
    int32_t *tokens;
    int64_t count;
    enum tri_status status = TRI_OK;
    TRI_TRY(tri_tokenizer_encode(tokenizer, (const char *)text->data, text->size, &tokens, &count,
                                 error));
    if (ids) {
        status = tri_file_save(ids, tokens, (size_t)count * sizeof(*tokens), error);
    }
    if (status == TRI_OK && decoded) {
        size_t bytes = tri_tokenizer_decode(tokenizer, tokens, count, NULL, 0);
        char *back = tri_alloc(TRI_MEMORY_OTHER, bytes);
        (void)tri_tokenizer_decode(tokenizer, tokens, count, back, bytes);
        status = tri_file_save(decoded, back, bytes, error);
        tri_free(back);
    }
    tri_free(tokens);
    return status;
}

static const char *option(int count, char **words, const char *name)
{
    for (int i = 3; i + 1 < count; i += 2) {
        if (strcmp(words[i], name) == 0) {
            return words[i + 1];
        }
    }
    return NULL;
}

static enum tri_status run(int count, char **words, struct tri_error *error)
{
    const char *threads = option(count, words, "--threads");
    const char *rounds = option(count, words, "--rounds");
    const char *ids = option(count, words, "--ids");
    const char *decoded = option(count, words, "--text");
    struct tri_tokenizer *tokenizer;
    struct tri_mapping text;
    double seconds = 0.0;
    int64_t tokens = 0;
    TRI_TRY(tri_tokenizer_create(words[1], &tokenizer, error));
    int used = 1;
    if (strcmp(words[1], "byte") != 0) {
        struct tri_bpe *bpe = (struct tri_bpe *)(void *)tokenizer;
        bpe->threads = threads ? (int)strtol(threads, NULL, 10) : bpe->threads;
        used = bpe->threads;
    }
    enum tri_status status = tri_file_map(words[2], &text, error);
    if (status == TRI_OK) {
        status = measure(tokenizer, &text, rounds ? (int)strtol(rounds, NULL, 10) : 3, &seconds,
                         &tokens, error);
        if (status == TRI_OK && (ids || decoded)) {
            status = write_result(tokenizer, &text, ids, decoded, error);
        }
        (void)printf("%lld bytes, %lld tokens, %.4f s, %.2f MB/s, %d threads\n",
                     (long long)text.size, (long long)tokens, seconds,
                     (double)text.size / seconds / 1e6, used);
        tri_file_unmap(&text);
    }
    tri_tokenizer_destroy(tokenizer);
    return status;
}

int main(int count, char **words)
{
    struct tri_error error = {0};
    if (count < 3) {
        (void)fprintf(stderr, "usage: tokens TOKENIZER FILE [--threads N] [--rounds N] [--ids OUT] "
                              "[--text OUT]\n");
        return 2;
    }
    if (run(count, words, &error) != TRI_OK) {
        (void)fprintf(stderr, "tokens: %s\n", error.message);
        return 1;
    }
    return 0;
}
