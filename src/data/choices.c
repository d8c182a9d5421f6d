#include "data/choices.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/work.h"

#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <xxhash.h>

/* Words before the context; of a question at least: with two completions, a token each. */
enum { HEADER_BYTES = 1024, START = 65535, START_WORDS = 5, LEAST_WORDS = START_WORDS + 3 * 2 };

struct tri_choices {
    struct tri_mapping mapping;
    const uint16_t *words; /* behind the header */
    int64_t num_words;
    int64_t count, longest, most_completions;
    int64_t *at; /* [count] where each question begins */
};

/* ---- checking -------------------------------------------------------------------------------- */

/* Reads the words of one question as long as there are any. */
struct reader {
    const char *path;
    const struct tri_choices *choices;
    int64_t limit; /* every token is below it */
    int64_t question, place, end;
    struct tri_error *error;
};

static enum tri_status refuse_word(const struct reader *r, const char *what, int64_t found,
                                   const char *expected)
{
    return tri_fail(r->error, TRI_BAD_INPUT,
                    "%s: question %" PRId64 ": %s is %" PRId64 ", expected %s", r->path,
                    r->question, what, found, expected);
}

/* The next word, which says how many tokens follow, and those. */
static enum tri_status read_tokens(struct reader *r, const char *what, int64_t *count)
{
    if (r->place >= r->end) {
        return tri_fail(r->error, TRI_BAD_INPUT,
                        "%s: question %" PRId64 ": its %s lies behind the end of the question",
                        r->path, r->question, what);
    }
    const uint16_t *words = r->choices->words + r->place;
    *count = words[0];
    if (*count == 0 || *count > r->end - r->place - 1) {
        return tri_fail(r->error, TRI_BAD_INPUT,
                        "%s: question %" PRId64 ": its %s has %" PRId64
                        " tokens, expected 1 to the %" PRId64 " that are left of the question",
                        r->path, r->question, what, *count, r->end - r->place - 1);
    }
    for (int64_t i = 1; i <= *count; i++) {
        if (words[i] >= r->limit) {
            return tri_fail(r->error, TRI_BAD_INPUT,
                            "%s: question %" PRId64 ": token %d in its %s, expected below %" PRId64
                            " (model.vocab_size)",
                            r->path, r->question, words[i], what, r->limit);
        }
    }
    r->place += *count + 1;
    return TRI_OK;
}

/* The five words before the context: what they say must be, and r->end, where the question ends. */
static enum tri_status read_start(struct reader *r)
{
    const uint16_t *words = r->choices->words + r->place;
    int64_t left = r->choices->num_words - r->place;
    int64_t bytes = left < LEAST_WORDS ? 0 : words[1];
    if (bytes % 2 != 0 || bytes < 2 * LEAST_WORDS || bytes > 2 * left) {
        return tri_fail(r->error, TRI_BAD_INPUT,
                        "%s: question %" PRId64 ": %" PRId64 " bytes, expected an even number of "
                        "at least %d, and %" PRId64 " are left in the file",
                        r->path, r->question, bytes, 2 * LEAST_WORDS, 2 * left);
    }
    if (words[0] != START) {
        return refuse_word(r, "the first word", words[0], "65535");
    }
    if (words[2] != (uint16_t)r->question) {
        return refuse_word(r, "its number", words[2], "its place in the file");
    }
    if (words[4] < 2) {
        return refuse_word(r, "the number of completions", words[4], "2 or more");
    }
    if (words[3] >= words[4]) {
        return refuse_word(r, "the right completion", words[3], "less than their number");
    }
    r->end = r->place + bytes / 2;
    r->place += START_WORDS;
    return TRI_OK;
}

static enum tri_status read_question(struct reader *r, struct tri_choices *choices)
{
    int64_t context = 0;
    int64_t completion = 0;
    TRI_TRY(read_start(r));
    int completions = r->choices->words[r->place - 1];
    TRI_TRY(read_tokens(r, "context", &context));
    for (int i = 0; i < completions; i++) {
        TRI_TRY(read_tokens(r, "completion", &completion));
        int64_t inputs = context + completion - 1;
        choices->longest = inputs > choices->longest ? inputs : choices->longest;
    }
    if (completions > choices->most_completions) {
        choices->most_completions = completions;
    }
    return r->place == r->end ? TRI_OK
                              : tri_fail(r->error, TRI_BAD_INPUT,
                                         "%s: question %" PRId64 ": %" PRId64
                                         " words behind its last completion, expected none",
                                         r->path, r->question, r->end - r->place);
}

