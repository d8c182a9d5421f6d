#include "base/log.h"
#include "base/memory.h"
#include "cli/command.h"
#include "data/tokenizer.h"
#include "data/tokenizer_files.h"
#include "infer/decoder.h"
#include "train/session.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Sent for a token when nobody takes what is printed: a pipe's reader has gone, a disk is full. */
enum { UNREAD = -1 };

/* The prompt, and what was made of it. */
struct sequence {
    int32_t *all;
    int64_t prompt, count;
    int64_t begin; /* tokens of the prompt that nobody has typed */
    bool ended;    /* by the separator or a stop, its last token */
};

struct request {
    struct tri_config config;
    struct tri_checkpoint_choice choice;
    const char *prompt; /* NULL: not given */
    bool ids;           /* the prompt is token ids, and ids are printed */
    bool json;
    int64_t tokens;
    struct tri_sampling sampling;
    int32_t stop[TRI_STOPS]; /* tokens that end a text */
    int num_stops;
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
    request->prompt = tri_arguments_get(arguments, "--prompt");
    request->ids = tri_arguments_has(arguments, "--ids");
    request->json = tri_arguments_has(arguments, "--json");
    TRI_TRY(read_numbers(arguments, request, error));
    TRI_TRY(tri_config_of_checkpoint(arguments->words[0], arguments, &request->config,
                                     &request->choice, error));
    if (request->ids && !request->prompt) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: --ids: expected --prompt \"ID ID …\" with it");
    }
    return TRI_OK;
}

/* The checkpoint's own, and its stops; bytes where it has none and they may be. Local. */
static enum tri_status open_tokenizer(struct request *request, struct tri_tokenizer **tokenizer,
                                      struct tri_error *error)
{
    char folder[TRI_PATH_MAX];
    int64_t vocab = request->config.model.vocab_size;
    *tokenizer = NULL;
    if (tri_tokenizer_files_find(request->choice.path, folder, sizeof(folder))) {
        TRI_TRY(tri_tokenizer_create(folder, tokenizer, error));
        return tri_tokenizer_read_stops(folder, *tokenizer, request->stop, &request->num_stops,
                                        error);
    }
    if (!request->ids && !tri_vocabulary_is_bytes(vocab)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: has no tokenizer.json, and a vocabulary of %lld tokens is not bytes: "
                        "expected --ids, and --prompt with token ids",
                        request->choice.path, (long long)vocab);
    }
    return tri_tokenizer_create("byte", tokenizer, error);
}

/* The template's tokens, then those of the prompt; without one a newline, where there is nothing
 * else to go on from. *tokens is the caller's to free. */
static enum tri_status encode_prompt(const struct request *request,
                                     const struct tri_tokenizer *tokenizer, int32_t **tokens,
                                     int64_t *count, struct tri_error *error)
{
    const char *otherwise = tokenizer->num_begin > 0 ? "" : "\n";
    const char *prompt = request->prompt ? request->prompt : otherwise;
    size_t begin = (size_t)tokenizer->num_begin;
    int32_t *own;
    TRI_TRY(tri_tokenizer_encode(tokenizer, prompt, strlen(prompt), &own, count, error));
    if (request->prompt && *count == 0) {
        tri_free(own);
        return TRI_OK;
    }
    *tokens = tri_alloc(TRI_MEMORY_OTHER, (begin + (size_t)*count) * sizeof(**tokens));
    memcpy(*tokens, tokenizer->begin, begin * sizeof(**tokens));
    memcpy(*tokens + begin, own, (size_t)*count * sizeof(**tokens));
    *count += (int64_t)begin;
    tri_free(own);
    return TRI_OK;
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
        TRI_TRY(encode_prompt(request, tokenizer, tokens, count, error));
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
                        struct tri_token_stream *stream, int32_t token)
{
    if (request->ids) {
        (void)printf("%d ", token);
    } else {
        size_t bytes;
        const unsigned char *text = tri_token_stream_add(stream, tokenizer, token, &bytes);
        if (bytes > 0) {
            (void)fwrite(text, 1, bytes, stdout);
        }
    }
    (void)fflush(stdout);
}

