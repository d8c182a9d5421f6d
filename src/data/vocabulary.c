#include "data/vocabulary.h"

#include "base/memory.h"

#include <string.h>
#include <xxhash.h>

struct text {
    size_t at, bytes;
};

struct merge {
    uint64_t pair; /* left, right + 1 in the lower half: 0 is an empty slot */
    int32_t rank, result;
};

struct tri_vocabulary {
    int32_t size;
    struct text *text;
    unsigned char *bytes;
    size_t used, room;
    int32_t *word; /* open addressing: id + 1 */
    size_t word_mask;
    struct merge *merge; /* open addressing */
    size_t merge_mask;
};

int32_t *tri_token_list_reserve(struct tri_token_list *list, size_t more)
{
    if (list->room - list->count < more) {
        size_t room = list->room + list->room / 2;
        room = room < list->count + more ? list->count + more : room;
        room = room < 64 ? 64 : room;
        list->tokens = list->tokens ? tri_resize(list->tokens, room * sizeof(*list->tokens))
                                    : tri_alloc(TRI_MEMORY_OTHER, room * sizeof(*list->tokens));
        list->room = room;
    }
    return list->tokens + list->count;
}

/* A power of two that leaves half of the table empty. */
static size_t table_size(size_t entries)
{
    size_t size = 64;
    while (size < 2 * entries) {
        size *= 2;
    }
    return size;
}

struct tri_vocabulary *tri_vocabulary_create(int32_t size, size_t text_bytes, size_t merges)
{
    struct tri_vocabulary *v = tri_alloc(TRI_MEMORY_OTHER, sizeof(*v));
    size_t words = table_size((size_t)size);
    size_t slots = table_size(merges);
    v->size = size;
    v->room = text_bytes;
    v->text = tri_alloc(TRI_MEMORY_OTHER, (size_t)size * sizeof(*v->text));
    v->bytes = tri_alloc(TRI_MEMORY_OTHER, text_bytes);
    v->word = tri_alloc(TRI_MEMORY_OTHER, words * sizeof(*v->word));
    v->word_mask = words - 1;
    v->merge = tri_alloc(TRI_MEMORY_OTHER, slots * sizeof(*v->merge));
    v->merge_mask = slots - 1;
    return v;
}

void tri_vocabulary_destroy(struct tri_vocabulary *vocabulary)
{
    if (vocabulary) {
        tri_free(vocabulary->text);
        tri_free(vocabulary->bytes);
        tri_free(vocabulary->word);
        tri_free(vocabulary->merge);
        tri_free(vocabulary);
    }
}

int32_t tri_vocabulary_size(const struct tri_vocabulary *vocabulary)
{
    return vocabulary->size;
}

/* The slot of a text, or the empty one where it belongs. */
static int32_t *word_slot(const struct tri_vocabulary *v, const void *text, size_t bytes)
{
    size_t at = (size_t)XXH3_64bits(text, bytes) & v->word_mask;
    for (; v->word[at] != 0; at = (at + 1) & v->word_mask) {
        const struct text *other = &v->text[v->word[at] - 1];
        if (other->bytes == bytes && memcmp(v->bytes + other->at, text, bytes) == 0) {
            break;
        }
    }
    return &v->word[at];
}

void tri_vocabulary_set(struct tri_vocabulary *v, int32_t id, const void *text, size_t bytes,
                        bool findable)
{
    TRI_REQUIRE(id >= 0 && id < v->size);
    if (bytes > v->room - v->used) {
        unsigned char *all = tri_alloc(TRI_MEMORY_OTHER, 2 * (v->used + bytes));
        memcpy(all, v->bytes, v->used);
        tri_free(v->bytes);
        v->bytes = all;
        v->room = 2 * (v->used + bytes);
    }
    memcpy(v->bytes + v->used, text, bytes);
    v->text[id] = (struct text){v->used, bytes};
    if (findable) {
        int32_t *slot = word_slot(v, text, bytes);
        *slot = *slot == 0 ? id + 1 : *slot;
    }
    v->used += bytes;
}

size_t tri_vocabulary_text(const struct tri_vocabulary *v, int32_t id, const unsigned char **text)
{
    if (id < 0 || id >= v->size) {
        *text = v->bytes;
        return 0;
    }
    *text = v->bytes + v->text[id].at;
    return v->text[id].bytes;
}

int32_t tri_vocabulary_find(const struct tri_vocabulary *v, const void *text, size_t bytes)
{
    return *word_slot(v, text, bytes) - 1;
}

static uint64_t pair_of(int32_t left, int32_t right)
{
    return ((uint64_t)(uint32_t)left << 32) | ((uint32_t)right + 1u);
}

