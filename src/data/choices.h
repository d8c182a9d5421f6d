/* Questions of multiple choice, as llm.c writes HellaSwag and MMLU: a context, and completions of
 * which one is right.
 *
 * File (little-endian): 256 int32: magic 20240522, version 1, questions, bytes of the longest; then
 * for each question u16: 65535, its bytes, its number from 0, the right completion, how many
 * completions (2 to 65534); and how many tokens and the tokens of the context, then of each
 * completion. */
#ifndef TRIDENT_DATA_CHOICES_H
#define TRIDENT_DATA_CHOICES_H

#include "base/status.h"

#include <stdint.h>

enum { TRI_CHOICES_MAGIC = 20240522, TRI_CHOICES_VERSION = 1 };

struct tri_choices;

struct tri_choices_question {
    int completions, right;
};

/* Maps the file and checks all of it: every length, and that every token is below vocab_size. A
 * context has at least one token, and so has a completion. Local; BAD_INPUT names the file, the
 * question, found and expected. */
enum tri_status tri_choices_open(const char *path, int64_t vocab_size, struct tri_choices **choices,
                                 struct tri_error *error) TRI_NODISCARD;
void tri_choices_close(struct tri_choices *choices);

int64_t tri_choices_count(const struct tri_choices *choices);
/* Inputs of the longest row of all; completions of the question that has most. */
int64_t tri_choices_longest(const struct tri_choices *choices);
int64_t tri_choices_most_completions(const struct tri_choices *choices);
/* XXH3-64 of the whole file. */
uint64_t tri_choices_contents(const struct tri_choices *choices);
struct tri_choices_question tri_choices_question(const struct tri_choices *choices, int64_t index);

/* One row: the context and a completion. tokens, targets [seq], seq at least that row's inputs:
 * what counts are the completion's tokens, the rest of the targets is -1; behind the row's end
 * tokens are 0. Returns how many count. */
int64_t tri_choices_row(const struct tri_choices *choices, int64_t index, int completion,
                        int64_t seq, int32_t *tokens, int32_t *targets);

#endif
