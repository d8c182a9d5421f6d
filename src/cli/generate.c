#include "base/memory.h"
#include "cli/command.h"
#include "data/tokenizer.h"
#include "infer/decoder.h"
#include "train/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct request {
    struct tri_config config;
    char path[TRI_PATH_MAX];
    const char *prompt;
    bool ids; /* the prompt is token ids, and ids are printed */
    bool json;
    int64_t tokens;
    struct tri_sampling sampling;
};

static enum tri_status read_numbers(const struct tri_arguments *arguments, struct request *request,
                                    struct tri_error *error)
{
    int64_t seed;
    TRI_TRY(tri_arguments_int(arguments, "--tokens", 1, 100000000, 200, &request->tokens, error));
    TRI_TRY(tri_arguments_real(arguments, "--temperature", 0.0, 1e6, 1.0,
                               &request->sampling.temperature, error));
    TRI_TRY(
        tri_arguments_int(arguments, "--top-k", 0, 1 << 30, 0, &request->sampling.top_k, error));
    TRI_TRY(
        tri_arguments_real(arguments, "--top-p", 1e-9, 1.0, 1.0, &request->sampling.top_p, error));
    TRI_TRY(tri_arguments_int(arguments, "--seed", 0, INT64_MAX, 1, &seed, error));
    request->sampling.seed = (uint64_t)seed;
    return TRI_OK;
}

static enum tri_status read_request(const struct tri_arguments *arguments, struct request *request,
                                    struct tri_error *error)
{
    const char *prompt = tri_arguments_get(arguments, "--prompt");
    request->prompt = prompt ? prompt : "\n";
    request->ids = tri_arguments_has(arguments, "--ids");
    request->json = tri_arguments_has(arguments, "--json");
    TRI_TRY(read_numbers(arguments, request, error));
    return tri_config_of_checkpoint(arguments->words[0], arguments, &request->config, request->path,
                                    error);
}

/* "12 7 300"; *tokens is the caller's to free, whatever the status. */
static enum tri_status parse_ids(const char *text, int32_t **tokens, int64_t *count,
                                 struct tri_error *error)
{
    *tokens = tri_alloc(TRI_MEMORY_OTHER, (strlen(text) + 1) * sizeof(**tokens));
    *count = 0;
    for (const char *at = text; *at;) {
        char *end;
        long long id = strtoll(at, &end, 10);
        if (end == at || id < 0 || id > INT32_MAX) {
            return tri_fail(error, TRI_BAD_INPUT,
                            "command line: --prompt: found '%s', expected token ids", at);
        }
        (*tokens)[(*count)++] = (int32_t)id;
        at = end + strspn(end, " ,");
    }
    return TRI_OK;
}

/* *tokens, NULL before, is the caller's to free, whatever the status. */
static enum tri_status encode(const struct request *request, const struct tri_tokenizer *tokenizer,
                              int32_t **tokens, int64_t *count, struct tri_error *error)
{
    if (request->ids) {
        TRI_TRY(parse_ids(request->prompt, tokens, count, error));
    } else {
        TRI_TRY(tri_tokenizer_encode(tokenizer, request->prompt, strlen(request->prompt), tokens,
                                     count, error));
    }
    int64_t vocab = request->config.model.vocab_size;
    for (int64_t i = 0; i < *count; i++) {
        if ((*tokens)[i] >= vocab) {
            return tri_fail(
                error, TRI_BAD_INPUT,
                "command line: --prompt: token %d is not below the vocabulary size %lld",
                (*tokens)[i], (long long)vocab);
        }
    }
    if (*count == 0) {
        return tri_fail(error, TRI_BAD_INPUT, "command line: --prompt is empty");
    }
    return TRI_OK;
}

static void print_token(const struct request *request, const struct tri_tokenizer *tokenizer,
                        int32_t token)
{
    const unsigned char *text;
    if (request->ids) {
        (void)printf("%d ", token);
    } else {
        size_t bytes = tokenizer->token_text(tokenizer, token, &text);
        (void)fwrite(text, 1, bytes, stdout);
    }
    (void)fflush(stdout);
}

