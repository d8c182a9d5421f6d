/* Documents in rows: each is whole in one row, rows hold several, and what is left of a row is
 * padding. Which documents share a row is a function of the set, the separator and the length of a
 * row: best fit, the longest documents first, those of one length in order of their places. Longer
 * ones than a row are cut into pieces of a row's length and a rest. */
#ifndef TRIDENT_DATA_PACKING_H
#define TRIDENT_DATA_PACKING_H

#include "data/shards.h"

struct tri_packing;

/* A document or a part of one. */
struct tri_packed_piece {
    int64_t start; /* the place of its first token */
    int32_t length;
    bool goes_on; /* the token behind it is of the same document */
};

struct tri_packing_counts {
    int64_t documents, cut; /* all, and those that were longer than a row */
    int64_t pieces, rows;
    int64_t tokens, padding;
};

/* separator: the token that ends a document, -1: none. Local; takes 16 bytes a piece and 8 a row,
 * and twice that meanwhile. Fails as tri_tokens_read. */
enum tri_status tri_packing_create(const struct tri_tokens *tokens, int64_t separator,
                                   int64_t length, struct tri_packing **packing,
                                   struct tri_error *error) TRI_NODISCARD;
void tri_packing_destroy(struct tri_packing *packing);

struct tri_packing_counts tri_packing_counts(const struct tri_packing *packing);
/* The pieces of a row, one behind the other, and how many they are; borrowed. */
const struct tri_packed_piece *tri_packing_row(const struct tri_packing *packing, int64_t row,
                                               int64_t *count);

#endif
