#include "base/hash.h"
#include "base/memory.h"
#include "cli/generate_run.h"
#include "data/chat_folder.h"

#include <stdio.h>
#include <string.h>

/* ---- what is asked for ----------------------------------------------------------------------- */

static enum tri_status read_numbers(const struct tri_arguments *arguments,
                                    struct tri_generate_request *request, struct tri_error *error)
{
    struct tri_sampling *sampling = &request->generation.sampling;
    int64_t seed;
    TRI_TRY(tri_arguments_int(arguments, "--tokens", 1, 100000000, 200, &request->generation.most,
                              error));
    TRI_TRY(tri_arguments_real(arguments, "--temperature", 0.0, 1e6, 1.0, &sampling->temperature,
                               error));
    TRI_TRY(tri_arguments_int(arguments, "--top-k", 0, 1 << 30, 0, &sampling->top_k, error));
    TRI_TRY(tri_arguments_real(arguments, "--top-p", 1e-9, 1.0, 1.0, &sampling->top_p, error));
    TRI_TRY(tri_arguments_int(arguments, "--seed", 0, INT64_MAX, 1, &seed, error));
    sampling->seed = (uint64_t)seed;
    return tri_arguments_int(arguments, "--batch", 1, 1 << 20, 8, &request->batch, error);
}

/* Options that say nothing, or two things, together. */
static enum tri_status check_options(const struct tri_arguments *arguments, struct tri_error *error)
{
    static const struct {
        const char *one, *other;
        bool needs; /* one is nothing without the other; else with it */
    } pairs[] = {
        {"--prompt", "--prompts", false}, {"--ids", "--prompts", false},
        {"--ids", "--chat", false},       {"--batch", "--prompts", true},
        {"--template", "--chat", true},   {"--system", "--chat", true},
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(*pairs); i++) {
        if (tri_arguments_has(arguments, pairs[i].one) &&
            tri_arguments_has(arguments, pairs[i].other) != pairs[i].needs) {
            return tri_fail(error, TRI_BAD_INPUT, "command line: found %s %s %s", pairs[i].one,
                            pairs[i].needs ? "without" : "with", pairs[i].other);
        }
    }
    bool talks = tri_arguments_has(arguments, "--chat") &&
                 !tri_arguments_has(arguments, "--prompt") &&
                 !tri_arguments_has(arguments, "--prompts");
    if (talks && tri_arguments_has(arguments, "--json")) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: found --json with a --chat turn by turn, expected --prompt "
                        "or --prompts with it");
    }
    if (tri_arguments_has(arguments, "--ids") && !tri_arguments_has(arguments, "--prompt")) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: --ids: expected --prompt \"ID ID …\" with it");
    }
    return TRI_OK;
}

static void add_end(struct tri_generate_request *request, int64_t token)
{
    if (token >= 0 && request->generation.num_stops < TRI_ENDS) {
        request->ends[request->generation.num_stops++] = (int32_t)token;
    }
}

/* The template by its name, or as the folder of the tokenizer has it; and the token that ends an
 * answer. folder: NULL where there is none. */
static enum tri_status choose_chat(const struct tri_arguments *arguments, const char *folder,
                                   struct tri_generate_request *request, struct tri_error *error)
{
    const char *name = tri_arguments_get(arguments, "--template");
    bool found = false;
    if (name) {
        TRI_TRY(tri_chat_create(name, &request->chat, error));
        if (folder) {
            TRI_TRY(tri_chat_read_names(folder, &request->chat, error));
        }
    } else if (folder) {
        TRI_TRY(tri_chat_find(folder, &request->chat, &found, error));
    }
    if (!name && !found) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: has no chat template; expected --template chatml, llama3, mistral, "
                        "olmo or plain",
                        folder ? folder : request->choice.path);
    }
    TRI_TRY(tri_chat_resolve(&request->chat, request->tokenizer,
                             folder ? folder : request->tokenizer->name, error));
    if (tri_tokenizer_has_specials(request->tokenizer)) {
        add_end(request,
                tri_tokenizer_find_special(request->tokenizer, tri_chat_stop(&request->chat)));
    }
    request->style.chat = &request->chat;
    request->style.system = tri_arguments_get(arguments, "--system");
    return TRI_OK;
}

/* The checkpoint's own tokenizer, with the tokens that end a text; bytes where it has none and they
 * may be. Local. */
