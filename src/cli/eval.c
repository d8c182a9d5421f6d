#include "base/log.h"
#include "base/memory.h"
#include "base/path.h"
#include "cli/active.h"
#include "cli/command.h"
#include "data/tokenizer.h"
#include "data/tokenizer_files.h"
#include "train/alike.h"
#include "train/choices.h"
#include "train/evaluate.h"
#include "train/metrics.h"
#include "train/run_tokenizer.h"
#include "train/session.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

struct request {
    struct tri_config config;
    struct tri_checkpoint_choice choice;
    char data[TRI_PATH_MAX], choices[TRI_PATH_MAX];
    int64_t bytes;   /* of the text behind the tokens; 0: those that are bytes */
    int64_t batches; /* of a set, as eval.batches on the command line says; 0: all */
    bool json;
    struct tri_active_request active;
    double share; /* of the experts' work that was done, where `active` is given */
};

/* What a run's own config says is for the evaluations in it. */
static enum tri_status read_batches(const struct tri_arguments *arguments, struct request *request,
                                    struct tri_error *error)
{
    static const char key[] = "eval.batches=";
    for (int i = 0; i < arguments->num_overrides; i++) {
        if (strncmp(arguments->overrides[i], key, strlen(key)) == 0) {
            request->batches = request->config.eval_batches;
        }
    }
    return request->batches == 0 || request->bytes == 0
               ? TRI_OK
               : tri_fail(error, TRI_BAD_INPUT,
                          "command line: --bytes are of the whole set: expected no eval.batches "
                          "with it");
}

static enum tri_status read_request(const struct tri_arguments *arguments, struct request *request,
                                    struct tri_error *error)
{
    TRI_TRY(tri_arguments_int(arguments, "--bytes", 1, INT64_MAX, 0, &request->bytes, error));
    TRI_TRY(tri_config_of_checkpoint(arguments->words[0], arguments, &request->config,
                                     &request->choice, error));
    TRI_TRY(read_batches(arguments, request, error));
    TRI_TRY(tri_active_read(arguments, &request->config, &request->active, error));
    TRI_TRY(tri_arguments_path(arguments, "--data", request->data, error));
    TRI_TRY(tri_arguments_path(arguments, "--choices", request->choices, error));
    request->json = tri_arguments_has(arguments, "--json");
    if (request->choices[0] && (request->data[0] || request->bytes)) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: --choices goes without --data and --bytes");
    }
    if (request->choices[0]) {
        return TRI_OK;
    }
    if (!request->data[0] && !request->config.data.valid[0]) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: --data is needed: %s names no data.valid",
                        request->choice.path);
    }
    return TRI_OK;
}

/* Those of a token that is text of a document. */
static int64_t bytes_of(const struct tri_tokenizer *tokenizer, int32_t token)
{
    const unsigned char *text;
    size_t bytes = tokenizer->token_text(tokenizer, token, &text);
    bool control = bytes > 0 && tokenizer->special && tokenizer->special[token];
    return control ? 0 : (int64_t)bytes;
}

/* Of the targets that count. */
static enum tri_status sum_bytes(const struct request *request,
                                 const struct tri_tokenizer *tokenizer,
                                 const struct tri_loader *loader, int64_t *bytes,
                                 struct tri_error *error)
{
    const int64_t seq = request->config.data.sequence_length;
    int64_t rows, rest;
    tri_evaluate_extent(&request->config, loader, request->batches, &rows, &rest);
    enum tri_status status = TRI_OK;
    *bytes = 0;
    int32_t *room = tri_alloc(TRI_MEMORY_OTHER, 4 * (size_t)seq * sizeof(*room));
    const struct tri_row_arrays row = {room, room + seq, room + 2 * seq, room + 3 * seq};
    for (int64_t i = 0; i < rows + (rest > 0) && status == TRI_OK; i++) {
        status = tri_loader_eval_rows(loader, i, 1, &row, error);
        for (int64_t t = 0; t < (i < rows ? seq : rest) && status == TRI_OK; t++) {
            /* none of a separator, as of 256 */
            *bytes += row.targets[t] >= 0 ? bytes_of(tokenizer, row.targets[t]) : 0;
        }
    }
    tri_free(room);
    return status;
}