static struct merge *merge_slot(const struct tri_vocabulary *v, uint64_t pair)
{
    uint64_t mixed = pair * 0x9E3779B97F4A7C15u;
    size_t at = (size_t)(mixed ^ (mixed >> 29)) & v->merge_mask;
    while (v->merge[at].pair != 0 && v->merge[at].pair != pair) {
        at = (at + 1) & v->merge_mask;
    }
    return &v->merge[at];
}

void tri_vocabulary_merge(struct tri_vocabulary *v, int32_t left, int32_t right, int32_t rank,
                          int32_t result)
{
    uint64_t pair = pair_of(left, right);
    *merge_slot(v, pair) = (struct merge){pair, rank, result};
}

/* ---- words ----------------------------------------------------------------------------------- */

enum {
    CACHED_BYTES = 23,
    CACHED_TOKENS = 9,
    CACHE_SLOTS = 1 << 15,
    SMALL = 48 /* symbols whose smallest rank is looked for one by one */
};

/* A line of the processor's cache, so that a hit is one miss at most. */
struct cached {
    unsigned char count, word[CACHED_BYTES];
    int32_t token[CACHED_TOKENS];
    int32_t bytes;
};

struct symbol {
    int32_t id, rank, result; /* with the next one: INT32_MAX where they do not merge */
    int32_t previous, next;   /* places; -1: none */
};

struct tri_word_cutter {
    const struct tri_vocabulary *vocabulary;
    const struct tri_word_rules *rules;
    struct cached *cache;
    struct symbol *symbol;
    uint64_t *heap; /* rank, then place */
    size_t symbol_room, heap_room;
};

struct tri_word_cutter *tri_word_cutter_create(const struct tri_vocabulary *vocabulary,
                                               const struct tri_word_rules *rules)
{
    struct tri_word_cutter *cutter = tri_alloc(TRI_MEMORY_OTHER, sizeof(*cutter));
    cutter->vocabulary = vocabulary;
    cutter->rules = rules;
    cutter->cache = tri_alloc(TRI_MEMORY_OTHER, CACHE_SLOTS * sizeof(*cutter->cache));
    return cutter;
}

void tri_word_cutter_destroy(struct tri_word_cutter *cutter)
{
    if (cutter) {
        tri_free(cutter->cache);
        tri_free(cutter->symbol);
        tri_free(cutter->heap);
        tri_free(cutter);
    }
}

static size_t character_bytes(const unsigned char *word, size_t bytes)
{
    size_t length = word[0] < 0xC0 ? 1 : word[0] < 0xE0 ? 2 : word[0] < 0xF0 ? 3 : 4;
    return length < bytes ? length : bytes;
}

/* The symbols of a word whose characters have tokens, and bytes or the unknown for those without.
 * Returns how many. */
static size_t begin_characters(const struct tri_word_cutter *cutter, const unsigned char *word,
                               size_t bytes)
{
    const struct tri_word_rules *rules = cutter->rules;
    size_t count = 0;
    bool unknown = false; /* the last one is */
    for (size_t i = 0; i < bytes;) {
        size_t length = character_bytes(word + i, bytes - i);
        int32_t id = tri_vocabulary_find(cutter->vocabulary, word + i, length);
        if (id >= 0) {
            cutter->symbol[count++].id = id;
        } else if (rules->byte[0] >= 0) {
            for (size_t b = 0; b < length; b++) {
                cutter->symbol[count++].id = rules->byte[word[i + b]];
            }
        } else if (rules->unknown >= 0 && !(unknown && rules->fuse_unknown)) {
            cutter->symbol[count++].id = rules->unknown;
        }
        unknown = id < 0;
        i += length;
    }
    return count;
}

static void rate(const struct tri_word_cutter *cutter, struct symbol *symbol)
{
    const struct merge *merge = NULL;
    if (symbol->next >= 0) {
        merge =
            merge_slot(cutter->vocabulary, pair_of(symbol->id, cutter->symbol[symbol->next].id));
    }
    bool merges = merge && merge->pair != 0;
    symbol->rank = merges ? merge->rank : INT32_MAX;
    symbol->result = merges ? merge->result : -1;
}

static void join(struct tri_word_cutter *cutter, struct symbol *symbol)
{
    struct symbol *right = &cutter->symbol[symbol->next];
    symbol->id = symbol->result;
    symbol->next = right->next;
    right->id = -1;
    right->rank = INT32_MAX;
    if (symbol->next >= 0) {
        cutter->symbol[symbol->next].previous = (int32_t)(symbol - cutter->symbol);
    }
    rate(cutter, symbol);
    if (symbol->previous >= 0) {
        rate(cutter, &cutter->symbol[symbol->previous]);
    }
}

static void merge_small(struct tri_word_cutter *cutter)
{
    for (;;) {
        struct symbol *best = cutter->symbol;
        for (int32_t i = 0; i >= 0; i = cutter->symbol[i].next) {
            best = cutter->symbol[i].rank < best->rank ? &cutter->symbol[i] : best;
        }
        if (best->rank == INT32_MAX) {
            return;
        }
        join(cutter, best);
    }
}

