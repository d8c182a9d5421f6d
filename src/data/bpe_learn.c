/* As the trainer of `tokenizers` goes about it, whose order of ties and of counting is its result:
 * a queue of pairs, each with the words in which it was seen when it was put there. What it knows
 * of a pair may be old: then the pair goes back with the count that it has now. */
#include "data/bpe_learn.h"

#include "base/memory.h"
#include "base/meter.h"
#include "base/status.h"
#include "base/work.h"
#include "data/string.h"
#include "data/vocabulary.h"

#include <stdlib.h>
#include <string.h>

/* A pair in the queue, and the words in which it was seen. */
struct candidate {
    uint64_t pair;
    int64_t count;
    uint32_t *words; /* owned */
    size_t num_words;
};

/* A pair and a word that has it. */
struct sighting {
    uint64_t pair;
    uint32_t word;
};

struct tally {
    uint64_t pair; /* + 1: 0 is an empty slot */
    int64_t count;
};

struct learner {
    const struct tri_word_counts *words;
    int32_t *symbol;     /* of all words; each is at its text's place */
    uint32_t *length;    /* symbols of each word */
    struct tally *tally; /* open addressing */
    size_t tallies, tally_mask;
    struct candidate *heap;
    size_t candidates, heap_room;
    struct sighting *seen; /* pairs that a merge has made */
    size_t num_seen, seen_room;
    struct tri_vocabulary *tokens;
};

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static size_t begin_of(const struct learner *l, size_t word)
{
    return word == 0 ? 0 : l->words->end[word - 1];
}

/* ---- counts ---------------------------------------------------------------------------------- */

static struct tally *find_slot(struct tally *tally, size_t mask, uint64_t pair)
{
    uint64_t mixed = (pair + 1) * 0x9E3779B97F4A7C15u;
    size_t at = (size_t)(mixed ^ (mixed >> 29)) & mask;
    while (tally[at].pair != 0 && tally[at].pair != pair + 1) {
        at = (at + 1) & mask;
    }
    return &tally[at];
}

static void grow(struct learner *l)
{
    size_t size = 2 * (l->tally_mask + 1);
    struct tally *larger = tri_alloc(TRI_MEMORY_OTHER, size * sizeof(*larger));
    for (size_t i = 0; i <= l->tally_mask; i++) {
        if (l->tally[i].pair != 0) {
            *find_slot(larger, size - 1, l->tally[i].pair - 1) = l->tally[i];
        }
    }
    tri_free(l->tally);
    l->tally = larger;
    l->tally_mask = size - 1;
}

static struct tally *tally_of(struct learner *l, uint64_t pair)
{
    struct tally *slot = find_slot(l->tally, l->tally_mask, pair);
    if (slot->pair == 0) {
        if (2 * (l->tallies + 1) > l->tally_mask) {
            grow(l);
            slot = find_slot(l->tally, l->tally_mask, pair);
        }
        slot->pair = pair + 1;
        l->tallies++;
    }
    return slot;
}

static void see(struct learner *l, uint64_t pair, size_t word)
{
    void *block = l->seen;
    tri_array_grow(&block, &l->seen_room, sizeof(*l->seen), l->num_seen, 1);
    l->seen = block;
    l->seen[l->num_seen++] = (struct sighting){pair, (uint32_t)word};
}

/* ---- the queue ------------------------------------------------------------------------------- */

/* Whether a is taken before b. */
static bool is_before(const struct candidate *a, const struct candidate *b)
{
    return a->count != b->count ? a->count > b->count : a->pair < b->pair;
}

static void push(struct learner *l, struct candidate candidate)
{
    void *block = l->heap;
    tri_array_grow(&block, &l->heap_room, sizeof(*l->heap), l->candidates, 1);
    l->heap = block;
    size_t at = l->candidates++;
    while (at > 0 && is_before(&candidate, &l->heap[(at - 1) / 2])) {
        l->heap[at] = l->heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    l->heap[at] = candidate;
}

static struct candidate pop(struct learner *l)
{
    struct candidate top = l->heap[0];
    struct candidate last = l->heap[--l->candidates];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < l->candidates; at = child) {
        child += child + 1 < l->candidates && is_before(&l->heap[child + 1], &l->heap[child]);
        if (!is_before(&l->heap[child], &last)) {
            break;
        }
        l->heap[at] = l->heap[child];
    }
    l->heap[at] = last;
    return top;
}

static int by_pair(const void *left, const void *right)
{
    const struct sighting *a = left;
    const struct sighting *b = right;
    return a->pair != b->pair ? (a->pair > b->pair) - (a->pair < b->pair)
                              : (a->word > b->word) - (a->word < b->word);
}

/* What was seen goes into the queue, each pair with its words; then nothing is. */
static void queue_seen(struct learner *l)
{
    if (l->num_seen > 0) {
        qsort(l->seen, l->num_seen, sizeof(*l->seen), by_pair);
    }
    for (size_t i = 0, end; i < l->num_seen; i = end) {
        uint64_t pair = l->seen[i].pair;
        for (end = i + 1; end < l->num_seen && l->seen[end].pair == pair;) {
            end++;
        }
        int64_t count = tally_of(l, pair)->count;
        if (count <= 0) {
            continue;
        }
        struct candidate candidate = {.pair = pair, .count = count};
        candidate.words = tri_alloc(TRI_MEMORY_OTHER, (end - i) * sizeof(*candidate.words));
        for (size_t w = i; w < end; w++) {
            if (w == i || l->seen[w].word != l->seen[w - 1].word) {
                candidate.words[candidate.num_words++] = l->seen[w].word;
            }
        }
        push(l, candidate);
    }
    l->num_seen = 0;
}