/* Bytes of the text that is predicted: of the targets that count, by the checkpoint's tokenizer, or
 * where they are bytes; 0: not known, as by one of a kind that is only carried along. */
static enum tri_status count_bytes(const struct request *request, const struct tri_loader *loader,
                                   int64_t *bytes, struct tri_error *error)
{
    char folder[TRI_PATH_MAX];
    struct tri_tokenizer *tokenizer;
    bool own = tri_tokenizer_files_find(request->choice.path, folder, sizeof(folder));
    *bytes = 0;
    if (!own && !tri_vocabulary_is_bytes(request->config.model.vocab_size)) {
        return TRI_OK;
    }
    if (tri_tokenizer_create(own ? folder : "byte", &tokenizer, error) != TRI_OK) {
        tri_log_note("%s", error->message);
        return TRI_OK;
    }
    enum tri_status status = sum_bytes(request, tokenizer, loader, bytes, error);
    tri_tokenizer_destroy(tokenizer);
    return status;
}

/* What one set gave. */
struct answer {
    const char *name; /* "": it has none */
    int64_t bytes;    /* of its text; 0: not known */
    struct tri_evaluation evaluation;
};

/* Bits for each byte of text; NaN when the text's size is not known. */
static double bits_per_byte(const struct answer *answer)
{
    double bytes = answer->bytes ? (double)answer->bytes : (double)NAN;
    return answer->evaluation.loss * (double)answer->evaluation.targets / (log(2.0) * bytes);
}

static void print_loads(const struct tri_config *config, const int64_t *load)
{
    int64_t experts = config->moe.num_experts;
    int64_t index = 0;
    for (int64_t layer = 0; layer < config->model.num_layers; layer++) {
        if (!tri_config_layer_is_moe(config, layer)) {
            continue;
        }
        const int64_t *row = load + index++ * experts;
        double total = 0.0;
        for (int64_t e = 0; e < experts; e++) {
            total += (double)row[e];
        }
        (void)printf("load %-6lld", (long long)layer);
        for (int64_t e = 0; e < experts; e++) {
            (void)printf(" %.2f", total > 0.0 ? (double)row[e] * (double)experts / total : 0.0);
        }
        (void)printf("\n");
    }
}

static void print_text(const struct request *request, const struct answer *answer)
{
    const struct tri_evaluation *evaluation = &answer->evaluation;
    if (answer->name[0]) {
        (void)printf("set         %s\n", answer->name);
    }
    (void)printf("loss        %.4f\n", evaluation->loss);
    (void)printf("perplexity  %.3f\n", exp(evaluation->loss));
    double bits = bits_per_byte(answer);
    if (isfinite(bits)) {
        (void)printf("%.4f bits per byte\n", bits);
    } else {
        (void)printf("bits per byte unknown: give the text's size with --bytes\n");
    }
    (void)printf("tokens      %lld\n", (long long)evaluation->targets);
    if (tri_model_moe_layers(&request->config) > 0) {
        struct tri_balance balance = tri_balance_get(&request->config, evaluation->load);
        (void)printf("experts     max/mean load %.2f, %lld idle; load by MoE layer, 1 = even:\n",
                     balance.worst, (long long)balance.dead);
        print_loads(&request->config, evaluation->load);
    }
}

static void describe(const struct request *request, const struct answer *answer, json_t *root)
{
    const struct tri_evaluation *evaluation = &answer->evaluation;
    json_t *layers = json_array();
    int64_t experts = request->config.moe.num_experts;
    for (int64_t i = 0; i < tri_model_moe_layers(&request->config); i++) {
        json_t *row = json_array();
        for (int64_t e = 0; e < experts; e++) {
            (void)json_array_append_new(row, json_integer(evaluation->load[i * experts + e]));
        }
        (void)json_array_append_new(layers, row);
    }
    (void)json_object_set_new(root, "loss", tri_json_number(evaluation->loss));
    (void)json_object_set_new(root, "perplexity", tri_json_number(exp(evaluation->loss)));
    (void)json_object_set_new(root, "bits_per_byte", tri_json_number(bits_per_byte(answer)));
    (void)json_object_set_new(root, "tokens", json_integer(evaluation->targets));
    (void)json_object_set_new(root, "dropped_tokens", json_integer(evaluation->dropped));
    (void)json_object_set_new(root, "expert_load", layers);
}