/* When the cache is full the model goes on from the last half of what it has read. */
static void feed(struct tri_decoder *decoder, const int32_t *all, int64_t count, int64_t *fed,
                 int64_t capacity, float *logits)
{
    if (tri_decoder_length(decoder) + (count - *fed) > capacity) {
        tri_decoder_reset(decoder);
        *fed = count - (capacity / 2 > 0 ? capacity / 2 : 1);
        *fed = *fed < 0 ? 0 : *fed;
    }
    tri_decoder_feed(decoder, all + *fed, count - *fed, logits);
    *fed = count;
}

static void generate(const struct request *request, struct tri_session *session,
                     const struct tri_tokenizer *tokenizer, int32_t *all, int64_t prompt)
{
    int64_t vocab = request->config.model.vocab_size;
    int64_t capacity = request->config.model.max_position;
    bool prints = session->mesh->rank == 0 && !request->json;
    struct tri_decoder *decoder = tri_decoder_create(session->engine->model, capacity);
    float *logits = tri_alloc(TRI_MEMORY_OTHER, (size_t)vocab * sizeof(*logits));
    int32_t *scratch = tri_alloc(TRI_MEMORY_OTHER, (size_t)vocab * sizeof(*scratch));
    int64_t fed = 0;
    for (int64_t i = 0; i < prompt && prints; i++) {
        print_token(request, tokenizer, all[i]);
    }
    for (int64_t i = 0; i < request->tokens; i++) {
        int64_t count = prompt + i;
        feed(decoder, all, count, &fed, capacity, logits);
        all[count] = session->mesh->rank == 0
                         ? tri_sample(logits, vocab, &request->sampling, (uint64_t)count, scratch)
                         : 0;
        tri_broadcast(session->mesh->world, (struct tri_where){TRI_PHASE_EVAL, TRI_KIND_META},
                      &all[count], 1, TRI_I32, 0);
        if (prints) {
            print_token(request, tokenizer, all[count]);
        }
    }
    if (prints) {
        (void)printf("\n");
    }
    tri_free(scratch);
    tri_free(logits);
    tri_decoder_destroy(decoder);
}

static void print_json(const struct request *request, const struct tri_tokenizer *tokenizer,
                       const int32_t *all, int64_t prompt)
{
    json_t *root = json_object();
    json_t *ids = json_array();
    for (int64_t i = 0; i < request->tokens; i++) {
        (void)json_array_append_new(ids, json_integer(all[prompt + i]));
    }
    (void)json_object_set_new(root, "tokens", ids);
    if (!request->ids) {
        size_t bytes = tri_tokenizer_decode(tokenizer, all + prompt, request->tokens, NULL, 0);
        char *text = tri_alloc(TRI_MEMORY_OTHER, bytes + 1);
        (void)tri_tokenizer_decode(tokenizer, all + prompt, request->tokens, text, bytes);
        json_t *string = json_stringn(text, bytes); /* NULL when the bytes are not UTF-8 */
        (void)json_object_set_new(root, "text", string ? string : json_null());
        tri_free(text);
    }
    tri_print_json(root);
}

static enum tri_status load_and_generate(const struct request *request, struct tri_session *session,
                                         struct tri_error *error)
{
    struct tri_checkpoint_state state = {0};
    struct tri_tokenizer *tokenizer;
    int32_t *prompt = NULL;
    int64_t count = 0;
    enum tri_status status = tri_session_load(session, request->path, false, &state, error);
    tri_checkpoint_state_fini(&state);
    TRI_TRY(status);
    TRI_TRY(tri_tokenizer_create("byte", &tokenizer, error));
    status = encode(request, tokenizer, &prompt, &count, error);
    if (status == TRI_OK) {
        int32_t *all =
            tri_alloc(TRI_MEMORY_OTHER, (size_t)(count + request->tokens) * sizeof(*all));
        memcpy(all, prompt, (size_t)count * sizeof(*all));
        generate(request, session, tokenizer, all, count);
        if (request->json && session->mesh->rank == 0) {
            print_json(request, tokenizer, all, count);
        }
        tri_free(all);
    }
    tri_free(prompt);
    tri_tokenizer_destroy(tokenizer);
    return status;
}

enum tri_status tri_command_generate(const struct tri_arguments *arguments, struct tri_error *error)
{
    struct request request = {0};
    struct tri_session *session;
    TRI_TRY(read_request(arguments, &request, error));
    TRI_TRY(tri_session_create(&request.config, false, &session, error));
    enum tri_status status = load_and_generate(&request, session, error);
    tri_session_destroy(session);
    return status;
}
