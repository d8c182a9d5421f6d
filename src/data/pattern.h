/* The patterns of tokenizer.json, found in a text one after another. They are written for
 * Oniguruma and read by PCRE2, with the classes of characters that Oniguruma knows. Internal to
 * data/. */
#ifndef TRIDENT_DATA_PATTERN_H
#define TRIDENT_DATA_PATTERN_H

#include "base/status.h"

#include <stdbool.h>
#include <stddef.h>

struct tri_pattern;

/* BAD_INPUT, naming place (a file and a key), for what is no pattern and what the two would read
 * differently. */
enum tri_status tri_pattern_create(const char *place, const char *text,
                                   struct tri_pattern **pattern,
                                   struct tri_error *error) TRI_NODISCARD;
void tri_pattern_destroy(struct tri_pattern *pattern);
/* Whether a text may be cut between a letter and a space or line feed behind it: each half alone
 * gives the matches that the whole has in it. Known of the patterns that many models have. */
bool tri_pattern_ends_words(const struct tri_pattern *pattern);
/* Whether it is one of those whose matches end there, and not of digits alone. */
bool tri_pattern_splits_spaces(const struct tri_pattern *pattern);

/* What one thread needs to look for it. */
struct tri_matcher;
struct tri_matcher *tri_matcher_create(const struct tri_pattern *pattern);
void tri_matcher_destroy(struct tri_matcher *matcher);
/* The first match at from or later in valid UTF-8, of one byte at least; *begin = *end = bytes
 * without one. False: it takes more steps than a match may, or memory. */
bool tri_matcher_find(struct tri_matcher *matcher, const unsigned char *text, size_t bytes,
                      size_t from, size_t *begin, size_t *end);

#endif