/* "expert_share", or a line: what --active and its like ask for. */
static void tell_share(const struct request *request, json_t *root)
{
    if (!request->active.given) {
        return;
    }
    if (request->json) {
        (void)json_object_set_new(root, "expert_share", tri_json_number(request->share));
    } else {
        (void)printf("active      %.2f %% of the experts' work\n", 100 * request->share);
    }
}

static void print_answers(const struct request *request, const struct answer *answers, int count)
{
    json_t *root = json_object();
    json_t *sets = json_object();
    (void)json_object_set_new(root, "checkpoint", json_string(request->choice.path));
    for (int i = 0; i < count; i++) {
        json_t *entry = answers[i].name[0] ? json_object() : root;
        describe(request, &answers[i], entry);
        if (entry != root) {
            (void)json_object_set_new(sets, answers[i].name, entry);
        }
        if (!request->json) {
            print_text(request, &answers[i]);
        }
    }
    if (count > 0 && answers[0].name[0]) {
        (void)json_object_set(root, "sets", sets);
    }
    json_decref(sets);
    tell_share(request, root);
    if (request->json) {
        tri_print_json(root);
    } else {
        json_decref(root);
    }
}

static enum tri_status evaluate_sets(struct request *request, struct tri_session *session,
                                     const struct tri_texts *texts, struct tri_error *error)
{
    struct tri_evaluation *evaluations;
    struct answer answers[TRI_SETS_MAX];
    enum tri_status status = TRI_OK;
    if (request->bytes && texts->name[0][0]) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "command line: --bytes are of one set, and data.valid names several; "
                        "expected --data too");
    }
    for (int i = 0; i < texts->count && status == TRI_OK; i++) {
        answers[i] = (struct answer){.name = texts->name[i], .bytes = request->bytes};
        if (request->bytes == 0) {
            status = count_bytes(request, texts->text[i].loader, &answers[i].bytes, error);
        }
    }
    TRI_TRY(tri_comm_agree(tri_mesh_group(session->mesh, TRI_ON_ALL), status, error));
    TRI_TRY(tri_evaluate_all(session->engine, texts, request->batches, &evaluations, error));
    for (int i = 0; i < texts->count; i++) {
        answers[i].evaluation = evaluations[i];
    }
    request->share = request->active.given ? tri_active_share(session) : 1.0;
    if (session->mesh->rank == 0) {
        print_answers(request, answers, texts->count);
    }
    tri_evaluations_free(texts->count, evaluations);
    return TRI_OK;
}

static void compare_tokenizers(const struct request *request)
{
    struct tri_sets *sets = tri_alloc(TRI_MEMORY_OTHER, sizeof(*sets));
    if (request->data[0]) {
        sets->count = 1;
        tri_path_make(sets->set[0].path, TRI_PATH_MAX, "%s", request->data);
    } else {
        tri_config_sets(request->config.data.valid, sets);
    }
    tri_run_tokenizer_compare("eval", request->choice.path, sets);
    tri_free(sets);
}

static enum tri_status evaluate(struct request *request, struct tri_session *session,
                                struct tri_error *error)
{
    struct tri_checkpoint_state state = {0};
    struct tri_texts texts;
    TRI_TRY(tri_texts_open(session, request->data[0] ? request->data : NULL, &texts, error));
    enum tri_status status = tri_session_load(session, &request->choice, &state, error);
    tri_active_tell(&request->active, &request->config, state.step);
    tri_checkpoint_state_fini(&state);
    if (status == TRI_OK && session->mesh->rank == 0) {
        compare_tokenizers(request);
    }
    if (status == TRI_OK) {
        status = evaluate_sets(request, session, &texts, error);
    }
    tri_texts_close(&texts);
    return status;
}

/* ---- multiple choice ------------------------------------------------------------------------- */

