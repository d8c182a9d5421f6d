#include "base/log.h"
#include "base/memory.h"
#include "cli/answer.h"
#include "cli/generate_run.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

struct talk {
    const struct tri_generate_request *request;
    struct tri_comm *comm;
    struct tri_group *everyone;
    struct tri_generator *generator;
    struct tri_turn *turns; /* their texts are this one's */
    size_t count, room;
    struct tri_answer answer; /* the one that is being written */
    struct tri_generated done;
};

static const struct tri_where where = {TRI_PHASE_EVAL, TRI_KIND_META};

static void add_turn(struct talk *talk, enum tri_speaker role, const char *text, size_t bytes)
{
    void *turns = talk->turns;
    char *own = tri_alloc(TRI_MEMORY_OTHER, bytes + 1);
    memcpy(own, text, bytes);
    tri_array_grow(&turns, &talk->room, sizeof(*talk->turns), talk->count, 1);
    talk->turns = turns;
    talk->turns[talk->count++] = (struct tri_turn){.role = role, .text = own, .bytes = bytes};
}

/* What is no length of a turn; THEIR_ERROR - errno: it cannot be read. */
enum { TURN_BYTES_MOST = 1 << 24, INPUT_ENDS = -1, TOO_LONG = -2, THEIR_ERROR = -3 };

/* The next line of standard input, without its newline. Returns its bytes, or a code. */
static int64_t read_line(struct tri_string *line)
{
    int c;
    line->size = 0;
    errno = 0;
    while ((c = getc(stdin)) != EOF && c != '\n') {
        char byte = (char)c;
        if (line->size == TURN_BYTES_MOST) {
            return TOO_LONG;
        }
        tri_string_append(line, &byte, 1);
    }
    if (ferror(stdin)) {
        return THEIR_ERROR - errno;
    }
    if (c == EOF && line->size == 0) {
        return INPUT_ENDS;
    }
    while (line->size > 0 && line->data[line->size - 1] == '\r') {
        line->size--;
    }
    return (int64_t)line->size;
}

static enum tri_status refuse_input(int64_t code, struct tri_error *error)
{
    if (code == TOO_LONG) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "standard input: a line of more than %d bytes, expected at most that",
                        TURN_BYTES_MOST);
    }
    return tri_fail(error, TRI_FAILED, "standard input: cannot read: %s",
                    strerror((int)(THEIR_ERROR - code)));
}

/* The next line of standard input that has something in it, on all ranks; *more is false at its
 * end. tri_free *line. */
static enum tri_status read_turn(const struct talk *talk, bool *more, char **line, size_t *bytes,
                                 struct tri_error *error)
{
    struct tri_string read = {0};
    int64_t length = 0;
    bool root = tri_group_rank(talk->everyone) == 0;
    while (root && length == 0) {
        if (isatty(STDIN_FILENO)) {
            (void)printf("> ");
            (void)fflush(stdout);
        }
        length = read_line(&read);
    }
    /* Whoever types may take as long as they like: the others wait. */
    tri_comm_set_timeout(talk->comm, 0.0);
    tri_broadcast(talk->everyone, where, &length, 1, TRI_I64, 0);
    tri_comm_set_timeout(talk->comm, talk->request->config.comm_timeout_seconds);
    *more = length > 0;
    *bytes = *more ? (size_t)length : 0;
    *line = tri_alloc(TRI_MEMORY_OTHER, *bytes + 1);
    if (root && *more) {
        memcpy(*line, read.data, *bytes);
    }
    if (*more) {
        tri_broadcast(talk->everyone, where, *line, length, TRI_U8, 0);
    }
    tri_string_fini(&read);
    return *more || length == INPUT_ENDS ? TRI_OK : refuse_input(length, error);
}

static bool take(void *state, int64_t index, int32_t token)
{
    struct talk *talk = state;
    (void)index;
    for (int i = 0; i < talk->request->generation.num_stops; i++) {
        if (token == talk->request->ends[i]) {
            return true; /* it ends by itself, and is not shown */
        }
    }
    tri_answer_add(&talk->answer, token);
    return !talk->answer.ended && !ferror(stdout);
}

