#include "data/packing.h"

#include "base/memory.h"
#include "base/work.h"

struct tri_packing {
    struct tri_packing_counts counts;
    struct tri_packed_piece *pieces; /* row after row */
    int64_t *first;                  /* [rows + 1] of each row among the pieces */
};

/* ---- where documents end --------------------------------------------------------------------- */

enum { BUFFER = 4096 };

struct walk {
    const struct tri_tokens *tokens;
    int64_t separator;
    int64_t begin, end; /* what the buffer holds */
    int32_t buffer[BUFFER];
};

/* *end <- behind the last token of the document that begins at `begin`. */
static enum tri_status find_end(struct walk *walk, int64_t begin, int64_t *end,
                                struct tri_error *error)
{
    int64_t limit = tri_tokens_next_document(walk->tokens, begin);
    *end = limit;
    for (int64_t at = begin; walk->separator >= 0 && at < limit; at++) {
        if (at >= walk->end) {
            int64_t left = tri_tokens_count(walk->tokens) - at;
            walk->begin = at;
            walk->end = at + (left < BUFFER ? left : BUFFER);
            TRI_TRY(tri_tokens_read(walk->tokens, at, walk->end - at, walk->buffer, error));
        }
        if (walk->buffer[at - walk->begin] == walk->separator) {
            *end = at + 1;
            return TRI_OK;
        }
    }
    return TRI_OK;
}

/* ---- pieces ---------------------------------------------------------------------------------- */

struct pieces {
    struct tri_packed_piece *items;
    int64_t count, room;
};

static void add(struct pieces *pieces, struct tri_packed_piece piece)
{
    if (pieces->count == pieces->room) {
        pieces->room = pieces->room > 0 ? 2 * pieces->room : 1024;
        size_t bytes = (size_t)pieces->room * sizeof(*pieces->items);
        pieces->items =
            pieces->items ? tri_resize(pieces->items, bytes) : tri_alloc(TRI_MEMORY_OTHER, bytes);
    }
    pieces->items[pieces->count++] = piece;
}

static enum tri_status list(const struct tri_tokens *tokens, int64_t separator, int64_t length,
                            struct pieces *pieces, struct tri_packing_counts *counts,
                            struct tri_error *error)
{
    struct walk *walk = tri_alloc(TRI_MEMORY_OTHER, sizeof(*walk));
    walk->tokens = tokens;
    walk->separator = separator;
    walk->begin = walk->end = 0;
    enum tri_status status = TRI_OK;
    counts->tokens = tri_tokens_count(tokens);
    for (int64_t begin = 0; begin < counts->tokens && status == TRI_OK;) {
        int64_t end;
        status = find_end(walk, begin, &end, error);
        counts->documents++;
        counts->cut += end - begin > length;
        while (status == TRI_OK && begin < end) {
            int64_t part = end - begin < length ? end - begin : length;
            add(pieces, (struct tri_packed_piece){begin, (int32_t)part, begin + part < end});
            begin += part;
        }
        if (counts->documents % BUFFER == 0) {
            tri_work_progress();
        }
    }
    if (pieces->count > 0) {
        pieces->items = tri_resize(pieces->items, (size_t)pieces->count * sizeof(*pieces->items));
    }
    tri_free(walk);
    return status;
}

/* Each piece goes to place to[piece], without a second array of them; to is used up. */
static void move(struct pieces *pieces, int64_t *to)
{
    for (int64_t i = 0; i < pieces->count; i++) {
        while (to[i] != i) {
            const int64_t other = to[i];
            const struct tri_packed_piece piece = pieces->items[other];
            pieces->items[other] = pieces->items[i];
            pieces->items[i] = piece;
            to[i] = to[other];
            to[other] = other;
        }
    }
}

/* The pieces, the longest first, those of one length in their order. to: scratch, [pieces]. */
static void sort(struct pieces *pieces, int64_t length, int64_t *to)
{
    /* at[l]: where the next piece of length l goes. */
    int64_t *at = tri_alloc(TRI_MEMORY_OTHER, (size_t)(length + 2) * sizeof(*at));
    for (int64_t i = 0; i < pieces->count; i++) {
        at[pieces->items[i].length]++;
    }
    int64_t before = 0;
    for (int64_t l = length; l > 0; l--) {
        int64_t number = at[l];
        at[l] = before;
        before += number;
    }
    for (int64_t i = 0; i < pieces->count; i++) {
        to[i] = at[pieces->items[i].length]++;
    }
    tri_free(at);
    move(pieces, to);
}

/* ---- room ------------------------------------------------------------------------------------ */

/* Numbers from 0 to some size: which are in, and the least that is in and not below another. A word
 * of a level says which words of the level below are not zero. */
enum { LEVELS = 5, WORD = 64 };

struct numbers {
    uint64_t *level[LEVELS];
    int64_t words[LEVELS];
};

static void numbers_init(struct numbers *numbers, int64_t size)
{
    for (int l = 0; l < LEVELS; l++) {
        size = (size + WORD - 1) / WORD;
        numbers->words[l] = size;
        numbers->level[l] = tri_alloc(TRI_MEMORY_OTHER, (size_t)size * sizeof(uint64_t));
    }
}

static void numbers_fini(struct numbers *numbers)
{
    for (int l = 0; l < LEVELS; l++) {
        tri_free(numbers->level[l]);
    }
}