static void print_choices(const struct request *request, const struct tri_choices_result *result)
{
    double questions = (double)result->questions;
    double by_mean = (double)result->right_by_mean / questions;
    double by_sum = (double)result->right_by_sum / questions;
    if (request->json) {
        json_t *root = json_object();
        (void)json_object_set_new(root, "checkpoint", json_string(request->choice.path));
        (void)json_object_set_new(root, "questions", json_integer(result->questions));
        (void)json_object_set_new(root, "accuracy", tri_json_number(by_mean));
        (void)json_object_set_new(root, "accuracy_by_sum", tri_json_number(by_sum));
        tell_share(request, root);
        tri_print_json(root);
    } else {
        (void)printf("questions   %lld\n", (long long)result->questions);
        (void)printf("accuracy    %.4f by the loss a token, %lld right\n", by_mean,
                     (long long)result->right_by_mean);
        (void)printf("            %.4f by the loss in all, %lld right\n", by_sum,
                     (long long)result->right_by_sum);
        tell_share(request, NULL);
    }
}

static enum tri_status answer(struct request *request, const struct tri_choices *choices,
                              struct tri_session *session, struct tri_error *error)
{
    struct tri_checkpoint_state state = {0};
    struct tri_choices_result result;
    enum tri_status status = tri_session_load(session, &request->choice, &state, error);
    tri_active_tell(&request->active, &request->config, state.step);
    tri_checkpoint_state_fini(&state);
    TRI_TRY(status);
    TRI_TRY(tri_choices_answer(session->engine, choices, &result, error));
    request->share = request->active.given ? tri_active_share(session) : 1.0;
    if (session->mesh->rank == 0) {
        print_choices(request, &result);
    }
    return TRI_OK;
}

/* Opens the file, and makes room for its longest row and no more. */
static enum tri_status open_choices(struct request *request, struct tri_choices **choices,
                                    struct tri_error *error)
{
    struct tri_config *config = &request->config;
    TRI_TRY(tri_choices_open(request->choices, config->model.vocab_size, choices, error));
    int64_t longest = tri_choices_longest(*choices);
    if (longest > config->model.max_position) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: a question with a completion has %lld tokens, expected at most %lld "
                        "(model.max_position)",
                        request->choices, (long long)longest,
                        (long long)config->model.max_position);
    }
    config->rope_length = config->data.sequence_length;
    config->data.sequence_length = longest;
    config->data.separator = -1;
    return TRI_OK;
}

static enum tri_status open_and_answer(const struct tri_arguments *arguments,
                                       struct request *request, struct tri_error *error)
{
    struct tri_choices *choices = NULL;
    struct tri_session *session;
    enum tri_status status =
        tri_agree_everywhere(arguments, open_choices(request, &choices, error), error);
    if (status == TRI_OK) {
        status = tri_alike_choices(tri_mesh_group(arguments->everyone, TRI_ON_ALL),
                                   request->choices, choices, error);
    }
    if (status == TRI_OK) {
        status = tri_session_create(arguments->comm, &request->config, false, 0,
                                    tri_active_get(&request->active), &session, error);
    }
    if (status == TRI_OK) {
        status = answer(request, choices, session, error);
        tri_session_destroy(session);
    }
    tri_choices_close(choices);
    return status;
}

static enum tri_status read_and_evaluate(const struct tri_arguments *arguments,
                                         struct request *request, struct tri_error *error)
{
    struct tri_session *session;
    TRI_TRY(read_request(arguments, request, error));
    if (request->choices[0]) {
        return open_and_answer(arguments, request, error);
    }
    TRI_TRY(tri_session_create(arguments->comm, &request->config, false, 0,
                               tri_active_get(&request->active), &session, error));
    enum tri_status status = evaluate(request, session, error);
    tri_session_destroy(session);
    return status;
}

enum tri_status tri_command_eval(const struct tri_arguments *arguments, struct tri_error *error)
{
    struct request request = {0};
    enum tri_status status;
    do {
        status = read_and_evaluate(arguments, &request, error);
    } while (status != TRI_OK && request.choice.again);
    return status;
}
