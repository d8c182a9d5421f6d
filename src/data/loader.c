#include "data/loader.h"

#include "base/memory.h"
#include "base/random.h"
#include "base/work.h"
#include "data/mixture.h"

#include <inttypes.h>

struct tri_loader {
    struct tri_loader_args args;
    struct tri_packing *packing;      /* NULL: windows */
    int64_t targets, counted;         /* of the set, and those that count */
    int64_t windows;                  /* of an epoch, or rows of documents */
    int64_t phases;                   /* an epoch begins at a token of [0, phases) */
    int64_t first_step, first_sample; /* the step's batch begins with the sample */
    uint64_t phase_stream, order_stream;
    struct tri_mixture *mixture; /* NULL: one set; else only its steps are this loader's own */
    int parts;
    struct tri_loader *part[TRI_MIXTURE_SETS];
};

/* ---- what counts ----------------------------------------------------------------------------- */

/* Targets of a piece: the last token of a document predicts nothing. */
static int64_t targets_of(const struct tri_packed_piece *piece)
{
    return piece->length - !piece->goes_on;
}

static int64_t count_packed(const struct tri_loader *loader, int64_t row)
{
    int64_t count;
    int64_t sum = 0;
    const struct tri_packed_piece *pieces = tri_packing_row(loader->packing, row, &count);
    for (int64_t i = 0; i < count; i++) {
        sum += tri_tokens_counted(loader->args.tokens, pieces[i].start + 1, targets_of(&pieces[i]));
    }
    return sum;
}

/* A set of which nothing counts is a mistake, of its masks most likely. */
static enum tri_status count_set(struct tri_loader *loader, struct tri_error *error)
{
    const struct tri_tokens *tokens = loader->args.tokens;
    if (loader->packing) {
        const struct tri_packing_counts counts = tri_packing_counts(loader->packing);
        loader->targets = counts.tokens - counts.documents;
        loader->counted = tri_tokens_masked(tokens) ? 0 : loader->targets;
        for (int64_t row = 0; tri_tokens_masked(tokens) && row < counts.rows; row++) {
            loader->counted += count_packed(loader, row);
            tri_work_progress();
        }
    } else {
        loader->targets = tri_tokens_count(tokens) - 1;
        loader->counted = tri_tokens_counted(tokens, 1, loader->targets);
    }
    return loader->counted > 0
               ? TRI_OK
               : tri_fail(error, TRI_BAD_INPUT,
                          "%s: none of the set's %" PRId64 " targets counts, expected at least 1",
                          tri_tokens_shard(tokens, 0).path, loader->targets);
}

/* ---- making one ------------------------------------------------------------------------------ */

static enum tri_status create(const struct tri_loader_args *args, struct tri_loader **loader,
                              struct tri_error *error)
{
    TRI_REQUIRE(args->sequence_length >= 1);
    struct tri_loader *self = tri_alloc(TRI_MEMORY_OTHER, sizeof(*self));
    self->args = *args;
    *loader = NULL;
    enum tri_status status = TRI_OK;
    if (args->packs) {
        status = tri_packing_create(args->tokens, args->separator, args->sequence_length,
                                    &self->packing, error);
        self->windows = status == TRI_OK ? tri_packing_counts(self->packing).rows : 0;
    }
    if (status == TRI_OK) {
        status = count_set(self, error);
    }
    if (status != TRI_OK) {
        tri_loader_destroy(self);
        return status;
    }
    *loader = self;
    return TRI_OK;
}

enum tri_status tri_loader_create(const struct tri_loader_args *args, struct tri_loader **loader,
                                  struct tri_error *error)
{
    *loader = NULL;
    TRI_REQUIRE(args->global_batch >= 1);
    int64_t count = tri_tokens_count(args->tokens);
    int64_t seq = args->sequence_length;
    if (!args->packs && count < seq + 1) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: the training set has %" PRId64 " tokens, expected at least %" PRId64
                        " (data.sequence_length + 1)",
                        tri_tokens_shard(args->tokens, 0).path, count, seq + 1);
    }
    TRI_TRY(create(args, loader, error));
    struct tri_loader *self = *loader;
    if (!self->packing) {
        self->windows = (count - seq) / seq;
        if (self->windows == 0) {
            self->windows = 1;
        }
        self->phases = count - self->windows * seq;
    }
    self->phase_stream = tri_random_stream("loader.phase") + (uint64_t)args->set;
    self->order_stream = tri_random_stream("loader.order") + (uint64_t)args->set;
    return TRI_OK;
}