/* What root has written, on all ranks, as a turn. */
static void keep_answer(struct talk *talk)
{
    int64_t bytes = (int64_t)talk->answer.text.size;
    tri_broadcast(talk->everyone, where, &bytes, 1, TRI_I64, 0);
    char *text = tri_alloc(TRI_MEMORY_OTHER, (size_t)bytes + 1);
    if (tri_group_rank(talk->everyone) == 0 && bytes > 0) {
        memcpy(text, talk->answer.text.data, (size_t)bytes);
    }
    tri_broadcast(talk->everyone, where, text, bytes, TRI_U8, 0);
    add_turn(talk, TRI_SPEAKER_ASSISTANT, text, (size_t)bytes);
    tri_free(text);
}

static void answer_prompt(struct talk *talk, const struct tri_prompt *prompt)
{
    const struct tri_generate_request *request = talk->request;
    bool root = tri_group_rank(talk->everyone) == 0;
    int64_t left = request->context - prompt->count;
    struct tri_generation generation = request->generation;
    struct tri_sequence sequence = {.prompt = prompt->count, .count = prompt->count};
    generation.most = left < generation.most ? left : generation.most;
    generation.take = take;
    generation.state = talk;
    size_t tokens = (size_t)(prompt->count + generation.most);
    sequence.tokens = tri_alloc(TRI_MEMORY_OTHER, tokens * sizeof(*sequence.tokens));
    memcpy(sequence.tokens, prompt->tokens, (size_t)prompt->count * sizeof(*sequence.tokens));
    tri_answer_begin(&talk->answer, request->tokenizer, &request->chat, root ? stdout : NULL);
    struct tri_generated done = tri_generate(talk->generator, &generation, &sequence);
    tri_generated_add(&talk->done, &done);
    tri_answer_end(&talk->answer);
    if (root) {
        (void)printf("\n");
        (void)fflush(stdout);
    }
    keep_answer(talk);
    tri_answer_fini(&talk->answer);
    tri_free(sequence.tokens);
}

static enum tri_status answer_turns(struct talk *talk, struct tri_error *error)
{
    struct tri_prompts prompts = {0};
    enum tri_status status = tri_prompts_add_turns(&talk->request->style, "chat", talk->turns,
                                                   talk->count, &prompts, error);
    if (status == TRI_OK && prompts.prompt[0].count >= talk->request->context) {
        status = tri_fail(error, TRI_BAD_INPUT,
                          "chat: its %lld tokens leave no room for an answer in a context of %lld",
                          (long long)prompts.prompt[0].count, (long long)talk->request->context);
    } else if (status == TRI_OK) {
        status = tri_prompt_check(&prompts.prompt[0], talk->request->config.model.vocab_size,
                                  talk->request->context, "chat", error);
    }
    if (status == TRI_OK) {
        answer_prompt(talk, &prompts.prompt[0]);
    }
    tri_prompts_fini(&prompts);
    return status;
}

/* Of who types it a turn that cannot be answered is refused, and the chat goes on. */
static enum tri_status take_back(struct talk *talk, const struct tri_error *error)
{
    if (tri_group_rank(talk->everyone) == 0) {
        tri_log_error(error);
    }
    tri_free((char *)(uintptr_t)talk->turns[--talk->count].text);
    return TRI_OK;
}

enum tri_status tri_converse(const struct tri_generate_request *request, struct tri_comm *comm,
                             struct tri_session *session, struct tri_error *error)
{
    struct talk talk = {.request = request,
                        .comm = comm,
                        .everyone = tri_mesh_group(session->mesh, TRI_ON_ALL),
                        .generator =
                            tri_generator_create(session->engine->model, 1, request->context)};
    enum tri_status status = TRI_OK;
    bool more = true;
    int64_t typed = isatty(STDIN_FILENO); /* on rank 0 */
    tri_broadcast(talk.everyone, where, &typed, 1, TRI_I64, 0);
    while (status == TRI_OK && more) {
        char *line;
        size_t bytes;
        status = read_turn(&talk, &more, &line, &bytes, error);
        if (more) {
            add_turn(&talk, TRI_SPEAKER_USER, line, bytes);
            status = answer_turns(&talk, error);
        }
        if (more && status == TRI_BAD_INPUT && typed) {
            status = take_back(&talk, error);
        }
        tri_free(line);
    }
    if (status == TRI_OK) {
        double share = request->active.given ? tri_active_share(session) : 1.0;
        tri_generated_log(request, &talk.done, share);
    }
    for (size_t i = 0; i < talk.count; i++) {
        tri_free((char *)(uintptr_t)talk.turns[i].text);
    }
    tri_free(talk.turns);
    tri_generator_destroy(talk.generator);
    return status;
}