/* ---- merging --------------------------------------------------------------------------------- */

static void change(struct learner *l, size_t word, int32_t left, int32_t right, int by)
{
    uint64_t pair = pair_of(left, right);
    tally_of(l, pair)->count += by * l->words->number[word];
    if (by > 0) {
        see(l, pair, word);
    }
}

/* The pair's own count stays as it is, as there: whoever meets it again finds no such word. */
static void merge_in_word(struct learner *l, size_t word, int32_t left, int32_t right,
                          int32_t result)
{
    int32_t *symbol = l->symbol + begin_of(l, word);
    size_t length = l->length[word];
    size_t kept = 0; /* symbols before it are done */
    for (size_t i = 0; i < length; kept++) {
        if (i + 1 >= length || symbol[i] != left || symbol[i + 1] != right) {
            symbol[kept] = symbol[i++];
            continue;
        }
        if (kept > 0) {
            change(l, word, symbol[kept - 1], left, -1);
            change(l, word, symbol[kept - 1], result, 1);
        }
        if (i + 2 < length) {
            change(l, word, right, symbol[i + 2], -1);
            change(l, word, result, symbol[i + 2], 1);
        }
        symbol[kept] = result;
        i += 2;
    }
    l->length[word] = (uint32_t)kept;
}

/* The id of the joined text, which may be there already by another way. */
static int32_t name_result(struct learner *l, int32_t left, int32_t right, int32_t *tokens)
{
    const unsigned char *a;
    const unsigned char *b;
    size_t head = tri_vocabulary_text(l->tokens, left, &a);
    size_t tail = tri_vocabulary_text(l->tokens, right, &b);
    unsigned char *both = tri_alloc(TRI_MEMORY_OTHER, head + tail);
    memcpy(both, a, head);
    memcpy(both + head, b, tail);
    int32_t id = tri_vocabulary_find(l->tokens, both, head + tail);
    if (id < 0) {
        id = (*tokens)++;
        tri_vocabulary_set(l->tokens, id, both, head + tail, true);
    }
    tri_free(both);
    return id;
}

static void add_merge(struct tri_merge_list *list, int32_t left, int32_t right, int32_t result)
{
    void *block = list->merge;
    tri_array_grow(&block, &list->room, sizeof(*list->merge), list->count, 1);
    list->merge = block;
    list->merge[list->count++] = (struct tri_learned_merge){left, right, result};
}

static void merge_all(struct learner *l, int32_t size, struct tri_merge_list *list)
{
    while (list->tokens < size && l->candidates > 0) {
        struct candidate top = pop(l);
        int64_t count = tally_of(l, top.pair)->count;
        if (count != top.count) {
            top.count = count;
            push(l, top);
            continue;
        }
        if (count < 1) {
            tri_free(top.words);
            return;
        }
        int32_t left = (int32_t)(top.pair >> 32);
        int32_t right = (int32_t)(uint32_t)top.pair;
        int32_t result = name_result(l, left, right, &list->tokens);
        add_merge(list, left, right, result);
        for (size_t i = 0; i < top.num_words; i++) {
            merge_in_word(l, top.words[i], left, right, result);
        }
        tri_free(top.words);
        queue_seen(l);
        tri_work_progress();
        tri_meter_add(TRI_METER_TOKENS, 1);
    }
}

static void begin(struct learner *l, const int32_t byte[256])
{
    const struct tri_word_counts *words = l->words;
    size_t bytes = words->count > 0 ? words->end[words->count - 1] : 0;
    l->symbol = tri_alloc(TRI_MEMORY_OTHER, bytes * sizeof(*l->symbol));
    l->length = tri_alloc(TRI_MEMORY_OTHER, words->count * sizeof(*l->length));
    l->tally_mask = (1 << 16) - 1;
    l->tally = tri_alloc(TRI_MEMORY_OTHER, (l->tally_mask + 1) * sizeof(*l->tally));
    for (int i = 0; i < 256; i++) {
        unsigned char text = (unsigned char)i;
        tri_vocabulary_set(l->tokens, byte[i], &text, 1, true);
    }
    for (size_t w = 0; w < words->count; w++) {
        size_t first = begin_of(l, w);
        l->length[w] = (uint32_t)(words->end[w] - first);
        for (size_t i = first; i < words->end[w]; i++) {
            l->symbol[i] = byte[words->text[i]];
            if (i > first) {
                change(l, w, l->symbol[i - 1], l->symbol[i], 1);
            }
        }
    }
    queue_seen(l);
}

void tri_bpe_learn(const struct tri_word_counts *words, const int32_t byte[256], int32_t size,
                   struct tri_merge_list *list)
{
    TRI_REQUIRE(size >= 256);
    struct learner l = {.words = words};
    l.tokens = tri_vocabulary_create(size, (size_t)size * 8, 0);
    *list = (struct tri_merge_list){.tokens = 256};
    begin(&l, byte);
    merge_all(&l, size, list);
    for (size_t i = 0; i < l.candidates; i++) {
        tri_free(l.heap[i].words);
    }
    tri_free(l.heap);
    tri_free(l.seen);
    tri_free(l.tally);
    tri_free(l.length);
    tri_free(l.symbol);
    tri_vocabulary_destroy(l.tokens);
}
