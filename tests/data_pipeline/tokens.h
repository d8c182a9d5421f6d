/* Tokenizers of the tests, and what they make of texts; a failure fails the test. */
#ifndef TRIDENT_TESTS_DATA_PIPELINE_TOKENS_H
#define TRIDENT_TESTS_DATA_PIPELINE_TOKENS_H

#include "files.h"

#include "data/tokenizer.h"

/* The names of the recorded ones in tests/data/golden/tokenizers. */
enum { TOKENS_KINDS = 6 };
extern const char *const tokens_names[TOKENS_KINDS];

struct tri_tokenizer *tokens_load(const char *path);
struct tri_tokenizer *tokens_load_recorded(const char *name);
/* Returns how many there are; tri_free(*tokens). */
int64_t tokens_encode(const struct tri_tokenizer *tokenizer, const char *text, size_t bytes,
                      int32_t **tokens);

#endif