static void numbers_set(struct numbers *numbers, int64_t number, bool in)
{
    for (int l = 0; l < LEVELS; l++) {
        uint64_t bit = UINT64_C(1) << (number % WORD);
        uint64_t *word = &numbers->level[l][number / WORD];
        *word = in ? *word | bit : *word & ~bit;
        in = *word != 0;
        number /= WORD;
    }
}

static int lowest_bit(uint64_t word)
{
    int bit = 0;
    for (int step = 32; step > 0; step /= 2) {
        if ((word & ((UINT64_C(1) << step) - 1)) == 0) {
            word >>= step;
            bit += step;
        }
    }
    return bit;
}

/* -1: there is none. */
static int64_t numbers_from(const struct numbers *numbers, int64_t number)
{
    for (int l = 0; l < LEVELS; l++) {
        int64_t index = number / WORD;
        if (index >= numbers->words[l]) {
            return -1;
        }
        uint64_t rest = numbers->level[l][index] >> (number % WORD);
        if (rest) {
            number += lowest_bit(rest);
            for (; l > 0; l--) {
                number = number * WORD + lowest_bit(numbers->level[l - 1][number]);
            }
            return number;
        }
        number = index + 1;
    }
    return -1;
}

/* Rows by how much is left of them; those with the same stand in a list, the last one first. */
struct rows {
    struct numbers left;
    int64_t *head; /* [length + 1]; row + 1, or 0 */
    int64_t *next; /* [pieces] of a row, likewise */
    int64_t count;
};

static void put(struct rows *rows, int64_t row, int64_t left)
{
    if (left > 0) {
        rows->next[row] = rows->head[left];
        rows->head[left] = row + 1;
        numbers_set(&rows->left, left, true);
    }
}

/* A row with room for `length`, the one with the least, or a new one. */
static int64_t take(struct rows *rows, int64_t length, int64_t whole)
{
    int64_t left = numbers_from(&rows->left, length);
    int64_t row = left < 0 ? rows->count++ : rows->head[left] - 1;
    if (left >= 0) {
        rows->head[left] = rows->next[row];
        numbers_set(&rows->left, left, rows->head[left] != 0);
    }
    put(rows, row, (left < 0 ? whole : left) - length);
    return row;
}

/* row_of[piece] <- its row. Returns how many rows there are. */
static int64_t fit(const struct pieces *pieces, int64_t length, int64_t *row_of)
{
    struct rows rows = {.count = 0};
    numbers_init(&rows.left, length + 1);
    rows.head = tri_alloc(TRI_MEMORY_OTHER, (size_t)(length + 1) * sizeof(*rows.head));
    rows.next = tri_alloc(TRI_MEMORY_OTHER, (size_t)pieces->count * sizeof(*rows.next));
    for (int64_t i = 0; i < pieces->count; i++) {
        row_of[i] = take(&rows, pieces->items[i].length, length);
        if (i % BUFFER == 0) {
            tri_work_progress();
        }
    }
    numbers_fini(&rows.left);
    tri_free(rows.head);
    tri_free(rows.next);
    return rows.count;
}

/* ---- the whole ------------------------------------------------------------------------------- */

/* Row after row; in a row the pieces stand in the order in which they came. row_of is used up. */
static void order(struct tri_packing *packing, struct pieces *pieces, int64_t *row_of)
{
    int64_t rows = packing->counts.rows;
    packing->first = tri_alloc(TRI_MEMORY_OTHER, (size_t)(rows + 2) * sizeof(*packing->first));
    int64_t *at = packing->first + 1; /* becomes the ends as rows are filled */
    for (int64_t i = 0; i < pieces->count; i++) {
        at[row_of[i] + 1]++;
    }
    for (int64_t row = 0; row < rows; row++) {
        at[row + 1] += at[row];
    }
    for (int64_t i = 0; i < pieces->count; i++) {
        row_of[i] = at[row_of[i]]++;
    }
    move(pieces, row_of);
    packing->pieces = pieces->items;
}

enum tri_status tri_packing_create(const struct tri_tokens *tokens, int64_t separator,
                                   int64_t length, struct tri_packing **packing,
                                   struct tri_error *error)
{
    struct pieces pieces = {0};
    struct tri_packing *self = tri_alloc(TRI_MEMORY_OTHER, sizeof(*self));
    *packing = NULL;
    enum tri_status status = list(tokens, separator, length, &pieces, &self->counts, error);
    if (status == TRI_OK) {
        int64_t *row_of = tri_alloc(TRI_MEMORY_OTHER, (size_t)pieces.count * sizeof(*row_of));
        sort(&pieces, length, row_of);
        self->counts.pieces = pieces.count;
        self->counts.rows = fit(&pieces, length, row_of);
        self->counts.padding = self->counts.rows * length - self->counts.tokens;
        order(self, &pieces, row_of);
        tri_free(row_of);
        *packing = self;
    } else {
        tri_packing_destroy(self);
        tri_free(pieces.items);
    }
    return status;
}

void tri_packing_destroy(struct tri_packing *packing)
{
    if (packing) {
        tri_free(packing->pieces);
        tri_free(packing->first);
        tri_free(packing);
    }
}

struct tri_packing_counts tri_packing_counts(const struct tri_packing *packing)
{
    return packing->counts;
}

const struct tri_packed_piece *tri_packing_row(const struct tri_packing *packing, int64_t row,
                                               int64_t *count)
{
    TRI_REQUIRE(row >= 0 && row < packing->counts.rows);
    *count = packing->first[row + 1] - packing->first[row];
    return packing->pieces + packing->first[row];
}
