/* Rows of tokens. A row is a window of sequence_length + 1 tokens: the inputs are all but its last,
 * the targets all but its first; or it holds whole documents (data/packing.h), and then nothing
 * predicts a token of the next document. Targets that do not count, by a set's masks, are -1.
 *
 * Training. Samples have numbers, and which row a number stands for is a function of (seed, tokens,
 * sequence_length) and of nothing else: not of the layout, of how tokens are cut into shards, or of
 * what was read before. A step takes the next global_batch samples. So every layout trains on the
 * same rows, and a run that resumes, with another batch too, needs no state but how many samples
 * were taken.
 *
 *   tokens  |..phase..|== window 0 ==|== window 1 ==| … |== window W-1 ==|..rest..|
 *
 * An epoch visits each of its W windows once, in an order that (seed, epoch) permutes; windows are
 * sequence_length apart, and each epoch begins at a phase of its own, so that a text is not cut at
 * the same places every time and its ends are trained on as well. W = (tokens - sequence_length) /
 * sequence_length, at least 1, is the same in every epoch. Row r of step n is sample n *
 * global_batch + r (tri_loader_continue moves that), and sample s is window permute(s % W) of epoch
 * s / W: a batch may span epochs.
 *
 * Of rows of documents the epoch has as many as there are, in an order of its own too.
 *
 * Evaluation. Windows in order over the whole set, so that every token but the first is predicted
 * exactly once; or the rows of documents in order. */
#ifndef TRIDENT_DATA_LOADER_H
#define TRIDENT_DATA_LOADER_H

#include "base/status.h"
#include "data/packing.h"
#include "data/shards.h"

#include <stdint.h>

struct tri_loader;

struct tri_loader_args {
    const struct tri_tokens *tokens; /* borrowed: outlives the loader */
    int64_t seed;
    int64_t sequence_length;
    int64_t global_batch;
    int64_t separator;       /* the token that ends a document; -1: none */
    bool document_positions; /* positions from 0 in each document, else from 0 in each row */
    bool packs;              /* rows of documents, else windows */
    int set;                 /* its number in a mixture, so that orders differ; else 0 */
};

/* For training. Local. BAD_INPUT when the set is too short for one window, none of it counts, or as
 * tri_tokens_read when documents are looked for. */
enum tri_status tri_loader_create(const struct tri_loader_args *args, struct tri_loader **loader,
                                  struct tri_error *error) TRI_NODISCARD;
/* For evaluation: seed and global_batch are not used. Local. BAD_INPUT when the set has fewer than
 * two tokens, or none of it counts. */
enum tri_status tri_loader_create_eval(const struct tri_loader_args *args,
                                       struct tri_loader **loader,
                                       struct tri_error *error) TRI_NODISCARD;
/* The loaders of sets for training, by weight (data/mixture.h); all of one sequence_length and
 * global_batch, and only for training. Takes the loaders over. */
struct tri_loader *tri_loader_mix(int count, struct tri_loader *const *loaders,
                                  const double *weights);
void tri_loader_destroy(struct tri_loader *loader);

/* Of set `set` (0 where it is no mixture): its share of the samples, those of it among the first
 * `samples`, and how many are an epoch. */
struct tri_loader_share {
    double share;
    int64_t samples, epoch;
};
struct tri_loader_share tri_loader_share(const struct tri_loader *loader, int set, int64_t samples);

/* From here on the batch of `step`, counted from 0, begins with `sample`, and earlier steps are not
 * asked for: a run goes on with the next sample, whatever its batch was before. */
void tri_loader_continue(struct tri_loader *loader, int64_t step, int64_t sample);

/* Where rows go, each [rows, seq]; the caller's. */
struct tri_row_arrays {
    int32_t *tokens;
    int32_t *targets; /* the token after each; of windows the one after a separator too */
    /* The place in the row where a position's document begins: attention at position t sees
     * [first_key[t], t]. A separator belongs to the document that it ends. Padding sees itself. */
    int32_t *first_key;
    int32_t *positions;
};

/* Rows [first_row, first_row + rows) of step's global batch, which the caller keeps within it; step
 * counts from 0. BAD_INPUT when a token is not below the vocabulary size (tri_tokens_read). Writes
 * nothing else, and may be called from several threads. */
enum tri_status tri_loader_rows(const struct tri_loader *loader, int64_t step, int64_t first_row,
                                int64_t rows, const struct tri_row_arrays *out,
                                struct tri_error *error) TRI_NODISCARD;

/* Targets that count in step's global batch. Sends nothing: who has the set knows it. */
int64_t tri_loader_counted(const struct tri_loader *loader, int64_t step);
/* Tokens in it that are no padding. */
int64_t tri_loader_tokens(const struct tri_loader *loader, int64_t step);

/* Whether rows may hold more than one document: else first_key is 0 everywhere. */
bool tri_loader_has_documents(const struct tri_loader *loader);
/* Of a mixture all 0. */
struct tri_loader_counts {
    struct tri_packing_counts packing; /* all 0 of windows */
    int64_t targets, counted;          /* of the whole set, and those that count */
};
struct tri_loader_counts tri_loader_counts(const struct tri_loader *loader);

/* first_key [seq] of one row, as there; separator -1: all is one document. */
void tri_loader_mark_documents(const int32_t *tokens, int64_t seq, int64_t separator,
                               int32_t *first_key);
/* positions [seq] of such a row. */
void tri_loader_number(const int32_t *first_key, int64_t seq, bool document_positions,
                       int32_t *positions);

/* Whole rows of the set, and the tokens of the shorter row behind them, row number eval_count; 0:
 * there is none. Nothing is padded: what does not exist takes no part in anything. */
int64_t tri_loader_eval_count(const struct tri_loader *loader);
int64_t tri_loader_eval_rest(const struct tri_loader *loader);
/* Targets that count in the first `rows` whole rows, and with `rest` in the one behind them. */
int64_t tri_loader_eval_counted(const struct tri_loader *loader, int64_t rows, bool rest);

/* Whole rows of the evaluation, as above; or, asked for alone, the one behind them, of which
 * eval_rest elements are filled. */
enum tri_status tri_loader_eval_rows(const struct tri_loader *loader, int64_t first_row,
                                     int64_t rows, const struct tri_row_arrays *out,
                                     struct tri_error *error) TRI_NODISCARD;

#endif
