#include "train/evaluate.h"

#include "base/memory.h"
#include "base/meter.h"
#include "base/random.h"
#include "base/signals.h"

#include <math.h>

static enum tri_status fill_training(void *state, int64_t step, int64_t first_row, int64_t rows,
                                     const struct tri_row_arrays *out, struct tri_error *error)
{
    return tri_loader_rows(state, step, first_row, rows, out, error);
}

static int64_t count_training(void *state, int64_t step)
{
    return tri_loader_counted(state, step);
}

struct tri_rows_source tri_source_of_loader(const struct tri_loader *loader,
                                            const struct tri_config *config)
{
    int64_t rows = config->train.global_batch;
    int64_t seq = config->data.sequence_length;
    return (struct tri_rows_source){.state = (void *)(uintptr_t)loader,
                                    .fill = fill_training,
                                    .count = count_training,
                                    .rows = rows,
                                    .seq = seq,
                                    .tokens = rows * seq,
                                    .documents = tri_loader_has_documents(loader)};
}

static enum tri_status fill_random(void *state, int64_t step, int64_t first_row, int64_t rows,
                                   const struct tri_row_arrays *out, struct tri_error *error)
{
    const struct tri_config *config = state;
    int64_t seq = config->data.sequence_length;
    uint64_t stream = tri_random_stream("random rows") + (uint64_t)step;
    uint64_t vocab = (uint64_t)config->model.vocab_size;
    (void)error;
    for (int64_t i = 0; i < rows * seq; i++) {
        uint64_t place = (uint64_t)((first_row + i / seq) * (seq + 1) + i % seq);
        uint64_t seed = (uint64_t)config->seed;
        out->tokens[i] = (int32_t)(tri_random_bits(seed, stream, place) % vocab);
        out->targets[i] = (int32_t)(tri_random_bits(seed, stream, place + 1) % vocab);
        out->first_key[i] = 0;
    }
    return TRI_OK;
}

struct tri_rows_source tri_source_random(const struct tri_config *config)
{
    int64_t rows = config->train.global_batch;
    int64_t seq = config->data.sequence_length;
    return (struct tri_rows_source){.state = (void *)(uintptr_t)config,
                                    .fill = fill_random,
                                    .rows = rows,
                                    .seq = seq,
                                    .counted_tokens = rows * seq,
                                    .tokens = rows * seq};
}

struct window {
    const struct tri_loader *loader;
    int64_t first;
};

static enum tri_status fill_evaluation(void *state, int64_t step, int64_t first_row, int64_t rows,
                                       const struct tri_row_arrays *out, struct tri_error *error)
{
    const struct window *window = state;
    (void)step;
    /* Here, for the engine lets all ranks agree on what reading rows gives: no call more. */
    if (tri_signals_stop_asked()) {
        return TRI_REQUEUE;
    }
    return tri_loader_eval_rows(window->loader, window->first + first_row, rows, out, error);
}

int64_t tri_evaluate_rows(const struct tri_config *config, int replicas)
{
    enum { MICRO_BATCHES = 8 };
    int64_t micro = config->train.micro_batch;
    int64_t share = (config->train.global_batch + replicas - 1) / replicas;
    return (micro <= share ? MICRO_BATCHES * micro : share) * replicas;
}

/* Exact, so that how many rows are taken at once, which follows the layout, changes no bit. */
struct losses {
    struct tri_exact cross_entropy, aux;
    int64_t counted, tokens; /* what they are means over */
};

/* Adds the sums over `rows` rows of `seq` tokens, from row `first` on. */
static enum tri_status add_rows(struct tri_engine *engine, const struct tri_loader *loader,
                                int64_t first, int64_t rows, int64_t seq, struct losses *losses,
                                struct tri_evaluation *result, struct tri_error *error)
{
    const struct tri_config *config = engine->config;
    struct window window = {loader, first};
    struct tri_rows_source source = {.state = &window,
                                     .fill = fill_evaluation,
                                     .rows = rows,
                                     .seq = seq,
                                     .counted_tokens = losses->counted,
                                     .tokens = losses->tokens,
                                     .documents = tri_loader_has_documents(loader)};
    struct tri_step_report report;
    TRI_TRY(tri_engine_evaluate(engine, &source, &report, error));
    tri_exact_merge(&losses->cross_entropy, &report.cross_entropy_sum);
    tri_exact_merge(&losses->aux, &report.aux_loss_sum);
    result->targets += report.targets;
    result->dropped += report.dropped;
    for (int64_t i = 0; i < engine->moe_layers * config->moe.num_experts; i++) {
        result->load[i] += report.load[i];
    }
    return TRI_OK;
}