struct tri_loader *tri_loader_mix(int count, struct tri_loader *const *loaders,
                                  const double *weights)
{
    struct tri_loader *self = tri_alloc(TRI_MEMORY_OTHER, sizeof(*self));
    self->mixture = tri_mixture_create(count, weights);
    self->parts = count;
    self->args = loaders[0]->args;
    for (int i = 0; i < count; i++) {
        TRI_REQUIRE(loaders[i]->args.sequence_length == self->args.sequence_length &&
                    loaders[i]->args.global_batch == self->args.global_batch);
        self->part[i] = loaders[i];
    }
    return self;
}

enum tri_status tri_loader_create_eval(const struct tri_loader_args *args,
                                       struct tri_loader **loader, struct tri_error *error)
{
    *loader = NULL;
    int64_t count = tri_tokens_count(args->tokens);
    if (count < 2) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: the validation set has %" PRId64 " token, expected at least 2",
                        tri_tokens_shard(args->tokens, 0).path, count);
    }
    return create(args, loader, error);
}

void tri_loader_destroy(struct tri_loader *loader)
{
    if (loader) {
        for (int i = 0; i < loader->parts; i++) {
            tri_loader_destroy(loader->part[i]);
        }
        tri_mixture_destroy(loader->mixture);
        tri_packing_destroy(loader->packing);
        tri_free(loader);
    }
}

void tri_loader_continue(struct tri_loader *loader, int64_t step, int64_t sample)
{
    TRI_REQUIRE(step >= 0 && sample >= 0);
    loader->first_step = step;
    loader->first_sample = sample;
}

struct tri_loader_share tri_loader_share(const struct tri_loader *loader, int set, int64_t samples)
{
    if (!loader->mixture) {
        return (struct tri_loader_share){1.0, samples, loader->windows};
    }
    TRI_REQUIRE(set >= 0 && set < loader->parts);
    return (struct tri_loader_share){.share = (double)tri_mixture_quota(loader->mixture, set) /
                                              TRI_MIXTURE_PERIOD,
                                     .samples = tri_mixture_taken(loader->mixture, set, samples),
                                     .epoch = loader->part[set]->windows};
}

bool tri_loader_has_documents(const struct tri_loader *loader)
{
    bool any = false;
    for (int i = 0; i < loader->parts; i++) {
        any = any || tri_loader_has_documents(loader->part[i]);
    }
    return any || loader->packing || loader->args.separator >= 0 ||
           tri_tokens_documented(loader->args.tokens);
}

struct tri_loader_counts tri_loader_counts(const struct tri_loader *loader)
{
    struct tri_loader_counts counts = {.targets = loader->targets, .counted = loader->counted};
    if (loader->packing) {
        counts.packing = tri_packing_counts(loader->packing);
    }
    return counts;
}

/* ---- documents of a row ---------------------------------------------------------------------- */

void tri_loader_mark_documents(const int32_t *tokens, int64_t seq, int64_t separator,
                               int32_t *first_key)
{
    int32_t first = 0;
    for (int64_t t = 0; t < seq; t++) {
        if (t > 0 && separator >= 0 && tokens[t - 1] == separator) {
            first = (int32_t)t;
        }
        first_key[t] = first;
    }
}

void tri_loader_number(const int32_t *first_key, int64_t seq, bool document_positions,
                       int32_t *positions)
{
    for (int64_t t = 0; t < seq; t++) {
        positions[t] = (int32_t)t - (document_positions ? first_key[t] : 0);
    }
}

/* Those that the set has a list of, beside those that separators end. */
static void mark_listed(const struct tri_tokens *tokens, int64_t start, int64_t seq,
                        int32_t *first_key)
{
    int64_t next = tri_tokens_next_document(tokens, start);
    int32_t first = 0;
    for (int64_t t = 0; t < seq; t++) {
        if (start + t == next) {
            first = (int32_t)t;
            next = tri_tokens_next_document(tokens, next);
        }
        first_key[t] = first_key[t] > first ? first_key[t] : first;
    }
}

/* ---- windows --------------------------------------------------------------------------------- */