static enum tri_status open_tokenizer(const struct tri_arguments *arguments,
                                      struct tri_generate_request *request, struct tri_error *error)
{
    char folder[TRI_PATH_MAX];
    bool has = tri_tokenizer_files_find(request->choice.path, folder, sizeof(folder));
    int64_t vocab = request->config.model.vocab_size;
    if (!has && !request->ids && !tri_vocabulary_is_bytes(vocab)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: has no tokenizer.json, and a vocabulary of %lld tokens is not bytes: "
                        "expected --ids, and --prompt with token ids",
                        request->choice.path, (long long)vocab);
    }
    if (has && request->ids) {
        /* Ids need none: one that cannot be read ends no text, and nothing else. */
        has = tri_tokenizer_create(folder, &request->tokenizer, error) == TRI_OK;
    } else if (has) {
        TRI_TRY(tri_tokenizer_create(folder, &request->tokenizer, error));
    }
    if (!has) {
        TRI_TRY(tri_tokenizer_create("byte", &request->tokenizer, error));
    }
    if (has) {
        TRI_TRY(tri_tokenizer_read_stops(folder, request->tokenizer, request->ends,
                                         &request->generation.num_stops, error));
    }
    add_end(request, request->config.data.separator);
    request->generation.stops = request->ends;
    request->style.tokenizer = request->tokenizer;
    return request->chats ? choose_chat(arguments, has ? folder : NULL, request, error) : TRI_OK;
}

static enum tri_status read_request(const struct tri_arguments *arguments,
                                    struct tri_generate_request *request, struct tri_error *error)
{
    request->prompt = tri_arguments_get(arguments, "--prompt");
    request->prompts = tri_arguments_get(arguments, "--prompts");
    request->ids = tri_arguments_has(arguments, "--ids");
    request->json = tri_arguments_has(arguments, "--json");
    request->chats = tri_arguments_has(arguments, "--chat");
    request->generation.without_cache = tri_arguments_has(arguments, "--no-cache");
    TRI_TRY(check_options(arguments, error));
    TRI_TRY(read_numbers(arguments, request, error));
    TRI_TRY(tri_config_of_checkpoint(arguments->words[0], arguments, &request->config,
                                     &request->choice, error));
    TRI_TRY(tri_active_read(arguments, &request->config, &request->active, error));
    const struct tri_config *config = &request->config;
    if (config->moe.num_experts > 0 && config->moe.router->picks &&
        config->data.sequence_length > 1) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: router %s cannot generate: which experts work on a token depends on "
                        "the tokens behind it in its row",
                        request->choice.path, config->moe.router->strategy.name);
    }
    int64_t most = request->config.model.max_position;
    return tri_arguments_int(arguments, "--context", 1, most, most, &request->context, error);
}

/* Without any the tokenizer's beginning is one, or a newline. None in a chat turn by turn. */
static enum tri_status read_prompts(const struct tri_generate_request *request,
                                    struct tri_prompts *prompts, struct tri_error *error)
{
    static const char where[] = "command line: --prompt";
    enum { PLACE_BYTES = TRI_PATH_MAX + 32 };
    char place[PLACE_BYTES];
    if (request->prompts) {
        TRI_TRY(tri_prompts_read(&request->style, request->prompts, prompts, error));
    } else if (request->ids) {
        TRI_TRY(tri_prompts_add_ids(request->prompt, prompts, error));
    } else if (request->prompt || !request->chats) {
        const char *otherwise = request->tokenizer->num_begin > 0 ? "" : "\n";
        const char *text = request->prompt ? request->prompt : otherwise;
        TRI_TRY(tri_prompts_add_text(&request->style, where, text, strlen(text), prompts, error));
    }
    for (size_t i = 0; i < prompts->count; i++) {
        (void)snprintf(place, sizeof(place), "%s: prompt %zu",
                       request->prompts ? request->prompts : "", i + 1);
        TRI_TRY(tri_prompt_check(&prompts->prompt[i], request->config.model.vocab_size,
                                 request->context, request->prompts ? place : where, error));
    }
    return TRI_OK;
}

/* ---- the run --------------------------------------------------------------------------------- */

/* What decoding asks of an engine: the rows of a rank, as long as what is fed at once. Routers drop
 * nothing: what a text becomes is not to depend on those beside it. */
static void fit(struct tri_generate_job *job, int ranks)
{
    const struct tri_generate_request *request = job->request;
    int64_t longest = 0;
    for (int64_t i = 0; i < job->count; i++) {
        int64_t prompt = job->prompts->prompt[i].count;
        longest = prompt > longest ? prompt : longest;
    }
    bool talks = job->count == 0;
    bool slides = longest + request->generation.most > request->context;
    int64_t half = request->context / 2;
    job->capacity = talks || slides ? request->context : longest + request->generation.most;
    longest = slides && longest < half ? half : longest;
    longest = talks || request->generation.without_cache ? job->capacity : longest;
    job->rows = talks ? 1 : job->count < request->batch ? job->count : request->batch;
    int64_t replicas =
        ranks > request->config.parallel.tensor ? ranks / request->config.parallel.tensor : 1;
    job->config = request->config;
    job->config.rope_length = request->config.data.sequence_length;
    job->config.data.sequence_length = longest;
    job->config.train.global_batch = job->rows;
    job->config.train.micro_batch = (job->rows + replicas - 1) / replicas;
    job->config.moe.eval_capacity_factor = 0.0;
}