void tri_evaluate_extent(const struct tri_config *config, const struct tri_loader *loader,
                         int64_t batches, int64_t *rows, int64_t *rest)
{
    *rows = tri_loader_eval_count(loader);
    *rest = tri_loader_eval_rest(loader);
    if (batches > 0 && batches * config->train.global_batch <= *rows) {
        *rows = batches * config->train.global_batch;
        *rest = 0;
    }
}

enum tri_status tri_evaluate(struct tri_engine *engine, const struct tri_loader *loader,
                             const char *name, int64_t batches, struct tri_evaluation *result,
                             struct tri_error *error)
{
    const struct tri_config *config = engine->config;
    int64_t seq = config->data.sequence_length;
    int64_t rows, rest;
    tri_evaluate_extent(config, loader, batches, &rows, &rest);
    int64_t at_once = tri_evaluate_rows(
        config, tri_group_size(tri_mesh_group(engine->mesh, TRI_ON_EXPERT | TRI_ON_DATA)));
    int64_t loads = engine->moe_layers * config->moe.num_experts;
    struct losses losses = {.counted = tri_loader_eval_counted(loader, rows, rest > 0),
                            .tokens = rows * seq + rest};
    enum tri_status status = TRI_OK;
    tri_meter_begin(TRI_METER_ROWS, rows + (rest > 0), "evaluating%s%s", name[0] ? " " : "", name);
    *result = (struct tri_evaluation){
        .load = tri_alloc(TRI_MEMORY_OTHER, (size_t)loads * sizeof(int64_t))};
    for (int64_t first = 0; status == TRI_OK && first < rows; first += at_once) {
        int64_t next = at_once < rows - first ? at_once : rows - first;
        status = add_rows(engine, loader, first, next, seq, &losses, result, error);
        tri_meter_add(TRI_METER_ROWS, next);
    }
    /* The end of the set is a shorter row, not a padded one: padding would be routed like text. */
    if (status == TRI_OK && rest > 0) {
        status = add_rows(engine, loader, rows, 1, rest, &losses, result, error);
        tri_meter_add(TRI_METER_ROWS, 1);
    }
    tri_meter_end();
    result->loss = losses.counted > 0
                       ? tri_exact_get(&losses.cross_entropy) / (double)losses.counted
                       : (double)NAN;
    result->aux_loss = tri_exact_get(&losses.aux);
    if (status != TRI_OK) {
        tri_free(result->load);
        result->load = NULL;
    }
    return status;
}

enum tri_status tri_evaluate_all(struct tri_engine *engine, const struct tri_texts *texts,
                                 int64_t batches, struct tri_evaluation **results,
                                 struct tri_error *error)
{
    struct tri_evaluation *all = tri_alloc(TRI_MEMORY_OTHER, (size_t)texts->count * sizeof(*all));
    enum tri_status status = TRI_OK;
    for (int i = 0; i < texts->count && status == TRI_OK; i++) {
        status =
            tri_evaluate(engine, texts->text[i].loader, texts->name[i], batches, &all[i], error);
    }
    if (status != TRI_OK) {
        tri_evaluations_free(texts->count, all);
        all = NULL;
    }
    *results = all;
    return status;
}

void tri_evaluations_free(int count, struct tri_evaluation *evaluations)
{
    for (int i = 0; i < count; i++) {
        tri_free(evaluations[i].load);
    }
    tri_free(evaluations);
}

double tri_evaluation_loss(int count, const struct tri_evaluation *evaluations)
{
    double sum = 0.0;
    int64_t targets = 0;
    if (count == 1) {
        return evaluations[0].loss;
    }
    for (int i = 0; i < count; i++) {
        const int64_t counted = evaluations[i].targets;
        sum += counted > 0 ? evaluations[i].loss * (double)counted : 0.0;
        targets += counted;
    }
    return targets > 0 ? sum / (double)targets : (double)NAN;
}
