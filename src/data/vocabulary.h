/* The tokens of a byte-pair encoding, its merges, and the words cut by them. Internal to data/. */
#ifndef TRIDENT_DATA_VOCABULARY_H
#define TRIDENT_DATA_VOCABULARY_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Tokens that somebody collects; tri_free(tokens). */
struct tri_token_list {
    int32_t *tokens;
    size_t count, room;
};
/* Room for so many more, at list->tokens + list->count. */
int32_t *tri_token_list_reserve(struct tri_token_list *list, size_t more);

struct tri_vocabulary;

/* Ids 0 to size - 1, none of which has a text yet. */
struct tri_vocabulary *tri_vocabulary_create(int32_t size, size_t text_bytes, size_t merges);
void tri_vocabulary_destroy(struct tri_vocabulary *vocabulary);
int32_t tri_vocabulary_size(const struct tri_vocabulary *vocabulary);
/* create was told about how many bytes all texts have. findable: a word may be that text. */
void tri_vocabulary_set(struct tri_vocabulary *vocabulary, int32_t id, const void *text,
                        size_t bytes, bool findable);
/* 0 for an id without a text. */
size_t tri_vocabulary_text(const struct tri_vocabulary *vocabulary, int32_t id,
                           const unsigned char **text);
/* -1: none. */
int32_t tri_vocabulary_find(const struct tri_vocabulary *vocabulary, const void *text,
                            size_t bytes);
/* A smaller rank goes first; of two merges of one pair the later counts. */
void tri_vocabulary_merge(struct tri_vocabulary *vocabulary, int32_t left, int32_t right,
                          int32_t rank, int32_t result);

enum { TRI_WORD_MOST = INT32_MAX - 1 };

/* How a word becomes the symbols that are merged. */
struct tri_word_rules {
    bool whole;        /* a word that is a token is that token, merges or not */
    bool characters;   /* symbols are UTF-8 characters, else bytes */
    int32_t byte[256]; /* of each byte; with characters, for those without a token; -1: none */
    int32_t unknown;   /* with characters: what else stands for one; -1: nothing */
    bool fuse_unknown; /* one for as many as stand side by side */
    size_t most;       /* bytes that a word may have, at most TRI_WORD_MOST */
};

/* Cuts words for one thread, and remembers short ones. */
struct tri_word_cutter;
struct tri_word_cutter *tri_word_cutter_create(const struct tri_vocabulary *vocabulary,
                                               const struct tri_word_rules *rules);
void tri_word_cutter_destroy(struct tri_word_cutter *cutter);
/* Appends the word's tokens. false: it has more bytes than the rules allow. */
bool tri_word_cut(struct tri_word_cutter *cutter, const unsigned char *word, size_t bytes,
                  struct tri_token_list *tokens) TRI_NODISCARD;

#endif