static void print_end(struct tri_token_stream *stream)
{
    size_t bytes;
    const unsigned char *text = tri_token_stream_end(stream, &bytes);
    if (bytes > 0) {
        (void)fwrite(text, 1, bytes, stdout);
    }
    (void)printf("\n");
}

static bool ends_text(const struct request *request, int32_t token)
{
    bool ends = token == request->config.data.separator;
    for (int i = 0; i < request->num_stops; i++) {
        ends = ends || token == request->stop[i];
    }
    return ends;
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
                     const struct tri_tokenizer *tokenizer, struct sequence *sequence)
{
    int64_t vocab = request->config.model.vocab_size;
    int64_t capacity = request->config.model.max_position;
    bool prints = session->mesh->rank == 0 && !request->json;
    struct tri_decoder *decoder = tri_decoder_create(session->engine->model, capacity);
    float *logits = tri_alloc(TRI_MEMORY_OTHER, (size_t)vocab * sizeof(*logits));
    int32_t *scratch = tri_alloc(TRI_MEMORY_OTHER, (size_t)vocab * sizeof(*scratch));
    int32_t *all = sequence->all;
    int64_t fed = 0;
    struct tri_token_stream stream = {0};
    for (int64_t i = sequence->begin; i < sequence->prompt && prints; i++) {
        print_token(request, tokenizer, &stream, all[i]);
    }
    while (sequence->count < sequence->prompt + request->tokens && !sequence->ended) {
        int64_t count = sequence->count++;
        feed(decoder, all, count, &fed, capacity, logits);
        if (session->mesh->rank == 0) {
            all[count] = prints && ferror(stdout) ? UNREAD
                                                  : tri_sample(logits, vocab, &request->sampling,
                                                               (uint64_t)count, scratch);
        }
        tri_broadcast(tri_mesh_group(session->mesh, TRI_ON_ALL),
                      (struct tri_where){TRI_PHASE_EVAL, TRI_KIND_META}, &all[count], 1, TRI_I32,
                      0);
        if (all[count] == UNREAD) {
            sequence->count = count;
            break;
        }
        sequence->ended = ends_text(request, all[count]);
        if (prints && (request->ids || !sequence->ended)) {
            print_token(request, tokenizer, &stream, all[count]);
        }
    }
    if (prints) {
        print_end(&stream);
    }
    tri_token_stream_fini(&stream);
    tri_free(scratch);
    tri_free(logits);
    tri_decoder_destroy(decoder);
}

static void print_json(const struct request *request, const struct tri_tokenizer *tokenizer,
                       const struct sequence *sequence)
{
    json_t *root = json_object();
    json_t *ids = json_array();
    for (int64_t i = sequence->prompt; i < sequence->count; i++) {
        (void)json_array_append_new(ids, json_integer(sequence->all[i]));
    }
    (void)json_object_set_new(root, "tokens", ids);
    (void)json_object_set_new(root, "ended", json_boolean(sequence->ended));
    if (!request->ids) {
        int64_t count = sequence->count - sequence->ended;
        size_t before = tri_tokenizer_decode(tokenizer, sequence->all, sequence->prompt, NULL, 0);
        size_t bytes = tri_tokenizer_decode(tokenizer, sequence->all, count, NULL, 0);
        char *text = tri_alloc(TRI_MEMORY_OTHER, bytes + 1);
        (void)tri_tokenizer_decode(tokenizer, sequence->all, count, text, bytes);
        /* NULL when the bytes are not UTF-8. */
        json_t *string = json_stringn(text + before, bytes - before);
        (void)json_object_set_new(root, "text", string ? string : json_null());
        tri_free(text);
    }
    tri_print_json(root);
}

