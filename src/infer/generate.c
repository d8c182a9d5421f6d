#include "infer/generate.h"

#include "base/clock.h"
#include "base/memory.h"

#include <string.h>

struct tri_generator {
    const struct tri_mesh *mesh;
    struct tri_decoder *decoder;
    int64_t rows, capacity, vocab;
    struct tri_range own; /* this rank's texts */
    int64_t length;       /* of what has been read, padding included */
    int64_t *context;     /* [rows] tokens of each text in it, its last ones but those to be fed */
    int64_t *padding;     /* [rows] */
    int32_t *columns;     /* [own, capacity] what is fed */
    float *logits;        /* [own, vocab] */
    int32_t *scratch;     /* [vocab] */
    int64_t *next;        /* [rows] */
    int32_t *read;        /* [capacity] the decoder's tokens where there is one row */
    /* Of the call. */
    const struct tri_generation *generation;
    struct tri_sequence *sequences;
};

struct tri_generator *tri_generator_create(struct tri_model *model, int64_t rows, int64_t capacity)
{
    const struct tri_context *context = tri_model_context(model);
    struct tri_generator *g = tri_alloc(TRI_MEMORY_OTHER, sizeof(*g));
    g->mesh = context->mesh;
    g->decoder = tri_decoder_create(model, rows, capacity);
    g->rows = rows;
    g->capacity = capacity;
    g->vocab = context->config->model.vocab_size;
    g->own = tri_decoder_rows(g->decoder);
    size_t own = (size_t)tri_range_size(g->own);
    g->context = tri_alloc(TRI_MEMORY_OTHER, (size_t)rows * sizeof(*g->context));
    g->padding = tri_alloc(TRI_MEMORY_OTHER, (size_t)rows * sizeof(*g->padding));
    g->next = tri_alloc(TRI_MEMORY_OTHER, (size_t)rows * sizeof(*g->next));
    g->columns = tri_alloc(TRI_MEMORY_OTHER, own * (size_t)capacity * sizeof(*g->columns));
    g->logits = tri_alloc(TRI_MEMORY_OTHER, own * (size_t)g->vocab * sizeof(*g->logits));
    g->scratch = tri_alloc(TRI_MEMORY_OTHER, (size_t)g->vocab * sizeof(*g->scratch));
    g->read = tri_alloc(TRI_MEMORY_OTHER, (size_t)capacity * sizeof(*g->read));
    return g;
}

void tri_generator_destroy(struct tri_generator *g)
{
    tri_free(g->read);
    tri_free(g->scratch);
    tri_free(g->logits);
    tri_free(g->columns);
    tri_free(g->next);
    tri_free(g->padding);
    tri_free(g->context);
    tri_decoder_destroy(g->decoder);
    tri_free(g);
}

/* Reads each text anew: its last context[] tokens, padded to `length`. */
static void read_all(struct tri_generator *g)
{
    for (int64_t i = 0; i < g->rows; i++) {
        g->padding[i] = g->length - g->context[i];
    }
    for (int64_t i = g->own.begin; i < g->own.end; i++) {
        const struct tri_sequence *s = &g->sequences[i];
        int32_t *column = g->columns + (i - g->own.begin) * g->length;
        memset(column, 0, (size_t)g->padding[i] * sizeof(*column));
        memcpy(column + g->padding[i], s->tokens + s->count - g->context[i],
               (size_t)g->context[i] * sizeof(*column));
    }
    tri_decoder_reset(g->decoder, g->padding);
    tri_decoder_feed(g->decoder, g->columns, g->length, g->logits);
}

/* The last `most` tokens of each text, or all that it has. */
static void begin_context(struct tri_generator *g, int64_t most)
{
    g->length = 0;
    for (int64_t i = 0; i < g->rows; i++) {
        int64_t count = g->sequences[i].count;
        g->context[i] = count < most ? count : most;
        g->length = g->context[i] > g->length ? g->context[i] : g->length;
    }
}

/* The prompts; of a single text only what the decoder has not read already. */
static void read_prompts(struct tri_generator *g)
{
    const struct tri_sequence *s = &g->sequences[0];
    int64_t same = 0;
    while (g->rows == 1 && !g->generation->without_cache && same < g->length &&
           same + 1 < s->count && g->read[same] == s->tokens[same]) {
        same++;
    }
    begin_context(g, g->capacity);
    if (same == 0) {
        read_all(g);
        return;
    }
    tri_decoder_rewind(g->decoder, same);
    /* The one replica that has the row reads it. */
    if (tri_range_size(g->own) > 0) {
        memcpy(g->columns, s->tokens + same, (size_t)(s->count - same) * sizeof(*g->columns));
    }
    tri_decoder_feed(g->decoder, g->columns, s->count - same, g->logits);
}

