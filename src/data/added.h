/* The added tokens of a tokenizer: texts that are found before a word is cut, and are one token.
 * Internal to data/. */
#ifndef TRIDENT_DATA_ADDED_H
#define TRIDENT_DATA_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tri_added_token {
    char *text; /* owned by the list that it is in */
    size_t bytes;
    int32_t id;
    bool special;        /* a search for others passes it over */
    bool single_word;    /* not where a word goes on beside it */
    bool lstrip, rstrip; /* takes the white space beside it with it */
};

/* Sorted once; then whoever looks for them only reads. */
struct tri_added;
/* Takes over token[count] and the texts, none of which is empty. */
struct tri_added *tri_added_create(struct tri_added_token *token, size_t count);
void tri_added_destroy(struct tri_added *added);
/* A text that two tokens have, or NULL. */
const char *tri_added_find_twin(const struct tri_added *added);
/* The id of the token that is this text; -1: there is none. */
int32_t tri_added_find_name(const struct tri_added *added, const char *name);
/* Whether a text may be cut between a letter and a space or line feed behind it and each half
 * looked through alone. */
bool tri_added_ends_words(const struct tri_added *added);
/* The same of one such place, before text[at]: no token, found or passed over, is there that begins
 * before it or at it and ends at it or behind it. */
bool tri_added_may_cut(const struct tri_added *added, const unsigned char *text, size_t bytes,
                       size_t at);
/* Bytes of the longest token; 0: there is none. */
size_t tri_added_longest(const struct tri_added *added);

/* The state of a search: begin with {0}. */
struct tri_added_search {
    size_t from; /* where the next match may begin */
    size_t done; /* what is before has been given out */
    bool plain;  /* special tokens are text */
};
/* The next token of a text, the longest of those that begin first. What lies between the last one
 * and *begin is text; *end: where text goes on. False: there is none, the text goes to its end from
 * search->done. */
bool tri_added_find(const struct tri_added *added, const unsigned char *text, size_t bytes,
                    struct tri_added_search *search, int32_t *id, size_t *begin, size_t *end);

#endif
