/* The text of tokens as they come; of an answer in a chat what is said, without the space before it
 * and the text that ends it where that is no token. */
#ifndef TRIDENT_CLI_ANSWER_H
#define TRIDENT_CLI_ANSWER_H

#include "data/chat.h"
#include "data/string.h"
#include "data/tokenizer.h"

#include <stdbool.h>
#include <stdio.h>

struct tri_answer {
    const struct tri_tokenizer *tokenizer;
    const struct tri_chat *chat; /* NULL: a text that nothing in it ends */
    FILE *out;                   /* where it is shown as it grows; NULL: nowhere */
    struct tri_token_stream stream;
    struct tri_string text;
    size_t shown;
    bool begun;
    bool ended;
};

void tri_answer_begin(struct tri_answer *answer, const struct tri_tokenizer *tokenizer,
                      const struct tri_chat *chat, FILE *out);
/* Appends a token's text. What may be the beginning of the stop is shown when it is not. */
void tri_answer_add(struct tri_answer *answer, int32_t token);
/* No more tokens come: shows the rest. */
void tri_answer_end(struct tri_answer *answer);
void tri_answer_fini(struct tri_answer *answer);

#endif