static enum tri_status read_questions(const char *path, int64_t vocab_size,
                                      struct tri_choices *choices, struct tri_error *error)
{
    struct reader r = {.path = path, .choices = choices, .limit = vocab_size, .error = error};
    for (; r.question < choices->count; r.question++) {
        tri_work_progress();
        choices->at[r.question] = r.place;
        TRI_TRY(read_question(&r, choices));
    }
    return r.place == choices->num_words
               ? TRI_OK
               : tri_fail(error, TRI_BAD_INPUT,
                          "%s: %" PRId64 " bytes behind the last question, expected none", path,
                          2 * (choices->num_words - r.place));
}

/* Their number, which the file's size bounds. */
static enum tri_status read_header(const char *path, struct tri_choices *choices,
                                   struct tri_error *error)
{
    int32_t header[3] = {0};
    size_t size = choices->mapping.size;
    if (size < HEADER_BYTES || size % 2 != 0) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: %zu bytes, expected a header of %d and 16-bit words: a file of "
                        "multiple choice as llm.c has them",
                        path, size, HEADER_BYTES);
    }
    memcpy(header, choices->mapping.data, sizeof(header));
    if (header[0] != TRI_CHOICES_MAGIC || header[1] != TRI_CHOICES_VERSION) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: magic number %" PRId32 ", version %" PRId32
                        ", expected %d, %d: a file of multiple choice as llm.c has them",
                        path, header[0], header[1], TRI_CHOICES_MAGIC, TRI_CHOICES_VERSION);
    }
    choices->words = (const uint16_t *)(const void *)(choices->mapping.data + HEADER_BYTES);
    choices->num_words = (int64_t)(size - HEADER_BYTES) / 2;
    choices->count = header[2];
    if (choices->count < 1 || choices->count > choices->num_words / LEAST_WORDS) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: the header promises %" PRId64 " questions, expected 1 to the %" PRId64
                        " that a file of %zu bytes has room for",
                        path, choices->count, choices->num_words / LEAST_WORDS, size);
    }
    return TRI_OK;
}

enum tri_status tri_choices_open(const char *path, int64_t vocab_size, struct tri_choices **choices,
                                 struct tri_error *error)
{
    *choices = NULL;
    struct tri_choices *set = tri_alloc(TRI_MEMORY_OTHER, sizeof(*set));
    enum tri_status status = tri_file_map(path, &set->mapping, error);
    if (status == TRI_OK) {
        status = read_header(path, set, error);
    }
    if (status == TRI_OK) {
        set->at = tri_alloc(TRI_MEMORY_OTHER, (size_t)set->count * sizeof(*set->at));
        status = read_questions(path, vocab_size, set, error);
    }
    if (status != TRI_OK) {
        tri_choices_close(set);
        return status;
    }
    *choices = set;
    return TRI_OK;
}

void tri_choices_close(struct tri_choices *choices)
{
    if (choices) {
        tri_file_unmap(&choices->mapping);
        tri_free(choices->at);
        tri_free(choices);
    }
}

/* ---- asking ---------------------------------------------------------------------------------- */

int64_t tri_choices_count(const struct tri_choices *choices)
{
    return choices->count;
}

int64_t tri_choices_longest(const struct tri_choices *choices)
{
    return choices->longest;
}

int64_t tri_choices_most_completions(const struct tri_choices *choices)
{
    return choices->most_completions;
}

uint64_t tri_choices_contents(const struct tri_choices *choices)
{
    return XXH3_64bits(choices->mapping.data, choices->mapping.size);
}

struct tri_choices_question tri_choices_question(const struct tri_choices *choices, int64_t index)
{
    TRI_REQUIRE(index >= 0 && index < choices->count);
    const uint16_t *words = choices->words + choices->at[index];
    return (struct tri_choices_question){.completions = words[4], .right = words[3]};
}

int64_t tri_choices_row(const struct tri_choices *choices, int64_t index, int completion,
                        int64_t seq, int32_t *tokens, int32_t *targets)
{
    TRI_REQUIRE(completion >= 0 && completion < tri_choices_question(choices, index).completions);
    const uint16_t *context = choices->words + choices->at[index] + START_WORDS;
    const uint16_t *end = context + 1 + context[0];
    for (int i = 0; i < completion; i++) {
        end += 1 + end[0];
    }
    int64_t before = context[0];
    int64_t inputs = before + end[0] - 1;
    TRI_REQUIRE(inputs <= seq);
    for (int64_t i = 0; i < seq; i++) {
        bool in_context = i < before;
        bool counts = i + 1 >= before && i < inputs;
        tokens[i] = i >= inputs ? 0 : in_context ? context[1 + i] : end[1 + i - before];
        targets[i] = counts ? end[2 + i - before] : -1;
    }
    return end[0];
}
