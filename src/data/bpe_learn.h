/* The merges of words that were counted. Internal to data/. */
#ifndef TRIDENT_DATA_BPE_LEARN_H
#define TRIDENT_DATA_BPE_LEARN_H

#include <stddef.h>
#include <stdint.h>

/* Words, one after another in text, each once. */
struct tri_word_counts {
    const unsigned char *text;
    const size_t *end;     /* of each word, in text */
    const int64_t *number; /* how often it is there */
    size_t count;
};

struct tri_merge_list {
    struct tri_learned_merge {
        int32_t left, right, result;
    } * merge;
    size_t count, room;
    int32_t tokens; /* ids of bytes and results: those from 256 on are results, in their order */
};

/* Finds pair after pair: the one that is there most often, of several the one with the smallest
 * ids; until there are `size` tokens or no pair is left. byte[256]: the id of each byte, below 256.
 * tri_free(list->merge). */
void tri_bpe_learn(const struct tri_word_counts *words, const int32_t byte[256], int32_t size,
                   struct tri_merge_list *list);

#endif
