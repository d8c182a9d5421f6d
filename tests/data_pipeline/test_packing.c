/* Rows of documents: each document once and whole, the same rows as a plain search for the best fit
 * finds, nothing predicted across a border, an order of each epoch's own. */
#include "files.h"

#include "base/memory.h"
#include "base/random.h"
#include "data/loader.h"

#include <string.h>

enum { MOST = 3000, SEPARATOR = 60000 };

static struct tri_tokens *open_set(const char *pattern)
{
    struct tri_error error = {0};
    struct tri_tokens *tokens;
    if (tri_tokens_create(pattern, TRI_DATA_LLMC, 0, &tokens, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return tokens;
}

/* Documents of drawn lengths, by a list or by separators; places[n] is the end. The token at place
 * i is i + 1; padding is 0. */
static struct tri_tokens *draw_set(uint64_t seed, int64_t most, int64_t *places, int64_t *n)
{
    int64_t count = 1500;
    int64_t at = 0;
    for (*n = 0; at < count; (*n)++) {
        places[*n] = at;
        at += 1 + (int64_t)(tri_random_bits(seed, 1, (uint64_t)*n) % (uint64_t)most);
    }
    count = at;
    places[*n] = count;
    files_write_shard("d_0.bin", 700, 1, 1);
    files_write_shard("d_1.bin", count - 700, 701, 1);
    int64_t first = 0;
    while (places[first] < 700) {
        first++;
    }
    int64_t rest[MOST];
    for (int64_t i = first; i < *n; i++) {
        rest[i - first] = places[i] - 700;
    }
    files_write_documents("d_0.docs", first, places);
    files_write_documents("d_1.docs", *n - first, rest);
    return open_set("d_?.bin");
}

/* Best fit by looking at every row. */
static int64_t plain_rows(const int64_t *places, int64_t n, int64_t seq)
{
    static int64_t left[MOST], count;
    count = 0;
    for (int64_t length = seq; length > 0; length--) {
        for (int64_t d = 0; d < n; d++) {
            int64_t size = places[d + 1] - places[d];
            int64_t pieces = (size / seq && length == seq ? size / seq : 0) +
                             (size % seq == length && length < seq);
            for (int64_t p = 0; p < pieces; p++) {
                int64_t best = -1;
                for (int64_t r = 0; r < count; r++) {
                    best = left[r] >= length && (best < 0 || left[r] < left[best]) ? r : best;
                }
                if (best < 0) {
                    best = count++;
                    left[best] = seq;
                }
                left[best] -= length;
            }
        }
    }
    return count;
}

static struct tri_row_arrays arrays(int32_t *room, int64_t n)
{
    return (struct tri_row_arrays){room, room + n, room + 2 * n, room + 3 * n};
}

/* Marks the tokens of a row as seen; what it must be follows from the tokens alone. */
static void check_row(const struct tri_row_arrays *row, int64_t seq, const int64_t *places,
                      bool positions, int *seen)
{
    int32_t first = 0;
    int64_t document = 0;
    for (int64_t t = 0; t < seq; t++) {
        int64_t place = row->tokens[t] - 1;
        bool goes_on = t > 0 && row->tokens[t] == row->tokens[t - 1] + 1 &&
                       place != places[document + 1] && row->first_key[t] < t;
        first = goes_on ? first : (int32_t)t;
        assert_int_equal(row->first_key[t], first);
        assert_int_equal(row->positions[t], positions ? t - first : t);
        if (place < 0) {
            assert_int_equal(first, t);
            assert_int_equal(row->targets[t], -1);
            continue;
        }
        for (document = 0; places[document + 1] <= place; document++) {
        }
        assert_int_equal(seen[place]++, 0);
        bool last = place + 1 == places[document + 1];
        assert_int_equal(row->targets[t], last ? -1 : place + 2);
        assert_true(goes_on || place == places[document] || (place - places[document]) % seq == 0);
    }
}

static void every_document_is_once_and_whole(void **state)
{
    (void)state;
    static const int64_t lengths[][2] = {{64, 20}, {64, 64}, {64, 150}, {7, 40}, {1, 3}, {70, 2}};
    files_enter("packing");
    for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
        int64_t places[MOST], n;
        int64_t seq = lengths[i][0];
        struct tri_error error = {0};
        struct tri_tokens *tokens = draw_set(i, lengths[i][1], places, &n);
        struct tri_loader *loader;
        struct tri_loader_args args = {.tokens = tokens,
                                       .sequence_length = seq,
                                       .separator = -1,
                                       .document_positions = i % 2 == 0,
                                       .packs = true};
        assert_int_equal(tri_loader_create_eval(&args, &loader, &error), TRI_OK);
        struct tri_packing_counts counts = tri_loader_counts(loader).packing;
        assert_int_equal(counts.documents, n);
        assert_int_equal(counts.rows, plain_rows(places, n, seq));
        assert_int_equal(counts.padding, counts.rows * seq - places[n]);
        assert_int_equal(tri_loader_eval_count(loader), counts.rows);
        assert_int_equal(tri_loader_eval_rest(loader), 0);
        int32_t *room = tri_alloc(TRI_MEMORY_OTHER, (size_t)seq * 4 * sizeof(*room));
        const struct tri_row_arrays row = arrays(room, seq);
        int seen[MOST] = {0};
        int64_t targets = 0;
        for (int64_t r = 0; r < counts.rows; r++) {
            assert_int_equal(tri_loader_eval_rows(loader, r, 1, &row, &error), TRI_OK);
            check_row(&row, seq, places, args.document_positions, seen);
            for (int64_t t = 0; t < seq; t++) {
                targets += row.targets[t] >= 0;
            }
        }
        for (int64_t t = 0; t < places[n]; t++) {
            assert_int_equal(seen[t], 1);
        }
        assert_int_equal(targets, places[n] - n);
        assert_int_equal(tri_loader_eval_counted(loader, counts.rows, false), targets);
        tri_free(room);
        tri_loader_destroy(loader);
        tri_tokens_destroy(tokens);
    }
}

static void separators_end_documents_too(void **state)
{
    (void)state;
    struct tri_error error = {0};
    struct tri_packing *packing;
    files_enter("packing_separators");
    files_write_shard("s.bin", 30000, 0, 1);
    files_write_documents("s.docs", 2, (const int64_t[]){0, 20000});
    struct tri_tokens *tokens = open_set("s.bin");
    /* Token 9000 ends one, and 20000 begins the next: 9001, 10999 and 10000 tokens. */
    assert_int_equal(tri_packing_create(tokens, 9000, 12000, &packing, &error), TRI_OK);
    struct tri_packing_counts counts = tri_packing_counts(packing);
    assert_int_equal(counts.documents, 3);
    assert_int_equal(counts.cut, 0);
    assert_int_equal(counts.rows, 3);
    int64_t count;
    const struct tri_packed_piece *piece = tri_packing_row(packing, 0, &count);
    assert_true(count == 1 && piece->start == 9001 && piece->length == 10999 && !piece->goes_on);
    tri_packing_destroy(packing);
    assert_int_equal(tri_packing_create(tokens, -1, 8000, &packing, &error), TRI_OK);
    counts = tri_packing_counts(packing);
    assert_true(counts.documents == 2 && counts.cut == 2 && counts.pieces == 5 && counts.rows == 4);
    tri_packing_destroy(packing);
    tri_tokens_destroy(tokens);
}

static void epochs_have_orders_of_their_own(void **state)
{
    (void)state;
    enum { SEQ = 64, BATCH = 5 };
    int64_t places[MOST], n;
    struct tri_error error = {0};
    files_enter("packing_epochs");
    struct tri_tokens *tokens = draw_set(3, 40, places, &n);
    struct tri_loader *loader;
    struct tri_loader_args args = {.tokens = tokens,
                                   .seed = 9,
                                   .sequence_length = SEQ,
                                   .global_batch = BATCH,
                                   .separator = -1,
                                   .packs = true};
    assert_int_equal(tri_loader_create(&args, &loader, &error), TRI_OK);
    int64_t rows = tri_loader_counts(loader).packing.rows;
    int32_t room[4 * SEQ], begins[2][MOST];
    const struct tri_row_arrays row = arrays(room, SEQ);
    int64_t counted = 0, size = 0;
    for (int64_t sample = 0; sample < 2 * rows; sample++) {
        assert_int_equal(tri_loader_rows(loader, sample / BATCH, sample % BATCH, 1, &row, &error),
                         TRI_OK);
        begins[sample / rows][sample % rows] = row.tokens[0];
        for (int64_t t = 0; t < SEQ; t++) {
            counted += row.targets[t] >= 0;
            size += row.tokens[t] != 0;
        }
        if (sample % BATCH == BATCH - 1) {
            assert_int_equal(tri_loader_counted(loader, sample / BATCH), counted);
            assert_int_equal(tri_loader_tokens(loader, sample / BATCH), size);
            counted = size = 0;
        }
    }
    int same = 0, found = 0;
    for (int64_t i = 0; i < rows; i++) {
        same += begins[0][i] == begins[1][i];
        for (int64_t j = 0; j < rows; j++) {
            found += begins[0][i] == begins[1][j];
        }
    }
    assert_int_equal(found, rows);
    assert_true(same < rows / 2);
    tri_loader_destroy(loader);
    tri_tokens_destroy(tokens);
}

/* In the place of the documents' list, and not beside it. */
static void little_memory_is_taken(void **state)
{
    (void)state;
    enum { COUNT = 100000, SEQ = 64, SLACK = 1 << 17 };
    struct tri_error error = {0};
    struct tri_packing *packing;
    files_enter("packing_memory");
    files_write_shard("d.bin", COUNT, 7, 0);
    struct tri_tokens *tokens = open_set("d.bin");
    const struct tri_memory_scope scope = tri_memory_scope_begin();
    assert_int_equal(tri_packing_create(tokens, 7, SEQ, &packing, &error), TRI_OK);
    const int64_t held = tri_memory_get().current[TRI_MEMORY_OTHER];
    const int64_t pieces = tri_packing_counts(packing).pieces;
    assert_int_equal(pieces, COUNT);
    tri_packing_destroy(packing);
    const int64_t peak = tri_memory_scope_end(&scope).peak[TRI_MEMORY_OTHER];
    const int64_t size = (int64_t)sizeof(struct tri_packed_piece) * pieces;
    assert_in_range(held, size, size + SLACK);
    assert_in_range(peak, size, 2 * size + size / 2);
    tri_tokens_destroy(tokens);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_document_is_once_and_whole),
        cmocka_unit_test(separators_end_documents_too),
        cmocka_unit_test(epochs_have_orders_of_their_own),
        cmocka_unit_test(little_memory_is_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
