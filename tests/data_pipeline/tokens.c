#include "tokens.h"

#include <stdio.h>

const char *const tokens_names[TOKENS_KINDS] = {"gpt2",  "neox",   "llama3",
                                                "qwen2", "llama2", "mixtral"};

struct tri_tokenizer *tokens_load(const char *path)
{
    struct tri_error error = {0};
    struct tri_tokenizer *tokenizer;
    if (tri_tokenizer_create(path, &tokenizer, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return tokenizer;
}

int64_t tokens_encode(const struct tri_tokenizer *tokenizer, const char *text, size_t bytes,
                      int32_t **tokens)
{
    struct tri_error error = {0};
    int64_t count;
    if (tri_tokenizer_encode(tokenizer, text, bytes, tokens, &count, &error) != TRI_OK) {
        fail_msg("%s", error.message);
    }
    return count;
}

struct tri_tokenizer *tokens_load_recorded(const char *name)
{
    char path[512];
    (void)snprintf(path, sizeof(path), "%s/golden/tokenizers/%s", TESTDATA_DIR, name);
    return tokens_load(path);
}
