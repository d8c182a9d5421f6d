/* The text of tokens as they come, up to what ends it. */
#ifndef TRIDENT_CLI_ANSWER_H
#define TRIDENT_CLI_ANSWER_H

#include "data/string.h"
#include "data/tokenizer.h"

#include <stdbool.h>
#include <stdio.h>

struct tri_answer {
    const struct tri_tokenizer *tokenizer;
    const char *stop; /* a text that ends it and is no part of it; NULL: none does */
    FILE *out;        /* where it is shown as it grows; NULL: nowhere */
    struct tri_token_stream stream;
    struct tri_string text;
    size_t shown;
    bool ended;
};

void tri_answer_begin(struct tri_answer *answer, const struct tri_tokenizer *tokenizer,
                      const char *stop, FILE *out);
/* Appends a token's text. What may be the beginning of the stop is shown when it is not. */
void tri_answer_add(struct tri_answer *answer, int32_t token);
/* No more tokens come: shows the rest. */
void tri_answer_end(struct tri_answer *answer);
void tri_answer_fini(struct tri_answer *answer);

#endif