static enum tri_status load_and_generate(struct tri_comm *comm, struct tri_generate_job *job,
                                         struct tri_error *error)
{
    struct tri_generate_request *request = job->request;
    struct tri_session *session;
    struct tri_checkpoint_state state = {0};
    fit(job, tri_comm_size(comm));
    int64_t rows = job->config.train.micro_batch;
    int64_t cache = tri_decoder_bytes(&job->config, rows, job->capacity);
    TRI_TRY(tri_session_create(comm, &job->config, false, cache, tri_active_get(&request->active),
                               &session, error));
    enum tri_status status = tri_session_load(session, &request->choice, &state, error);
    tri_active_tell(&request->active, &job->config, state.step);
    tri_checkpoint_state_fini(&state);
    if (status == TRI_OK && job->count == 0) {
        status = tri_converse(request, comm, session, error);
    } else if (status == TRI_OK) {
        tri_generate_texts(job, session);
    }
    tri_session_destroy(session);
    return status;
}

/* The texts, each with room for what comes to it. */
static void make_sequences(struct tri_generate_job *job)
{
    size_t most = (size_t)job->request->generation.most;
    job->count = (int64_t)job->prompts->count;
    job->sequences = tri_alloc(TRI_MEMORY_OTHER, job->prompts->count * sizeof(*job->sequences));
    for (int64_t i = 0; i < job->count; i++) {
        const struct tri_prompt *prompt = &job->prompts->prompt[i];
        int32_t *tokens =
            tri_alloc(TRI_MEMORY_OTHER, ((size_t)prompt->count + most) * sizeof(*tokens));
        memcpy(tokens, prompt->tokens, (size_t)prompt->count * sizeof(*tokens));
        job->sequences[i] = (struct tri_sequence){
            .tokens = tokens, .prompt = prompt->count, .count = prompt->count};
    }
}

/* Files of prompts that are not the same would leave ranks with other numbers of texts. */
static enum tri_status compare_prompts(const struct tri_arguments *arguments,
                                       const struct tri_generate_request *request,
                                       const struct tri_prompts *prompts, struct tri_error *error)
{
    char line[64];
    struct tri_hash *hash = tri_hash_create();
    for (size_t i = 0; i < prompts->count; i++) {
        const struct tri_prompt *prompt = &prompts->prompt[i];
        tri_hash_update(hash, &prompt->count, sizeof(prompt->count));
        tri_hash_update(hash, prompt->tokens, (size_t)prompt->count * sizeof(*prompt->tokens));
    }
    (void)snprintf(line, sizeof(line), "%zu prompts, contents %016llx", prompts->count,
                   (unsigned long long)tri_hash_get(hash));
    tri_hash_destroy(hash);
    const struct tri_fact fact = {request->prompts ? request->prompts : "--prompt", line};
    return tri_comm_compare(tri_mesh_group(arguments->everyone, TRI_ON_ALL), 1, &fact, error);
}

static enum tri_status read_and_generate(const struct tri_arguments *arguments,
                                         struct tri_generate_request *request,
                                         struct tri_error *error)
{
    struct tri_prompts prompts = {0};
    struct tri_generate_job *job;
    TRI_TRY(read_request(arguments, request, error));
    enum tri_status status = open_tokenizer(arguments, request, error);
    if (status == TRI_OK) {
        status = read_prompts(request, &prompts, error);
    }
    status = tri_agree_everywhere(arguments, status, error);
    if (status == TRI_OK) {
        status = compare_prompts(arguments, request, &prompts, error);
    }
    if (status == TRI_OK) {
        job = tri_alloc(TRI_MEMORY_OTHER, sizeof(*job));
        job->request = request;
        job->prompts = &prompts;
        make_sequences(job);
        status = load_and_generate(arguments->comm, job, error);
        for (int64_t i = 0; i < job->count; i++) {
            tri_free(job->sequences[i].tokens);
        }
        tri_free(job->sequences);
        tri_free(job);
    }
    tri_prompts_fini(&prompts);
    tri_tokenizer_destroy(request->tokenizer);
    request->tokenizer = NULL;
    request->generation.num_stops = 0;
    return status;
}

enum tri_status tri_command_generate(const struct tri_arguments *arguments, struct tri_error *error)
{
    struct tri_generate_request *request = tri_alloc(TRI_MEMORY_OTHER, sizeof(*request));
    enum tri_status status;
    do {
        status = read_and_generate(arguments, request, error);
    } while (status != TRI_OK && request->choice.again);
    tri_free(request);
    return status;
}