/* The last token of each; those that have ended are fed what they ended with, for nobody. */
static void read_last(struct tri_generator *g)
{
    if (g->length == g->capacity) {
        begin_context(g, g->capacity / 2 > 0 ? g->capacity / 2 : 1);
        read_all(g);
        return;
    }
    g->length++;
    for (int64_t i = 0; i < g->rows; i++) {
        g->context[i] += g->context[i] < g->sequences[i].count;
    }
    if (g->generation->without_cache) {
        read_all(g);
        return;
    }
    for (int64_t i = g->own.begin; i < g->own.end; i++) {
        g->columns[i - g->own.begin] = g->sequences[i].tokens[g->sequences[i].count - 1];
    }
    tri_decoder_feed(g->decoder, g->columns, 1, g->logits);
}

/* next[] of every text, on all ranks. */
static void sample(struct tri_generator *g)
{
    for (int64_t i = 0; i < g->rows; i++) {
        g->next[i] = -1;
    }
    for (int64_t i = g->own.begin; i < g->own.end && tri_mesh_grid_rank(g->mesh) == 0; i++) {
        struct tri_sampling sampling = g->generation->sampling;
        sampling.seed += (uint64_t)i;
        g->next[i] = tri_sample(g->logits + (i - g->own.begin) * g->vocab, g->vocab, &sampling,
                                (uint64_t)g->sequences[i].count, g->scratch);
    }
    tri_all_reduce_max(tri_mesh_group(g->mesh, TRI_ON_ALL),
                       (struct tri_where){TRI_PHASE_EVAL, TRI_KIND_META}, g->next, g->rows,
                       TRI_I64);
}

static bool ends(const struct tri_generation *generation, int64_t token)
{
    for (int i = 0; i < generation->num_stops; i++) {
        if (token == generation->stops[i]) {
            return true;
        }
    }
    return false;
}

/* What was drawn, to the texts that go on. *added: to how many. false when none goes on, or nobody
 * listens. */
static bool append(struct tri_generator *g, int64_t *added)
{
    const struct tri_generation *generation = g->generation;
    int64_t listens = 1;
    bool goes_on = false;
    for (int64_t i = 0; i < g->rows; i++) {
        struct tri_sequence *s = &g->sequences[i];
        int64_t end = s->prompt + generation->most;
        if (s->ended || s->count == end) {
            continue;
        }
        s->tokens[s->count++] = (int32_t)g->next[i];
        s->ended = ends(generation, g->next[i]);
        goes_on = goes_on || (!s->ended && s->count < end);
        (*added)++;
        if (g->mesh->rank == 0 && generation->take && listens) {
            listens = generation->take(generation->state, i, (int32_t)g->next[i]);
        }
    }
    if (generation->take) {
        tri_broadcast(tri_mesh_group(g->mesh, TRI_ON_ALL),
                      (struct tri_where){TRI_PHASE_EVAL, TRI_KIND_META}, &listens, 1, TRI_I64, 0);
    }
    return goes_on && listens;
}

/* What the decoder has read of the only text, for the next call. */
static void remember(struct tri_generator *g)
{
    const struct tri_sequence *s = &g->sequences[0];
    bool slid = s->count > g->capacity;
    g->length = g->rows > 1 || slid ? 0 : g->length;
    memcpy(g->read, s->tokens, (size_t)g->length * sizeof(*g->read));
}

struct tri_generated tri_generate(struct tri_generator *g, const struct tri_generation *generation,
                                  struct tri_sequence *sequences)
{
    struct tri_generated done = {0};
    g->generation = generation;
    g->sequences = sequences;
    for (int64_t i = 0; i < g->rows; i++) {
        TRI_REQUIRE(sequences[i].prompt >= 1 && sequences[i].prompt <= g->capacity &&
                    sequences[i].count == sequences[i].prompt);
        done.prompt_tokens += sequences[i].prompt;
    }
    if (generation->most > 0) {
        double start = tri_clock_now();
        read_prompts(g);
        sample(g);
        done.prompt_seconds = tri_clock_now() - start;
        while (append(g, &done.tokens)) {
            read_last(g);
            sample(g);
        }
        done.seconds = tri_clock_now() - start - done.prompt_seconds;
        remember(g);
    }
    return done;
}
