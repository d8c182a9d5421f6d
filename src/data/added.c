#include "data/added.h"

#include "base/memory.h"
#include "data/utf8.h"

#include <stdlib.h>
#include <string.h>

struct tri_added {
    struct tri_added_token *token; /* sorted by text, byte by byte */
    size_t count;
    uint32_t first[257];           /* the tokens that begin with a byte */
    unsigned char pair[65536 / 8]; /* pairs of bytes that some token begins with */
    bool ends_words;
    size_t longest;
};

static int compare(const void *left, const void *right)
{
    const struct tri_added_token *a = left;
    const struct tri_added_token *b = right;
    size_t common = a->bytes < b->bytes ? a->bytes : b->bytes;
    int order = memcmp(a->text, b->text, common);
    return order != 0 ? order : (a->bytes > b->bytes) - (a->bytes < b->bytes);
}

static bool is_letter(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c >= 0x80;
}

static bool is_blank(char c)
{
    return c == ' ' || c == '\n';
}

/* No match goes over such a place, and none depends on what is on its other side. */
static bool ends_words(const struct tri_added_token *token)
{
    for (size_t i = 1; i < token->bytes; i++) {
        if (is_blank(token->text[i]) && is_letter((unsigned char)token->text[i - 1])) {
            return false;
        }
    }
    bool after = is_letter((unsigned char)token->text[token->bytes - 1]);
    bool before = token->single_word && is_blank(token->text[0]);
    return !after && !before;
}

static void note_pairs(struct tri_added *added, const struct tri_added_token *token)
{
    unsigned first = (unsigned char)token->text[0];
    for (unsigned second = 0; second < 256; second++) {
        if (token->bytes == 1 || second == (unsigned char)token->text[1]) {
            unsigned pair = first << 8 | second;
            added->pair[pair / 8] = (unsigned char)(added->pair[pair / 8] | 1u << pair % 8);
        }
    }
}

struct tri_added *tri_added_create(struct tri_added_token *token, size_t count)
{
    struct tri_added *added = tri_alloc(TRI_MEMORY_OTHER, sizeof(*added));
    added->token = token;
    added->count = count;
    added->ends_words = true;
    qsort(token, count, sizeof(*token), compare);
    for (size_t i = 0; i < count; i++) {
        added->ends_words = added->ends_words && ends_words(&token[i]);
        added->longest = token[i].bytes > added->longest ? token[i].bytes : added->longest;
        note_pairs(added, &token[i]);
        for (unsigned c = (unsigned char)token[i].text[0]; c < 256; c++) {
            added->first[c + 1] = (uint32_t)i + 1;
        }
    }
    return added;
}

void tri_added_destroy(struct tri_added *added)
{
    if (added) {
        for (size_t i = 0; i < added->count; i++) {
            tri_free(added->token[i].text);
        }
        tri_free(added->token);
        tri_free(added);
    }
}

const char *tri_added_find_twin(const struct tri_added *added)
{
    for (size_t i = 1; i < added->count; i++) {
        if (compare(&added->token[i - 1], &added->token[i]) == 0) {
            return added->token[i].text;
        }
    }
    return NULL;
}

int32_t tri_added_find_name(const struct tri_added *added, const char *name)
{
    size_t bytes = strlen(name);
    for (size_t i = 0; i < added->count; i++) {
        const struct tri_added_token *token = &added->token[i];
        if (token->bytes == bytes && memcmp(token->text, name, bytes) == 0) {
            return token->id;
        }
    }
    return -1;
}

bool tri_added_ends_words(const struct tri_added *added)
{
    return added->ends_words;
}

static bool begins_one(const struct tri_added *added, const unsigned char *text, size_t bytes)
{
    if (bytes == 1) {
        return added->first[text[0]] < added->first[text[0] + 1];
    }
    unsigned pair = (unsigned)text[0] << 8 | text[1];
    return (added->pair[pair / 8] >> pair % 8) & 1;
}

/* The first of token[low..high) whose byte at place is not below c (0 to 256). */
static size_t bound(const struct tri_added *added, size_t low, size_t high, size_t place, int c)
{
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const struct tri_added_token *token = &added->token[middle];
        if ((unsigned char)token->text[place] < c) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/* The longest token that text begins with. plain: of those that are not special. */
static const struct tri_added_token *longest(const struct tri_added *added,
                                             const unsigned char *text, size_t bytes, bool plain)
{
    const struct tri_added_token *best = NULL;
    size_t low = added->first[text[0]];
    size_t high = added->first[text[0] + 1];
    for (size_t place = 1; low < high; place++) {
        if (added->token[low].bytes == place) {
            best = plain && added->token[low].special ? best : &added->token[low];
            low++;
        }
        if (place == bytes) {
            break;
        }
        low = bound(added, low, high, place, text[place]);
        high = bound(added, low, high, place, text[place] + 1);
    }
    return best;
}

bool tri_added_may_cut(const struct tri_added *added, const unsigned char *text, size_t bytes,
                       size_t at)
{
    for (size_t from = at > added->longest ? at - added->longest : 0; from <= at; from++) {
        const struct tri_added_token *token =
            from < bytes && begins_one(added, text + from, bytes - from)
                ? longest(added, text + from, bytes - from, false)
                : NULL;
        if (token && from + token->bytes >= at) {
            return false;
        }
    }
    return true;
}

size_t tri_added_longest(const struct tri_added *added)
{
    return added->longest;
}

static bool stands_alone(const unsigned char *text, size_t bytes, size_t begin, size_t end)
{
    int32_t c;
    bool before = tri_utf8_last(text, begin, &c) > 0 && tri_is_word(c);
    bool after = tri_utf8_next(text + end, bytes - end, &c) > 0 && tri_is_word(c);
    return !before && !after;
}

static size_t spaces_before(const unsigned char *text, size_t bytes)
{
    int32_t c;
    size_t length;
    size_t at = bytes;
    while ((length = tri_utf8_last(text, at, &c)) > 0 && tri_is_space(c)) {
        at -= length;
    }
    return bytes - at;
}

static size_t spaces_after(const unsigned char *text, size_t bytes)
{
    int32_t c;
    size_t length;
    size_t at = 0;
    while ((length = tri_utf8_next(text + at, bytes - at, &c)) > 0 && tri_is_space(c)) {
        at += length;
    }
    return at;
}

bool tri_added_find(const struct tri_added *added, const unsigned char *text, size_t bytes,
                    struct tri_added_search *search, int32_t *id, size_t *begin, size_t *end)
{
    for (size_t at = search->from; added->count > 0 && at < bytes; at++) {
        const struct tri_added_token *token =
            begins_one(added, text + at, bytes - at)
                ? longest(added, text + at, bytes - at, search->plain)
                : NULL;
        if (!token) {
            continue;
        }
        size_t stop = at + token->bytes;
        search->from = stop;
        if (token->single_word && !stands_alone(text, bytes, at, stop)) {
            at = stop - 1;
            continue;
        }
        size_t start = token->lstrip ? at - spaces_before(text, at) : at;
        *begin = start > search->done ? start : search->done;
        *end = token->rstrip ? stop + spaces_after(text + stop, bytes - stop) : stop;
        *id = token->id;
        search->done = *end;
        return true;
    }
    search->from = bytes;
    return false;
}
