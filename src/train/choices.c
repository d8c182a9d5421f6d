#include "train/choices.h"

#include "base/memory.h"
#include "base/meter.h"
#include "base/signals.h"
#include "train/evaluate.h"

#include <math.h>
#include <string.h>

/* Some questions, their completions row by row. */
struct batch {
    const struct tri_choices *choices;
    int64_t first, questions; /* of the set */
    int64_t seq;
    int64_t *question; /* [rows] */
    int *completion;   /* [rows] */
};

static enum tri_status fill(void *state, int64_t step, int64_t first_row, int64_t rows,
                            const struct tri_row_arrays *out, struct tri_error *error)
{
    const struct batch *batch = state;
    (void)step;
    (void)error;
    if (tri_signals_stop_asked()) {
        return TRI_REQUEUE;
    }
    for (int64_t i = 0; i < rows; i++) {
        int64_t at = i * batch->seq;
        (void)tri_choices_row(batch->choices, batch->question[first_row + i],
                              batch->completion[first_row + i], batch->seq, out->tokens + at,
                              out->targets + at);
        memset(out->first_key + at, 0, (size_t)batch->seq * sizeof(*out->first_key));
    }
    return TRI_OK;
}

/* As many questions, from `first` on, as an evaluation takes rows at once, but one at least. */
static int64_t deal(struct batch *batch, int64_t first, int64_t most)
{
    int64_t rows = 0;
    batch->first = first;
    batch->questions = 0;
    for (int64_t q = first; q < tri_choices_count(batch->choices); q++) {
        int completions = tri_choices_question(batch->choices, q).completions;
        if (rows > 0 && rows + completions > most) {
            break;
        }
        for (int i = 0; i < completions; i++) {
            batch->question[rows + i] = q;
            batch->completion[rows + i] = i;
        }
        rows += completions;
        batch->questions++;
    }
    return rows;
}

/* The completion of least loss; -1 where one has none, and nothing is the least. */
static int least(const double *losses, int completions)
{
    int best = 0;
    for (int i = 0; i < completions; i++) {
        if (!isfinite(losses[i])) {
            return -1;
        }
        best = losses[i] < losses[best] ? i : best;
    }
    return best;
}

/* Tokens of the completions: of row `row`, and of all. */
static int64_t count_row(const struct batch *batch, int64_t row, int32_t *scratch)
{
    return tri_choices_row(batch->choices, batch->question[row], batch->completion[row], batch->seq,
                           scratch, scratch + batch->seq);
}

static int64_t count(const struct batch *batch, int64_t rows, int32_t *scratch)
{
    int64_t all = 0;
    for (int64_t i = 0; i < rows; i++) {
        all += count_row(batch, i, scratch);
    }
    return all;
}

static enum tri_status answer(struct tri_engine *engine, const struct batch *batch, int64_t rows,
                              double *sums, double *means, int32_t *scratch,
                              struct tri_choices_result *result, struct tri_error *error)
{
    struct tri_step_report report;
    struct tri_rows_source source = {
        .state = (void *)(uintptr_t)batch,
        .fill = fill,
        .rows = rows,
        .seq = batch->seq,
        .counted_tokens = count(batch, rows, scratch),
    };
    TRI_TRY(tri_engine_score(engine, &source, sums, &report, error));
    for (int64_t i = 0; i < rows; i++) {
        means[i] = sums[i] / (double)count_row(batch, i, scratch);
    }
    int64_t row = 0;
    for (int64_t q = batch->first; q < batch->first + batch->questions; q++) {
        struct tri_choices_question question = tri_choices_question(batch->choices, q);
        result->questions++;
        result->right_by_mean += least(means + row, question.completions) == question.right;
        result->right_by_sum += least(sums + row, question.completions) == question.right;
        row += question.completions;
    }
    return TRI_OK;
}

enum tri_status tri_choices_answer(struct tri_engine *engine, const struct tri_choices *choices,
                                   struct tri_choices_result *result, struct tri_error *error)
{
    int replicas = tri_group_size(tri_mesh_group(engine->mesh, TRI_ON_EXPERT | TRI_ON_DATA));
    int64_t most = tri_evaluate_rows(engine->config, replicas);
    size_t room = (size_t)(most + tri_choices_most_completions(choices));
    struct batch batch = {.choices = choices, .seq = tri_choices_longest(choices)};
    batch.question = tri_alloc(TRI_MEMORY_OTHER, room * sizeof(*batch.question));
    batch.completion = tri_alloc(TRI_MEMORY_OTHER, room * sizeof(*batch.completion));
    double *sums = tri_alloc(TRI_MEMORY_OTHER, room * sizeof(*sums));
    double *means = tri_alloc(TRI_MEMORY_OTHER, room * sizeof(*means));
    int32_t *scratch = tri_alloc(TRI_MEMORY_OTHER, 2 * (size_t)batch.seq * sizeof(*scratch));
    enum tri_status status = TRI_OK;
    *result = (struct tri_choices_result){0};
    tri_meter_begin(TRI_METER_QUESTIONS, tri_choices_count(choices), "answering");
    for (int64_t first = 0; status == TRI_OK && first < tri_choices_count(choices);
         first += batch.questions) {
        int64_t rows = deal(&batch, first, most);
        status = answer(engine, &batch, rows, sums, means, scratch, result, error);
        tri_meter_add(TRI_METER_QUESTIONS, batch.questions);
    }
    tri_meter_end();
    tri_free(scratch);
    tri_free(means);
    tri_free(sums);
    tri_free(batch.completion);
    tri_free(batch.question);
    return status;
}