/* Ids that the text does not show. */
static void note_unknown(const struct request *request, const struct tri_tokenizer *tokenizer,
                         const struct sequence *sequence)
{
    int64_t unknown = 0;
    for (int64_t i = 0; i < sequence->count; i++) {
        const unsigned char *text;
        unknown += !ends_text(request, sequence->all[i]) &&
                   tokenizer->token_text(tokenizer, sequence->all[i], &text) == 0;
    }
    if (unknown > 0 && !request->ids) {
        tri_log_info("%lld of %lld tokens are not bytes and have no text: --ids shows them",
                     (long long)unknown, (long long)sequence->count);
    }
}

/* What decoding asks of an engine: one row, as long as the longest that is fed at once. */
static void fit(const struct request *request, const struct sequence *sequence,
                struct tri_config *config)
{
    int64_t capacity = request->config.model.max_position;
    int64_t longest = sequence->prompt < capacity ? sequence->prompt : capacity;
    if (sequence->prompt + request->tokens > capacity && longest < capacity / 2) {
        longest = capacity / 2;
    }
    *config = request->config;
    config->data.sequence_length = longest > 0 ? longest : 1;
    config->train.global_batch = 1;
    config->train.micro_batch = 1;
}

static enum tri_status load_and_generate(struct tri_comm *comm, struct request *request,
                                         const struct tri_tokenizer *tokenizer,
                                         struct sequence *sequence, struct tri_error *error)
{
    struct tri_session *session;
    struct tri_checkpoint_state state = {0};
    struct tri_config *config = tri_alloc(TRI_MEMORY_OTHER, sizeof(*config));
    fit(request, sequence, config);
    int64_t cache = tri_decoder_bytes(config, config->model.max_position);
    enum tri_status status = tri_session_create(comm, config, false, cache, &session, error);
    if (status != TRI_OK) {
        tri_free(config);
        return status;
    }
    status = tri_session_load(session, &request->choice, &state, error);
    tri_checkpoint_state_fini(&state);
    if (status == TRI_OK) {
        generate(request, session, tokenizer, sequence);
        if (session->mesh->rank == 0) {
            note_unknown(request, tokenizer, sequence);
            if (request->json) {
                print_json(request, tokenizer, sequence);
            }
        }
    }
    tri_session_destroy(session);
    tri_free(config);
    return status;
}

static enum tri_status read_and_generate(const struct tri_arguments *arguments,
                                         struct request *request, struct tri_error *error)
{
    struct sequence sequence = {0};
    struct tri_tokenizer *tokenizer;
    int32_t *prompt = NULL;
    TRI_TRY(read_request(arguments, request, error));
    enum tri_status status = open_tokenizer(request, &tokenizer, error);
    if (status == TRI_OK) {
        status = encode(request, tokenizer, &prompt, &sequence.prompt, error);
    }
    status = tri_agree_everywhere(arguments, status, error);
    if (status == TRI_OK) {
        size_t prompt_bytes = (size_t)sequence.prompt * sizeof(*prompt);
        sequence.count = sequence.prompt;
        sequence.begin = request->ids ? 0 : tokenizer->num_begin;
        sequence.all = tri_alloc(TRI_MEMORY_OTHER,
                                 prompt_bytes + (size_t)request->tokens * sizeof(*sequence.all));
        memcpy(sequence.all, prompt, prompt_bytes);
        status = load_and_generate(arguments->comm, request, tokenizer, &sequence, error);
    }
    tri_free(sequence.all);
    tri_free(prompt);
    tri_tokenizer_destroy(tokenizer);
    return status;
}

enum tri_status tri_command_generate(const struct tri_arguments *arguments, struct tri_error *error)
{
    struct request request = {0};
    enum tri_status status;
    do {
        status = read_and_generate(arguments, &request, error);
    } while (status != TRI_OK && request.choice.again);
    return status;
}
