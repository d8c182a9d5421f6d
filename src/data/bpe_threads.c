#include "base/memory.h"
#include "base/runtime.h"
#include "data/bpe.h"
#include "data/utf8.h"

#include <pthread.h>

enum {
    PART_BYTES = 128 << 10,
    PARTS_AHEAD = 4 /* a thread, that nobody has taken yet */
};

/* A part of the text; those of one turn of the ring are numbered in the text's order. */
struct part {
    const unsigned char *text;
    size_t bytes;
    bool done;
    enum tri_bpe_fault fault;
    struct tri_token_list tokens;
};

struct team {
    const struct tri_bpe *bpe;
    struct tri_runtime *runtime;
    const unsigned char *text;
    size_t bytes;
    pthread_mutex_t lock; /* of all below */
    pthread_cond_t changed;
    size_t cut;          /* the text before it is in parts */
    int64_t begun, used; /* parts */
    bool stop;
    int ring;
    struct part *part;
};

/* ---- cutting --------------------------------------------------------------------------------- */

/* Behind a letter and before a space or line feed, at or after `from`; bytes where there is no such
 * place. */
static size_t find_cut(const struct tri_bpe *bpe, const unsigned char *text, size_t bytes,
                       size_t from)
{
    for (size_t at = from > 0 ? from : 1; bpe->cuts && at < bytes; at++) {
        int32_t c;
        /* A normal form may end a letter by a mark, and a line feed belongs to what ends so. */
        bool line = text[at] == '\n' && bpe->cuts_lines &&
                    (bpe->normalizer.count == 0 || text[at - 1] < 0x80);
        if ((text[at] == ' ' || line) && tri_utf8_last(text, at, &c) > 0 && tri_is_letter(c) &&
            (!bpe->cuts_raw || tri_added_may_cut(bpe->raw, text, bytes, at)) &&
            (!bpe->cuts_normal || tri_added_may_cut(bpe->normal, text, bytes, at))) {
            return at;
        }
    }
    return bytes;
}

static size_t end_of_part(const struct tri_bpe *bpe, const unsigned char *text, size_t bytes)
{
    return bytes <= PART_BYTES ? bytes : find_cut(bpe, text, bytes, PART_BYTES);
}

/* ---- one thread ------------------------------------------------------------------------------ */

static enum tri_status check(const struct tri_bpe *bpe, enum tri_bpe_fault fault,
                             struct tri_error *error)
{
    switch (fault) {
    case TRI_BPE_FINE:
        break;
    case TRI_BPE_GROWN:
        return tri_fail(error, TRI_BAD_INPUT,
                        "tokenizer: its normalizer makes more than %d times the bytes of this text",
                        TRI_NORMAL_TIMES);
    case TRI_BPE_LONG_WORD:
        return tri_fail(
            error, TRI_BAD_INPUT,
            "tokenizer: found a word of more than %zu bytes, which its pattern does not "
            "cut, expected at most that",
            bpe->rules.most);
    case TRI_BPE_STUCK:
        return tri_fail(error, TRI_BAD_INPUT,
                        "tokenizer: its pattern takes more steps on this text than a match may");
    }
    return TRI_OK;
}

static enum tri_status encode_alone(const struct tri_bpe *bpe, const unsigned char *text,
                                    size_t bytes, tri_token_sink sink, void *context,
                                    struct tri_error *error)
{
    enum tri_status status = TRI_OK;
    struct tri_token_list tokens = {0};
    struct tri_bpe_worker *worker = tri_bpe_worker_create(bpe);
    for (size_t at = 0; at < bytes && status == TRI_OK;) {
        size_t part = end_of_part(bpe, text + at, bytes - at);
        tokens.count = 0;
        status = check(bpe, tri_bpe_encode_part(worker, text + at, part, at == 0, &tokens), error);
        if (status == TRI_OK) {
            status = sink(context, tokens.tokens, (int64_t)tokens.count, error);
        }
        at += part;
    }
    tri_free(tokens.tokens);
    tri_bpe_worker_destroy(worker);
    return status;
}

/* ---- short texts ----------------------------------------------------------------------------- */

struct short_encoder {
    struct tri_bpe_worker *worker;
    struct tri_token_list tokens;
};

void *tri_bpe_encoder_create(const struct tri_tokenizer *tokenizer)
{
    struct short_encoder *encoder = tri_alloc(TRI_MEMORY_OTHER, sizeof(*encoder));
    encoder->worker = tri_bpe_worker_create((const struct tri_bpe *)(const void *)tokenizer);
    return encoder;
}

void tri_bpe_encoder_destroy(void *encoder)
{
    struct short_encoder *self = encoder;
    tri_bpe_worker_destroy(self->worker);
    tri_free(self->tokens.tokens);
    tri_free(self);
}