/* The window of `length` tokens from `start` on, to place `at` of the arrays. */
static enum tri_status read_window(const struct tri_loader *loader, int64_t start, int64_t length,
                                   const struct tri_row_arrays *out, int64_t at,
                                   struct tri_error *error)
{
    const struct tri_tokens *tokens = loader->args.tokens;
    TRI_TRY(tri_tokens_read(tokens, start, length, out->tokens + at, error));
    TRI_TRY(tri_tokens_read(tokens, start + 1, length, out->targets + at, error));
    tri_tokens_mask(tokens, start + 1, length, out->targets + at);
    tri_loader_mark_documents(out->tokens + at, length, loader->args.separator,
                              out->first_key + at);
    if (tri_tokens_documented(tokens)) {
        mark_listed(tokens, start, length, out->first_key + at);
    }
    tri_loader_number(out->first_key + at, length, loader->args.document_positions,
                      out->positions + at);
    return TRI_OK;
}

/* ---- rows of documents ----------------------------------------------------------------------- */

static enum tri_status read_piece(const struct tri_loader *loader,
                                  const struct tri_packed_piece *piece, int64_t place,
                                  const struct tri_row_arrays *out, int64_t at,
                                  struct tri_error *error)
{
    const struct tri_tokens *tokens = loader->args.tokens;
    int64_t targets = targets_of(piece);
    TRI_TRY(tri_tokens_read(tokens, piece->start, piece->length, out->tokens + at, error));
    TRI_TRY(tri_tokens_read(tokens, piece->start + 1, targets, out->targets + at, error));
    tri_tokens_mask(tokens, piece->start + 1, targets, out->targets + at);
    if (!piece->goes_on) {
        out->targets[at + targets] = -1;
    }
    for (int64_t t = 0; t < piece->length; t++) {
        out->first_key[at + t] = (int32_t)place;
        out->positions[at + t] = (int32_t)(loader->args.document_positions ? t : place + t);
    }
    return TRI_OK;
}

/* Row `row` to place `at`. Padding is of documents of one token, which predict nothing. */
static enum tri_status read_packed(const struct tri_loader *loader, int64_t row,
                                   const struct tri_row_arrays *out, int64_t at,
                                   struct tri_error *error)
{
    int64_t count;
    int64_t place = 0;
    const struct tri_packed_piece *pieces = tri_packing_row(loader->packing, row, &count);
    for (int64_t i = 0; i < count; i++) {
        TRI_TRY(read_piece(loader, &pieces[i], place, out, at + place, error));
        place += pieces[i].length;
    }
    for (; place < loader->args.sequence_length; place++) {
        out->tokens[at + place] = 0;
        out->targets[at + place] = -1;
        out->first_key[at + place] = (int32_t)place;
        out->positions[at + place] = (int32_t)(loader->args.document_positions ? 0 : place);
    }
    return TRI_OK;
}

/* ---- training -------------------------------------------------------------------------------- */

/* The row of documents of a sample, or the place of the first token of its window. */
static int64_t place_of(const struct tri_loader *loader, int64_t sample)
{
    uint64_t seed = (uint64_t)loader->args.seed;
    uint64_t epoch = (uint64_t)(sample / loader->windows);
    uint64_t window =
        tri_random_permute(seed, tri_random_bits(seed, loader->order_stream, epoch),
                           (uint64_t)loader->windows, (uint64_t)(sample % loader->windows));
    if (loader->packing) {
        return (int64_t)window;
    }
    uint64_t phase = tri_random_bits(seed, loader->phase_stream, epoch) % (uint64_t)loader->phases;
    return (int64_t)phase + (int64_t)window * loader->args.sequence_length;
}

static int64_t first_sample(const struct tri_loader *loader, int64_t step)
{
    TRI_REQUIRE(step >= loader->first_step);
    return loader->first_sample + (step - loader->first_step) * loader->args.global_batch;
}

/* The set that a sample is of; *sample <- its number among that one's. */
static const struct tri_loader *part_of(const struct tri_loader *loader, int64_t *sample)
{
    return loader->mixture ? loader->part[tri_mixture_pick(loader->mixture, *sample, sample)]
                           : loader;
}

