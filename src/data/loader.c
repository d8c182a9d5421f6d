#include "data/loader.h"

#include "base/memory.h"
#include "base/random.h"

#include <inttypes.h>

struct tri_loader {
    struct tri_loader_args args;
    int64_t windows;                  /* of an epoch */
    int64_t phases;                   /* an epoch begins at a token of [0, phases) */
    int64_t first_step, first_sample; /* the step's batch begins with the sample */
    uint64_t phase_stream, order_stream;
};

static struct tri_loader *new_loader(const struct tri_loader_args *args)
{
    TRI_REQUIRE(args->sequence_length >= 1);
    struct tri_loader *loader = tri_alloc(TRI_MEMORY_OTHER, sizeof(*loader));
    loader->args = *args;
    return loader;
}

enum tri_status tri_loader_create(const struct tri_loader_args *args, struct tri_loader **loader,
                                  struct tri_error *error)
{
    *loader = NULL;
    TRI_REQUIRE(args->global_batch >= 1);
    int64_t count = tri_tokens_count(args->tokens);
    int64_t seq = args->sequence_length;
    if (count < seq + 1) {
        return tri_fail(error, TRI_BAD_INPUT,
                        "%s: the training set has %" PRId64 " tokens, expected at least %" PRId64
                        " (data.sequence_length + 1)",
                        tri_tokens_shard(args->tokens, 0).path, count, seq + 1);
    }
    struct tri_loader *self = new_loader(args);
    self->windows = (count - seq) / seq;
    if (self->windows == 0) {
        self->windows = 1;
    }
    self->phases = count - self->windows * seq;
    self->phase_stream = tri_random_stream("loader.phase");
    self->order_stream = tri_random_stream("loader.order");
    *loader = self;
    return TRI_OK;
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
    *loader = new_loader(args);
    return TRI_OK;
}

void tri_loader_destroy(struct tri_loader *loader)
{
    tri_free(loader);
}

void tri_loader_continue(struct tri_loader *loader, int64_t step, int64_t sample)
{
    TRI_REQUIRE(step >= 0 && sample >= 0);
    loader->first_step = step;
    loader->first_sample = sample;
}

/* Place of the first token of a sample. */
static int64_t sample_start(const struct tri_loader *loader, int64_t sample)
{
    uint64_t seed = (uint64_t)loader->args.seed;
    uint64_t epoch = (uint64_t)(sample / loader->windows);
    uint64_t phase = tri_random_bits(seed, loader->phase_stream, epoch) % (uint64_t)loader->phases;
    uint64_t window =
        tri_random_permute(seed, tri_random_bits(seed, loader->order_stream, epoch),
                           (uint64_t)loader->windows, (uint64_t)(sample % loader->windows));
    return (int64_t)phase + (int64_t)window * loader->args.sequence_length;
}

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

/* The row of `length` tokens from `start` on, to place `at` of the arrays. */
static enum tri_status read_row(const struct tri_loader *loader, int64_t start, int64_t length,
                                const struct tri_row_arrays *out, int64_t at,
                                struct tri_error *error)
{
    TRI_TRY(tri_tokens_read(loader->args.tokens, start, length, out->tokens + at, error));
    TRI_TRY(tri_tokens_read(loader->args.tokens, start + 1, length, out->targets + at, error));
    tri_loader_mark_documents(out->tokens + at, length, loader->args.separator,
                              out->first_key + at);
    for (int64_t t = 0; t < length; t++) {
        out->positions[at + t] = (int32_t)t;
    }
    return TRI_OK;
}

enum tri_status tri_loader_rows(const struct tri_loader *loader, int64_t step, int64_t first_row,
                                int64_t rows, const struct tri_row_arrays *out,
                                struct tri_error *error)
{
    int64_t seq = loader->args.sequence_length;
    int64_t batch = loader->args.global_batch;
    TRI_REQUIRE(step >= loader->first_step && first_row >= 0 && rows >= 0 &&
                first_row + rows <= batch);
    int64_t first = loader->first_sample + (step - loader->first_step) * batch + first_row;
    for (int64_t i = 0; i < rows; i++) {
        int64_t start = sample_start(loader, first + i);
        TRI_TRY(read_row(loader, start, seq, out, i * seq, error));
    }
    return TRI_OK;
}

int64_t tri_loader_eval_count(const struct tri_loader *loader)
{
    return (tri_tokens_count(loader->args.tokens) - 1) / loader->args.sequence_length;
}

int64_t tri_loader_eval_rest(const struct tri_loader *loader)
{
    return (tri_tokens_count(loader->args.tokens) - 1) % loader->args.sequence_length;
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
        TRI_TRY(read_row(loader, (first_row + i) * seq, length, out, i * seq, error));
    }
    return TRI_OK;
}
