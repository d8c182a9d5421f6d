/* A layout's tokens. */
#ifndef TRIDENT_DATA_ENCODE_H
#define TRIDENT_DATA_ENCODE_H

#include "data/chat.h"
#include "data/tokenizer.h"

#include <stdint.h>

/* Zeros to begin with; kept from layout to layout, for its memory. */
struct tri_encoded {
    int32_t *tokens;
    unsigned char *counts; /* of each token, whether it is learned */
    size_t size, tokens_room, counts_room;
    struct tri_encoded *scratch;
};

/* Appends the tokens of the pieces, with tokenizer's encoder. Text between two special tokens is
 * encoded as one, wherever the part that counts begins in it: a token counts whose text has some of
 * that. plain: a special token's name in a text is text. Of the tokenizer `byte` special tokens are
 * their names' bytes. */
enum tri_status tri_pieces_encode(const struct tri_pieces *layout,
                                  const struct tri_tokenizer *tokenizer,
                                  struct tri_text_encoder *encoder, bool plain,
                                  struct tri_encoded *encoded,
                                  struct tri_error *error) TRI_NODISCARD;
void tri_encoded_fini(struct tri_encoded *encoded);

#endif
