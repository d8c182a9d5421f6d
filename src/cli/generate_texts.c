#include "base/log.h"
#include "cli/answer.h"
#include "cli/generate_run.h"

#include <stdio.h>

static bool ends_text(const struct tri_generate_request *request, int32_t token)
{
    for (int i = 0; i < request->generation.num_stops; i++) {
        if (token == request->ends[i]) {
            return true;
        }
    }
    return false;
}

/* A text on standard output, as it grows or when it is whole. */
struct output {
    const struct tri_generate_request *request;
    struct tri_answer answer;
};

static void begin_text(struct output *output, const struct tri_generate_request *request)
{
    output->request = request;
    tri_answer_begin(&output->answer, request->tokenizer, request->style.chat,
                     request->json ? NULL : stdout);
}

static void show_token(struct output *output, int32_t token)
{
    const struct tri_generate_request *request = output->request;
    if (request->ids && !request->json) {
        (void)printf("%d ", token);
        (void)fflush(stdout);
    } else if (!request->ids) {
        tri_answer_add(&output->answer, token);
    }
}

/* One that was drawn; what ends a text is shown where ids are. */
static void write_token(struct output *output, int32_t token)
{
    if (output->request->ids || !ends_text(output->request, token)) {
        show_token(output, token);
    }
}

static void write_prompt(struct output *output, const struct tri_sequence *sequence, int64_t begin)
{
    for (int64_t i = begin; i < sequence->prompt; i++) {
        show_token(output, sequence->tokens[i]);
    }
}

static void end_text(struct output *output)
{
    tri_answer_end(&output->answer);
    if (!output->request->json) {
        (void)printf("\n");
        (void)fflush(stdout);
    }
    tri_answer_fini(&output->answer);
}

/* Of the only text; nobody listens when its text has ended, or what is printed cannot be. */
static bool take(void *state, int64_t index, int32_t token)
{
    struct output *output = state;
    (void)index;
    write_token(output, token);
    return !output->answer.ended && !ferror(stdout);
}

static json_t *describe(const struct tri_generate_request *request,
                        const struct tri_sequence *sequence)
{
    json_t *root = json_object();
    json_t *ids = json_array();
    for (int64_t i = sequence->prompt; i < sequence->count; i++) {
        (void)json_array_append_new(ids, json_integer(sequence->tokens[i]));
    }
    (void)json_object_set_new(root, "tokens", ids);
    (void)json_object_set_new(root, "ended", json_boolean(sequence->ended));
    if (!request->ids) {
        /* What the prompt's text is may need what is behind it, and the other way round. */
        struct output output;
        begin_text(&output, request);
        write_prompt(&output, sequence, request->chats ? sequence->prompt : 0);
        size_t before = output.answer.text.size;
        for (int64_t i = sequence->prompt; i < sequence->count && !output.answer.ended; i++) {
            write_token(&output, sequence->tokens[i]);
        }
        tri_answer_end(&output.answer);
        const struct tri_string *text = &output.answer.text;
        /* NULL when the bytes are not UTF-8. */
        json_t *string = json_stringn(text->size ? text->data + before : "", text->size - before);
        (void)json_object_set_new(root, "text", string ? string : json_null());
        tri_answer_fini(&output.answer);
    }
    return root;
}

static void print_json(const struct tri_generate_request *request,
                       const struct tri_sequence *sequences, int64_t count,
                       const struct tri_generated *done, double share)
{
    json_t *root;
    if (request->prompts) {
        json_t *texts = json_array();
        for (int64_t i = 0; i < count; i++) {
            (void)json_array_append_new(texts, describe(request, &sequences[i]));
        }
        root = json_object();
        (void)json_object_set_new(root, "texts", texts);
    } else {
        root = describe(request, &sequences[0]);
    }
    (void)json_object_set_new(root, "seconds", json_real(done->prompt_seconds + done->seconds));
    if (request->active.given) {
        (void)json_object_set_new(root, "expert_share", json_real(share));
    }
    tri_print_json(root);
}

void tri_generated_add(struct tri_generated *sum, const struct tri_generated *more)
{
    sum->prompt_seconds += more->prompt_seconds;
    sum->seconds += more->seconds;
    sum->prompt_tokens += more->prompt_tokens;
    sum->tokens += more->tokens;
}

void tri_generated_log(const struct tri_generate_request *request, const struct tri_generated *done,
                       double share)
{
    double seconds = done->prompt_seconds + done->seconds;
    tri_log_info("wrote %lld tokens in %.2f s, %.4g tokens/s; %lld of prompts in %.2f s of that",
                 (long long)done->tokens, seconds,
                 seconds > 0 ? (double)done->tokens / seconds : 0.0, (long long)done->prompt_tokens,
                 done->prompt_seconds);
    if (request->active.given) {
        tri_log_info("active %.2f %% of the experts' work", 100 * share);
    }
}

/* Ids that the text does not show. */
static void note_unknown(const struct tri_generate_request *request,
                         const struct tri_sequence *sequences, int64_t count)
{
    int64_t unknown = 0, all = 0;
    for (int64_t i = 0; i < count; i++) {
        for (int64_t j = 0; j < sequences[i].count; j++, all++) {
            const unsigned char *text;
            int32_t token = sequences[i].tokens[j];
            unknown += !ends_text(request, token) &&
                       request->tokenizer->token_text(request->tokenizer, token, &text) == 0;
        }
    }
    if (unknown > 0 && !request->ids) {
        tri_log_info("%lld of %lld tokens are not bytes and have no text: --ids shows them",
                     (long long)unknown, (long long)all);
    }
}

/* Some of the texts, at most job->rows. */
static struct tri_generated generate(const struct tri_generate_job *job,
                                     struct tri_session *session, int64_t first, int64_t rows)
{
    const struct tri_generate_request *request = job->request;
    struct tri_generation generation = request->generation;
    struct output output;
    bool root = session->mesh->rank == 0;
    bool streams = job->count == 1 && !request->json;
    generation.sampling.seed += (uint64_t)first;
    if (streams && root) {
        begin_text(&output, request);
        write_prompt(&output, &job->sequences[0], job->prompts->prompt[0].begin);
    }
    if (streams) {
        generation.take = take;
        generation.state = &output;
    }
    struct tri_generator *generator =
        tri_generator_create(session->engine->model, rows, job->capacity);
    struct tri_generated done = tri_generate(generator, &generation, job->sequences + first);
    tri_generator_destroy(generator);
    for (int64_t i = first; i < first + rows && root && !request->json; i++) {
        const struct tri_sequence *sequence = &job->sequences[i];
        if (!streams) {
            (void)printf("--- %lld\n", (long long)i + 1);
            begin_text(&output, request);
            write_prompt(&output, sequence, job->prompts->prompt[i].begin);
        }
        for (int64_t j = sequence->prompt; j < sequence->count && !streams; j++) {
            write_token(&output, sequence->tokens[j]);
        }
        end_text(&output);
    }
    return done;
}

void tri_generate_texts(const struct tri_generate_job *job, struct tri_session *session)
{
    struct tri_generated all = {0};
    for (int64_t first = 0; first < job->count; first += job->rows) {
        int64_t rows = job->count - first < job->rows ? job->count - first : job->rows;
        struct tri_generated done = generate(job, session, first, rows);
        tri_generated_add(&all, &done);
    }
    double share = job->request->active.given ? tri_active_share(session) : 1.0;
    if (session->mesh->rank == 0) {
        note_unknown(job->request, job->sequences, job->count);
        tri_generated_log(job->request, &all, share);
        if (job->request->json) {
            print_json(job->request, job->sequences, job->count, &all, share);
        }
    }
}