enum tri_status tri_bpe_encoder_encode(void *encoder, const unsigned char *text, size_t bytes,
                                       struct tri_text_place place, tri_token_sink sink,
                                       void *context, struct tri_error *error)
{
    struct short_encoder *self = encoder;
    const struct tri_bpe *bpe = tri_bpe_worker_bpe(self->worker);
    for (size_t at = 0; at < bytes;) {
        size_t part = end_of_part(bpe, text + at, bytes - at);
        self->tokens.count = 0;
        TRI_TRY(check(
            bpe, tri_bpe_encode_piece(self->worker, text + at, part, at == 0, place, &self->tokens),
            error));
        TRI_TRY(sink(context, self->tokens.tokens, (int64_t)self->tokens.count, error));
        at += part;
    }
    return TRI_OK;
}

/* ---- several --------------------------------------------------------------------------------- */

/* The next part that nobody has begun, or NULL when there is none. */
static struct part *take(struct team *team)
{
    (void)pthread_mutex_lock(&team->lock);
    while (!team->stop && team->cut < team->bytes && team->begun >= team->used + team->ring) {
        (void)pthread_cond_wait(&team->changed, &team->lock);
    }
    struct part *part = NULL;
    if (!team->stop && team->cut < team->bytes) {
        part = &team->part[team->begun++ % team->ring];
        part->text = team->text + team->cut;
        part->bytes = end_of_part(team->bpe, part->text, team->bytes - team->cut);
        team->cut += part->bytes;
    }
    (void)pthread_mutex_unlock(&team->lock);
    return part;
}

static void finish(struct team *team, struct part *part, enum tri_bpe_fault fault)
{
    (void)pthread_mutex_lock(&team->lock);
    part->done = true;
    part->fault = fault;
    (void)pthread_cond_broadcast(&team->changed);
    (void)pthread_mutex_unlock(&team->lock);
}

static void *work(void *data)
{
    struct team *team = data;
    tri_runtime_bind(team->runtime);
    struct tri_bpe_worker *worker = tri_bpe_worker_create(team->bpe);
    for (struct part *part; (part = take(team));) {
        part->tokens.count = 0;
        finish(team, part,
               tri_bpe_encode_part(worker, part->text, part->bytes, part->text == team->text,
                                   &part->tokens));
    }
    tri_bpe_worker_destroy(worker);
    return NULL;
}

/* The parts in their order, as they get done; the team may still be cutting when it ends early. */
static enum tri_status collect(struct team *team, tri_token_sink sink, void *context,
                               struct tri_error *error)
{
    enum tri_status status = TRI_OK;
    (void)pthread_mutex_lock(&team->lock);
    while (status == TRI_OK && (team->used < team->begun || team->cut < team->bytes)) {
        struct part *part = &team->part[team->used % team->ring];
        if (team->used == team->begun || !part->done) {
            (void)pthread_cond_wait(&team->changed, &team->lock);
            continue;
        }
        (void)pthread_mutex_unlock(&team->lock);
        status = check(team->bpe, part->fault, error);
        if (status == TRI_OK) {
            status = sink(context, part->tokens.tokens, (int64_t)part->tokens.count, error);
        }
        (void)pthread_mutex_lock(&team->lock);
        part->done = false;
        team->used++;
        (void)pthread_cond_broadcast(&team->changed);
    }
    team->stop = true;
    (void)pthread_cond_broadcast(&team->changed);
    (void)pthread_mutex_unlock(&team->lock);
    return status;
}

static enum tri_status encode_together(struct team *team, int threads, tri_token_sink sink,
                                       void *context, struct tri_error *error)
{
    enum tri_status status;
    int started = 0;
    pthread_t *thread = tri_alloc(TRI_MEMORY_OTHER, (size_t)threads * sizeof(*thread));
    while (started < threads && pthread_create(&thread[started], NULL, work, team) == 0) {
        started++;
    }
    status = started == 0 ? encode_alone(team->bpe, team->text, team->bytes, sink, context, error)
                          : collect(team, sink, context, error);
    for (int i = 0; i < started; i++) {
        (void)pthread_join(thread[i], NULL);
    }
    tri_free(thread);
    return status;
}

enum tri_status tri_bpe_encode(const struct tri_tokenizer *tokenizer, const unsigned char *text,
                               size_t bytes, tri_token_sink sink, void *context,
                               struct tri_error *error)
{
    const struct tri_bpe *bpe = (const struct tri_bpe *)(const void *)tokenizer;
    if (bpe->threads < 2 || bytes < 2 * PART_BYTES || !bpe->cuts) {
        return encode_alone(bpe, text, bytes, sink, context, error);
    }
    struct team team = {.bpe = bpe,
                        .runtime = tri_runtime_bound(),
                        .text = text,
                        .bytes = bytes,
                        .ring = bpe->threads * PARTS_AHEAD};
    (void)pthread_mutex_init(&team.lock, NULL);
    (void)pthread_cond_init(&team.changed, NULL);
    team.part = tri_alloc(TRI_MEMORY_OTHER, (size_t)team.ring * sizeof(*team.part));
    enum tri_status status = encode_together(&team, bpe->threads, sink, context, error);
    for (int i = 0; i < team.ring; i++) {
        tri_free(team.part[i].tokens.tokens);
    }
    tri_free(team.part);
    (void)pthread_cond_destroy(&team.changed);
    (void)pthread_mutex_destroy(&team.lock);
    return status;
}