static enum tri_status read_sample(const struct tri_loader *loader, int64_t sample,
                                   const struct tri_row_arrays *out, int64_t at,
                                   struct tri_error *error)
{
    const struct tri_loader *part = part_of(loader, &sample);
    int64_t place = place_of(part, sample);
    return part->packing ? read_packed(part, place, out, at, error)
                         : read_window(part, place, part->args.sequence_length, out, at, error);
}

static int64_t count_sample(const struct tri_loader *loader, int64_t sample)
{
    const struct tri_loader *part = part_of(loader, &sample);
    if (!part->packing && !tri_tokens_masked(part->args.tokens)) {
        return part->args.sequence_length;
    }
    int64_t place = place_of(part, sample);
    return part->packing
               ? count_packed(part, place)
               : tri_tokens_counted(part->args.tokens, place + 1, part->args.sequence_length);
}

enum tri_status tri_loader_rows(const struct tri_loader *loader, int64_t step, int64_t first_row,
                                int64_t rows, const struct tri_row_arrays *out,
                                struct tri_error *error)
{
    int64_t seq = loader->args.sequence_length;
    TRI_REQUIRE(first_row >= 0 && rows >= 0 && first_row + rows <= loader->args.global_batch);
    int64_t first = first_sample(loader, step) + first_row;
    for (int64_t i = 0; i < rows; i++) {
        TRI_TRY(read_sample(loader, first + i, out, i * seq, error));
    }
    return TRI_OK;
}

int64_t tri_loader_counted(const struct tri_loader *loader, int64_t step)
{
    int64_t first = first_sample(loader, step);
    int64_t sum = 0;
    for (int64_t i = 0; i < loader->args.global_batch; i++) {
        sum += count_sample(loader, first + i);
    }
    return sum;
}

static int64_t size_sample(const struct tri_loader *loader, int64_t sample)
{
    const struct tri_loader *part = part_of(loader, &sample);
    if (!part->packing) {
        return part->args.sequence_length;
    }
    int64_t count;
    int64_t sum = 0;
    const struct tri_packed_piece *pieces =
        tri_packing_row(part->packing, place_of(part, sample), &count);
    for (int64_t i = 0; i < count; i++) {
        sum += pieces[i].length;
    }
    return sum;
}

int64_t tri_loader_tokens(const struct tri_loader *loader, int64_t step)
{
    int64_t first = first_sample(loader, step);
    int64_t sum = 0;
    for (int64_t i = 0; i < loader->args.global_batch; i++) {
        sum += size_sample(loader, first + i);
    }
    return sum;
}

/* ---- evaluation ------------------------------------------------------------------------------ */

int64_t tri_loader_eval_count(const struct tri_loader *loader)
{
    return loader->packing
               ? loader->windows
               : (tri_tokens_count(loader->args.tokens) - 1) / loader->args.sequence_length;
}

int64_t tri_loader_eval_rest(const struct tri_loader *loader)
{
    return loader->packing
               ? 0
               : (tri_tokens_count(loader->args.tokens) - 1) % loader->args.sequence_length;
}

int64_t tri_loader_eval_counted(const struct tri_loader *loader, int64_t rows, bool rest)
{
    int64_t sum = 0;
    TRI_REQUIRE(rows >= 0 && rows <= tri_loader_eval_count(loader));
    if (!loader->packing) {
        int64_t length = rows * loader->args.sequence_length;
        length += rest ? tri_loader_eval_rest(loader) : 0;
        return tri_tokens_counted(loader->args.tokens, 1, length);
    }
    for (int64_t row = 0; row < rows; row++) {
        sum += count_packed(loader, row);
    }
    return sum;
}

enum tri_status tri_loader_eval_rows(const struct tri_loader *loader, int64_t first_row,
                                     int64_t rows, const struct tri_row_arrays *out,
                                     struct tri_error *error)
{
    int64_t seq = loader->args.sequence_length;
    int64_t count = tri_loader_eval_count(loader);
    bool rest = first_row == count;
    TRI_REQUIRE(first_row >= 0 && rows >= 0 && first_row + rows <= count + rest);
    int64_t length = rest ? tri_loader_eval_rest(loader) : seq;
    for (int64_t i = 0; i < rows; i++) {
        int64_t row = first_row + i;
        TRI_TRY(loader->packing ? read_packed(loader, row, out, i * seq, error)
                                : read_window(loader, row * seq, length, out, i * seq, error));
    }
    return TRI_OK;
}