static void heap_push(uint64_t *heap, size_t *count, uint64_t entry)
{
    size_t at = (*count)++;
    while (at > 0 && heap[(at - 1) / 2] > entry) {
        heap[at] = heap[(at - 1) / 2];
        at = (at - 1) / 2;
    }
    heap[at] = entry;
}

static uint64_t heap_pop(uint64_t *heap, size_t *count)
{
    uint64_t top = heap[0];
    uint64_t last = heap[--*count];
    size_t at = 0;
    for (size_t child; (child = 2 * at + 1) < *count; at = child) {
        child += child + 1 < *count && heap[child + 1] < heap[child];
        if (heap[child] >= last) {
            break;
        }
        heap[at] = heap[child];
    }
    heap[at] = last;
    return top;
}

static void heap_offer(struct tri_word_cutter *cutter, size_t *count, int32_t place)
{
    if (place >= 0 && cutter->symbol[place].rank != INT32_MAX) {
        heap_push(cutter->heap, count,
                  ((uint64_t)(uint32_t)cutter->symbol[place].rank << 32) | (uint32_t)place);
    }
}

/* Entries whose symbol has since another rank are passed over; each join adds two. */
static void merge_large(struct tri_word_cutter *cutter, size_t symbols)
{
    size_t count = 0;
    (void)tri_grow(TRI_MEMORY_OTHER, (void **)&cutter->heap, &cutter->heap_room,
                   3 * symbols * sizeof(*cutter->heap));
    for (size_t i = 0; i < symbols; i++) {
        heap_offer(cutter, &count, (int32_t)i);
    }
    while (count > 0) {
        uint64_t top = heap_pop(cutter->heap, &count);
        struct symbol *symbol = &cutter->symbol[(uint32_t)top];
        if ((uint64_t)(uint32_t)symbol->rank != top >> 32) {
            continue;
        }
        join(cutter, symbol);
        heap_offer(cutter, &count, (int32_t)(uint32_t)top);
        heap_offer(cutter, &count, symbol->previous);
    }
}

static void merge_word(struct tri_word_cutter *cutter, const unsigned char *word, size_t bytes,
                       struct tri_token_list *tokens)
{
    (void)tri_grow(TRI_MEMORY_OTHER, (void **)&cutter->symbol, &cutter->symbol_room,
                   bytes * sizeof(*cutter->symbol));
    size_t count = bytes;
    if (cutter->rules->characters) {
        count = begin_characters(cutter, word, bytes);
    } else {
        for (size_t i = 0; i < bytes; i++) {
            cutter->symbol[i].id = cutter->rules->byte[word[i]];
        }
    }
    if (count == 0) {
        return;
    }
    for (size_t i = 0; i < count; i++) {
        cutter->symbol[i].previous = (int32_t)i - 1;
        cutter->symbol[i].next = i + 1 < count ? (int32_t)i + 1 : -1;
        rate(cutter, &cutter->symbol[i]);
    }
    if (count <= SMALL) {
        merge_small(cutter);
    } else {
        merge_large(cutter, count);
    }
    int32_t *out = tri_token_list_reserve(tokens, count);
    for (int32_t i = 0; i >= 0; i = cutter->symbol[i].next) {
        *out++ = cutter->symbol[i].id;
    }
    tokens->count = (size_t)(out - tokens->tokens);
}

bool tri_word_cut(struct tri_word_cutter *cutter, const unsigned char *word, size_t bytes,
                  struct tri_token_list *tokens)
{
    const struct tri_word_rules *rules = cutter->rules;
    if (bytes == 0 || bytes > rules->most) {
        return bytes == 0;
    }
    struct cached *cached = NULL;
    if (bytes <= CACHED_BYTES) {
        cached = &cutter->cache[XXH3_64bits(word, bytes) % CACHE_SLOTS];
        if ((size_t)cached->bytes == bytes && memcmp(cached->word, word, bytes) == 0) {
            int32_t *out = tri_token_list_reserve(tokens, CACHED_TOKENS);
            memcpy(out, cached->token, sizeof(cached->token));
            tokens->count += cached->count;
            return true;
        }
    }
    size_t before = tokens->count;
    int32_t whole = rules->whole ? tri_vocabulary_find(cutter->vocabulary, word, bytes) : -1;
    if (whole >= 0) {
        *tri_token_list_reserve(tokens, 1) = whole;
        tokens->count++;
    } else {
        merge_word(cutter, word, bytes, tokens);
    }
    size_t count = tokens->count - before;
    if (cached && count <= CACHED_TOKENS) {
        cached->bytes = (int32_t)bytes;
        cached->count = (unsigned char)count;
        memcpy(cached->word, word, bytes);
        memcpy(cached->token, tokens->tokens + before, count * sizeof(*cached->token));
    }
    return true;
}
